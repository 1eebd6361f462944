//! User data in transit: a header and frames that the engine forwards without looking inside.
//!
//! A message body refers to its payloads by frame number (`{"__Serialized__": 3}`). While a body is decoded or encoded
//! the frames of that one message are set aside in a scope of this thread, so that a [`Payload`] field of any message
//! type finds its frames, and adds its own, through plain serde.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::DecodeError;
use crate::native::NativeCall;
use crate::value::Value;
use crate::{pack, unpack};

/// How often the frames of one message may be referred to, in total and on average. Upstream refers to each once; a
/// field may be tried as several types. Without a limit a small body could name the same frames a million times.
pub(crate) const REFERENCES_PER_FRAME_MAX: usize = 4;

/// Which placeholder stands for a payload in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadKind {
    /// `__Serialized__`: decoded by its final receiver only.
    Serialized,
    /// `__Pickled__`: unpickled by every Python peer on arrival.
    Pickled,
}

/// A sub-header and its frames. Cloning bumps a reference count.
#[derive(Clone)]
pub struct Payload(Arc<Inner>);

struct Inner {
    kind: PayloadKind,
    /// A call made in this process: it is packed when it leaves it, and not before.
    call: Option<NativeCall>,
    packed: OnceLock<Packed>,
}

struct Packed {
    header: Bytes,
    frames: Vec<Bytes>,
}

impl Inner {
    fn packed(&self) -> &Packed {
        self.packed.get_or_init(|| {
            let call = self.call.as_ref().expect("what has no packed form was made from a call");
            let frame = rmp_serde::to_vec_named(call).expect("a call of bytes and keys always packs");
            let header = serialized_header(NATIVE_SERIALIZER, Some(&call.function.name), 1);
            Packed { header, frames: vec![frame.into()] }
        })
    }
}

/// The fields of a sub-header that an engine part may need to read.
#[derive(Debug, Default, Deserialize)]
pub struct SubHeader {
    /// The serializer family: `pickle`, `dask`, `msgpack`, `error`, or [`NATIVE_SERIALIZER`].
    #[serde(default)]
    pub serializer: Option<String>,
    /// How many frames follow.
    #[serde(rename = "num-sub-frames", default)]
    pub num_sub_frames: u64,
    /// Sub-frames per logical frame, when large ones were split.
    #[serde(rename = "split-num-sub-frames", default)]
    pub split_num_sub_frames: Option<Vec<u64>>,
    /// Where each logical frame starts.
    #[serde(rename = "split-offsets", default)]
    pub split_offsets: Option<Vec<u64>>,
    /// Compression per sub-frame.
    #[serde(default)]
    pub compression: Option<Vec<Option<String>>>,
    /// The pickle of a [`PayloadKind::Pickled`] payload.
    #[serde(rename = "pickled-obj", default)]
    pub pickled_obj: Option<Bytes>,
    /// The type name of a `dask` family payload, or of a native value.
    #[serde(rename = "type", default)]
    pub type_name: Option<Value>,
}

/// Family name of values and task specs written by Rust with rmp-serde; Python peers read the `msgpack` family instead.
pub const NATIVE_SERIALIZER: &str = "dask-rs";

#[derive(Serialize)]
struct SerializedHeader<'a> {
    serializer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    writeable: Option<Vec<bool>>,
    #[serde(rename = "num-sub-frames")]
    num_sub_frames: usize,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    type_name: Option<&'a str>,
}

#[derive(Serialize)]
struct PickledHeader<'a> {
    #[serde(rename = "pickled-obj")]
    pickled_obj: &'a Bytes,
    #[serde(rename = "num-sub-frames")]
    num_sub_frames: usize,
    compression: Vec<Option<&'a str>>,
}

fn serialized_header(family: &str, type_name: Option<&str>, num_sub_frames: usize) -> Bytes {
    pack_header(&SerializedHeader { serializer: family, writeable: None, num_sub_frames, type_name })
}

