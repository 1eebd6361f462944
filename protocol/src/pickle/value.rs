//! Plain Python values, as they appear in small pickles.

use bytes::Bytes;

use crate::key::{Key, KeyRef};
use crate::payload::Payload;
use crate::value::Value;

/// A Python value of a builtin type, or an object kept as its pickle.
#[derive(Debug, Clone, PartialEq)]
pub enum PickleValue {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An `int` that fits `i64`.
    Int(i64),
    /// An `int` above `i64::MAX` that fits `u64`.
    UInt(u64),
    /// A `float`.
    Float(f64),
    /// A `str`.
    Str(String),
    /// `bytes` or `bytearray`.
    Bytes(Bytes),
    /// A `list`.
    List(Vec<PickleValue>),
    /// A plain `tuple` (named tuples are [`PickleValue::Opaque`]).
    Tuple(Vec<PickleValue>),
    /// A `set`, in the order it was pickled.
    Set(Vec<PickleValue>),
    /// A `frozenset`, in the order it was pickled.
    FrozenSet(Vec<PickleValue>),
    /// A `dict`, in order.
    Dict(Vec<(PickleValue, PickleValue)>),
    /// Anything else: a function, a class, an instance.
    Opaque(Box<Opaque>),
}

/// An object that only Python can build, with what can be said about it from outside.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Opaque {
    /// Module of the class or function, when the pickle names it directly.
    pub module: String,
    /// Qualified name of the class or function, when the pickle names it directly.
    pub name: String,
    /// The arguments it is built from, when they are plain: the fields of a named tuple, for example.
    pub args: Vec<PickleValue>,
    /// A self-contained pickle of the object.
    pub pickle: Bytes,
    /// The out-of-band buffers of that pickle.
    pub buffers: Vec<Bytes>,
}

