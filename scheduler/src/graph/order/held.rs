//! How good an order is: the results that one worker holds which follows it.

use crate::graph::topology::{Topology, count};

/// The most results held at once by one worker that runs the tasks in an order and drops what nothing reads any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// Results that something has yet to read.
    pub(super) intermediates: usize,
    /// The same together with those that nothing reads, which clients keep.
    pub(super) all: usize,
}

impl Held {
    /// Walks the graph.
    pub(super) fn most(topology: &Topology, numbers: &[u32]) -> Held {
        let mut unread: Vec<u32> =
            topology.nodes().map(|node| count(topology.dependents.neighbors_slice(node))).collect();
        let mut sequence: Vec<u32> = topology.nodes().take(topology.tasks).collect();
        sequence.sort_unstable_by_key(|&node| numbers[node as usize]);
        let (mut held, mut ends) = (0_usize, 0);
        let mut most = Held { intermediates: 0, all: 0 };
        for node in sequence {
            let is_end = unread[node as usize] == 0;
            ends += usize::from(is_end);
            held += usize::from(!is_end);
            most.intermediates = most.intermediates.max(held);
            most.all = most.all.max(held + ends);
            for &need in topology.dependencies.neighbors_slice(node) {
                unread[need as usize] -= 1;
                // What the graph only refers to is held by others.
                held -= usize::from(unread[need as usize] == 0 && (need as usize) < topology.tasks);
            }
        }
        most
    }

    /// Whether fewer intermediate results are held, and no more altogether.
    pub(super) fn is_less_than(self, other: Held) -> bool {
        self.intermediates < other.intermediates && self.all <= other.all
    }
}