fn pack_header<T: Serialize>(header: &T) -> Bytes {
    pack::to_vec(header).expect("plain header maps always pack").into()
}

impl Payload {
    /// From a raw sub-header (msgpack map) and its frames.
    pub fn from_raw(kind: PayloadKind, header: Bytes, frames: Vec<Bytes>) -> Payload {
        Payload(Arc::new(Inner { kind, call: None, packed: OnceLock::from(Packed { header, frames }) }))
    }

    /// A call of a native task, in the family [`NATIVE_SERIALIZER`].
    pub(crate) fn from_call(call: NativeCall) -> Payload {
        Payload(Arc::new(Inner { kind: PayloadKind::Serialized, call: Some(call), packed: OnceLock::new() }))
    }

    /// The call that this payload was made from, if that was in this process.
    pub fn as_call(&self) -> Option<&NativeCall> {
        self.0.call.as_ref()
    }

    /// A `__Pickled__` payload, such as a task's `run_spec`.
    pub fn pickled(pickle: Bytes, buffers: Vec<Bytes>) -> Payload {
        let header = pack_header(&PickledHeader {
            pickled_obj: &pickle,
            num_sub_frames: buffers.len(),
            compression: vec![None; buffers.len()],
        });
        Payload::from_raw(PayloadKind::Pickled, header, buffers)
    }

    /// A `__Serialized__` payload of the pickle family: the pickle, then its out-of-band buffers.
    pub fn serialized_pickle(pickle: Bytes, buffers: Vec<Bytes>) -> Payload {
        let header = pack_header(&SerializedHeader {
            serializer: "pickle",
            writeable: Some(vec![false; buffers.len()]),
            num_sub_frames: buffers.len() + 1,
            type_name: None,
        });
        let mut frames = Vec::with_capacity(buffers.len() + 1);
        frames.push(pickle);
        frames.extend(buffers);
        Payload::from_raw(PayloadKind::Serialized, header, frames)
    }

    /// A `__Serialized__` payload of one frame in the named family (`msgpack`, [`NATIVE_SERIALIZER`], ...).
    pub fn serialized(family: &str, type_name: Option<&str>, frames: Vec<Bytes>) -> Payload {
        let header = serialized_header(family, type_name, frames.len());
        Payload::from_raw(PayloadKind::Serialized, header, frames)
    }

    /// Which placeholder it travels under.
    pub fn kind(&self) -> PayloadKind {
        self.0.kind
    }

    /// The sub-header as received.
    pub fn header(&self) -> &Bytes {
        &self.0.packed().header
    }

    /// The frames as received: possibly split, possibly compressed.
    pub fn frames(&self) -> &[Bytes] {
        &self.0.packed().frames
    }

