//! Linear algebra on blocks.

#![expect(clippy::needless_range_loop, reason = "blocks are named by their row and column")]

use super::{MB, SMALL};
use crate::sim::workload::{Builder, TaskNo};

pub(super) fn matmul(builder: &mut Builder) {
    const SIDE: usize = 14;
    let (a, b) = (builder.source("open-a", 0.3, 32 * MB), builder.source("open-b", 0.3, 32 * MB));
    let (product, sum) = (builder.layer("dot", 0.6, 32 * MB), builder.layer("sum", 0.1, 32 * MB));
    let norm = builder.layer("norm", 0.1, SMALL);
    let load = |builder: &mut Builder, layer| -> Vec<Vec<TaskNo>> {
        (0..SIDE).map(|i| (0..SIDE).map(|j| builder.add(layer, &[i, j], &[])).collect()).collect()
    };
    let (left, right) = (load(builder, &a), load(builder, &b));
    let mut parts = Vec::new();
    for i in 0..SIDE {
        for j in 0..SIDE {
            let products: Vec<TaskNo> =
                (0..SIDE).map(|k| builder.add(&product, &[i, j, k], &[left[i][k], right[k][j]])).collect();
            let halves: Vec<TaskNo> =
                products.chunks(4).enumerate().map(|(k, inputs)| builder.add(&sum, &[i, j, k], inputs)).collect();
            let total = builder.add(&sum, &[i, j, SIDE], &halves);
            parts.push(builder.add(&norm, &[i, j], &[total]));
        }
    }
    let result = builder.tree("norm", &parts, 14, 0.02, SMALL);
    builder.submit(0.0, vec![result]);
}

pub(super) fn svd(builder: &mut Builder) {
    const BLOCKS: usize = 800;
    let (load, qr) = (builder.source("open", 0.5, 64 * MB), builder.layer("qr", 0.8, 66 * MB));
    let (q, r) = (builder.layer("getitem-q", 0.005, 64 * MB), builder.layer("getitem-r", 0.005, 2 * MB));
    let (stack, small) = (builder.layer("stack", 0.2, 40 * MB), builder.layer("qr-small", 1.0, 40 * MB));
    let (slice, dot) = (builder.layer("getitem-q2", 0.005, 2 * MB), builder.layer("dot", 0.4, 64 * MB));
    let part = builder.layer("norm", 0.1, SMALL);
    let mut qs = Vec::new();
    let mut rs = Vec::new();
    for i in 0..BLOCKS {
        let block = builder.add(&load, &[i], &[]);
        let both = builder.add(&qr, &[i], &[block]);
        qs.push(builder.add(&q, &[i], &[both]));
        rs.push(builder.add(&r, &[i], &[both]));
    }
    let stacked: Vec<TaskNo> = rs.chunks(20).enumerate().map(|(i, inputs)| builder.add(&stack, &[i], inputs)).collect();
    let inner: Vec<TaskNo> = stacked.iter().enumerate().map(|(i, &s)| builder.add(&small, &[i], &[s])).collect();
    let top = builder.add(&small, &[BLOCKS], &inner);
    let mut parts = Vec::new();
    for (i, &block) in qs.iter().enumerate() {
        let piece = builder.add(&slice, &[i], &[top, inner[i / 20]]);
        let product = builder.add(&dot, &[i], &[block, piece]);
        parts.push(builder.add(&part, &[i], &[product]));
    }
    let result = builder.tree("norm", &parts, 16, 0.02, SMALL);
    builder.submit(0.0, vec![result]);
}

pub(super) fn cholesky(builder: &mut Builder) {
    const SIDE: usize = 24;
    let load = builder.source("open", 0.3, 32 * MB);
    let (factor, solve) = (builder.layer("cholesky", 0.4, 32 * MB), builder.layer("solve", 0.6, 32 * MB));
    let update = builder.layer("update", 0.7, 32 * MB);
    let mut blocks: Vec<Vec<TaskNo>> =
        (0..SIDE).map(|i| (0..=i).map(|j| builder.add(&load, &[i, j], &[])).collect()).collect();
    for step in 0..SIDE {
        blocks[step][step] = builder.add(&factor, &[step], &[blocks[step][step]]);
        for i in step + 1..SIDE {
            blocks[i][step] = builder.add(&solve, &[i, step], &[blocks[i][step], blocks[step][step]]);
        }
        for i in step + 1..SIDE {
            for j in step + 1..=i {
                let mut inputs = vec![blocks[i][j], blocks[i][step]];
                if i != j {
                    inputs.push(blocks[j][step]);
                }
                blocks[i][j] = builder.add(&update, &[i, j, step], &inputs);
            }
        }
    }
    let part = builder.layer("logdet", 0.05, SMALL);
    let parts: Vec<TaskNo> =
        blocks.iter().flatten().enumerate().map(|(i, &block)| builder.add(&part, &[i], &[block])).collect();
    let result = builder.tree("logdet", &parts, 16, 0.02, SMALL);
    builder.submit(0.0, vec![result]);
}
