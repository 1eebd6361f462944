//! Any value a message body may hold: msgpack plus dask's tagged maps.

use std::fmt;

use bytes::Bytes;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::key::{Key, KeyRef};
use crate::payload::{self, PICKLED_TAG, Payload, PayloadKind, SERIALIZED_TAG};

/// Deepest nesting of a value a peer may send.
pub const VALUE_DEPTH_MAX: usize = 128;

/// A decoded msgpack value, with sets, enums and payloads resolved. Maps keep their order and may have any key.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// `None`.
    #[default]
    Nil,
    /// `True` or `False`.
    Bool(bool),
    /// An integer that fits `i64`.
    Int(i64),
    /// An integer above `i64::MAX`.
    UInt(u64),
    /// A float.
    Float(f64),
    /// Text.
    Str(String),
    /// Bytes, shared with the message body where possible.
    Bin(Bytes),
    /// A list or tuple; Python reads arrays as tuples.
    Array(Vec<Value>),
    /// A dict, in order.
    Map(Vec<(Value, Value)>),
    /// A Python set.
    Set(Vec<Value>),
    /// A Python enum member; never imported here, only passed on.
    Enum(Box<EnumMember>),
    /// User data.
    Payload(Payload),
}

/// A member of one of Python's enums. In a box, as it is rare and would make every value twice as large.
#[derive(Debug, Clone, PartialEq)]
pub struct EnumMember {
    /// The member's name.
    pub name: String,
    /// The module of its class.
    pub module: String,
    /// Its class.
    pub class: String,
}

impl Value {
    /// A member of one of Python's enums.
    pub fn enum_member(name: &str, module: &str, class: &str) -> Value {
        let (name, module, class) = (name.to_owned(), module.to_owned(), class.to_owned());
        Value::Enum(Box::new(EnumMember { name, module, class }))
    }

    /// The text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::Str(s) = self { Some(s) } else { None }
    }

    /// The integer, if it is one that fits.
    pub fn as_i64(&self) -> Option<i64> {
        if let Value::Int(i) = self { Some(*i) } else { None }
    }

    /// The number as a float.
    #[expect(clippy::cast_precision_loss, reason = "Python's float(int) rounds the same way")]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Int(i) => Some(*i as f64),
            Value::UInt(u) => Some(*u as f64),
            Value::Float(f) => Some(*f),
            _ => None,
        }
    }

    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(b) = self { Some(*b) } else { None }
    }

    /// Whether it is nil.
    pub fn is_nil(&self) -> bool {
        matches!(self, Value::Nil)
    }

    /// The elements of an array or set.
    pub fn as_items(&self) -> Option<&[Value]> {
        match self {
            Value::Array(items) | Value::Set(items) => Some(items),
            _ => None,
        }
    }

    /// The entry of a map under a text key.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let Value::Map(entries) = self else { return None };
        entries.iter().find(|(k, _)| k.as_str() == Some(name)).map(|(_, v)| v)
    }

    /// The value as a task key, if it has one of the kinds allowed.
    pub fn to_key(&self) -> Option<Key> {
        match self {
            Value::Int(i) => Some(Key::from(*i)),
            Value::UInt(u) => Some(Key::from(*u)),
            Value::Float(f) => Some(Key::float(*f)),
            Value::Str(s) => Some(Key::from(s.as_str())),
            Value::Bin(b) => Some(Key::bytes(b.clone())),
            Value::Array(items) => items.iter().map(Value::to_key).collect::<Option<Vec<_>>>().map(Key::tuple),
            Value::Nil | Value::Bool(_) | Value::Map(_) | Value::Set(_) | Value::Enum(_) | Value::Payload(_) => None,
        }
    }

    /// A map with text keys.
    pub fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
        Value::Map(entries.into_iter().map(|(k, v)| (Value::from(k), v)).collect())
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Value {
        Value::Str(s.to_owned())
    }
}
impl From<String> for Value {
    fn from(s: String) -> Value {
        Value::Str(s)
    }
}
impl From<bool> for Value {
    fn from(b: bool) -> Value {
        Value::Bool(b)
    }
}
impl From<i32> for Value {
    fn from(i: i32) -> Value {
        Value::Int(i.into())
    }
}
impl From<i64> for Value {
    fn from(i: i64) -> Value {
        Value::Int(i)
    }
}
impl From<u64> for Value {
    fn from(u: u64) -> Value {
        i64::try_from(u).map_or(Value::UInt(u), Value::Int)
    }
}
impl From<usize> for Value {
    fn from(u: usize) -> Value {
        Value::from(u as u64)
    }
}
impl From<f64> for Value {
    fn from(f: f64) -> Value {
        Value::Float(f)
    }
}
impl From<Bytes> for Value {
    fn from(b: Bytes) -> Value {
        Value::Bin(b)
    }
}
impl From<Payload> for Value {
    fn from(p: Payload) -> Value {
        Value::Payload(p)
    }
}
impl From<&Key> for Value {
    fn from(key: &Key) -> Value {
        match key.as_ref() {
            KeyRef::Str(s) => Value::from(s),
            KeyRef::Int(i) => Value::Int(i),
            KeyRef::UInt(u) => Value::UInt(u),
            KeyRef::Float(f) => Value::Float(f),
            KeyRef::Bytes(b) => Value::Bin(Bytes::copy_from_slice(b)),
            KeyRef::Tuple(t) => Value::Array(t.iter().map(Value::from).collect()),
        }
    }
}
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Nil, Into::into)
    }
}
impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Value {
        Value::Array(items.into_iter().map(Into::into).collect())
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Nil => serializer.serialize_none(),
            Value::Bool(b) => serializer.serialize_bool(*b),
            Value::Int(i) => serializer.serialize_i64(*i),
            Value::UInt(u) => serializer.serialize_u64(*u),
            Value::Float(f) => serializer.serialize_f64(*f),
            Value::Str(s) => serializer.serialize_str(s),
            Value::Bin(b) => serializer.serialize_bytes(b),
            Value::Array(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(item)?;
                }
                seq.end()
            }
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (k, v) in entries {
                    map.serialize_entry(k, v)?;
                }
                map.end()
            }
            Value::Set(items) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("__Set__", &true)?;
                map.serialize_entry("as-list", items)?;
                map.end()
            }
            Value::Enum(member) => {
                let mut map = serializer.serialize_map(Some(4))?;
                map.serialize_entry("__Enum__", &true)?;
                map.serialize_entry("name", &member.name)?;
                map.serialize_entry("__module__", &member.module)?;
                map.serialize_entry("__name__", &member.class)?;
                map.end()
            }
            Value::Payload(p) => p.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        ValueSeed { depth: 0 }.deserialize(deserializer)
    }
}

