//! Graphs of futures and delayed functions.

use super::{MB, SMALL};
use crate::sim::workload::{Builder, TaskNo};

pub(super) fn map(builder: &mut Builder) {
    let layer = builder.layer("score", 0.5, SMALL);
    let wanted = (0..8000).map(|i| builder.add(&layer, &[i], &[])).collect();
    builder.submit(0.0, wanted);
}

pub(super) fn chains(builder: &mut Builder) {
    const LENGTH: usize = 10;
    let mut layers = vec![builder.source("read", 0.3, 32 * MB)];
    layers.extend((1..LENGTH - 1).map(|step| builder.layer(&format!("step{step}"), 0.3, 32 * MB)));
    layers.push(builder.layer("write", 0.3, SMALL));
    let wanted = (0..1000).map(|i| chain(builder, &layers, i)).collect();
    builder.submit(0.0, wanted);
}

fn chain(builder: &mut Builder, layers: &[crate::sim::workload::Layer], index: usize) -> TaskNo {
    let mut last = builder.add(&layers[0], &[index], &[]);
    for layer in &layers[1..] {
        last = builder.add(layer, &[index], &[last]);
    }
    last
}

fn reduced_chains(builder: &mut Builder, count: usize) -> TaskNo {
    let layers = [
        builder.source("load", 0.4, 64 * MB),
        builder.layer("clean", 0.3, 64 * MB),
        builder.layer("transform", 0.5, 32 * MB),
        builder.layer("summarise", 0.2, MB),
    ];
    let parts: Vec<TaskNo> = (0..count).map(|i| chain(builder, &layers, i)).collect();
    builder.tree("merge", &parts, 8, 0.1, MB)
}

pub(super) fn map_reduce(builder: &mut Builder) {
    let result = reduced_chains(builder, 2000);
    builder.submit(0.0, vec![result]);
}

pub(super) fn waves(builder: &mut Builder) {
    for wave in 0..6 {
        let result = reduced_chains(builder, 300);
        builder.submit(4.0 * f64::from(wave), vec![result]);
    }
}

/// Every candidate is fitted and scored on every fold; the folds are shared by all.
pub(super) fn folds(builder: &mut Builder) {
    const FOLDS: usize = 5;
    let (load, split) = (builder.source("load", 2.0, 200 * MB), builder.layer("fold", 0.5, 80 * MB));
    let (fit, score) = (builder.layer("fit", 2.0, 5 * MB), builder.layer("score", 0.4, SMALL));
    let mean = builder.layer("mean", 0.01, SMALL);
    let data = builder.add(&load, &[0], &[]);
    let folds: Vec<TaskNo> = (0..FOLDS).map(|i| builder.add(&split, &[i], &[data])).collect();
    let mut wanted = Vec::new();
    for candidate in 0..400 {
        let mut scores = Vec::new();
        for (i, &fold) in folds.iter().enumerate() {
            let model = builder.add(&fit, &[candidate, i], &[fold]);
            scores.push(builder.add(&score, &[candidate, i], &[model, fold]));
        }
        wanted.push(builder.add(&mean, &[candidate], &scores));
    }
    builder.submit(0.0, wanted);
}
