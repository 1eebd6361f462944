//! Our static order against `dask.order`, on graphs of real collections (`benches/order/make_graphs.py`).
//!
//! An order is good when a worker that follows it holds few intermediate results at a time, and when many threads that
//! follow it are done soon. [`measure`] walks a graph in an order, alone and with several threads; [`compare`] does so for
//! both orders, and [`Row`] is a line of the table.

mod schedule;
mod table;

use std::io::BufRead;

use dask_protocol::Key;
use dask_scheduler::graph::order::order;
use dask_scheduler::graph::topology::Topology;
use serde::Deserialize;

pub use schedule::{Figures, measure};
pub use table::table;

/// Threads that follow an order.
pub const THREADS: [usize; 3] = [1, 4, 16];

/// A graph, and what dask makes of it.
#[derive(Debug, Clone, Deserialize)]
pub struct Recorded {
    /// What it is.
    pub name: String,
    /// What each task reads; tasks are numbered by the text of their keys.
    pub needs: Vec<Vec<u32>>,
    /// Tasks that are data of the graph itself.
    pub literals: Vec<u32>,
    /// The place of each task in dask's order, once for each hash seed that gives another.
    pub orders: Vec<Vec<u32>>,
}

impl Recorded {
    /// Reads one graph a line.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn read(input: impl BufRead) -> Result<Vec<Recorded>, String> {
        let parse = |line: String| serde_json::from_str::<Recorded>(&line).map_err(|error| error.to_string());
        input.lines().map(|line| line.map_err(|error| error.to_string()).and_then(parse)?.checked()).collect()
    }

    fn checked(self) -> Result<Recorded, String> {
        let tasks = self.needs.len();
        let known = |number: &u32| (*number as usize) < tasks;
        let whole = self.needs.iter().flatten().all(known) && self.literals.iter().all(known);
        if !whole || self.orders.is_empty() || self.orders.iter().any(|order| order.len() != tasks) {
            return Err(format!("{}: a graph needs an order for each of its tasks", self.name));
        }
        Ok(self)
    }

    /// Our order of it.
    ///
    /// # Errors
    /// When it has a cycle.
    pub fn order(&self) -> Result<Vec<u32>, String> {
        let topology = Topology::new(self.needs.iter().map(Vec::as_slice));
        let keys: Vec<Key> = topology.nodes().map(|node| Key::from(format!("{node:08}"))).collect();
        let keys: Vec<&Key> = keys.iter().collect();
        let literal = self.is_literal();
        order(&topology, |node| !literal[node as usize], &keys).map_err(|cycle| format!("{}: {cycle}", self.name))
    }

    /// For each task whether it is data of the graph.
    pub fn is_literal(&self) -> Vec<bool> {
        let mut is_literal = vec![false; self.needs.len()];
        self.literals.iter().for_each(|&literal| is_literal[literal as usize] = true);
        is_literal
    }
}

/// Both orders of a graph.
#[derive(Debug, Clone)]
pub struct Row {
    /// The graph.
    pub name: String,
    /// Its tasks, literals not counted.
    pub tasks: usize,
    /// dask's order, mean over its hash seeds, for each of [`THREADS`].
    pub dask: Vec<Figures>,
    /// Ours.
    pub ours: Vec<Figures>,
}

/// Measures both orders of a graph.
///
/// # Errors
/// When the graph has a cycle.
pub fn compare(graph: &Recorded) -> Result<Row, String> {
    let order = graph.order()?;
    let dasks = |threads: usize| -> Vec<Figures> {
        graph.orders.iter().map(|order| measure(graph, order, threads)).collect()
    };
    Ok(Row {
        name: graph.name.clone(),
        tasks: graph.needs.len() - graph.literals.len(),
        dask: THREADS.iter().map(|&threads| Figures::mean(&dasks(threads))).collect(),
        ours: THREADS.iter().map(|&threads| measure(graph, &order, threads)).collect(),
    })
}