impl PickleValue {
    /// The text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        if let PickleValue::Str(s) = self { Some(s) } else { None }
    }

    /// The integer, if it is one that fits `i64`.
    pub fn as_i64(&self) -> Option<i64> {
        if let PickleValue::Int(i) = self { Some(*i) } else { None }
    }

    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let PickleValue::Bool(b) = self { Some(*b) } else { None }
    }

    /// The elements of a list, tuple, set or frozenset.
    pub fn as_items(&self) -> Option<&[PickleValue]> {
        match self {
            PickleValue::List(items)
            | PickleValue::Tuple(items)
            | PickleValue::Set(items)
            | PickleValue::FrozenSet(items) => Some(items),
            PickleValue::None
            | PickleValue::Bool(_)
            | PickleValue::Int(_)
            | PickleValue::UInt(_)
            | PickleValue::Float(_)
            | PickleValue::Str(_)
            | PickleValue::Bytes(_)
            | PickleValue::Dict(_)
            | PickleValue::Opaque(_) => None,
        }
    }

    /// The entries of a dict.
    pub fn as_entries(&self) -> Option<&[(PickleValue, PickleValue)]> {
        if let PickleValue::Dict(entries) = self { Some(entries) } else { None }
    }

    /// The entry of a dict under a text key.
    pub fn get(&self, name: &str) -> Option<&PickleValue> {
        self.as_entries()?.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
    }

    /// The value as a task key, if it has one of the kinds allowed.
    pub fn to_key(&self) -> Option<Key> {
        match self {
            PickleValue::Bool(b) => Some(Key::from(i64::from(*b))),
            PickleValue::Int(i) => Some(Key::from(*i)),
            PickleValue::UInt(u) => Some(Key::from(*u)),
            PickleValue::Float(f) => Some(Key::float(*f)),
            PickleValue::Str(s) => Some(Key::from(s.as_str())),
            PickleValue::Bytes(b) => Some(Key::bytes(b.clone())),
            PickleValue::Tuple(items) => {
                items.iter().map(PickleValue::to_key).collect::<Option<Vec<_>>>().map(Key::tuple)
            }
            PickleValue::None
            | PickleValue::List(_)
            | PickleValue::Set(_)
            | PickleValue::FrozenSet(_)
            | PickleValue::Dict(_)
            | PickleValue::Opaque(_) => None,
        }
    }

    /// The first object in it that only Python can build.
    pub fn first_opaque(&self) -> Option<&Opaque> {
        match self {
            PickleValue::Opaque(object) => Some(object),
            PickleValue::Dict(entries) => {
                entries.iter().find_map(|(key, value)| key.first_opaque().or_else(|| value.first_opaque()))
            }
            other => other.as_items()?.iter().find_map(PickleValue::first_opaque),
        }
    }

    /// A message value as Python would have it; `None` for payloads and enums, which are no plain values.
    pub fn from_value(value: Value) -> Option<PickleValue> {
        let all = |items: Vec<Value>| items.into_iter().map(PickleValue::from_value).collect::<Option<Vec<_>>>();
        Some(match value {
            Value::Nil => PickleValue::None,
            Value::Bool(b) => PickleValue::Bool(b),
            Value::Int(i) => PickleValue::Int(i),
            Value::UInt(u) => PickleValue::UInt(u),
            Value::Float(f) => PickleValue::Float(f),
            Value::Str(s) => PickleValue::Str(s),
            Value::Bin(b) => PickleValue::Bytes(b),
            Value::Array(items) => PickleValue::List(all(items)?),
            Value::Set(items) => PickleValue::Set(all(items)?),
            Value::Map(entries) => PickleValue::Dict(
                entries
                    .into_iter()
                    .map(|(key, value)| Some((PickleValue::from_value(key)?, PickleValue::from_value(value)?)))
                    .collect::<Option<_>>()?,
            ),
            Value::Enum(_) | Value::Payload(_) => return None,
        })
    }

    /// As a message value: tuples and lists become arrays, frozensets sets, opaque objects pickled payloads.
    pub fn to_value(&self) -> Value {
        let all = |items: &[PickleValue]| items.iter().map(PickleValue::to_value).collect();
        match self {
            PickleValue::None => Value::Nil,
            PickleValue::Bool(b) => Value::Bool(*b),
            PickleValue::Int(i) => Value::Int(*i),
            PickleValue::UInt(u) => Value::UInt(*u),
            PickleValue::Float(f) => Value::Float(*f),
            PickleValue::Str(s) => Value::Str(s.clone()),
            PickleValue::Bytes(b) => Value::Bin(b.clone()),
            PickleValue::List(items) | PickleValue::Tuple(items) => Value::Array(all(items)),
            PickleValue::Set(items) | PickleValue::FrozenSet(items) => Value::Set(all(items)),
            PickleValue::Dict(entries) => {
                Value::Map(entries.iter().map(|(key, value)| (key.to_value(), value.to_value())).collect())
            }
            PickleValue::Opaque(object) => {
                Value::Payload(Payload::pickled(object.pickle.clone(), object.buffers.clone()))
            }
        }
    }
}

impl From<&Key> for PickleValue {
    fn from(key: &Key) -> PickleValue {
        match key.as_ref() {
            KeyRef::Str(s) => PickleValue::from(s),
            KeyRef::Int(i) => PickleValue::Int(i),
            KeyRef::UInt(u) => PickleValue::UInt(u),
            KeyRef::Float(f) => PickleValue::Float(f),
            KeyRef::Bytes(b) => PickleValue::Bytes(Bytes::copy_from_slice(b)),
            KeyRef::Tuple(parts) => PickleValue::Tuple(parts.iter().map(PickleValue::from).collect()),
        }
    }
}
impl From<&str> for PickleValue {
    fn from(s: &str) -> PickleValue {
        PickleValue::Str(s.to_owned())
    }
}
impl From<String> for PickleValue {
    fn from(s: String) -> PickleValue {
        PickleValue::Str(s)
    }
}
impl From<bool> for PickleValue {
    fn from(b: bool) -> PickleValue {
        PickleValue::Bool(b)
    }
}
impl From<i32> for PickleValue {
    fn from(i: i32) -> PickleValue {
        PickleValue::Int(i.into())
    }
}
impl From<i64> for PickleValue {
    fn from(i: i64) -> PickleValue {
        PickleValue::Int(i)
    }
}
impl From<f64> for PickleValue {
    fn from(f: f64) -> PickleValue {
        PickleValue::Float(f)
    }
}
