//! Graphs on their way in: pickles taken apart, tasks put in order.

use bytes::Bytes;
use dask_protocol::Key;
use dask_protocol::pickle::{Graph, Intake, read_expression};
use dask_scheduler::graph::order::order;
use dask_scheduler::graph::topology::Topology;

/// `client.map` of 500 calls, as a client sends it.
pub const MAP: &[u8] = include_bytes!("../fixtures/map.pickle");
/// A dict of 375 tasks, as a client sends it.
pub const DICT: &[u8] = include_bytes!("../fixtures/dict.pickle");

/// Takes a pickled expression apart.
///
/// # Panics
/// When that needs Python.
pub fn split(pickle: &'static [u8]) -> Graph {
    match read_expression(&Bytes::from_static(pickle), &[]) {
        Ok(Intake::Graph(graph)) => graph,
        Ok(Intake::NeedsPython(reason)) => panic!("the fixture needs Python: {reason}"),
        Err(error) => panic!("the fixture is not understood: {error}"),
    }
}

/// x + x.T and its sum, of an array in so many chunks a side.
pub struct Ordered {
    topology: Topology,
    keys: Vec<Key>,
}

impl Ordered {
    /// Of `side * side` chunks.
    pub fn new(side: u32) -> Ordered {
        let chunks = side * side;
        let made = (0..chunks).map(|_| Vec::new());
        let added = (0..chunks).map(|i| vec![i, i % side * side + i / side]);
        let summed = (0..side).map(|row| (0..side).map(|column| chunks + row * side + column).collect());
        let last = std::iter::once((0..side).map(|row| 2 * chunks + row).collect());
        let needs: Vec<Vec<u32>> = made.chain(added).chain(summed).chain(last).collect();
        let keys = (0..needs.len()).map(|i| Key::from(format!("task-{i:08}"))).collect();
        Ordered { topology: Topology::new(needs.iter().map(Vec::as_slice)), keys }
    }

    /// Its static order.
    ///
    /// # Panics
    /// When it has a cycle, which it has not.
    pub fn order(&self) -> Vec<u32> {
        let keys: Vec<&Key> = self.keys.iter().collect();
        order(&self.topology, |_| true, &keys).expect("the graph has no cycle")
    }
}
