//! What has come of values when the connection ends inside their message, and how the rest of one is asked for.
//!
//! Values that came whole are taken as they are. Of a large one that was cut, the receiver tells its sender what is there
//! ([`Held`]); the sender packs the value once more and, if that begins with the same bytes, sends what is missing ([`rest_of`]).

use bytes::{Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::DecodeError;
use crate::payload::{Payload, PayloadKind, REFERENCES_PER_FRAME_MAX, SubHeader};
use crate::unpack;

/// What has come of a message: whole frames, and the beginning of the next.
#[derive(Debug)]
pub struct CutMessage {
    frames: Vec<Bytes>,
    tail: Bytes,
    /// How many frames payloads have taken so far.
    references: usize,
}

/// Where a message has a payload, for a message that is not there as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum PayloadPlace {
    /// The number of its first frame, as [`PayloadKind::Serialized`].
    #[serde(rename = "__Serialized__")]
    Serialized(u64),
    /// The same, as [`PayloadKind::Pickled`].
    #[serde(rename = "__Pickled__")]
    Pickled(u64),
}

/// What has come of a payload.
#[derive(Debug, PartialEq)]
pub enum Came {
    /// Too little to tell what it is.
    Nothing,
    /// Its header, and some of its bytes.
    Part(PartialPayload),
    /// All of it.
    Whole(Payload),
}

/// A payload of which a part is there.
#[derive(Debug, Clone, PartialEq)]
pub struct PartialPayload {
    kind: PayloadKind,
    /// Its header, and the frames that are there as a whole.
    frames: Vec<Bytes>,
    tail: Bytes,
}

/// What somebody has of a payload, for its sender to see whether it still begins like that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Lengths of its header and of the frames that are there as a whole, in bytes.
    lengths: Vec<u64>,
    /// Bytes of these and of the one that was cut.
    nbytes: u64,
    /// CRC-32 of these bytes.
    checksum: u32,
}

impl CutMessage {
    pub(crate) fn new(frames: Vec<Bytes>, tail: Bytes) -> CutMessage {
        CutMessage { frames, tail, references: 0 }
    }

    /// The body, if it is there and of this type, which has a [`PayloadPlace`] for each payload.
    pub fn body<T: DeserializeOwned>(&self) -> Option<T> {
        unpack::from_slice(self.frames.first()?).ok()
    }

    /// What has come of the payload at a place. Nothing, where the same frames are named over and over.
    pub fn payload(&mut self, place: PayloadPlace) -> Came {
        let (kind, number) = match place {
            PayloadPlace::Serialized(number) => (PayloadKind::Serialized, number),
            PayloadPlace::Pickled(number) => (PayloadKind::Pickled, number),
        };
        let Some((start, header)) = usize::try_from(number).ok().and_then(|at| Some((at, self.frames.get(at)?))) else {
            return Came::Nothing;
        };
        let Ok(SubHeader { num_sub_frames, .. }) = unpack::from_slice(header) else { return Came::Nothing };
        let sub_frames = &self.frames[start + 1..];
        self.references += 1 + sub_frames.len().min(usize::try_from(num_sub_frames).unwrap_or(usize::MAX));
        if start == 0 || self.references > REFERENCES_PER_FRAME_MAX * self.frames.len() {
            return Came::Nothing;
        }
        match usize::try_from(num_sub_frames).ok().and_then(|count| sub_frames.get(..count)) {
            Some(whole) => Came::Whole(Payload::from_raw(kind, header.clone(), whole.to_vec())),
            None => Came::Part(PartialPayload { kind, frames: self.frames[start..].to_vec(), tail: self.tail.clone() }),
        }
    }
}

impl PartialPayload {
    /// Bytes that are there.
    pub fn len(&self) -> usize {
        self.frames.iter().map(Bytes::len).sum::<usize>() + self.tail.len()
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What its sender is told of it. Reads all of its bytes.
    pub fn held(&self) -> Held {
        let mut hasher = crc32fast::Hasher::new();
        self.frames.iter().chain([&self.tail]).for_each(|bytes| hasher.update(bytes));
        let lengths = self.frames.iter().map(|frame| frame.len() as u64).collect();
        Held { lengths, nbytes: self.len() as u64, checksum: hasher.finalize() }
    }

    /// The same with more of what is missing: what came of a payload that brings the rest.
    ///
    /// # Errors
    /// [`DecodeError`] when that payload cannot be read in part.
    pub fn extended(mut self, rest: PartialPayload) -> Result<PartialPayload, DecodeError> {
        let mut frames = rest.frames.into_iter();
        let header: SubHeader = unpack::from_slice(&frames.next().unwrap_or_default())?;
        if header.compression.is_some() || header.split_num_sub_frames.is_some() {
            return Err(DecodeError::FrameTable("frames that are compressed or split cannot be read in part"));
        }
        for frame in frames {
            self.frames.push(joined(std::mem::take(&mut self.tail), frame));
        }
        self.tail = joined(self.tail, rest.tail);
        Ok(self)
    }

    /// The payload, with the payload that brings the rest.
    ///
    /// # Errors
    /// [`DecodeError`] when both together are not what its header says.
    pub fn finish(mut self, rest: &Payload) -> Result<Payload, DecodeError> {
        for frame in rest.logical_frames()? {
            self.frames.push(joined(std::mem::take(&mut self.tail), frame));
        }
        let header = self.frames.remove(0);
        let SubHeader { num_sub_frames, .. } = unpack::from_slice(&header)?;
        if !self.tail.is_empty() || self.frames.len() as u64 != num_sub_frames {
            return Err(DecodeError::FrameTable("the rest of a value does not complete it"));
        }
        Ok(Payload::from_raw(self.kind, header, self.frames))
    }
}

/// What is missing of a payload (its header, then its frames) to somebody who has this much of it: the rest of the frame that
/// was cut, and the frames behind it. `None` when what is held is of other bytes. Reads all that is held.
pub fn rest_of(frames: &[Bytes], held: &Held) -> Option<Vec<Bytes>> {
    let (whole, behind) = frames.split_at_checked(held.lengths.len())?;
    if !whole.iter().map(|frame| frame.len() as u64).eq(held.lengths.iter().copied()) {
        return None;
    }
    let tail_bytes = usize::try_from(held.nbytes.checked_sub(held.lengths.iter().sum())?).ok()?;
    let (cut, behind) = behind.split_first()?;
    let tail = cut.get(..tail_bytes)?;
    let mut hasher = crc32fast::Hasher::new();
    whole.iter().for_each(|frame| hasher.update(frame));
    hasher.update(tail);
    if hasher.finalize() != held.checksum {
        return None;
    }
    Some(std::iter::once(cut.slice(tail_bytes..)).chain(behind.iter().cloned()).collect())
}

fn joined(tail: Bytes, rest: Bytes) -> Bytes {
    if tail.is_empty() {
        return rest;
    }
    let mut whole = BytesMut::with_capacity(tail.len() + rest.len());
    whole.extend_from_slice(&tail);
    whole.extend_from_slice(&rest);
    whole.freeze()
}
