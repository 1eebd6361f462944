//! Native tasks on the wire: a registered function's name and its arguments, in msgpack.
//!
//! The scheduler forwards them as any other `run_spec`. Results travel in the `msgpack` family, which Python peers read.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::DecodeError;
use crate::key::Key;
use crate::message::from_slice;
use crate::payload::{NATIVE_SERIALIZER, Payload};

/// Family of the values that native tasks make: one msgpack value, readable by Python.
pub const VALUE_SERIALIZER: &str = "msgpack";

/// A call of a function registered in the worker's binary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NativeCall {
    /// The name it is registered under.
    pub function: String,
    /// Its arguments, in order.
    pub args: Vec<NativeArg>,
}

/// One argument of a native call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum NativeArg {
    /// A value, packed with rmp-serde.
    Value(Bytes),
    /// The result of another task.
    Future(Key),
    /// Several arguments collected into a list.
    List(Vec<NativeArg>),
}

impl NativeCall {
    /// The `run_spec` of a task that makes this call.
    pub fn to_payload(&self) -> Payload {
        let packed = rmp_serde::to_vec_named(self).expect("a call of bytes and keys always packs");
        Payload::serialized(NATIVE_SERIALIZER, Some(&self.function), vec![packed.into()])
    }

    /// Reads a `run_spec` back.
    ///
    /// # Errors
    /// [`DecodeError`] when the payload is no native call.
    pub fn from_payload(payload: &Payload) -> Result<NativeCall, DecodeError> {
        if !is_native(payload)? {
            return Err(DecodeError::Field { field: "run_spec", expected: "a native call" });
        }
        let frames = payload.logical_frames()?;
        let [frame] = frames.as_slice() else {
            return Err(DecodeError::FrameTable("a native call has exactly one frame"));
        };
        from_slice(frame)
    }

    /// The keys it reads, each once, in order of first use.
    pub fn dependencies(&self) -> Vec<Key> {
        let mut seen = indexmap::IndexSet::<Key, rustc_hash::FxBuildHasher>::default();
        let mut pending: Vec<&NativeArg> = self.args.iter().rev().collect();
        while let Some(arg) = pending.pop() {
            match arg {
                NativeArg::Value(_) => {}
                NativeArg::Future(key) => {
                    seen.insert(key.clone());
                }
                NativeArg::List(inner) => pending.extend(inner.iter().rev()),
            }
        }
        seen.into_iter().collect()
    }
}

/// Whether a `run_spec` is a native call rather than a pickle.
///
/// # Errors
/// [`DecodeError`] when its header cannot be read.
pub fn is_native(payload: &Payload) -> Result<bool, DecodeError> {
    Ok(payload.sub_header()?.serializer.as_deref() == Some(NATIVE_SERIALIZER))
}

/// Packs a native value as a payload that Rust and Python peers read.
///
/// # Errors
/// The packing error when the value's `Serialize` refuses.
pub fn pack_value<T: Serialize + ?Sized>(value: &T) -> Result<Payload, rmp_serde::encode::Error> {
    let packed = rmp_serde::to_vec_named(value)?;
    Ok(Payload::serialized(VALUE_SERIALIZER, Some(std::any::type_name::<T>()), vec![packed.into()]))
}

/// Unpacks a value made by [`pack_value`], or by a Python peer with the `msgpack` serializer.
///
/// # Errors
/// [`DecodeError`] naming the family found when it is another one, or the type mismatch.
pub fn unpack_value<T: serde::de::DeserializeOwned>(payload: &Payload) -> Result<T, DecodeError> {
    let header = payload.sub_header()?;
    if header.serializer.as_deref() != Some(VALUE_SERIALIZER) {
        let family = header.serializer.as_deref().unwrap_or("pickle");
        return Err(DecodeError::Body(format!(
            "the value was serialised with {family:?}; Rust reads {VALUE_SERIALIZER:?} only"
        )));
    }
    let frames = payload.logical_frames()?;
    match frames.as_slice() {
        [one] => from_slice(one),
        many => from_slice(&many.concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_roundtrip_and_name_their_dependencies() {
        let call = NativeCall {
            function: "add".to_owned(),
            args: vec![
                NativeArg::Future(Key::from("b")),
                NativeArg::Value(Bytes::from_static(b"\x01")),
                NativeArg::List(vec![NativeArg::Future(Key::from("a")), NativeArg::Future(Key::from("b"))]),
            ],
        };
        let back = NativeCall::from_payload(&call.to_payload()).expect("roundtrips");
        assert_eq!(back, call);
        assert_eq!(call.dependencies(), [Key::from("b"), Key::from("a")]);
    }

    #[test]
    fn values_roundtrip() {
        let payload = pack_value(&vec![(1_i64, "x".to_owned())]).expect("packs");
        assert_eq!(unpack_value::<Vec<(i64, String)>>(&payload).expect("unpacks"), [(1, "x".to_owned())]);
        assert!(unpack_value::<String>(&payload).is_err());
    }
}
