//! Static order of a graph, as `dask.order` gives it: the rank in which one depth-first, memory-saving worker would run the
//! tasks. The scheduler uses it to break ties, so a good order keeps few intermediate results in memory at a time.
//!
//! The traversal alternates two moves:
//!
//! 1. **Towards a target** (`Traversal::approach`). From the chosen leaf a path leads down to a root, always through the
//!    heaviest dependency. Walking it back up, whatever is missing for the next node is done first.
//! 2. **Along the free way** (`runnables`). Nodes that became runnable on the side are followed forward: up to a leaf they
//!    are run, up to a reducer that still misses inputs they are only remembered.
//!
//! Graphs that are not large are traversed twice, begun at the heaviest leaf and at the lightest; the order that holds less
//! is taken, and the one that dask would begin with where both hold as much.
//!
//! Everything is iterative, ids only, and near linear in nodes plus edges.

mod connected;
mod held;
mod paths;
mod runnables;
mod targets;

use std::borrow::Cow;
use std::cmp::Reverse;

use dask_protocol::Key;

use self::connected::{Connected, EMPTY};
use self::held::Held;
use self::runnables::Runnables;
use self::targets::Targets;
use super::topology::{Edges, Topology, count};

/// The keys of a cycle, each depending on the next and the last on the first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Cycle detected between the following keys:\n  -> {}", .0.iter().map(Key::to_string).collect::<Vec<_>>().join("\n  -> "))]
pub struct Cycle(pub Vec<Key>);

/// Graphs of up to so many nodes are traversed from both ends, which takes twice as long. Larger ones take long enough.
const BOTH_ENDS_MAX: usize = 20_000;

/// The order of every task of `topology`, smallest first. `is_task` is false for literals (`DataNode`), which cost nothing
/// to produce; `keys` are the names of all nodes, used to break ties.
///
/// # Errors
/// [`Cycle`] when the graph is none that can be run.
pub fn order(topology: &Topology, is_task: impl Fn(u32) -> bool, keys: &[&Key]) -> Result<Vec<u32>, Cycle> {
    let sorted = topology
        .toposort()
        .map_err(|cycle| Cycle(cycle.into_iter().map(|node| keys[node as usize].clone()).collect()))?;
    if topology.tasks == 0 {
        return Ok(Vec::new());
    }
    let literals = Literals::find(topology, |node| node as usize >= topology.tasks || !is_task(node));
    let core = literals.without(topology);
    let names: Vec<Cow<'_, str>> = keys.iter().map(|key| name(key)).collect();
    let begun_at = |end: End| {
        let mut traversal = Traversal::new(&core, &literals, &sorted, &names, end);
        traversal.run(&sorted);
        traversal.numbers(topology.tasks)
    };
    let numbers = begun_at(End::Usual);
    if topology.len() > BOTH_ENDS_MAX {
        return Ok(numbers);
    }
    let other = begun_at(End::Other);
    let less = Held::most(topology, &other).is_less_than(Held::most(topology, &numbers));
    Ok(if less { other } else { numbers })
}

/// The leaves that a traversal begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Those that dask begins with: see [`prefers_heaviest`].
    Usual,
    /// The others.
    Other,
}

/// Python's `str(key)`.
fn name(key: &Key) -> Cow<'_, str> {
    key.as_str().map_or_else(|| Cow::Owned(key.to_string()), Cow::Borrowed)
}

fn count32(count: usize) -> u32 {
    u32::try_from(count).expect("a graph fits 32 bit ids")
}

/// Literals needed by several tasks. They are left out of the traversal, because they would tie together what is
/// independent, and are numbered right before their first user.
struct Literals {
    left_out: Vec<bool>,
}

impl Literals {
    fn find(topology: &Topology, is_literal: impl Fn(u32) -> bool) -> Literals {
        let leave_out = |node| {
            is_literal(node)
                && topology.dependencies.neighbors_slice(node).is_empty()
                && topology.dependents.neighbors_slice(node).len() > 1
        };
        Literals { left_out: topology.nodes().map(leave_out).collect() }
    }

    fn without<'a>(&self, topology: &'a Topology) -> Core<'a> {
        if !self.left_out.contains(&true) {
            return Core { full: topology, trimmed: None };
        }
        let lists: Vec<Vec<u32>> = topology
            .nodes()
            .map(|node| {
                let needs = topology.dependencies.neighbors_slice(node).iter();
                needs.copied().filter(|&need| !self.left_out[need as usize]).collect()
            })
            .collect();
        Core { full: topology, trimmed: Some(Topology::new(lists.iter().map(Vec::as_slice))) }
    }
}

/// The graph to traverse, and the whole graph it is a part of.
struct Core<'a> {
    full: &'a Topology,
    trimmed: Option<Topology>,
}

