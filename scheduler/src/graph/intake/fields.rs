//! The fields of `update-graph` that are more than plain values.

use std::collections::HashSet;

use bytes::Bytes;
use dask_protocol::pickle::{PickleValue, loads_plain};
use dask_protocol::{Key, Payload, PayloadKind, Value};
use rustc_hash::FxBuildHasher;

use super::error::IntakeError;
use crate::graph::helper::PickleFrames;

/// Annotations that apply to the whole graph.
#[derive(Debug)]
pub(super) enum GlobalAnnotations {
    /// Plain values by name.
    Plain(Vec<(String, Value)>),
    /// Something in it only Python can evaluate, such as a function of the key.
    NeedPython(PickleFrames),
}

impl GlobalAnnotations {
    /// Reads the `annotations` field: nil, a map, or a pickled dict.
    ///
    /// # Errors
    /// [`IntakeError::Field`] when it is none of these.
    pub(super) fn read(field: &Value) -> Result<GlobalAnnotations, IntakeError> {
        let wrong = || IntakeError::field("annotations", "a dict", field);
        match field {
            Value::Nil => Ok(GlobalAnnotations::Plain(Vec::new())),
            Value::Map(entries) => {
                let named = entries.iter().map(|(name, value)| Some((name.as_str()?.to_owned(), value.clone())));
                named.collect::<Option<_>>().map(GlobalAnnotations::Plain).ok_or_else(wrong)
            }
            Value::Payload(payload) => {
                let frames = pickle_frames(payload).ok_or_else(wrong)?;
                let plain = loads_plain(&frames.0, &frames.1).ok().as_ref().and_then(plain_entries);
                Ok(plain.map_or(GlobalAnnotations::NeedPython(frames), GlobalAnnotations::Plain))
            }
            Value::Bool(_)
            | Value::Int(_)
            | Value::UInt(_)
            | Value::Float(_)
            | Value::Str(_)
            | Value::Bin(_)
            | Value::Array(_)
            | Value::Set(_)
            | Value::Enum(_) => Err(wrong()),
        }
    }
}

/// The entries of a dict of plain values; `None` if an object is among them.
fn plain_entries(value: &PickleValue) -> Option<Vec<(String, Value)>> {
    let entries = match value {
        PickleValue::None => &[],
        value => value.as_entries()?,
    };
    let entry = |(name, value): &(PickleValue, PickleValue)| {
        is_plain(value).then(|| Some((name.as_str()?.to_owned(), value.to_value())))?
    };
    entries.iter().map(entry).collect()
}

fn is_plain(value: &PickleValue) -> bool {
    match value {
        PickleValue::None
        | PickleValue::Bool(_)
        | PickleValue::Int(_)
        | PickleValue::UInt(_)
        | PickleValue::Float(_)
        | PickleValue::Str(_)
        | PickleValue::Bytes(_) => true,
        PickleValue::List(items)
        | PickleValue::Tuple(items)
        | PickleValue::Set(items)
        | PickleValue::FrozenSet(items) => items.iter().all(is_plain),
        PickleValue::Dict(entries) => entries.iter().all(|(key, value)| is_plain(key) && is_plain(value)),
        PickleValue::Opaque(_) => false,
    }
}

/// The pickle in a payload of either kind, with its buffers; `None` if it is no pickle.
pub(super) fn pickle_frames(payload: &Payload) -> Option<PickleFrames> {
    let header = payload.sub_header().ok()?;
    let mut frames = payload.logical_frames().ok()?;
    match payload.kind() {
        PayloadKind::Pickled => Some((header.pickled_obj?, frames)),
        PayloadKind::Serialized if header.serializer.as_deref() == Some("pickle") && !frames.is_empty() => {
            let pickle: Bytes = frames.remove(0);
            Some((pickle, frames))
        }
        PayloadKind::Serialized => None,
    }
}

/// A small pickled field that is kept for display only: what cannot be read is nil.
pub(super) fn read_display(field: &Value) -> Value {
    match field {
        Value::Payload(payload) => pickle_frames(payload)
            .and_then(|(pickle, buffers)| loads_plain(&pickle, &buffers).ok())
            .map_or(Value::Nil, |value| value.to_value()),
        plain => plain.clone(),
    }
}

/// The keys whose results are actors.
///
/// # Errors
/// [`IntakeError::Field`] unless the field is nil, a bool or keys.
pub(super) fn actors(field: &Value, wanted: &[Key]) -> Result<HashSet<Key, FxBuildHasher>, IntakeError> {
    let wrong = || IntakeError::field("actors", "a bool or a list of keys", field);
    match field {
        Value::Nil | Value::Bool(false) => Ok(HashSet::default()),
        Value::Bool(true) => Ok(wanted.iter().cloned().collect()),
        Value::Array(keys) | Value::Set(keys) => {
            keys.iter().map(Value::to_key).collect::<Option<_>>().ok_or_else(wrong)
        }
        Value::Int(_)
        | Value::UInt(_)
        | Value::Float(_)
        | Value::Str(_)
        | Value::Bin(_)
        | Value::Map(_)
        | Value::Enum(_)
        | Value::Payload(_) => Err(wrong()),
    }
}

/// The fields that need no look at the graph, in the form the rest of the intake uses.
#[derive(Debug)]
pub(super) struct Settled {
    /// The keys wanted.
    pub(super) keys: Vec<Key>,
    /// Those of them that make actors.
    pub(super) actors: HashSet<Key, FxBuildHasher>,
    /// The client's own order, if it gave any.
    pub(super) internal_priority: Option<Vec<(Key, f64)>>,
    /// Seconds within which graphs share a generation.
    pub(super) fifo_timeout: f64,
    /// Priority of tasks that are not annotated with one.
    pub(super) user_priority: f64,
}
