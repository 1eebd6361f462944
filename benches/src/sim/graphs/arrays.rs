//! What dask.array and xarray make.

#![expect(clippy::needless_range_loop, reason = "blocks are named by their row and column")]

use super::{MB, SMALL};
use crate::sim::workload::{Builder, Layer, TaskNo};

/// A grid of blocks, row by row.
fn grid(builder: &mut Builder, layer: &Layer, rows: usize, columns: usize) -> Vec<Vec<TaskNo>> {
    (0..rows).map(|i| (0..columns).map(|j| builder.add(layer, &[i, j], &[])).collect()).collect()
}

pub(super) fn sum(builder: &mut Builder) {
    let (load, part) = (builder.source("open", 0.4, 64 * MB), builder.layer("sum", 0.1, SMALL));
    let parts: Vec<TaskNo> = (0..4096)
        .map(|i| {
            let block = builder.add(&load, &[i], &[]);
            builder.add(&part, &[i], &[block])
        })
        .collect();
    let result = builder.tree("sum", &parts, 16, 0.02, SMALL);
    builder.submit(0.0, vec![result]);
}

pub(super) fn pairs(builder: &mut Builder) {
    let (a, b) = (builder.source("open-a", 0.4, 64 * MB), builder.source("open-b", 0.4, 64 * MB));
    let (add, part) = (builder.layer("add", 0.15, 64 * MB), builder.layer("sum", 0.1, SMALL));
    let parts: Vec<TaskNo> = (0..2000)
        .map(|i| {
            let inputs = [builder.add(&a, &[i], &[]), builder.add(&b, &[i], &[])];
            let sum = builder.add(&add, &[i], &inputs);
            builder.add(&part, &[i], &[sum])
        })
        .collect();
    let result = builder.tree("sum", &parts, 16, 0.02, SMALL);
    builder.submit(0.0, vec![result]);
}

/// Blocks over time and place; the mean over time keeps the place.
pub(super) fn mean_axis(builder: &mut Builder) {
    const TIMES: usize = 64;
    const PLACES: usize = 40;
    let (load, part) = (builder.source("open", 0.5, 100 * MB), builder.layer("mean_chunk", 0.2, 12 * MB));
    let (combine, aggregate) = (builder.layer("mean_combine", 0.05, 12 * MB), builder.layer("mean_agg", 0.05, 8 * MB));
    let blocks = grid(builder, &load, TIMES, PLACES);
    let mut wanted = Vec::new();
    for place in 0..PLACES {
        let mut level: Vec<TaskNo> =
            (0..TIMES).map(|time| builder.add(&part, &[time, place], &[blocks[time][place]])).collect();
        let mut depth = 0;
        while level.len() > 4 {
            let merged = level.chunks(4).enumerate();
            level = merged.map(|(i, inputs)| builder.add(&combine, &[depth, i, place], inputs)).collect();
            depth += 1;
        }
        wanted.push(builder.add(&aggregate, &[place], &level));
    }
    builder.submit(0.0, wanted);
}

pub(super) fn transpose_add(builder: &mut Builder) {
    const SIDE: usize = 44;
    let (load, add) = (builder.source("open", 0.4, 50 * MB), builder.layer("add", 0.15, 50 * MB));
    let part = builder.layer("sum", 0.1, SMALL);
    let blocks = grid(builder, &load, SIDE, SIDE);
    let mut parts = Vec::new();
    for i in 0..SIDE {
        for j in 0..SIDE {
            let inputs = if i == j { vec![blocks[i][j]] } else { vec![blocks[i][j], blocks[j][i]] };
            let sum = builder.add(&add, &[i, j], &inputs);
            parts.push(builder.add(&part, &[i, j], &[sum]));
        }
    }
    let result = builder.tree("sum", &parts, 16, 0.02, SMALL);
    builder.submit(0.0, vec![result]);
}