impl Core<'_> {
    fn dependencies(&self) -> &Edges {
        &self.trimmed.as_ref().unwrap_or(self.full).dependencies
    }

    fn dependents(&self) -> &Edges {
        &self.trimmed.as_ref().unwrap_or(self.full).dependents
    }
}

/// Position among all nodes by weight: what everything below it costs, then how it hangs together, then its name.
fn ranks(core: &Core<'_>, sorted: &[u32], roots_of: &Connected, names: &[Cow<'_, str>]) -> Vec<u32> {
    let dependencies = core.dependencies();
    let mut total = vec![0_u128; names.len()];
    for &node in sorted {
        let needs = dependencies.neighbors_slice(node);
        total[node as usize] = needs.iter().fold(1, |sum: u128, &n| sum.saturating_add(total[n as usize]));
    }
    let weight = |node: u32| {
        let needs = dependencies.neighbors_slice(node).len();
        (total[node as usize], needs, roots_of.len(node), Reverse(roots_of.fan_max[node as usize]))
    };
    let mut by_weight: Vec<u32> = core.full.nodes().collect();
    by_weight.sort_by(|&a, &b| weight(a).cmp(&weight(b)).then_with(|| names[a as usize].cmp(&names[b as usize])));
    let mut ranks = vec![0; by_weight.len()];
    for (rank, node) in (0_u32..).zip(by_weight) {
        ranks[node as usize] = rank;
    }
    ranks
}

/// One run of the ordering.
struct Traversal<'a> {
    core: &'a Core<'a>,
    literals: &'a Literals,
    rank: Vec<u32>,
    node_of_rank: Vec<u32>,
    leaves_of: Connected,
    targets: Targets,
    /// Leaves to take when nothing is in memory, next one last.
    fresh_leaves: Vec<u32>,
    /// Dependencies that are not done.
    missing: Vec<u32>,
    numbers: Vec<Option<u32>>,
    next_number: u32,
    /// How many nodes touch a finished one without being done themselves.
    touched: Vec<bool>,
    touched_count: usize,
    runnables: Runnables,
}

impl<'a> Traversal<'a> {
    fn new(
        core: &'a Core<'a>,
        literals: &'a Literals,
        sorted: &[u32],
        names: &[Cow<'_, str>],
        end: End,
    ) -> Traversal<'a> {
        let (dependencies, dependents) = (core.dependencies(), core.dependents());
        let kept = |node: &u32| !literals.left_out[*node as usize];
        let sorted: Vec<u32> = sorted.iter().copied().filter(kept).collect();
        let roots_of = Connected::new(dependencies, dependents, sorted.iter().copied());
        let leaves_of = Connected::new(dependents, dependencies, sorted.iter().rev().copied());
        let rank = ranks(core, &sorted, &roots_of, names);
        let mut node_of_rank = vec![0; rank.len()];
        for (node, &rank) in (0_u32..).zip(&rank) {
            node_of_rank[rank as usize] = node;
        }
        let ends = |edges: &Edges| -> Vec<u32> {
            let is_end = |n: &u32| edges.neighbors_slice(*n).is_empty();
            node_of_rank.iter().copied().filter(kept).filter(is_end).collect()
        };
        let (roots, leaves) = (ends(dependencies), ends(dependents));
        let targets = Targets::new(&leaves, &rank, &roots_of, &leaves_of);
        let mut fresh_leaves = leaves;
        if prefers_heaviest(&roots, fresh_leaves.len(), &leaves_of) != (end == End::Usual) {
            fresh_leaves.reverse();
        }
        let nodes = rank.len();
        Traversal {
            missing: core.full.nodes().map(|n| count(dependencies.neighbors_slice(n))).collect(),
            runnables: Runnables::new(nodes),
            core,
            literals,
            rank,
            node_of_rank,
            leaves_of,
            targets,
            fresh_leaves,
            numbers: vec![None; nodes],
            next_number: 0,
            touched: vec![false; nodes],
            touched_count: 0,
        }
    }

    fn run(&mut self, sorted: &[u32]) {
        while let Some(target) = self.next_target() {
            self.approach(target);
            self.follow_runnables();
        }
        // Nothing is left unless the traversal was led astray by connections that were cut short.
        for &node in sorted {
            if !self.literals.left_out[node as usize] {
                self.finish(node);
            }
        }
    }

    fn numbers(&self, tasks: usize) -> Vec<u32> {
        let number = |number: &Option<u32>| number.unwrap_or(self.next_number);
        self.numbers[..tasks].iter().map(number).collect()
    }

    fn is_done(&self, node: u32) -> bool {
        self.numbers[node as usize].is_some()
    }

