//! Which ends of the graph each node is connected to: the roots below it, or (directions swapped) the leaves above it.
//!
//! Neighbouring nodes mostly have the same ends, so sets are stored once and nodes hold a set's number.

use std::hash::Hasher;

use indexmap::IndexMap;
use rustc_hash::{FxBuildHasher, FxHasher};

use crate::graph::topology::Edges;

/// Elements that may be visited while sets are united, about a quarter of a second and 100 MiB. Beyond it (a running sum
/// over tens of thousands of partitions has quadratic sets) a node takes over its largest set, so only the quality suffers.
const UNION_WORK_MAX: usize = 25_000_000;

/// The empty set: of an end itself.
pub(super) const EMPTY: u32 = 0;

/// For each node the set of ends it is connected to.
pub(super) struct Connected {
    set_of: Vec<u32>,
    sets: Vec<Box<[u32]>>,
    /// For each node the widest fan of its ends: the most edges any of them has towards the node's side.
    pub(super) fan_max: Vec<u32>,
}

impl Connected {
    /// Follows `towards` to the ends, visiting nodes in `sorted` order (ends first). `away` is the opposite direction.
    pub(super) fn new(towards: &Edges, away: &Edges, sorted: impl Iterator<Item = u32>) -> Connected {
        let nodes = towards.node_count();
        let mut builder = Builder::new(nodes);
        let mut fan_max = vec![0; nodes];
        for node in sorted {
            let next = towards.neighbors_slice(node);
            if next.is_empty() {
                builder.set_of[node as usize] = builder.intern(&[node]);
                fan_max[node as usize] = super::count(away.neighbors_slice(node));
            } else {
                builder.set_of[node as usize] = builder.union(next);
                fan_max[node as usize] = next.iter().map(|&n| fan_max[n as usize]).max().unwrap_or(0);
            }
        }
        let Builder { mut set_of, sets, .. } = builder;
        for (node, set) in (0_u32..).zip(&mut set_of) {
            if towards.neighbors_slice(node).is_empty() {
                *set = EMPTY;
            }
        }
        Connected { set_of, sets, fan_max }
    }

    /// The number of the set of `node`.
    pub(super) fn set_of(&self, node: u32) -> u32 {
        self.set_of[node as usize]
    }

    /// The ends in a set, ascending.
    pub(super) fn ends(&self, set: u32) -> &[u32] {
        &self.sets[set as usize]
    }

    /// How many ends `node` is connected to.
    pub(super) fn len(&self, node: u32) -> usize {
        self.ends(self.set_of(node)).len()
    }

    /// How many distinct sets there are.
    pub(super) fn sets(&self) -> usize {
        self.sets.len()
    }
}

struct Builder {
    set_of: Vec<u32>,
    sets: Vec<Box<[u32]>>,
    by_hash: IndexMap<u64, Vec<u32>, FxBuildHasher>,
    /// Marks the sets (by number) and the ends (by node) already seen in the union at hand.
    seen_set: Vec<u32>,
    seen_end: Vec<u32>,
    round: u32,
    work: usize,
}

impl Builder {
    fn new(nodes: usize) -> Builder {
        Builder {
            set_of: vec![EMPTY; nodes],
            sets: vec![Box::default()],
            by_hash: IndexMap::default(),
            seen_set: vec![0],
            seen_end: vec![0; nodes],
            round: 0,
            work: 0,
        }
    }

    fn union(&mut self, members: &[u32]) -> u32 {
        self.round += 1;
        let mut distinct: Vec<u32> = Vec::new();
        for &member in members {
            let set = self.set_of[member as usize];
            if self.seen_set[set as usize] != self.round {
                self.seen_set[set as usize] = self.round;
                distinct.push(set);
            }
        }
        let largest = *distinct.iter().max_by_key(|&&s| self.sets[s as usize].len()).expect("a union has members");
        let work: usize = distinct.iter().map(|&s| self.sets[s as usize].len()).sum();
        if distinct.len() == 1 || self.work + work > UNION_WORK_MAX {
            return largest;
        }
        self.work += work;
        let mut ends: Vec<u32> = Vec::with_capacity(work);
        for set in distinct {
            for &end in &*self.sets[set as usize] {
                if self.seen_end[end as usize] != self.round {
                    self.seen_end[end as usize] = self.round;
                    ends.push(end);
                }
            }
        }
        if ends.len() == self.sets[largest as usize].len() {
            return largest;
        }
        ends.sort_unstable();
        self.intern(&ends)
    }

    fn intern(&mut self, ends: &[u32]) -> u32 {
        let mut hasher = FxHasher::default();
        for &end in ends {
            hasher.write_u32(end);
        }
        let alike = self.by_hash.entry(hasher.finish()).or_default();
        if let Some(&set) = alike.iter().find(|&&s| *self.sets[s as usize] == *ends) {
            return set;
        }
        let set = u32::try_from(self.sets.len()).expect("fewer sets than nodes");
        alike.push(set);
        self.sets.push(ends.into());
        self.seen_set.push(0);
        set
    }
}