/// From blocks of rows to blocks of columns, each then reduced.
pub(super) fn rechunk(builder: &mut Builder) {
    const SIDE: usize = 60;
    let (load, split) = (builder.source("open", 0.6, 120 * MB), builder.layer("rechunk-split", 0.005, 2 * MB));
    let (merge, part) = (builder.layer("rechunk-merge", 0.2, 120 * MB), builder.layer("fft", 0.8, MB));
    let rows: Vec<TaskNo> = (0..SIDE).map(|i| builder.add(&load, &[i], &[])).collect();
    let mut wanted = Vec::new();
    for column in 0..SIDE {
        let pieces: Vec<TaskNo> =
            rows.iter().enumerate().map(|(row, &block)| builder.add(&split, &[row, column], &[block])).collect();
        let merged = builder.add(&merge, &[column], &pieces);
        wanted.push(builder.add(&part, &[column], &[merged]));
    }
    builder.submit(0.0, wanted);
}

/// Each block needs a slice of its neighbours.
pub(super) fn overlap(builder: &mut Builder) {
    const BLOCKS: usize = 1600;
    let (load, border) = (builder.source("open", 0.4, 64 * MB), builder.layer("getitem", 0.01, 2 * MB));
    let (join, roll) = (builder.layer("overlap", 0.1, 68 * MB), builder.layer("rolling", 0.4, 64 * MB));
    let part = builder.layer("mean", 0.1, SMALL);
    let blocks: Vec<TaskNo> = (0..BLOCKS).map(|i| builder.add(&load, &[i], &[])).collect();
    let mut parts = Vec::new();
    for i in 0..BLOCKS {
        let mut inputs = vec![blocks[i]];
        if i > 0 {
            inputs.push(builder.add(&border, &[i, 0], &[blocks[i - 1]]));
        }
        if i + 1 < BLOCKS {
            inputs.push(builder.add(&border, &[i, 1], &[blocks[i + 1]]));
        }
        let joined = builder.add(&join, &[i], &inputs);
        let rolled = builder.add(&roll, &[i], &[joined]);
        parts.push(builder.add(&part, &[i], &[rolled]));
    }
    let result = builder.tree("mean", &parts, 16, 0.02, SMALL);
    builder.submit(0.0, vec![result]);
}

/// A square of blocks that exchange borders with four neighbours, step after step.
pub(super) fn stencil(builder: &mut Builder) {
    const SIDE: usize = 16;
    const STEPS: usize = 16;
    let init = builder.source("init", 0.5, 64 * MB);
    let mut blocks = grid(builder, &init, SIDE, SIDE);
    for step in 0..STEPS {
        let border = builder.layer(&format!("border{step}"), 0.01, MB);
        let update = builder.layer(&format!("update{step}"), 0.4, 64 * MB);
        let borders: Vec<Vec<TaskNo>> =
            (0..SIDE).map(|i| (0..SIDE).map(|j| builder.add(&border, &[i, j], &[blocks[i][j]])).collect()).collect();
        let mut next = blocks.clone();
        for (i, row) in next.iter_mut().enumerate() {
            for (j, cell) in row.iter_mut().enumerate() {
                let mut inputs = vec![blocks[i][j]];
                let around = [(i.wrapping_sub(1), j), (i + 1, j), (i, j.wrapping_sub(1)), (i, j + 1)];
                inputs.extend(around.iter().filter(|(i, j)| *i < SIDE && *j < SIDE).map(|&(i, j)| borders[i][j]));
                *cell = builder.add(&update, &[i, j], &inputs);
            }
        }
        blocks = next;
    }
    let part = builder.layer("norm", 0.1, SMALL);
    let parts: Vec<TaskNo> =
        blocks.iter().flatten().enumerate().map(|(i, &block)| builder.add(&part, &[i], &[block])).collect();
    let result = builder.tree("norm", &parts, 16, 0.02, SMALL);
    builder.submit(0.0, vec![result]);
}

