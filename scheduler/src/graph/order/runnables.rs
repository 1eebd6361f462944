//! Nodes that could run without loading anything further, and how far to follow them.
//!
//! Running them all at once would walk the graph breadth first; running them only when a target needs them keeps their
//! inputs in memory for too long. So each is followed forward: to a leaf it is run at once; at a reducer that still misses
//! inputs the way is remembered, and run when enough ways meet there; a splitter is followed into each of its branches.

use std::collections::VecDeque;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use super::Traversal;
use super::paths::{PathId, Paths};

/// What is runnable and what was found out about it.
pub(super) struct Runnables {
    queue: Vec<u32>,
    /// Nodes on ways that are being followed or that were found free of further loading.
    hull: Vec<bool>,
    paths: Paths,
    /// Ways that end in front of a reducer.
    ways: IndexMap<u32, Vec<PathId>, FxBuildHasher>,
}

impl Runnables {
    pub(super) fn new(nodes: usize) -> Runnables {
        Runnables { queue: Vec::new(), hull: vec![false; nodes], paths: Paths::default(), ways: IndexMap::default() }
    }

    /// How many nodes wait to be followed.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn push(&mut self, node: u32) {
        self.queue.push(node);
    }

    pub(super) fn leave_hull(&mut self, node: u32) {
        self.hull[node as usize] = false;
    }

    pub(super) fn has_ways_to(&self, reducer: u32) -> bool {
        self.ways.contains_key(&reducer)
    }

    /// Puts the nodes of the ways to `reducer` on a stack, first ones on top, and forgets the ways.
    pub(super) fn take_ways_to(&mut self, reducer: u32, is_done: impl Fn(u32) -> bool + Copy, stack: &mut Vec<u32>) {
        for way in self.ways.swap_remove(&reducer).unwrap_or_default() {
            stack.extend(self.paths.backward(way, is_done));
        }
    }
}

type Branches = VecDeque<(u32, PathId)>;

impl Traversal<'_> {
    /// Follows everything runnable, and what becomes runnable by that.
    pub(super) fn follow_runnables(&mut self) {
        if self.runnables.ways.is_empty() {
            self.runnables.paths.clear();
        }
        while !self.runnables.queue.is_empty() {
            let mut candidates = std::mem::take(&mut self.runnables.queue);
            while let Some(node) = candidates.pop() {
                if self.runnables.hull[node as usize] || self.is_done(node) {
                    continue;
                }
                if self.core.dependents().neighbors_slice(node).is_empty() {
                    self.finish(node);
                    continue;
                }
                let mut branches = Branches::from([(0, self.runnables.paths.start(node))]);
                while let Some((splits, path)) = branches.pop_front() {
                    self.follow(splits, path, &mut branches);
                }
            }
        }
    }

    /// Follows one path until it is run, remembered, or split into branches.
    fn follow(&mut self, splits: u32, mut path: PathId, branches: &mut Branches) {
        let (dependencies, dependents) = (self.core.dependencies(), self.core.dependents());
        loop {
            let node = self.runnables.paths.tip(path);
            self.runnables.hull[node as usize] = true;
            let (below, above) = (dependencies.neighbors_slice(node), dependents.neighbors_slice(node));
            let is_start = self.runnables.paths.before_tip(path).is_none();
            let free = is_start || below.len() == 1;
            match above {
                [] if self.missing[node as usize] <= 1 => return self.finish_path(path),
                [] => return self.runnables.leave_hull(node),
                [next] if free => path = self.runnables.paths.extend(path, *next),
                _ if free => return self.split(splits + 1, path, branches),
                _ if self.runnables.has_ways_to(node) => {
                    self.runnables.leave_hull(node);
                    return self.meet(splits, path, node, branches);
                }
                _ if below.len() > 1 && self.missing[node as usize] <= 1 => return self.finish_path(path),
                _ => {
                    self.runnables.leave_hull(node);
                    self.runnables.ways.insert(node, vec![path]);
                    return;
                }
            }
        }
    }

    /// Continues into every branch that depends on nothing else.
    fn split(&mut self, splits: u32, path: PathId, branches: &mut Branches) {
        let node = self.runnables.paths.tip(path);
        let mut above: Vec<u32> = self.core.dependents().neighbors_slice(node).to_vec();
        above.sort_unstable_by_key(|&n| self.rank[n as usize]);
        for next in above {
            if self.core.dependencies().neighbors_slice(next).len() == 1 {
                branches.push_back((splits, self.runnables.paths.extend(path, next)));
            }
        }
    }

    /// One more way leads to `reducer`; when as many ways are known as inputs miss, it can run.
    fn meet(&mut self, splits: u32, path: PathId, reducer: u32, branches: &mut Branches) {
        let missing = self.missing[reducer as usize] as usize;
        let ways = self.runnables.ways.get_mut(&reducer).expect("ways to the reducer are known");
        ways.push(path);
        if ways.len() < missing {
            return;
        }
        let numbers = &self.numbers;
        let paths = &self.runnables.paths;
        ways.retain(|&way| paths.before_tip(way).is_some_and(|node| numbers[node as usize].is_none()));
        if ways.len() < missing {
            return;
        }
        let ways = self.runnables.ways.swap_remove(&reducer).expect("ways to the reducer are known");
        if splits > 1 {
            if let Some(joined) = self.runnables.paths.join(&ways) {
                branches.push_back((splits - 1, joined));
            }
            return;
        }
        self.finish_in_turns(ways.into());
    }

    /// Runs paths that need each other's nodes: one as far as it goes, then the next.
    fn finish_in_turns(&mut self, mut ways: VecDeque<PathId>) {
        let mut stuck = 0;
        while let Some(way) = ways.pop_front() {
            let before = self.next_number;
            if self.finish_while_ready(way) {
                stuck = 0;
                continue;
            }
            stuck = if self.next_number == before { stuck + 1 } else { 0 };
            ways.push_back(way);
            if stuck >= ways.len() {
                return;
            }
        }
    }

    /// Whether the whole path is done now.
    fn finish_while_ready(&mut self, path: PathId) -> bool {
        for node in self.undone(path) {
            if self.missing[node as usize] > 0 {
                return false;
            }
            self.finish(node);
        }
        true
    }

    fn finish_path(&mut self, path: PathId) {
        for node in self.undone(path) {
            if self.missing[node as usize] == 0 {
                self.finish(node);
            }
        }
    }

    fn undone(&self, path: PathId) -> Vec<u32> {
        self.runnables.paths.forward(path, |node| self.is_done(node))
    }
}