#[derive(Clone, Copy)]
struct ValueSeed {
    depth: usize,
}

impl ValueSeed {
    fn deeper<E: de::Error>(self) -> Result<ValueSeed, E> {
        if self.depth >= VALUE_DEPTH_MAX {
            return Err(E::custom(format_args!("value nested deeper than {VALUE_DEPTH_MAX}")));
        }
        Ok(ValueSeed { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a msgpack value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }
    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }
    fn visit_i64<E>(self, i: i64) -> Result<Value, E> {
        Ok(Value::Int(i))
    }
    fn visit_u64<E>(self, u: u64) -> Result<Value, E> {
        Ok(Value::from(u))
    }
    fn visit_f64<E>(self, f: f64) -> Result<Value, E> {
        Ok(Value::Float(f))
    }
    fn visit_str<E>(self, s: &str) -> Result<Value, E> {
        Ok(Value::from(s))
    }
    fn visit_string<E>(self, s: String) -> Result<Value, E> {
        Ok(Value::Str(s))
    }
    fn visit_bytes<E>(self, b: &[u8]) -> Result<Value, E> {
        Ok(Value::Bin(payload::share_bytes(b)))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(seed)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(seed)? {
            let value = map.next_value_seed(seed)?;
            entries.push((key, value));
        }
        untag(entries).map_err(de::Error::custom)
    }
}

/// Turns dask's tagged maps into what they stand for.
fn untag(entries: Vec<(Value, Value)>) -> Result<Value, crate::error::DecodeError> {
    let Some((Value::Str(tag), first)) = entries.first() else {
        return Ok(Value::Map(entries));
    };
    let index = first.as_i64().and_then(|i| u64::try_from(i).ok()).filter(|&i| i >= 1);
    match (tag.as_str(), index, entries.len()) {
        (SERIALIZED_TAG, Some(i), 1) => payload::resolve(PayloadKind::Serialized, i).map(Value::Payload),
        (PICKLED_TAG, Some(i), 1) => payload::resolve(PayloadKind::Pickled, i).map(Value::Payload),
        ("__Set__" | "as-list", _, 2) => Ok(untag_set(entries)),
        ("__Enum__" | "name", _, 4) => Ok(untag_enum(entries)),
        _ => Ok(Value::Map(entries)),
    }
}

fn untag_set(entries: Vec<(Value, Value)>) -> Value {
    let map = Value::Map(entries);
    match (map.get("__Set__"), map.get("as-list")) {
        (Some(Value::Bool(true)), Some(Value::Array(items))) => Value::Set(items.clone()),
        _ => map,
    }
}

fn untag_enum(entries: Vec<(Value, Value)>) -> Value {
    let map = Value::Map(entries);
    let text = |name| map.get(name).and_then(Value::as_str).map(str::to_owned);
    match (map.get("__Enum__"), text("name"), text("__module__"), text("__name__")) {
        (Some(Value::Bool(true)), Some(name), Some(module), Some(class)) => {
            Value::Enum(Box::new(EnumMember { name, module, class }))
        }
        _ => map,
    }
}
