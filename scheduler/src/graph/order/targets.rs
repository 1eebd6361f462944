//! Which leaf to work towards next.
//!
//! A leaf's degree is the number of roots that must still be loaded before it is in reach. While part of the graph is in
//! memory, the leaf with the smallest degree is best, preferably one that touches what was computed already. Leaves below
//! which the same roots lie share one degree, so they are kept as one class and a finished root updates classes only.

use std::collections::BTreeSet;

use super::connected::{Connected, EMPTY};

/// Leaves connected to the same set of roots.
struct Class {
    /// Roots of the set that are not done.
    degree: u32,
    /// The first of its leaves in rank order; classes of one degree are taken in this order.
    first: u32,
    /// Ranks of its leaves, best last.
    leaves: Vec<u32>,
    /// Ranks of its leaves that touch a finished node.
    touched: BTreeSet<u32>,
}

/// The leaves that cannot be reached yet, by degree.
pub(super) struct Targets {
    classes: Vec<Class>,
    class_of_rank: Vec<u32>,
    /// Classes that a root's completion concerns, by the number of the root's set of leaves.
    concerned: Vec<Option<Box<[u32]>>>,
    /// (degree, first rank, class) of every class of positive degree.
    waiting: BTreeSet<(u32, u32, u32)>,
    /// (degree, first touched rank, class) of those with touched leaves.
    touched: BTreeSet<(u32, u32, u32)>,
}

const NO_CLASS: u32 = u32::MAX;

impl Targets {
    /// `leaves` by ascending rank; `roots_of` tells the roots below a node.
    pub(super) fn new(leaves: &[u32], rank: &[u32], roots_of: &Connected, leaves_of: &Connected) -> Targets {
        let mut class_of_set = vec![NO_CLASS; roots_of.sets()];
        let mut targets = Targets {
            classes: Vec::new(),
            class_of_rank: vec![NO_CLASS; rank.len()],
            concerned: vec![None; leaves_of.sets()],
            waiting: BTreeSet::new(),
            touched: BTreeSet::new(),
        };
        for &leaf in leaves {
            let set = roots_of.set_of(leaf);
            if set == EMPTY {
                continue; // a root itself: always in reach
            }
            let rank = rank[leaf as usize];
            if class_of_set[set as usize] == NO_CLASS {
                class_of_set[set as usize] = super::count32(targets.classes.len());
                let degree = super::count(roots_of.ends(set));
                targets.classes.push(Class { degree, first: rank, leaves: Vec::new(), touched: BTreeSet::new() });
            }
            let class = class_of_set[set as usize];
            targets.class_of_rank[rank as usize] = class;
            targets.classes[class as usize].leaves.push(rank);
        }
        for (id, class) in (0_u32..).zip(&mut targets.classes) {
            class.leaves.reverse();
            targets.waiting.insert((class.degree, class.first, id));
        }
        targets
    }

    /// A root is done: the leaves in `set` (of `leaves_of`) need one root less.
    pub(super) fn root_done(&mut self, set: u32, leaves_of: &Connected, rank: &[u32]) {
        let class_of_rank = &self.class_of_rank;
        let concerned = self.concerned[set as usize].take().unwrap_or_else(|| {
            let of_leaf = |&leaf: &u32| class_of_rank[rank[leaf as usize] as usize];
            let mut classes: Vec<u32> = leaves_of.ends(set).iter().map(of_leaf).filter(|&c| c != NO_CLASS).collect();
            classes.sort_unstable();
            classes.dedup();
            classes.into()
        });
        for &id in &concerned {
            self.lower_degree(id);
        }
        self.concerned[set as usize] = Some(concerned);
    }

    fn lower_degree(&mut self, id: u32) {
        let class = &mut self.classes[id as usize];
        if class.degree == 0 {
            return;
        }
        let touched = class.touched.first().copied();
        self.waiting.remove(&(class.degree, class.first, id));
        if let Some(first) = touched {
            self.touched.remove(&(class.degree, first, id));
        }
        class.degree -= 1;
        if class.degree > 0 {
            self.waiting.insert((class.degree, class.first, id));
            if let Some(first) = touched {
                self.touched.insert((class.degree, first, id));
            }
        }
    }

    /// The leaf of this rank has a finished dependency.
    pub(super) fn touch(&mut self, rank: u32) {
        self.change_touched(rank, |touched| touched.insert(rank));
    }

    /// The leaf of this rank is done.
    pub(super) fn leaf_done(&mut self, rank: u32) {
        self.change_touched(rank, |touched| touched.remove(&rank));
    }

    fn change_touched(&mut self, rank: u32, change: impl FnOnce(&mut BTreeSet<u32>) -> bool) {
        let id = self.class_of_rank[rank as usize];
        let Some(class) = self.classes.get_mut(id as usize) else {
            return;
        };
        let before = class.touched.first().copied();
        change(&mut class.touched);
        let after = class.touched.first().copied();
        if before == after || class.degree == 0 {
            return;
        }
        if let Some(first) = before {
            self.touched.remove(&(class.degree, first, id));
        }
        if let Some(first) = after {
            self.touched.insert((class.degree, first, id));
        }
    }

    /// The rank of the leaf that needs the fewest further roots, one touching finished work if there is a choice; `None`
    /// when every remaining leaf is in reach.
    pub(super) fn nearest(&mut self, is_done: impl Fn(u32) -> bool) -> Option<u32> {
        while let Some(&(degree, first, id)) = self.waiting.first() {
            if let Some(&(lowest, touched, _)) = self.touched.first()
                && lowest == degree
            {
                return Some(touched);
            }
            let class = &mut self.classes[id as usize];
            while class.leaves.last().is_some_and(|&rank| is_done(rank)) {
                class.leaves.pop();
            }
            if let Some(&rank) = class.leaves.last() {
                return Some(rank);
            }
            // Only when connections were cut short (UNION_WORK_MAX): all its leaves were done before their roots.
            class.degree = 0;
            self.waiting.remove(&(degree, first, id));
        }
        None
    }
}
