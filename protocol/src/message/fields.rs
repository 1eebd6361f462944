//! Field types that several messages share.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use crate::address::Address;
use crate::key::Key;
use crate::value::Value;

/// What set a chain of transitions off, such as `compute-task-1700000000.1`; the thread through all logs.
pub type StimulusId = Arc<str>;

/// A stimulus id of a moment, in seconds since the epoch: the cause and the time to the microsecond. The shortest digits of a float,
/// which upstream writes, would take longer to find than a task to be placed.
pub fn stimulus_at(cause: &str, seconds: f64) -> StimulusId {
    let micros = (seconds.max(0.0) * 1e6) as u64;
    let mut digits = itoa::Buffer::new();
    let mut text = SmallVec::<[u8; 64]>::from_slice(cause.as_bytes());
    text.push(b'-');
    text.extend_from_slice(digits.format(micros / 1_000_000).as_bytes());
    // The one in front keeps zeros at the beginning, and makes room for the point.
    text.extend_from_slice(digits.format(1_000_000 + micros % 1_000_000).as_bytes());
    let point = text.len() - 7;
    text[point] = b'.';
    std::str::from_utf8(&text).expect("a text and digits").into()
}

/// A text that is short nearly always, such as the name of a type: up to 24 bytes need no memory of their own.
pub type ShortText = compact_str::CompactString;

/// Which execution of a task a message speaks of. Fresh for every `compute-task`; never reused.
pub type RunId = i64;

/// Ordered pairs that travel as a map, such as `who_has`.
#[derive(Clone, PartialEq)]
pub struct Pairs<K, V>(pub Vec<(K, V)>);

impl<K, V> Default for Pairs<K, V> {
    fn default() -> Self {
        Pairs(Vec::new())
    }
}
impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Pairs<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(k, v)| (k, v))).finish()
    }
}
impl<K, V> FromIterator<(K, V)> for Pairs<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(iter: I) -> Self {
        Pairs(iter.into_iter().collect())
    }
}
impl<K, V> IntoIterator for Pairs<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
impl<K, V> std::ops::Deref for Pairs<K, V> {
    type Target = Vec<(K, V)>;
    fn deref(&self) -> &Vec<(K, V)> {
        &self.0
    }
}
impl<K: Serialize, V: Serialize> Serialize for Pairs<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (k, v) in &self.0 {
            map.serialize_entry(k, v)?;
        }
        map.end()
    }
}
impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Pairs<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor<K, V>(PhantomData<(K, V)>);
        impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for PairsVisitor<K, V> {
            type Value = Pairs<K, V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

/// A list of keys; accepted as an array or as a tagged set, sent as an array.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Keys(pub Vec<Key>);

impl From<Vec<Key>> for Keys {
    fn from(keys: Vec<Key>) -> Keys {
        Keys(keys)
    }
}
impl FromIterator<Key> for Keys {
    fn from_iter<I: IntoIterator<Item = Key>>(iter: I) -> Keys {
        Keys(iter.into_iter().collect())
    }
}
impl std::ops::Deref for Keys {
    type Target = Vec<Key>;
    fn deref(&self) -> &Vec<Key> {
        &self.0
    }
}
impl IntoIterator for Keys {
    type Item = Key;
    type IntoIter = std::vec::IntoIter<Key>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
impl Serialize for Keys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Keys, D::Error> {
        struct KeysVisitor;
        impl<'de> Visitor<'de> for KeysVisitor {
            type Value = Keys;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array or set of keys")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some(key) = seq.next_element()? {
                    keys.push(key);
                }
                Ok(Keys(keys))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = None;
                while let Some(name) = map.next_key::<String>()? {
                    if name == "as-list" {
                        keys = Some(map.next_value::<Vec<Key>>()?);
                    } else {
                        map.next_value::<serde::de::IgnoredAny>()?;
                    }
                }
                keys.map(Keys).ok_or_else(|| serde::de::Error::missing_field("as-list"))
            }
        }
        deserializer.deserialize_any(KeysVisitor)
    }
}

