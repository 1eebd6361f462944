//! The worker's values. A value has one or several forms: typed in Rust, serialised, living in the Python process, on disk.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use dask_protocol::{Key, Payload};
use lru::LruCache;
use rustc_hash::FxBuildHasher;

use crate::native::NativeValue;
use crate::spill::Spilled;

/// Serialised copies up to this many bytes are kept beside a value that lives in Python, so that peers get it without
/// waiting for the interpreter. The Python side sends copies up to the same size.
pub const SMALL_COPY_BYTES_MAX: usize = 64 * 1024;

/// Smaller values stay in memory: a file takes more than they would free.
pub const MOVED_BYTES_MIN: i64 = 1024;

/// One value in all the forms it has here; at least one.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its size as the cluster accounts it, in bytes.
    pub nbytes: i64,
    /// The typed result of a native task.
    pub native: Option<NativeValue>,
    /// The form in which it travels.
    pub payload: Option<Payload>,
    /// Whether the Python process has it.
    pub in_python: bool,
    /// Its file.
    pub disk: Option<Arc<Spilled>>,
    /// Whether it can only be where it is (an actor).
    fixed: bool,
    /// Whether nothing can compute it again: it was put here from outside.
    pub is_scattered: bool,
    /// Which value under this key it is: a key may be freed and stored again.
    generation: u64,
}

impl Stored {
    /// A value that arrived from elsewhere.
    pub fn serialised(payload: Payload, nbytes: i64) -> Stored {
        Stored { payload: Some(payload), ..Stored::nowhere(nbytes) }
    }

    /// The result of a native task.
    pub fn native(value: NativeValue) -> Stored {
        let nbytes = i64::try_from(value.nbytes()).unwrap_or(i64::MAX);
        Stored { native: Some(value), ..Stored::nowhere(nbytes) }
    }

    /// A value of the Python process, with a serialised copy if it is small.
    pub fn python(nbytes: i64, copy: Option<Payload>) -> Stored {
        Stored { payload: copy, in_python: true, ..Stored::nowhere(nbytes) }
    }

    /// An actor of the Python process, with its proxy in serialised form.
    pub fn actor(nbytes: i64, proxy: Option<Payload>) -> Stored {
        Stored { fixed: true, ..Stored::python(nbytes, proxy) }
    }

    /// The same, put here from outside.
    pub fn scattered(self) -> Stored {
        Stored { is_scattered: true, ..self }
    }

    fn nowhere(nbytes: i64) -> Stored {
        Stored {
            nbytes,
            native: None,
            payload: None,
            in_python: false,
            disk: None,
            fixed: false,
            is_scattered: false,
            generation: 0,
        }
    }

    /// Whether it may go to disk.
    fn is_movable(&self) -> bool {
        !self.fixed && self.nbytes >= MOVED_BYTES_MIN
    }

    /// Whether any of its forms takes memory.
    pub fn is_in_memory(&self) -> bool {
        self.in_python || self.payload.is_some() || self.native.is_some()
    }

    /// Whether it is in the Python process and nowhere else.
    pub fn is_only_in_python(&self) -> bool {
        self.in_python && self.payload.is_none() && self.native.is_none() && self.disk.is_none()
    }

    /// Whether the other is the same value, stored once.
    pub fn is_same(&self, other: &Stored) -> bool {
        self.generation == other.generation
    }
}

/// All values of a worker, by key. Any thread may read.
#[derive(Debug, Default)]
pub struct Store {
    values: DashMap<Key, Stored, FxBuildHasher>,
    nbytes: AtomicI64,
    /// Of these, those of values that are on disk only.
    spilled_nbytes: AtomicI64,
    generations: AtomicU64,
    /// What is in memory and could be elsewhere, the longest unused last; only where something asks.
    recent: Option<Mutex<LruCache<Key, (), FxBuildHasher>>>,
}