    /// Bytes of the header and all frames.
    pub fn len(&self) -> usize {
        self.header().len() + self.frames().iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether there is nothing in it at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sub-header, decoded.
    ///
    /// # Errors
    /// [`DecodeError::Body`] when the peer's header is not a sub-header.
    pub fn sub_header(&self) -> Result<SubHeader, DecodeError> {
        unpack::from_slice(self.header())
    }

    /// The logical frames: sub-frames decompressed and joined as the header says. For a pickled payload these are its
    /// out-of-band buffers only.
    ///
    /// # Errors
    /// [`DecodeError`] when the header contradicts the frames or a frame cannot be expanded.
    pub fn logical_frames(&self) -> Result<Vec<Bytes>, DecodeError> {
        let header = self.sub_header()?;
        let frames = self.decompressed(&header)?;
        let (Some(counts), Some(offsets)) = (&header.split_num_sub_frames, &header.split_offsets) else {
            return Ok(frames);
        };
        if counts.len() != offsets.len() {
            return Err(DecodeError::FrameTable("split counts and offsets differ in number"));
        }
        if counts.iter().fold(0, |sum: u64, &count| sum.saturating_add(count)) > frames.len() as u64 {
            return Err(DecodeError::FrameTable("splits overlap"));
        }
        counts.iter().zip(offsets).map(|(&count, &offset)| join_range(&frames, offset, count)).collect()
    }

    fn decompressed(&self, header: &SubHeader) -> Result<Vec<Bytes>, DecodeError> {
        let Some(compression) = &header.compression else {
            return Ok(self.frames().to_vec());
        };
        let expand = |(i, frame): (usize, &Bytes)| match compression.get(i).and_then(Option::as_deref) {
            None => Ok(frame.clone()),
            Some(name) => crate::compression::decompress(name, frame),
        };
        self.frames().iter().enumerate().map(expand).collect()
    }
}

fn join_range(frames: &[Bytes], offset: u64, count: u64) -> Result<Bytes, DecodeError> {
    let missing = || DecodeError::MissingFrame { index: offset.saturating_add(count), count: frames.len() };
    let start = usize::try_from(offset).map_err(|_| missing())?;
    let end = usize::try_from(count).ok().and_then(|n| start.checked_add(n)).ok_or_else(missing)?;
    match frames.get(start..end).ok_or_else(missing)? {
        [one] => Ok(one.clone()),
        many => Ok(many.concat().into()),
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({:?}, {} frames, {} bytes)", self.0.kind, self.frames().len(), self.len())
    }
}

/// Equal content (used by tests and the simulator).
impl PartialEq for Payload {
    fn eq(&self, other: &Payload) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.kind() == other.kind() && self.header() == other.header() && self.frames() == other.frames())
    }
}

pub(crate) const SERIALIZED_TAG: &str = "__Serialized__";
pub(crate) const PICKLED_TAG: &str = "__Pickled__";

thread_local! {
    static INCOMING: RefCell<Incoming> = const { RefCell::new(Incoming { frames: Vec::new(), references: 0 }) };
    static OUTGOING: RefCell<Option<Vec<Bytes>>> = const { RefCell::new(None) };
}

/// The message being decoded.
#[derive(Default)]
struct Incoming {
    frames: Vec<Bytes>,
    /// How many frames payloads have taken so far.
    references: usize,
}

struct Restore(Incoming);
impl Drop for Restore {
    fn drop(&mut self) {
        INCOMING.with_borrow_mut(|slot| std::mem::swap(slot, &mut self.0));
    }
}

/// Runs `f` with `frames` (body first) as the message that payloads and blobs resolve against.
pub(crate) fn with_incoming<T>(frames: &[Bytes], f: impl FnOnce() -> T) -> T {
    let incoming = Incoming { frames: frames.to_vec(), references: 0 };
    let outer = INCOMING.with_borrow_mut(|slot| std::mem::replace(slot, incoming));
    let _restore = Restore(outer);
    f()
}

/// Runs `f` collecting the frames of every payload it serialises; the first collected frame has number `first`.
pub(crate) fn with_outgoing<T>(f: impl FnOnce() -> T) -> (T, Vec<Bytes>) {
    let outer = OUTGOING.with_borrow_mut(|slot| slot.replace(Vec::new()));
    let result = f();
    let collected = OUTGOING.with_borrow_mut(|slot| std::mem::replace(slot, outer));
    (result, collected.unwrap_or_default())
}

/// A slice of the message being decoded as shared bytes: without a copy when it lies in the body.
pub(crate) fn share_bytes(slice: &[u8]) -> Bytes {
    INCOMING.with_borrow(|incoming| {
        let Some(body) = incoming.frames.first() else {
            return Bytes::copy_from_slice(slice);
        };
        let (body_start, start) = (body.as_ptr() as usize, slice.as_ptr() as usize);
        if start >= body_start && start + slice.len() <= body_start + body.len() {
            body.slice_ref(slice)
        } else {
            Bytes::copy_from_slice(slice)
        }
    })
}