/// A task's priority: smaller runs first, compared element by element as Python compares tuples.
///
/// The scheduler makes `[-user priority, generation, order]`; a worker appends its own counter.
#[derive(Debug, Clone, Default)]
pub struct Priority(pub SmallVec<[f64; 4]>);

impl Priority {
    /// The scheduler's triple.
    pub fn new(negated_user: f64, generation: f64, order: f64) -> Priority {
        Priority(SmallVec::from_slice(&[negated_user, generation, order]))
    }

    /// With one more element at the end.
    #[must_use]
    pub fn extended(&self, last: f64) -> Priority {
        let mut parts = self.0.clone();
        parts.push(last);
        Priority(parts)
    }
}
impl Ord for Priority {
    fn cmp(&self, other: &Priority) -> std::cmp::Ordering {
        let pairs = self.0.iter().zip(&other.0).map(|(a, b)| a.total_cmp(b));
        pairs.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then).then(self.0.len().cmp(&other.0.len()))
    }
}
impl PartialOrd for Priority {
    fn partial_cmp(&self, other: &Priority) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Priority {
    fn eq(&self, other: &Priority) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Priority {}

impl Serialize for Priority {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for &part in &self.0 {
            match integral(part) {
                Some(whole) => seq.serialize_element(&whole)?,
                None => seq.serialize_element(&part)?,
            }
        }
        seq.end()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "checked to be integral and in range")]
fn integral(x: f64) -> Option<i64> {
    (x.fract() == 0.0 && x.abs() < 9.0e15).then_some(x as i64)
}

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Priority, D::Error> {
        const PARTS_MAX: usize = 16;
        let parts = Vec::<f64>::deserialize(deserializer)?;
        if parts.len() > PARTS_MAX {
            return Err(serde::de::Error::custom("priority has too many elements"));
        }
        Ok(Priority(SmallVec::from_vec(parts)))
    }
}

/// A worker's status, as `distributed.core.Status` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerStatus {
    /// Connecting; gets no tasks yet.
    Init,
    /// Takes tasks.
    Running,
    /// Over its memory limit: runs what it has, starts nothing.
    Paused,
    /// Asked to hand over its data and leave.
    ClosingGracefully,
    /// Leaving.
    Closing,
    /// Gone.
    Closed,
}

impl WorkerStatus {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            WorkerStatus::Init => "init",
            WorkerStatus::Running => "running",
            WorkerStatus::Paused => "paused",
            WorkerStatus::ClosingGracefully => "closing_gracefully",
            WorkerStatus::Closing => "closing",
            WorkerStatus::Closed => "closed",
        }
    }
}

/// A timed part of a task's life (`compute`, `transfer`, `disk-read`, ...), in seconds of the scheduler's clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartStop {
    /// What was done.
    pub action: ShortText,
    /// When it began.
    pub start: f64,
    /// When it ended.
    pub stop: f64,
    /// The worker a transfer came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Address>,
}

/// Which workers hold each key.
pub type WhoHas = Pairs<Key, Vec<Address>>;
/// Bytes of each key; -1 where unknown.
pub type Nbytes = Pairs<Key, i64>;
/// Amounts of named resources.
pub type Resources = Pairs<String, f64>;

/// A user's exception as it travels: a payload, bare pickle bytes, or nil. Opaque to the engine.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ErrorInfo {
    /// The exception.
    pub exception: Value,
    /// The traceback, or nil.
    pub traceback: Value,
    /// `repr` of the exception.
    pub exception_text: Arc<str>,
    /// The traceback as text.
    pub traceback_text: Arc<str>,
}

#[cfg(test)]
mod tests {
    use super::stimulus_at;

    #[test]
    fn stimulus_ids_tell_the_time_to_the_microsecond() {
        assert_eq!(&*stimulus_at("cancel-key", 1_700_000_000.25), "cancel-key-1700000000.250000");
        assert_eq!(&*stimulus_at("x", 12.000_042), "x-12.000042");
        assert_eq!(&*stimulus_at("x", 0.0), "x-0.000000");
        assert_eq!(&*stimulus_at("x", -1.0), "x-0.000000");
    }
}
