//! Native tasks on the wire: a registered function's name and its arguments, in msgpack.
//!
//! The scheduler forwards them as any other `run_spec`. Results travel in the `msgpack` family, which Python peers read.

mod definition;

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::DecodeError;
use crate::key::Key;
use crate::payload::{NATIVE_SERIALIZER, Payload, PayloadKind, SubHeader};
use crate::pickle::loads_plain;
use crate::unpack::from_slice;
use crate::value::Value;

pub use definition::{Definition, RELEASE, SharedDefinition, releases_agree};

/// Family of the values that native tasks make: one msgpack value, readable by Python.
pub const VALUE_SERIALIZER: &str = "msgpack";

/// Family in which Python sends its bytes, as one frame under the name of their type.
const DASK_SERIALIZER: &str = "dask";
/// Names of these types.
const BYTES_TYPES: [&str; 2] = ["bytes", "bytearray"];

/// Largest result, packed, that is told with the news that there is one.
pub const TOLD_BYTES_MAX: usize = 1024;

/// Longest head of a msgpack value of bytes.
const BYTES_HEAD_MAX: usize = 5;

/// A call of a function registered in the worker's binary, or in a library that it loaded.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "PackedCall<'static>")]
pub struct NativeCall {
    /// What the caller takes the function for.
    pub function: SharedDefinition,
    /// Its arguments, in order.
    pub args: Vec<NativeArg>,
    /// Whether its result, if it is small, is to be told at once: whoever submits it will ask for it.
    pub tells_result: bool,
}

/// A call as it travels.
#[derive(Serialize, Deserialize)]
struct PackedCall<'a> {
    function: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    release: Option<Cow<'a, str>>,
    args: Cow<'a, [NativeArg]>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    tells_result: bool,
}

impl Serialize for NativeCall {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let definition = &*self.function;
        let packed = PackedCall {
            function: Cow::Borrowed(&definition.name),
            signature: definition.signature.as_deref().map(Cow::Borrowed),
            release: definition.release.as_deref().map(Cow::Borrowed),
            args: Cow::Borrowed(&self.args),
            tells_result: self.tells_result,
        };
        packed.serialize(serializer)
    }
}

impl From<PackedCall<'static>> for NativeCall {
    fn from(packed: PackedCall<'static>) -> NativeCall {
        let PackedCall { function: name, signature, release, args, tells_result } = packed;
        NativeCall { function: Definition { name, signature, release }.into(), args: args.into_owned(), tells_result }
    }
}

/// One argument of a native call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum NativeArg {
    /// A value, packed with rmp-serde.
    Value(Bytes),
    /// The result of another task.
    Future(Key),
    /// Several arguments collected into a list or tuple.
    List(Vec<NativeArg>),
    /// Several arguments collected into a map, by packed keys.
    Map(Vec<(Bytes, NativeArg)>),
}

impl NativeCall {
    /// The `run_spec` of a task that makes this call. It is packed if it leaves this process, and not before.
    pub fn into_payload(self) -> Payload {
        Payload::from_call(self)
    }

