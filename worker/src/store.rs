//! The worker's values. A value has one or several forms: typed in Rust, serialised, or living in the Python process.

use std::sync::atomic::{AtomicI64, Ordering};

use dashmap::DashMap;
use dask_protocol::{Key, Payload};
use rustc_hash::FxBuildHasher;

use crate::native::NativeValue;

/// Serialised copies up to this many bytes are kept beside a value that lives in Python, so that peers get it without
/// waiting for the interpreter. The Python side sends copies up to the same size.
pub const SMALL_COPY_BYTES_MAX: usize = 64 * 1024;

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
}

impl Stored {
    /// A value that arrived from elsewhere.
    pub fn serialised(payload: Payload, nbytes: i64) -> Stored {
        Stored { nbytes, native: None, payload: Some(payload), in_python: false }
    }

    /// The result of a native task.
    pub fn native(value: NativeValue) -> Stored {
        let nbytes = i64::try_from(value.nbytes()).unwrap_or(i64::MAX);
        Stored { nbytes, native: Some(value), payload: None, in_python: false }
    }

    /// A value of the Python process, with a serialised copy if it is small.
    pub fn python(nbytes: i64, copy: Option<Payload>) -> Stored {
        Stored { nbytes, native: None, payload: copy, in_python: true }
    }
}

/// All values of a worker, by key. Any thread may read.
#[derive(Debug, Default)]
pub struct Store {
    values: DashMap<Key, Stored, FxBuildHasher>,
    nbytes: AtomicI64,
}

impl Store {
    /// Stores a value, replacing one of the same key.
    pub fn insert(&self, key: Key, value: Stored) {
        self.nbytes.fetch_add(value.nbytes, Ordering::Relaxed);
        if let Some(old) = self.values.insert(key, value) {
            self.nbytes.fetch_sub(old.nbytes, Ordering::Relaxed);
        }
    }

    /// A value's forms.
    pub fn get(&self, key: &Key) -> Option<Stored> {
        self.values.get(key).map(|entry| entry.value().clone())
    }

    /// Drops a value; tells whether the Python process has it too.
    pub fn remove(&self, key: &Key) -> bool {
        let Some((_, old)) = self.values.remove(key) else { return false };
        self.nbytes.fetch_sub(old.nbytes, Ordering::Relaxed);
        old.in_python
    }

    /// Notes that the Python process was given this value, and drops a serialised form too large to keep twice.
    pub fn handed_to_python(&self, key: &Key) {
        if let Some(mut entry) = self.values.get_mut(key) {
            entry.in_python = true;
            if entry.payload.as_ref().is_some_and(|payload| payload.len() > SMALL_COPY_BYTES_MAX) {
                entry.payload = None;
            }
        }
    }

    /// Keys whose only form is the one in the Python process.
    pub fn only_in_python(&self) -> Vec<Key> {
        let only = |stored: &Stored| stored.in_python && stored.payload.is_none() && stored.native.is_none();
        self.values.iter().filter(|entry| only(entry.value())).map(|entry| entry.key().clone()).collect()
    }

    /// Adds a serialised form to a value, of any size.
    pub fn keep_copy(&self, key: &Key, payload: Payload) {
        if let Some(mut entry) = self.values.get_mut(key) {
            entry.payload = Some(payload);
        }
    }

    /// Forgets what was only in the Python process; returns the keys.
    pub fn lose_python(&self) -> Vec<Key> {
        let mut lost = Vec::new();
        for mut entry in self.values.iter_mut() {
            entry.in_python = false;
            if entry.payload.is_none() && entry.native.is_none() {
                lost.push(entry.key().clone());
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

    /// The sum of the values' sizes (`managed_bytes`).
    pub fn nbytes(&self) -> i64 {
        self.nbytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn payload(n: usize) -> Payload {
        Payload::serialized("msgpack", None, vec![Bytes::from(vec![0; n])])
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