pub(crate) fn resolve(kind: PayloadKind, index: u64) -> Result<Payload, DecodeError> {
    #[derive(Deserialize)]
    struct Count {
        #[serde(rename = "num-sub-frames", default)]
        num_sub_frames: u64,
    }
    INCOMING.with_borrow_mut(|Incoming { frames, references }| {
        let missing = |index| DecodeError::MissingFrame { index, count: frames.len() };
        let at = usize::try_from(index).map_err(|_| missing(index))?;
        let header = frames.get(at).filter(|_| at > 0).ok_or_else(|| missing(index))?;
        let Count { num_sub_frames } = unpack::from_slice(header)?;
        let last = index.saturating_add(num_sub_frames);
        let count = usize::try_from(num_sub_frames).map_err(|_| missing(last))?;
        let end = (at + 1).checked_add(count).ok_or_else(|| missing(last))?;
        let sub = frames.get(at + 1..end).ok_or_else(|| missing(last))?;
        *references += 1 + count;
        let limit = REFERENCES_PER_FRAME_MAX * frames.len();
        if *references > limit {
            let (actual, limit) = (*references as u64, limit as u64);
            return Err(DecodeError::TooLarge { what: "number of references to frames", actual, limit });
        }
        Ok(Payload::from_raw(kind, header.clone(), sub.to_vec()))
    })
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let index = OUTGOING.with_borrow_mut(|slot| {
            let frames = slot.as_mut()?;
            let index = frames.len() + 1;
            frames.push(self.header().clone());
            frames.extend(self.frames().iter().cloned());
            Some(index)
        });
        let index = index.ok_or_else(|| serde::ser::Error::custom("a payload can only be packed inside a message"))?;
        let mut map = serializer.serialize_map(Some(1))?;
        let tag = match self.0.kind {
            PayloadKind::Serialized => SERIALIZED_TAG,
            PayloadKind::Pickled => PICKLED_TAG,
        };
        map.serialize_entry(tag, &index)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Payload, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Payload(payload) => Ok(payload),
            _ => Err(de::Error::custom("expected a __Serialized__ or __Pickled__ placeholder")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    fn naming_payload(times: usize, sub_frames: usize) -> Message {
        let payload = Payload::serialized("msgpack", None, vec![Bytes::from_static(b"\x07"); sub_frames]);
        let frames = Message::encode(&payload).expect("packs").frames().to_vec();
        let placeholder = Value::map([(SERIALIZED_TAG, Value::Int(1))]);
        let body = rmp_serde::to_vec_named(&vec![placeholder; times]).expect("packs");
        Message::from_frames(std::iter::once(body.into()).chain(frames.into_iter().skip(1)).collect())
    }

    #[test]
    fn a_payload_may_have_as_many_frames_as_the_message() {
        let Value::Array(items) = naming_payload(1, 300_000).decode().expect("well-formed") else { panic!("an array") };
        let [Value::Payload(payload)] = &items[..] else { panic!("one payload") };
        assert_eq!(payload.frames().len(), 300_000);
    }

    #[test]
    fn splits_that_overlap_are_refused() {
        let split = |counts: &[i32], offsets: &[i32]| {
            let numbers = |numbers: &[i32]| Value::from(numbers.to_vec());
            let header = Value::map([("split-num-sub-frames", numbers(counts)), ("split-offsets", numbers(offsets))]);
            let header = rmp_serde::to_vec_named(&header).expect("packs").into();
            let frames = ["a", "b", "c"].map(|text| Bytes::from_static(text.as_bytes())).to_vec();
            Payload::from_raw(PayloadKind::Serialized, header, frames).logical_frames()
        };
        assert_eq!(split(&[2, 1], &[0, 2]).expect("valid"), ["ab", "c"]);
        assert!(split(&[3, 3], &[0, 0]).is_err());
        assert!(split(&[2], &[2]).is_err());
        assert!(split(&[1, 1], &[0]).is_err());
    }

    #[test]
    fn naming_the_same_frames_over_and_over_is_refused() {
        assert!(naming_payload(3, 100).decode::<Value>().is_ok());
        assert!(naming_payload(100, 100).decode::<Value>().is_err());
    }
}
