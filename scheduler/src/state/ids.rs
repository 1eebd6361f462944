//! Slot ids and small sets of them. Ids stay inside `state/`; keys and addresses are what leaves it.

use std::hash::{BuildHasherDefault, Hash, Hasher};

use dask_protocol::slots::{SMALL_TABLE, SPARSE_SHARE, Slot};
use indexmap::{IndexMap, IndexSet};
use rustc_hash::FxBuildHasher;

/// An insertion-ordered map with a fast hasher; removal swaps the last entry in.
pub(super) type FastMap<K, V> = IndexMap<K, V, FxBuildHasher>;
/// An insertion-ordered set of ids; removal swaps the last element in.
pub(super) type FastSet<I> = IndexSet<I, BuildIdHasher>;
/// An insertion-ordered map by id; removal swaps the last entry in.
pub(super) type IdMap<I, V> = IndexMap<I, V, BuildIdHasher>;
/// Makes [`IdHasher`]s.
pub(super) type BuildIdHasher = BuildHasherDefault<IdHasher>;

/// Hashes ids such that [`BLOCK`] of them in a row fall into one cache line or two of a table, and rows anywhere. Ids are
/// given out in the order in which tasks arrive, and tasks run and are forgotten in about that order: with a million of
/// them, each step would else wait for memory once or twice for every set it changes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct IdHasher(u64);

/// Ids in a row whose hashes differ in the lowest and highest bits only: a power of two. A table's control bytes for them
/// fill a cache line.
const BLOCK: u64 = 64;
/// 2^64 divided by the golden ratio: multiples are spread evenly.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u32(&mut self, id: u32) {
        let id = u64::from(id);
        let (block, place) = (id / BLOCK, id % BLOCK);
        // Tables take the lowest bits for the slot, and compare the seven highest ones before they look at the id.
        let scattered = (self.0 ^ block).wrapping_mul(SPREAD).rotate_left(32);
        self.0 = scattered ^ place ^ (place << 57);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }
}

/// Takes an id out of a set, which shrinks once it is nearly empty; false if it was not there.
pub(super) fn take_out<I: Hash + Eq>(set: &mut FastSet<I>, id: &I) -> bool {
    let found = set.swap_remove(id);
    if set.capacity() > SMALL_TABLE && set.len() < set.capacity() / SPARSE_SHARE {
        set.shrink_to(2 * set.len());
    }
    found
}

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

impl Slot for TaskId {
    fn from_index(index: usize) -> TaskId {
        TaskId::from_index(index)
    }

    fn index(self) -> usize {
        self.index()
    }
}

/// How many ids a set keeps in place; with its tag it then fills 16 bytes.
const INLINE: usize = 3;
/// How many ids are searched one by one: two cache lines of them.
const LISTED_MAX: usize = 32;

/// A set of ids in insertion order (until one is removed): in place while small, listed up to [`LISTED_MAX`], hashed when
/// large, so that a task with a hundred thousand dependents is as good as one with two.
#[derive(Debug, Clone)]
pub(super) enum IdSet<I> {
    /// Up to [`INLINE`] ids.
    Small {
        /// How many of `ids` are in use.
        len: u8,
        /// The ids.
        ids: [I; INLINE],
    },
    /// Some more.
    #[expect(clippy::box_collection, reason = "one word instead of three in every set; there are millions")]
    Listed(Box<Vec<I>>),
    /// More than these.
    Large(Box<FastSet<I>>),
}

impl<I: Copy + Default> Default for IdSet<I> {
    fn default() -> Self {
        IdSet::Small { len: 0, ids: [I::default(); INLINE] }
    }
}

impl<I: Copy + Default + Eq + Hash> IdSet<I> {
    /// The ids, unless they are hashed.
    fn listed(&self) -> Result<&[I], &FastSet<I>> {
        match self {
            IdSet::Small { len, ids } => Ok(&ids[..usize::from(*len)]),
            IdSet::Listed(ids) => Ok(ids),
            IdSet::Large(set) => Err(set),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            IdSet::Small { len, .. } => usize::from(*len),
            IdSet::Listed(ids) => ids.len(),
            IdSet::Large(set) => set.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn contains(&self, id: I) -> bool {
        match self.listed() {
            Ok(ids) => ids.contains(&id),
            Err(set) => set.contains(&id),
        }
    }

    /// The id at a position below `len`.
    pub(super) fn at(&self, position: usize) -> I {
        match self.listed() {
            Ok(ids) => ids[position],
            Err(set) => set[position],
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
                    let mut listed = Vec::with_capacity(2 * INLINE);
                    listed.extend_from_slice(ids);
                    listed.push(id);
                    *self = IdSet::Listed(Box::new(listed));
                }
                true
            }
            IdSet::Listed(ids) => {
                if ids.contains(&id) {
                    return false;
                }
                if ids.len() < LISTED_MAX {
                    ids.push(id);
                } else {
                    let mut set = FastSet::with_capacity_and_hasher(2 * LISTED_MAX, BuildIdHasher::default());
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
            IdSet::Listed(ids) => {
                let position = ids.iter().position(|other| *other == id);
                position.map(|position| ids.swap_remove(position)).is_some()
            }
            IdSet::Large(set) => take_out(set, &id),
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
        for i in 0..400 {
            let id = TaskId(i * 7 % 113);
            assert_eq!(set.insert(id), model.insert(id));
            assert_eq!(set.len(), model.len());
            if i % 3 == 0 {
                let gone = TaskId(i * 5 % 59);
                assert_eq!(set.remove(gone), model.remove(&gone));
            }
            assert!(model.iter().all(|id| set.contains(*id)));
            assert_eq!(set.iter().collect::<std::collections::BTreeSet<_>>(), model);
        }
        set.clear();
        assert!(set.is_empty());
    }

    /// How many of the ids share their place in a table, which has twice as many, with another.
    fn collisions(ids: impl Iterator<Item = u32>) -> f64 {
        use std::hash::BuildHasher;
        let ids: Vec<u32> = ids.collect();
        let slots = (2 * ids.len()).next_power_of_two() as u64;
        let places: std::collections::BTreeSet<u64> =
            ids.iter().map(|id| BuildIdHasher::default().hash_one(TaskId(*id)) % slots).collect();
        1.0 - places.len() as f64 / ids.len() as f64
    }

    #[test]
    fn ids_are_spread_over_a_table_whatever_is_between_them() {
        // Chance would have a fifth of them collide.
        for step in [1, 2, 3, 10, 63, 64, 65, 100, 1000, 1024, 4096, 65_536] {
            let collide = collisions((0..2000).map(|i| i * step));
            assert!(collide < 0.35, "{collide} of ids {step} apart");
        }
        assert!(collisions(0..100_000) < 0.35);
    }

    #[test]
    fn ids_in_a_row_are_neighbours_in_a_table() {
        use std::hash::BuildHasher;
        let hash = |id| BuildIdHasher::default().hash_one(TaskId(id));
        assert!((640..704).all(|id| hash(id) % (1 << 20) / BLOCK == hash(640) % (1 << 20) / BLOCK));
    }

    #[test]
    fn a_set_gives_memory_back_that_it_does_not_use() {
        let mut set: FastSet<TaskId> = (0..100_000).map(TaskId).collect();
        (0..99_000).for_each(|id| assert!(take_out(&mut set, &TaskId(id))));
        assert!(set.capacity() < 20_000, "{}", set.capacity());
        assert!((99_000..100_000).all(|id| set.contains(&TaskId(id))));
    }

    #[test]
    fn a_set_of_ids_is_two_words() {
        assert_eq!(size_of::<IdSet<TaskId>>(), 16);
    }
}