impl Store {
    /// A store that knows which values were not used for the longest time.
    pub fn with_recency() -> Store {
        Store { recent: Some(Mutex::new(LruCache::unbounded_with_hasher(FxBuildHasher))), ..Store::default() }
    }

    /// Stores a value, replacing one of the same key.
    pub fn insert(&self, key: Key, mut value: Stored) {
        value.generation = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
        let movable = value.is_movable();
        self.count(&value, 1);
        let old = self.values.insert(key.clone(), value);
        if let Some(old) = &old {
            self.count(old, -1);
        }
        if movable {
            self.could_move(&key);
        } else if old.is_some_and(|old| old.is_movable()) {
            self.forget_use(&key);
        }
    }

    /// A value's forms.
    pub fn get(&self, key: &Key) -> Option<Stored> {
        self.values.get(key).map(|entry| entry.value().clone())
    }

    /// Drops a value; tells whether the Python process has it too.
    pub fn remove(&self, key: &Key) -> bool {
        let Some((_, old)) = self.values.remove(key) else { return false };
        self.count(&old, -1);
        if old.is_movable() {
            self.forget_use(key);
        }
        old.in_python
    }

    /// Drops this value, unless the key stands for another by now; tells whether it was there.
    pub fn remove_same(&self, key: &Key, value: &Stored) -> bool {
        let Some((_, old)) = self.values.remove_if(key, |_, stored| stored.is_same(value)) else { return false };
        self.forget_use(key);
        self.count(&old, -1);
        true
    }

    /// Notes that the Python process was given this value, and drops a serialised form too large to keep twice.
    pub fn handed_to_python(&self, key: &Key) {
        let back = self.change(key, |stored| {
            let away = !stored.is_in_memory();
            stored.in_python = true;
            if stored.payload.as_ref().is_some_and(|payload| payload.len() > SMALL_COPY_BYTES_MAX) {
                stored.payload = None;
            }
            away
        });
        if back == Some(true) {
            self.could_move(key);
        }
    }

    /// Notes that a value is on disk and leaves memory. `None` if it is not that value any more, else whether the Python
    /// process has it still.
    pub fn moved_to_disk(&self, key: &Key, value: &Stored, disk: Arc<Spilled>) -> Option<bool> {
        let in_python = self.change(key, |stored| {
            stored.is_same(value).then(|| {
                stored.disk = Some(disk);
                stored.payload = None;
                stored.native = None;
                std::mem::take(&mut stored.in_python)
            })
        })??;
        self.forget_use(key);
        Some(in_python)
    }

    /// Notes that a value on disk is in memory too.
    pub fn back_in_memory(&self, key: &Key, value: &Stored, payload: Payload) {
        let back = self.change(key, |stored| {
            let same = stored.is_same(value);
            if same {
                stored.payload = Some(payload);
            }
            same
        });
        if back == Some(true) {
            self.could_move(key);
        }
    }

    /// Drops the file of a value that is in memory too.
    pub fn drop_file(&self, key: &Key, value: &Stored) {
        self.change(key, |stored| {
            if stored.is_same(value) && stored.is_in_memory() {
                stored.disk = None;
            }
        });
    }

    /// Drops files of values that are in memory too; returns how many.
    pub fn drop_copies_on_disk(&self) -> usize {
        let mut dropped = 0;
        for mut entry in self.values.iter_mut() {
            if entry.is_in_memory() && entry.disk.take().is_some() {
                dropped += 1;
            }
        }
        dropped
    }

    /// A value is needed now. Of what stays in memory in any case nothing is noted.
    pub fn used(&self, key: &Key, value: &Stored) {
        if let Some(mut recent) = value.is_movable().then(|| self.recent()).flatten() {
            recent.promote(key);
        }
    }

    fn could_move(&self, key: &Key) {
        if let Some(mut recent) = self.recent() {
            recent.put(key.clone(), ());
        }
    }

    /// A value will stay in memory: it cannot be elsewhere, or is there no more.
    pub fn forget_use(&self, key: &Key) {
        if let Some(mut recent) = self.recent() {
            recent.pop(key);
        }
    }

