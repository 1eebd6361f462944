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
    /// The worst of its hash seeds.
    pub dask_worst: Vec<Figures>,
    /// Ours.
    pub ours: Vec<Figures>,
}

/// The geometric mean of a ratio over all graphs.
#[expect(clippy::cast_precision_loss, reason = "few graphs")]
pub fn geometric_mean(rows: &[Row], ratio: impl Fn(&Row) -> f64) -> f64 {
    (rows.iter().map(|row| ratio(row).ln()).sum::<f64>() / rows.len().max(1) as f64).exp()
}

/// Measures both orders of a graph.
///
/// # Errors
/// When the graph has a cycle.
pub fn compare(graph: &Recorded) -> Result<Row, String> {
    let order = graph.order()?;
    let dask: Vec<Vec<Figures>> = THREADS
        .iter()
        .map(|&threads| graph.orders.iter().map(|order| measure(graph, order, threads)).collect())
        .collect();
    Ok(Row {
        name: graph.name.clone(),
        tasks: graph.needs.len() - graph.literals.len(),
        dask: dask.iter().map(|figures| Figures::mean(figures)).collect(),
        dask_worst: dask.iter().map(|figures| Figures::worst(figures)).collect(),
        ours: THREADS.iter().map(|&threads| measure(graph, &order, threads)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much longer, or more, than in the worst of dask's own orders several threads may take and hold: which of them is
    /// first done with what is chance.
    const CHANCE: f64 = 1.06;
    /// The same for the mean over all graphs.
    const CHANCE_OF_MEANS: f64 = 1.01;

    fn rows() -> Vec<Row> {
        let graphs = Recorded::read(include_bytes!("../../order/small.jsonl").as_slice()).expect("recorded graphs");
        assert!(graphs.len() > 20);
        graphs.iter().map(|graph| compare(graph).expect("no cycle")).collect()
    }

    #[test]
    fn our_order_is_not_worse_than_dasks_on_any_graph() {
        for Row { name, dask_worst, ours, .. } in rows() {
            assert!(ours[0].peak <= dask_worst[0].peak, "{name}: {ours:?} for {dask_worst:?}");
            for (ours, dask) in ours.iter().zip(&dask_worst) {
                assert!(ours.makespan <= dask.makespan * CHANCE, "{name}: {ours:?} for {dask:?}");
                assert!(ours.peak <= dask.peak * CHANCE, "{name}: {ours:?} for {dask:?}");
            }
        }
    }

    #[test]
    fn our_orders_are_as_good_as_dasks_altogether() {
        let rows = rows();
        for place in 0..THREADS.len() {
            let peak = geometric_mean(&rows, |row| row.ours[place].peak / row.dask[place].peak);
            let makespan = geometric_mean(&rows, |row| row.ours[place].makespan / row.dask[place].makespan);
            assert!(peak <= CHANCE_OF_MEANS && makespan <= CHANCE_OF_MEANS, "{peak} {makespan}");
        }
    }
}
