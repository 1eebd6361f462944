//! Slot ids and small sets of them. Ids stay inside `state/`; keys and addresses are what leaves it.

use std::hash::Hash;

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

/// An insertion-ordered set with a fast hasher; removal swaps the last element in.
pub(super) type FastSet<T> = IndexSet<T, FxBuildHasher>;
/// An insertion-ordered map with a fast hasher; removal swaps the last entry in.
pub(super) type FastMap<K, V> = indexmap::IndexMap<K, V, FxBuildHasher>;

macro_rules! ids {
    ($($(#[$meta:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub(super) struct $name(pub(super) u32);

        impl $name {
            /// The id of the slot with this index.
            pub(super) fn from_index(index: usize) -> $name {
                $name(u32::try_from(index).expect("fewer than 2^32 slots are ever in use"))
            }

            /// The slot's index.
            pub(super) fn index(self) -> usize {
                self.0 as usize
            }
        }
    )+};
}

ids! {
    /// A task's slot; free for reuse once the task is forgotten, when nothing refers to it any more.
    TaskId,
    /// A worker's number, in order of registration. Never reused, so that a late reference finds nobody.
    WorkerId,
    /// A client's number, in order of appearance. Never reused.
    ClientSlot,
    /// A group's slot.
    GroupId,
    /// A prefix's slot.
    PrefixId,
}

/// How many ids a set keeps in place; with its tag it then fills 24 bytes.
const INLINE: usize = 5;

/// A set of ids in insertion order (until one is removed): in place while small, hashed when large, so that a task with
/// a hundred thousand dependents is as good as one with two.
#[derive(Debug, Clone)]
pub(super) enum IdSet<I> {
    /// Up to [`INLINE`] ids, searched one by one.
    Small {
        /// How many of `ids` are in use.
        len: u8,
        /// The ids.
        ids: [I; INLINE],
    },
    /// More.
    Large(Box<FastSet<I>>),
}

impl<I: Copy + Default> Default for IdSet<I> {
    fn default() -> Self {
        IdSet::Small { len: 0, ids: [I::default(); INLINE] }
    }
}

impl<I: Copy + Default + Eq + Hash> IdSet<I> {
    pub(super) fn len(&self) -> usize {
        match self {
            IdSet::Small { len, .. } => usize::from(*len),
            IdSet::Large(set) => set.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn contains(&self, id: I) -> bool {
        match self {
            IdSet::Small { len, ids } => ids[..usize::from(*len)].contains(&id),
            IdSet::Large(set) => set.contains(&id),
        }
    }

    /// The id at a position below `len`.
    pub(super) fn at(&self, position: usize) -> I {
        match self {
            IdSet::Small { len, ids } => ids[..usize::from(*len)][position],
            IdSet::Large(set) => set[position],
        }
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = I> + '_ {
        (0..self.len()).map(|position| self.at(position))
    }

    /// Adds an id; false if it was there.
    pub(super) fn insert(&mut self, id: I) -> bool {
        match self {
            IdSet::Small { len, ids } => {
                let used = usize::from(*len);
                if ids[..used].contains(&id) {
                    return false;
                }
                if used < INLINE {
                    ids[used] = id;
                    *len += 1;
                } else {
                    let mut set = FastSet::with_capacity_and_hasher(2 * INLINE, FxBuildHasher);
                    set.extend(ids.iter().copied());
                    set.insert(id);
                    *self = IdSet::Large(Box::new(set));
                }
                true
            }
            IdSet::Large(set) => set.insert(id),
        }
    }

    /// Removes an id; false if it was not there.
    pub(super) fn remove(&mut self, id: I) -> bool {
        match self {
            IdSet::Small { len, ids } => {
                let used = usize::from(*len);
                let Some(position) = ids[..used].iter().position(|other| *other == id) else {
                    return false;
                };
                ids[position] = ids[used - 1];
                *len -= 1;
                true
            }
            IdSet::Large(set) => set.swap_remove(&id),
        }
    }

    pub(super) fn clear(&mut self) {
        *self = IdSet::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_sets_behave_alike() {
        let mut set = IdSet::<TaskId>::default();
        let mut model = std::collections::BTreeSet::new();
        for i in 0..40 {
            let id = TaskId(i * 7 % 23);
            assert_eq!(set.insert(id), model.insert(id));
            assert_eq!(set.len(), model.len());
            if i % 3 == 0 {
                let gone = TaskId(i % 11);
                assert_eq!(set.remove(gone), model.remove(&gone));
            }
            assert!(model.iter().all(|id| set.contains(*id)));
            assert_eq!(set.iter().collect::<std::collections::BTreeSet<_>>(), model);
        }
        set.clear();
        assert!(set.is_empty());
    }

    #[test]
    fn a_set_of_ids_is_three_words() {
        assert_eq!(size_of::<IdSet<TaskId>>(), 24);
    }
}