    /// Values that were not used for the longest time, until they have `bytes` together or are `count`.
    pub fn coldest(&self, count: usize, bytes: i64) -> Vec<(Key, Stored)> {
        let keys: Vec<Key> = match self.recent() {
            Some(recent) => recent.iter().rev().take(count).map(|(key, ())| key.clone()).collect(),
            None => return Vec::new(),
        };
        let (mut found, mut sum) = (Vec::new(), 0);
        for key in keys {
            let Some(stored) = self.get(&key).filter(Stored::is_in_memory) else {
                // It went while it was noted as used.
                self.forget_use(&key);
                continue;
            };
            if sum >= bytes {
                break;
            }
            sum += stored.nbytes;
            found.push((key, stored));
        }
        found
    }

    /// Keys whose only form is the one in the Python process.
    pub fn only_in_python(&self) -> Vec<Key> {
        self.values.iter().filter(|entry| entry.value().is_only_in_python()).map(|entry| entry.key().clone()).collect()
    }

    /// Adds a serialised form to a value, of any size.
    pub fn keep_copy(&self, key: &Key, payload: Payload) {
        self.change(key, |stored| stored.payload = Some(payload));
    }

    /// Forgets what was only in the Python process; returns the keys.
    pub fn lose_python(&self) -> Vec<Key> {
        let keys: Vec<Key> = self.values.iter().filter(|it| it.in_python).map(|entry| entry.key().clone()).collect();
        let mut lost = Vec::new();
        for key in keys {
            let gone = self.change(&key, |stored| {
                stored.in_python = false;
                (!stored.is_in_memory(), stored.disk.is_none())
            });
            match gone {
                Some((true, true)) => lost.push(key),
                Some((true, false)) => self.forget_use(&key),
                Some((false, _)) | None => {}
            }
        }
        for key in &lost {
            self.remove(key);
        }
        lost
    }

    /// Keys held.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All keys, in no order.
    pub fn keys(&self) -> Vec<Key> {
        self.values.iter().map(|entry| entry.key().clone()).collect()
    }

    /// The sum of the values' sizes, on disk or not (`managed_bytes`).
    pub fn nbytes(&self) -> i64 {
        self.nbytes.load(Ordering::Relaxed)
    }

    /// The sum of the sizes of values that are on disk only (`spilled_bytes["memory"]`).
    pub fn spilled_nbytes(&self) -> i64 {
        self.spilled_nbytes.load(Ordering::Relaxed)
    }

    /// The sum of the sizes of values in memory.
    pub fn nbytes_in_memory(&self) -> i64 {
        self.nbytes() - self.spilled_nbytes()
    }

    /// Changes a value's forms and keeps the sums.
    fn change<T>(&self, key: &Key, change: impl FnOnce(&mut Stored) -> T) -> Option<T> {
        let mut entry = self.values.get_mut(key)?;
        self.count(&entry, -1);
        let changed = change(&mut entry);
        self.count(&entry, 1);
        Some(changed)
    }

    fn count(&self, value: &Stored, sign: i64) {
        self.nbytes.fetch_add(sign * value.nbytes, Ordering::Relaxed);
        if !value.is_in_memory() {
            self.spilled_nbytes.fetch_add(sign * value.nbytes, Ordering::Relaxed);
        }
    }