    /// Reads a `run_spec` back.
    ///
    /// # Errors
    /// [`DecodeError`] when the payload is no native call.
    pub fn from_payload(payload: &Payload) -> Result<NativeCall, DecodeError> {
        if let Some(call) = payload.as_call() {
            return Ok(call.clone());
        }
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
                NativeArg::Map(entries) => pending.extend(entries.iter().rev().map(|(_, arg)| arg)),
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
    Ok(payload.as_call().is_some() || payload.sub_header()?.serializer.as_deref() == Some(NATIVE_SERIALIZER))
}

/// Packs a native value as a payload that Rust and Python peers read.
///
/// # Errors
/// The packing error when the value's `Serialize` refuses.
pub fn pack_value<T: Serialize + ?Sized>(value: &T) -> Result<Payload, rmp_serde::encode::Error> {
    let packed = rmp_serde::to_vec_named(value)?;
    Ok(Payload::serialized(VALUE_SERIALIZER, Some(std::any::type_name::<T>()), vec![packed.into()]))
}

/// Packs bytes as [`pack_value`] does, without copying them: the head of the msgpack value is a frame of its own.
///
/// # Errors
/// [`DecodeError::TooLarge`] for 4 GiB or more, which msgpack cannot say.
pub fn pack_bytes(bytes: &Bytes) -> Result<Payload, DecodeError> {
    let head = write_bytes_head(bytes.len())?;
    Ok(Payload::serialized(VALUE_SERIALIZER, Some(std::any::type_name::<Bytes>()), vec![head.into(), bytes.clone()]))
}

fn write_bytes_head(length: usize) -> Result<Vec<u8>, DecodeError> {
    let short = u32::try_from(length).map_err(|_| {
        let (actual, limit) = (length as u64, u64::from(u32::MAX));
        DecodeError::TooLarge { what: "bytes in one value", actual, limit }
    })?;
    let mut head = Vec::with_capacity(BYTES_HEAD_MAX);
    rmp::encode::write_bin_len(&mut head, short).expect("writing to memory does not fail");
    Ok(head)
}

/// The bytes that a payload packs, as a share of the frame in which they are; none if it packs something else.
pub fn shared_bytes(payload: &Payload) -> Option<Bytes> {
    let header = payload.sub_header().ok()?;
    if header.serializer.as_deref() != Some(VALUE_SERIALIZER) {
        return python_bytes(payload, &header);
    }
    let frames = payload.logical_frames().ok()?;
    let (start, length) = bytes_head(frames.first()?)?;
    match frames.as_slice() {
        [whole] if whole.len().checked_sub(start) == Some(length) => Some(whole.slice(start..)),
        [head, bytes] if head.len() == start && bytes.len() == length => Some(bytes.clone()),
        _ => None,
    }
}

/// The bytes that a Python peer sent as such.
fn python_bytes(payload: &Payload, header: &SubHeader) -> Option<Bytes> {
    let is_bytes = header.serializer.as_deref() == Some(DASK_SERIALIZER)
        && header.type_name.as_ref().and_then(Value::as_str).is_some_and(|name| BYTES_TYPES.contains(&name));
    if !is_bytes {
        return None;
    }
    match payload.logical_frames().ok()?.as_slice() {
        [bytes] => Some(bytes.clone()),
        _ => None,
    }
}

/// Where the bytes of a msgpack value of bytes begin, and how many there are.
fn bytes_head(packed: &[u8]) -> Option<(usize, usize)> {
    match *packed {
        [0xc4, length, ..] => Some((2, usize::from(length))),
        [0xc5, a, b, ..] => Some((3, usize::from(u16::from_be_bytes([a, b])))),
        [0xc6, a, b, c, d, ..] => Some((BYTES_HEAD_MAX, usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?)),
        _ => None,
    }
}

/// Unpacks a value made by [`pack_value`], or by a Python peer: bytes, with the `msgpack` serializer, or pickled if it is made of
/// numbers, texts, bytes and containers of these only.
///
/// # Errors
/// [`DecodeError`] naming the family or class found when it is something else, or the type mismatch.
pub fn unpack_value<T: serde::de::DeserializeOwned>(payload: &Payload) -> Result<T, DecodeError> {
    from_slice(&packed(payload)?)
}

/// Unpacks a value whose msgpack form is at hand, such as one that was told with the news that it is there.
///
/// # Errors
/// [`DecodeError`] with the type mismatch.
pub fn unpack_told<T: serde::de::DeserializeOwned>(packed: &[u8]) -> Result<T, DecodeError> {
    from_slice(packed)
}

/// The msgpack form of a value that [`unpack_value`] reads.
///
/// # Errors
/// [`DecodeError`] naming the family or class found when it has none.
pub fn packed(payload: &Payload) -> Result<Bytes, DecodeError> {
    let header = payload.sub_header()?;
    if let Some(bytes) = python_bytes(payload, &header) {
        let mut packed = write_bytes_head(bytes.len())?;
        packed.extend_from_slice(&bytes);
        return Ok(packed.into());
    }
    let frames = payload.logical_frames()?;
    let family = header.serializer.as_deref();
    if family == Some(VALUE_SERIALIZER) {
        return Ok(match frames.as_slice() {
            [one] => one.clone(),
            many => many.concat().into(),
        });
    }
    let pickle = match payload.kind() {
        PayloadKind::Pickled => header.pickled_obj.map(|pickle| (pickle, frames.as_slice())),
        PayloadKind::Serialized if family == Some("pickle") => {
            frames.split_first().map(|(pickle, buffers)| (pickle.clone(), buffers))
        }
        PayloadKind::Serialized => None,
    };
    let Some((pickle, buffers)) = pickle else {
        return Err(DecodeError::Body(format!(
            "the value was serialised with {:?}; Rust reads {VALUE_SERIALIZER:?}, and pickles of plain values",
            family.unwrap_or("nothing known")
        )));
    };
    let value = loads_plain(&pickle, buffers).map_err(|error| DecodeError::Body(error.to_string()))?;
    if let Some(object) = value.first_opaque() {
        let (module, name) = (&object.module, &object.name);
        return Err(DecodeError::Body(format!(
            "it holds a Python object ({module}.{name}), which only Python can read"
        )));
    }
    rmp_serde::to_vec_named(&value.to_value()).map(Bytes::from).map_err(|error| DecodeError::Body(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_roundtrip_and_name_their_dependencies() {
        static ADD: Definition = Definition::new("add", "(i64) -> i64");
        let call = NativeCall {
            function: (&ADD).into(),
            args: vec![
                NativeArg::Future(Key::from("b")),
                NativeArg::Value(Bytes::from_static(b"\x01")),
                NativeArg::List(vec![NativeArg::Future(Key::from("a")), NativeArg::Future(Key::from("b"))]),
            ],
            tells_result: true,
        };
        let payload = call.clone().into_payload();
        assert_eq!(payload.as_call(), Some(&call));
        let arrived = Payload::from_raw(payload.kind(), payload.header().clone(), payload.frames().to_vec());
        assert!(arrived.as_call().is_none());
        assert_eq!(NativeCall::from_payload(&arrived).expect("roundtrips"), call);
        assert_eq!(call.dependencies(), [Key::from("b"), Key::from("a")]);
    }

    #[test]
    fn values_roundtrip() {
        let payload = pack_value(&vec![(1_i64, "x".to_owned())]).expect("packs");
        assert_eq!(unpack_value::<Vec<(i64, String)>>(&payload).expect("unpacks"), [(1, "x".to_owned())]);
        assert!(unpack_value::<String>(&payload).is_err());
    }

    #[test]
    fn bytes_are_packed_and_read_without_copies() {
        for length in [0, 1, 255, 256, 65_535, 65_536] {
            let bytes = Bytes::from(vec![7_u8; length]);
            let payload = pack_bytes(&bytes).expect("below 4 GiB");
            assert_eq!(shared_bytes(&payload).expect("bytes").as_ptr(), bytes.as_ptr());
            assert_eq!(unpack_value::<Bytes>(&payload).expect("a value like others"), bytes);
            let whole = pack_value(&bytes).expect("packs");
            let shared = shared_bytes(&whole).expect("bytes");
            assert_eq!(shared, bytes);
            assert!(whole.frames()[0].as_ptr_range().contains(&shared.as_ptr()) || length == 0);
        }
        assert!(shared_bytes(&pack_value("text").expect("packs")).is_none());
        let short = Bytes::from_static(b"\xc4\x05abc");
        assert!(shared_bytes(&Payload::serialized(VALUE_SERIALIZER, None, vec![short])).is_none());
    }

    #[test]
    fn bytes_of_python_peers_are_values() {
        for name in BYTES_TYPES {
            let bytes = Bytes::from(vec![7_u8; 300]);
            let payload = Payload::serialized(DASK_SERIALIZER, Some(name), vec![bytes.clone()]);
            assert_eq!(shared_bytes(&payload).expect("bytes").as_ptr(), bytes.as_ptr());
            assert_eq!(unpack_value::<Bytes>(&payload).expect("a value like others"), bytes);
        }
        let array = Payload::serialized(DASK_SERIALIZER, Some("numpy.ndarray"), vec![Bytes::from_static(b"1")]);
        assert!(shared_bytes(&array).is_none());
        assert!(unpack_value::<Bytes>(&array).is_err());
    }

    #[test]
    fn plain_pickles_are_values_and_objects_are_named() {
        // pickle.dumps({"a": (1, 2.5)}) and pickle.dumps(fractions.Fraction)
        let plain =
            Bytes::from_static(b"\x80\x04\x95\x16\0\0\0\0\0\0\0}\x94\x8c\x01a\x94K\x01G@\x04\0\0\0\0\0\0\x86\x94s.");
        let payload = Payload::serialized_pickle(plain, vec![]);
        let value: std::collections::BTreeMap<String, (i64, f64)> = unpack_value(&payload).expect("plain");
        assert_eq!(value["a"], (1, 2.5));
        let class = Bytes::from_static(b"\x80\x04\x8c\x09fractions\x8c\x08Fraction\x93.");
        let error = unpack_value::<i64>(&Payload::serialized_pickle(class, vec![])).expect_err("a class");
        assert!(error.to_string().contains("fractions.Fraction"), "{error}");
    }
}
