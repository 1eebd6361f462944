//! Records by slot and by key: the tasks of a scheduler and of a worker.

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use hashbrown::hash_table::{Entry, HashTable};
use slab::Slab;

use crate::key::Key;
use crate::near_hash::near_hash;

/// Tables of fewer entries keep their memory whatever is taken out of them.
pub const SMALL_TABLE: usize = 4096;
/// Larger ones give memory back once they use only this part of it.
pub const SPARSE_SHARE: usize = 8;

/// The number of a slot, of a type of its own for each table.
pub trait Slot: Copy {
    /// The slot with this index; fewer than 2^32 are ever in use.
    fn from_index(index: usize) -> Self;
    /// Its index.
    fn index(self) -> usize;
}

/// What has a key.
pub trait Keyed {
    /// The key under which it is found.
    fn key(&self) -> &Key;
}

/// Records in numbered slots, which are used again, each found by its key as well.
#[derive(Debug)]
pub struct KeyedSlots<I, T> {
    slots: Slab<T>,
    /// Four bytes a record: the keys themselves are looked at in the slots, which whoever asks reads next anyway.
    numbers: HashTable<u32>,
    /// With how few records to try next to give memory back.
    sparse: usize,
    slot: PhantomData<fn() -> I>,
}

impl<I, T> Default for KeyedSlots<I, T> {
    fn default() -> KeyedSlots<I, T> {
        KeyedSlots { slots: Slab::new(), numbers: HashTable::new(), sparse: 0, slot: PhantomData }
    }
}

fn key_at<T: Keyed>(slots: &Slab<T>, number: u32) -> &Key {
    slots[number as usize].key()
}

impl<I: Slot, T: Keyed> KeyedSlots<I, T> {
    /// How many records there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many records there is memory for.
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// The slot of the record with this key.
    pub fn id(&self, key: &Key) -> Option<I> {
        let number = self.numbers.find(near_hash(key), |number| key_at(&self.slots, *number) == key)?;
        Some(I::from_index(*number as usize))
    }

    /// The record in a slot, if it is in use.
    pub fn get(&self, id: I) -> Option<&T> {
        self.slots.get(id.index())
    }

    /// The same, to be changed. Its key has to stay.
    pub fn get_mut(&mut self, id: I) -> Option<&mut T> {
        self.slots.get_mut(id.index())
    }

    /// Every record with its slot, in an order that is the same whenever the same was done before.
    pub fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        self.slots.iter().map(|(index, record)| (I::from_index(index), record))
    }

    /// Makes room for `additional` more.
    pub fn reserve(&mut self, additional: usize) {
        let slots = &self.slots;
        self.numbers.reserve(additional, |number| near_hash(key_at(slots, *number)));
        self.slots.reserve(additional);
    }

    /// The slot under a key, and whether it is new: then `make` built the record, which has that key.
    pub fn get_or_insert_with(&mut self, key: &Key, make: impl FnOnce() -> T) -> (I, bool) {
        let slots = &mut self.slots;
        let is_key = |number: &u32| key_at(slots, *number) == key;
        match self.numbers.entry(near_hash(key), is_key, |number| near_hash(key_at(slots, *number))) {
            Entry::Occupied(entry) => (I::from_index(*entry.get() as usize), false),
            Entry::Vacant(entry) => {
                let index = slots.insert(make());
                entry.insert(u32::try_from(index).expect("fewer than 2^32 slots are ever in use"));
                if slots.len() > 2 * self.sparse {
                    self.sparse = slots.len();
                }
                (I::from_index(index), true)
            }
        }
    }

    /// Takes the record out of a slot.
    ///
    /// # Panics
    /// When the slot is not in use.
    pub fn remove(&mut self, id: I) -> T {
        let record = self.slots.remove(id.index());
        let is_slot = |number: &u32| *number as usize == id.index();
        if let Ok(entry) = self.numbers.find_entry(near_hash(record.key()), is_slot) {
            entry.remove();
        }
        self.shrink();
        record
    }

    /// Gives memory back that nearly no record uses: that of the slots behind the last one in use, and of the keys. Whether
    /// it does depends on nothing but what was added and removed.
    fn shrink(&mut self) {
        let capacity = self.slots.capacity();
        if capacity <= SMALL_TABLE {
            return;
        }
        let few = self.slots.len() < (capacity / SPARSE_SHARE).min(self.sparse.max(1));
        if few {
            self.slots.shrink_to_fit();
            let slots = &self.slots;
            self.numbers.shrink_to(2 * slots.len(), |number| near_hash(key_at(slots, *number)));
            // A record in one of the last slots may have prevented it. Half as many may be worth another look.
            self.sparse = self.slots.len() / 2;
        }
    }
}

impl<I: Slot, T> Index<I> for KeyedSlots<I, T> {
    type Output = T;
    fn index(&self, id: I) -> &T {
        &self.slots[id.index()]
    }
}

impl<I: Slot, T> IndexMut<I> for KeyedSlots<I, T> {
    fn index_mut(&mut self, id: I) -> &mut T {
        &mut self.slots[id.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Slot for usize {
        fn from_index(index: usize) -> usize {
            index
        }
        fn index(self) -> usize {
            self
        }
    }

    impl Keyed for Key {
        fn key(&self) -> &Key {
            self
        }
    }

    fn name(n: u32) -> Key {
        Key::from(format!("x-{n}"))
    }

    fn add(records: &mut KeyedSlots<usize, Key>, n: u32) -> (usize, bool) {
        records.get_or_insert_with(&name(n), || name(n))
    }

    #[test]
    fn memory_comes_back_once_nearly_all_records_are_gone() {
        let mut records = KeyedSlots::default();
        let ids: Vec<usize> = (0..50_000).map(|n| add(&mut records, n).0).collect();
        // All but some of the first and one of the last.
        for id in &ids[100..49_999] {
            records.remove(*id);
        }
        assert_eq!((records.len(), records.capacity() >= 50_000), (101, true));
        records.remove(ids[49_999]);
        for id in &ids[40..100] {
            records.remove(*id);
        }
        assert!(records.capacity() < 1000, "{}", records.capacity());
        assert!((0..40).all(|n| records.id(&name(n)) == Some(ids[n as usize])));
        let (id, new) = add(&mut records, 7_000_000);
        assert!(new && records.id(&name(7_000_000)) == Some(id) && !ids[..40].contains(&id));
    }

    #[test]
    fn a_record_is_found_by_its_key_while_it_is_there() {
        let mut records = KeyedSlots::default();
        let (first, _) = add(&mut records, 1);
        assert_eq!(add(&mut records, 1), (first, false));
        assert_eq!(records.remove(first), name(1));
        assert!(records.id(&name(1)).is_none() && records.get(first).is_none() && records.is_empty());
    }
}