    fn recent(&self) -> Option<MutexGuard<'_, LruCache<Key, (), FxBuildHasher>>> {
        self.recent.as_ref().map(|recent| recent.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::spill::SpillDirectory;

    const KB: i64 = MOVED_BYTES_MIN;

    fn payload(n: usize) -> Payload {
        Payload::serialized("msgpack", None, vec![Bytes::from(vec![0; n])])
    }

    fn cold(store: &Store, count: usize, bytes: i64) -> Vec<Key> {
        store.coldest(count, bytes).into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn the_longest_unused_go_first() {
        let store = Store::with_recency();
        for key in ["a", "b", "c", "d"] {
            store.insert(key.into(), Stored::python(KB, None));
        }
        store.insert("small".into(), Stored::python(KB - 1, None));
        store.used(&"small".into(), &store.get(&"small".into()).expect("stored"));
        store.insert("actor".into(), Stored::actor(KB, None));
        store.used(&"a".into(), &store.get(&"a".into()).expect("stored"));
        store.remove(&"b".into());
        assert_eq!(cold(&store, 9, 9 * KB), ["c", "d", "a"].map(Key::from));
        assert_eq!(cold(&store, 9, KB + 1), ["c", "d"].map(Key::from));
        assert_eq!(cold(&store, 1, 9 * KB), ["c"].map(Key::from));
        store.forget_use(&"c".into());
        assert_eq!(cold(&store, 1, 9 * KB), ["d"].map(Key::from));
    }

    #[test]
    fn a_value_on_disk_takes_no_memory_until_it_is_back() {
        let home = tempfile::tempdir().expect("temporary directory");
        let storage = SpillDirectory::new(home.path(), None, None);
        let store = Store::with_recency();
        let key = Key::from("a");
        store.insert(key.clone(), Stored::python(KB, Some(payload(3))));
        let disk = Arc::new(storage.write(&payload(3)).expect("written"));
        let stored = store.get(&key).expect("stored");
        assert_eq!(store.moved_to_disk(&key, &stored, Arc::clone(&disk)), Some(true));
        assert_eq!((store.nbytes(), store.spilled_nbytes(), store.nbytes_in_memory()), (KB, KB, 0));
        assert_eq!(cold(&store, 9, 9 * KB), []);
        assert_eq!(store.lose_python(), [], "it is not there");
        store.handed_to_python(&key);
        assert_eq!((store.spilled_nbytes(), store.nbytes_in_memory()), (0, KB));
        assert_eq!(cold(&store, 9, 9 * KB), ["a"].map(Key::from));
        assert_eq!(store.only_in_python(), [], "the file is still there");
        store.drop_file(&key, &stored);
        assert!(store.get(&key).expect("stored").disk.is_none());
        let stored = store.get(&key).expect("stored");
        assert_eq!(store.moved_to_disk(&key, &stored, Arc::clone(&disk)), Some(true));
        store.drop_file(&key, &stored);
        store.handed_to_python(&key);
        assert_eq!(store.lose_python(), [], "and is what is left");
        assert_eq!(store.spilled_nbytes(), KB);
        store.insert(key.clone(), Stored::python(7, None));
        assert_eq!((store.nbytes(), store.spilled_nbytes()), (7, 0));
        assert_eq!(store.moved_to_disk(&key, &stored, disk), None, "another value by now");
        assert!(!store.remove_same(&key, &stored));
        assert_eq!(storage.used(), 0);
    }

    #[test]
    fn sizes_follow_inserts_replacements_and_removals() {
        let store = Store::default();
        store.insert("a".into(), Stored::serialised(payload(4), 10));
        store.insert("a".into(), Stored::python(7, None));
        store.insert("b".into(), Stored::native(NativeValue::new(1_u8)));
        assert_eq!((store.nbytes(), store.len()), (8, 2));
        assert!(store.remove(&"a".into()));
        assert!(!store.remove(&"a".into()));
        assert_eq!(store.nbytes(), 1);
    }

    #[test]
    fn a_large_serialised_form_is_not_kept_beside_pythons() {
        let store = Store::default();
        store.insert("small".into(), Stored::serialised(payload(10), 10));
        store.insert("large".into(), Stored::serialised(payload(SMALL_COPY_BYTES_MAX + 1), 10));
        for key in ["small", "large"] {
            store.handed_to_python(&key.into());
        }
        assert!(store.get(&"small".into()).expect("stored").payload.is_some());
        assert!(store.get(&"large".into()).expect("stored").payload.is_none());
        assert_eq!(store.lose_python(), [Key::from("large")]);
    }
}
