//! A pipeline over the blocks of a matrix: made, transposed and multiplied block by block, as one graph.
//!
//! Blocks stay in the memory of the worker that made them; tasks there share them by reference.
//!
//! ```console
//! cargo run --release -p dask --example matrix
//! cargo run --release -p dask --example matrix -- product.svg     # draws a small version of the graph
//! ```

use std::sync::Arc;

use dask::{GraphBuilder, GraphError, LocalCluster, Node};
use serde::{Deserialize, Serialize};

/// A square block, row by row.
#[derive(Clone, Serialize, Deserialize)]
struct Block {
    size: usize,
    values: Vec<f64>,
}

#[dask::task]
fn make(row: usize, column: usize, size: usize) -> Block {
    let value = |i: usize| ((row * size + i / size + 2 * (column * size + i % size)) % 7) as f64;
    Block { size, values: (0..size * size).map(value).collect() }
}

#[dask::task]
fn transpose(block: &Block) -> Block {
    let size = block.size;
    Block { size, values: (0..size * size).map(|i| block.values[(i % size) * size + i / size]).collect() }
}

#[dask::task]
fn multiply(a: &Block, b: &Block) -> Result<Block, String> {
    if a.size != b.size {
        return Err(format!("blocks of {} and {} rows", a.size, b.size));
    }
    let size = a.size;
    let mut values = vec![0.0; size * size];
    for (i, row) in values.chunks_mut(size).enumerate() {
        for k in 0..size {
            let left = a.values[i * size + k];
            row.iter_mut().zip(&b.values[k * size..]).for_each(|(sum, right)| *sum += left * right);
        }
    }
    Ok(Block { size, values })
}

#[dask::task]
fn add(parts: &[Arc<Block>]) -> Block {
    let size = parts.first().map_or(0, |part| part.size);
    let mut values = vec![0.0; size * size];
    for part in parts {
        values.iter_mut().zip(&part.values).for_each(|(sum, value)| *sum += value);
    }
    Block { size, values }
}

#[dask::task]
fn trace(diagonal: &[Arc<Block>]) -> f64 {
    diagonal.iter().map(|block| block.values.iter().step_by(block.size + 1).sum::<f64>()).sum()
}

/// The trace of `M Mᵀ`, for a matrix of `n` times `n` blocks: the sum of all its squares.
fn graph(n: usize, size: usize) -> Result<(GraphBuilder, Node<f64>), GraphError> {
    let mut graph = GraphBuilder::new("product");
    let mut blocks = Vec::new();
    for row in 0..n {
        let made = (0..n).map(|column| graph.add(make(row, column, size))).collect::<Result<Vec<_>, _>>()?;
        blocks.push(made);
    }
    let mut diagonal = Vec::new();
    for row in &blocks {
        let mut parts = Vec::new();
        for block in row {
            let turned = graph.add(transpose(block))?;
            parts.push(graph.add(multiply(block, &turned))?);
        }
        diagonal.push(graph.add(add(parts))?);
    }
    let root = graph.add(trace(diagonal))?;
    Ok((graph, root))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(path) = std::env::args().nth(1) {
        std::fs::write(&path, graph(3, 1)?.0.to_svg()?)?;
        println!("drawn: {path}");
        return Ok(());
    }
    const BLOCKS: usize = 6;
    const SIZE: usize = 32;
    let cluster = LocalCluster::builder().workers(2).threads_per_worker(1).start().await?;
    let client = cluster.client().await?;
    let (graph, root) = graph(BLOCKS, SIZE)?;
    println!("{} tasks; the first to run: {:?}", graph.len(), &dask::static_order(&graph)?[..3]);
    let trace = client.compute(graph, &[root])?.remove(0).await?;
    client.close().await;
    cluster.close().await;

    let side = BLOCKS * SIZE;
    let square = |i: usize| (((i / side + 2 * (i % side)) % 7) as f64).powi(2);
    let expected: f64 = (0..side * side).map(square).sum();
    println!("trace {trace}, expected {expected}");
    if trace == expected { Ok(()) } else { Err("the trace is wrong".into()) }
}
