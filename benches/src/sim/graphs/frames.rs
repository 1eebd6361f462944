//! What dask.dataframe makes.

use super::{MB, SMALL};
use crate::sim::workload::{Builder, TaskNo};

pub(super) fn groupby(builder: &mut Builder) {
    let (read, chunk) = (builder.source("read_parquet", 0.8, 100 * MB), builder.layer("groupby-chunk", 0.4, 4 * MB));
    let parts: Vec<TaskNo> = (0..2000)
        .map(|i| {
            let part = builder.add(&read, &[i], &[]);
            builder.add(&chunk, &[i], &[part])
        })
        .collect();
    let result = builder.tree("groupby", &parts, 8, 0.15, 4 * MB);
    builder.submit(0.0, vec![result]);
}

/// Splits every partition, and joins the pieces that belong together; `branches` squared partitions, in two stages.
fn two_stages(builder: &mut Builder, parts: &[TaskNo], branches: usize, nbytes: u64) -> Vec<TaskNo> {
    let mut parts = parts.to_vec();
    for stage in 0..2 {
        let group = builder.layer(&format!("shuffle-group{stage}"), 0.25, nbytes);
        let split = builder.layer(&format!("shuffle-split{stage}"), 0.003, nbytes / branches as u64);
        let join = builder.layer(&format!("shuffle-join{stage}"), 0.15, nbytes);
        let grouped: Vec<TaskNo> =
            parts.iter().enumerate().map(|(i, &part)| builder.add(&group, &[i], &[part])).collect();
        let stride = if stage == 0 { 1 } else { branches };
        parts = (0..parts.len())
            .map(|target| {
                let digit = target / stride % branches;
                let base = target - digit * stride;
                let pieces: Vec<TaskNo> =
                    (0..branches).map(|i| builder.add(&split, &[target, i], &[grouped[base + i * stride]])).collect();
                builder.add(&join, &[target], &pieces)
            })
            .collect();
    }
    parts
}

pub(super) fn shuffle(builder: &mut Builder) {
    const BRANCHES: usize = 14;
    let read = builder.source("read_parquet", 0.6, 60 * MB);
    let parts: Vec<TaskNo> = (0..BRANCHES * BRANCHES).map(|i| builder.add(&read, &[i], &[])).collect();
    let shuffled = two_stages(builder, &parts, BRANCHES, 60 * MB);
    let apply = builder.layer("apply", 0.5, MB);
    let wanted = shuffled.iter().enumerate().map(|(i, &part)| builder.add(&apply, &[i], &[part])).collect();
    builder.submit(0.0, wanted);
}

pub(super) fn join(builder: &mut Builder) {
    const PARTS: usize = 48;
    let sides = ["left", "right"].map(|side| {
        let read = builder.source(&format!("read-{side}"), 0.6, 60 * MB);
        let group = builder.layer(&format!("shuffle-group-{side}"), 0.25, 60 * MB);
        let split = builder.layer(&format!("shuffle-split-{side}"), 0.003, 60 * MB / PARTS as u64);
        let grouped: Vec<TaskNo> = (0..PARTS)
            .map(|i| {
                let part = builder.add(&read, &[i], &[]);
                builder.add(&group, &[i], &[part])
            })
            .collect();
        (grouped, split, builder.layer(&format!("shuffle-join-{side}"), 0.2, 60 * MB))
    });
    let (merge, aggregate) = (builder.layer("merge", 0.8, 80 * MB), builder.layer("aggregate", 0.1, MB));
    let mut wanted = Vec::new();
    for target in 0..PARTS {
        let inputs: Vec<TaskNo> = sides
            .iter()
            .map(|(grouped, split, join)| {
                let pieces: Vec<TaskNo> =
                    grouped.iter().enumerate().map(|(i, &part)| builder.add(split, &[i, target], &[part])).collect();
                builder.add(join, &[target], &pieces)
            })
            .collect();
        let merged = builder.add(&merge, &[target], &inputs);
        wanted.push(builder.add(&aggregate, &[target], &[merged]));
    }
    builder.submit(0.0, wanted);
}

pub(super) fn broadcast(builder: &mut Builder) {
    let (table, read) = (builder.source("read-table", 1.0, 100 * MB), builder.source("read_parquet", 0.5, 64 * MB));
    let (merge, part) = (builder.layer("merge", 0.4, 80 * MB), builder.layer("count", 0.1, SMALL));
    let table = builder.add(&table, &[0], &[]);
    let parts: Vec<TaskNo> = (0..1600)
        .map(|i| {
            let block = builder.add(&read, &[i], &[]);
            let merged = builder.add(&merge, &[i], &[block, table]);
            builder.add(&part, &[i], &[merged])
        })
        .collect();
    let result = builder.tree("count", &parts, 16, 0.02, SMALL);
    builder.submit(0.0, vec![result]);
}
