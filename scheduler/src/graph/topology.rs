//! The shape of a graph: who depends on whom, by number.
//!
//! Nodes `0..tasks` are the tasks of the graph in the order they came; the nodes after them are keys that the graph refers
//! to but does not hold (they must be known to the scheduler already).

use dask_protocol::Key;
use indexmap::IndexMap;
use petgraph::Directed;
use petgraph::csr::Csr;
use rustc_hash::FxBuildHasher;

/// Compressed rows of edges; `neighbors_slice(node)` is what an edge of `node` leads to.
pub type Edges = Csr<(), (), Directed, u32>;

/// Dependencies and dependents of every node.
#[derive(Debug, Clone)]
pub struct Topology {
    /// Towards the roots.
    pub dependencies: Edges,
    /// Towards the leaves.
    pub dependents: Edges,
    /// How many nodes are tasks of the graph itself; the rest is external.
    pub tasks: usize,
}

impl Topology {
    /// From dependency lists by number, one per task. Numbers at or above the number of tasks name external nodes.
    pub fn new<'a>(dependencies: impl ExactSizeIterator<Item = &'a [u32]>) -> Topology {
        let tasks = dependencies.len();
        let mut forward: Vec<(u32, u32)> = Vec::new();
        for (node, needs) in (0_u32..).zip(dependencies) {
            forward.extend(needs.iter().map(|&need| (node, need)));
        }
        let last = forward.iter().map(|&(_, need)| need as usize + 1).max().unwrap_or(0);
        let nodes = tasks.max(last);
        let mut backward: Vec<(u32, u32)> = forward.iter().map(|&(node, need)| (need, node)).collect();
        Topology { dependencies: edges(&mut forward, nodes), dependents: edges(&mut backward, nodes), tasks }
    }

    /// From keys and the keys they depend on; the second result names the external nodes in order.
    pub fn of_keys<'a>(tasks: impl ExactSizeIterator<Item = (&'a Key, &'a [Key])> + Clone) -> (Topology, Vec<Key>) {
        let count = tasks.len();
        let mut ids: IndexMap<Key, u32, FxBuildHasher> = IndexMap::with_capacity_and_hasher(count, FxBuildHasher);
        for ((key, _), id) in tasks.clone().zip(0_u32..) {
            ids.insert(key.clone(), id);
        }
        let mut external = Vec::new();
        let mut next = u32::try_from(count).expect("a graph fits 32 bit ids");
        let lists: Vec<Vec<u32>> = tasks
            .map(|(_, needs)| {
                let mut list = Vec::with_capacity(needs.len());
                for need in needs {
                    list.push(*ids.entry(need.clone()).or_insert_with(|| {
                        external.push(need.clone());
                        next += 1;
                        next - 1
                    }));
                }
                list
            })
            .collect();
        (Topology::new(lists.iter().map(Vec::as_slice)), external)
    }

    /// How many nodes there are, external ones included.
    pub fn len(&self) -> usize {
        self.dependencies.node_count()
    }

    /// Whether there is no node at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The nodes sorted so that each comes after what it depends on.
    ///
    /// # Errors
    /// The nodes of one cycle, each depending on the next and the last on the first.
    pub fn toposort(&self) -> Result<Vec<u32>, Vec<u32>> {
        let mut missing: Vec<u32> = self.nodes().map(|n| count(self.dependencies.neighbors_slice(n))).collect();
        let mut sorted: Vec<u32> = self.nodes().filter(|&n| missing[n as usize] == 0).collect();
        let mut at = 0;
        while let Some(&node) = sorted.get(at) {
            at += 1;
            for &dependent in self.dependents.neighbors_slice(node) {
                missing[dependent as usize] -= 1;
                if missing[dependent as usize] == 0 {
                    sorted.push(dependent);
                }
            }
        }
        if sorted.len() == self.len() { Ok(sorted) } else { Err(self.find_cycle(&missing)) }
    }

    /// Every node, in number order.
    pub fn nodes(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.len()).expect("a graph fits 32 bit ids")
    }

    /// Walks down the nodes that a topological sort could not reach: each has a dependency that was not reached either.
    fn find_cycle(&self, missing: &[u32]) -> Vec<u32> {
        let mut node = self.nodes().find(|&n| missing[n as usize] > 0).expect("a cyclic graph has unsorted nodes");
        let mut position: IndexMap<u32, (), FxBuildHasher> = IndexMap::default();
        loop {
            if let (start, Some(())) = position.insert_full(node, ()) {
                return position.keys().skip(start).copied().collect();
            }
            let needs = self.dependencies.neighbors_slice(node);
            node =
                *needs.iter().find(|&&n| missing[n as usize] > 0).expect("an unsorted node has an unsorted dependency");
        }
    }
}

fn edges(pairs: &mut Vec<(u32, u32)>, nodes: usize) -> Edges {
    pairs.sort_unstable();
    pairs.dedup();
    let mut edges = Edges::from_sorted_edges(pairs).expect("edges were sorted and made unique");
    while edges.node_count() < nodes {
        edges.add_node(());
    }
    edges
}

/// The length of a neighbour list, which fits ids because every neighbour is a node.
pub(crate) fn count(neighbors: &[u32]) -> u32 {
    u32::try_from(neighbors.len()).expect("a node has fewer neighbours than there are ids")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(lists: &[&[u32]]) -> Topology {
        Topology::new(lists.iter().copied())
    }

    #[test]
    fn external_nodes_come_after_the_tasks() {
        let (a, b, x) = (Key::from("a"), Key::from("b"), Key::from("x"));
        let tasks = [(&a, [b.clone(), x.clone()].to_vec()), (&b, vec![x.clone()])];
        let (graph, external) = Topology::of_keys(tasks.iter().map(|(k, d)| (*k, d.as_slice())));
        assert_eq!(external, [x]);
        assert_eq!((graph.tasks, graph.len()), (2, 3));
        assert_eq!(graph.dependencies.neighbors_slice(0), [1, 2]);
        assert_eq!(graph.dependents.neighbors_slice(2), [0, 1]);
    }

    #[test]
    fn toposort_puts_dependencies_first() {
        let sorted = topology(&[&[1, 2], &[2], &[]]).toposort().expect("acyclic");
        assert_eq!(sorted, [2, 1, 0]);
    }

    #[test]
    fn cycles_are_named_without_their_tails() {
        let cycle = topology(&[&[1], &[2], &[3], &[1], &[]]).toposort().expect_err("cyclic");
        assert_eq!(cycle, [1, 2, 3]);
        assert_eq!(topology(&[&[0]]).toposort().expect_err("depends on itself"), [0]);
    }

    #[test]
    fn isolated_nodes_are_kept() {
        assert_eq!(topology(&[&[], &[], &[0]]).toposort().expect("acyclic").len(), 3);
        assert!(topology(&[]).is_empty());
    }
}