/// `x.groupby(month) - x.groupby(month).mean()`: every block is needed twice, the second time late.
pub(super) fn climatology(builder: &mut Builder) {
    const YEARS: usize = 10;
    const MONTHS: usize = 12;
    const PLACES: usize = 10;
    let (load, part) = (builder.source("open", 0.5, 64 * MB), builder.layer("mean_chunk", 0.1, 6 * MB));
    let (aggregate, subtract) = (builder.layer("mean_agg", 0.1, 6 * MB), builder.layer("anomaly", 0.2, 64 * MB));
    let square = builder.layer("std", 0.15, MB);
    let mut parts = Vec::new();
    for place in 0..PLACES {
        for month in 0..MONTHS {
            let blocks: Vec<TaskNo> = (0..YEARS).map(|year| builder.add(&load, &[year, month, place], &[])).collect();
            let chunks: Vec<TaskNo> = blocks
                .iter()
                .enumerate()
                .map(|(year, &block)| builder.add(&part, &[year, month, place], &[block]))
                .collect();
            let mean = builder.add(&aggregate, &[month, place], &chunks);
            for (year, &block) in blocks.iter().enumerate() {
                let anomaly = builder.add(&subtract, &[year, month, place], &[block, mean]);
                parts.push(builder.add(&square, &[year, month, place], &[anomaly]));
            }
        }
    }
    let result = builder.tree("std", &parts, 12, 0.05, MB);
    builder.submit(0.0, vec![result]);
}

pub(super) fn store(builder: &mut Builder) {
    let (load, compute) = (builder.source("open", 0.5, 128 * MB), builder.layer("regrid", 0.7, 128 * MB));
    let write = builder.layer("store", 0.6, SMALL);
    let wanted = (0..2400)
        .map(|i| {
            let block = builder.add(&load, &[i], &[]);
            let result = builder.add(&compute, &[i], &[block]);
            builder.add(&write, &[i], &[result])
        })
        .collect();
    builder.submit(0.0, wanted);
}

/// `u` and `v` on one grid, differences across borders, products, and their mean over time.
pub(super) fn vorticity(builder: &mut Builder) {
    const TIMES: usize = 60;
    const PLACES: usize = 16;
    let (u, v) = (builder.source("open-u", 0.4, 48 * MB), builder.source("open-v", 0.4, 48 * MB));
    let border = builder.layer("getitem", 0.01, MB);
    let (du, dv) = (builder.layer("diff-u", 0.15, 48 * MB), builder.layer("diff-v", 0.15, 48 * MB));
    let (product, part) = (builder.layer("mul", 0.15, 48 * MB), builder.layer("mean_chunk", 0.1, 8 * MB));
    let aggregate = builder.layer("mean_agg", 0.05, 8 * MB);
    let us = grid(builder, &u, TIMES, PLACES);
    let vs = grid(builder, &v, TIMES, PLACES);
    let mut parts = vec![Vec::new(); PLACES];
    for time in 0..TIMES {
        for place in 0..PLACES {
            let next = (place + 1) % PLACES;
            let edges = [
                builder.add(&border, &[0, time, place], &[us[time][next]]),
                builder.add(&border, &[1, time, place], &[vs[time][next]]),
            ];
            let left = builder.add(&du, &[time, place], &[us[time][place], edges[0]]);
            let right = builder.add(&dv, &[time, place], &[vs[time][place], edges[1]]);
            let both = builder.add(&product, &[time, place], &[left, right]);
            parts[place].push(builder.add(&part, &[time, place], &[both]));
        }
    }
    let wanted = parts
        .iter()
        .enumerate()
        .map(|(place, parts)| {
            let level: Vec<TaskNo> =
                parts.chunks(8).enumerate().map(|(i, inputs)| builder.add(&aggregate, &[i, place], inputs)).collect();
            builder.add(&aggregate, &[TIMES, place], &level)
        })
        .collect();
    builder.submit(0.0, wanted);
}