    fn next_target(&mut self) -> Option<u32> {
        if self.touched_count > 0 {
            let (numbers, node_of_rank) = (&self.numbers, &self.node_of_rank);
            let nearest = self.targets.nearest(|rank| numbers[node_of_rank[rank as usize] as usize].is_some());
            if let Some(rank) = nearest {
                return Some(self.node_of_rank[rank as usize]);
            }
        }
        while let Some(leaf) = self.fresh_leaves.pop() {
            if !self.is_done(leaf) {
                return Some(leaf);
            }
        }
        None
    }

    /// The dependencies of `node` that are not done, lightest first.
    fn missing_of(&self, node: u32) -> Vec<u32> {
        let needs = self.core.dependencies().neighbors_slice(node).iter().copied();
        let mut missing: Vec<u32> = needs.filter(|&n| !self.is_done(n)).collect();
        missing.sort_unstable_by_key(|&n| self.rank[n as usize]);
        missing
    }

    /// Runs what `target` needs, and `target`.
    fn approach(&mut self, target: u32) {
        let mut path = self.critical_path(target);
        let mut walked_back = false;
        while let Some(node) = path.pop() {
            if self.is_done(node) {
                continue;
            }
            if self.missing[node as usize] == 0 {
                if walked_back && self.runnables.waiting() < path.len() {
                    self.follow_runnables();
                }
                self.finish(node);
                continue;
            }
            path.push(node);
            let (known, unknown): (Vec<u32>, Vec<u32>) =
                self.missing_of(node).into_iter().partition(|&n| self.runnables.has_ways_to(n));
            walked_back |= unknown.len() > 1;
            path.extend(unknown);
            for reducer in known {
                let is_done = |n| self.numbers[n as usize].is_some();
                self.runnables.take_ways_to(reducer, is_done, &mut path);
            }
        }
    }

    /// From `target` down to a root through the heaviest dependencies, with their siblings beside them; root last.
    fn critical_path(&self, target: u32) -> Vec<u32> {
        let mut path = vec![target];
        let mut missing = self.missing_of(target);
        while let Some(&heaviest) = missing.last() {
            path.push(heaviest);
            missing = self.missing_of(heaviest);
            path.extend(&missing);
        }
        path
    }

    /// Numbers `node` and every node that then has nothing else to wait for and no sibling to compete with.
    fn finish(&mut self, node: u32) {
        let dependents = self.core.dependents();
        let mut chain = vec![node];
        while let Some(node) = chain.pop() {
            self.runnables.leave_hull(node);
            if self.is_done(node) {
                continue;
            }
            self.untouch(node);
            self.number(node);
            if self.core.dependencies().neighbors_slice(node).is_empty() {
                let leaves = self.leaves_of.set_of(node);
                if leaves != EMPTY {
                    self.targets.root_done(leaves, &self.leaves_of, &self.rank);
                }
            }
            let above = dependents.neighbors_slice(node);
            for &dependent in above {
                self.missing[dependent as usize] -= 1;
                self.touch(dependent);
                if self.missing[dependent as usize] == 0 {
                    if above.len() == 1 {
                        chain.push(dependent);
                    } else {
                        self.runnables.push(dependent);
                    }
                }
            }
        }
    }

    fn number(&mut self, node: u32) {
        for &need in self.core.full.dependencies.neighbors_slice(node) {
            if self.literals.left_out[need as usize] && !self.is_done(need) {
                self.take_number(need);
            }
        }
        self.take_number(node);
    }

    fn take_number(&mut self, node: u32) {
        self.numbers[node as usize] = Some(self.next_number);
        if (node as usize) < self.core.full.tasks {
            self.next_number += 1;
        }
    }

    fn touch(&mut self, node: u32) {
        if !std::mem::replace(&mut self.touched[node as usize], true) {
            self.touched_count += 1;
            self.targets.touch(self.rank[node as usize]);
        }
    }

    fn untouch(&mut self, node: u32) {
        if std::mem::replace(&mut self.touched[node as usize], false) {
            self.touched_count -= 1;
        }
        self.targets.leaf_done(self.rank[node as usize]);
    }
}

/// Whether to begin with the heaviest leaf. Graphs that change their width a lot, and those whose roots all lead to equally
/// many leaves, gain from it; lopsided ones are better begun where an end is quick to reach.
fn prefers_heaviest(roots: &[u32], leaves: usize, leaves_of: &Connected) -> bool {
    let difference = roots.len().abs_diff(leaves);
    // |roots - leaves| / roots >= 0.8
    if difference * 5 >= roots.len() * 4 {
        return true;
    }
    let mut reach = roots.iter().map(|&root| leaves_of.len(root)).skip_while(|&n| n == 0);
    let first = reach.next();
    reach.all(|n| Some(n) == first)
}

#[cfg(test)]
mod tests;
