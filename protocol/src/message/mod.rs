//! Messages, decoded in two steps: first the `op`, then the body of that type.
//!
//! [`SchedulerToWorker`], [`WorkerToScheduler`], [`ClientToScheduler`] and [`SchedulerToClient`] are the four streams;
//! everything else is a [`Request`] with its reply. A [`Message`] is what travels: a body frame and payload frames.

mod client;
mod fields;
mod register;
mod rpc;
mod worker;

pub use client::*;
pub use fields::*;
pub use register::*;
pub use rpc::*;
pub use worker::*;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{CommError, DecodeError};
use crate::pack;
use crate::payload;
use crate::scan::{self, Shape};
use crate::unpack::{self, Unpacker};

/// The smallest element of a stream, for the room that is made for a batch: a map of an `op` of one letter.
const ELEMENT_BYTES_MIN: usize = 6;

/// One message: frame 0 is the msgpack body, the others belong to its payloads.
#[derive(Debug, Clone)]
pub struct Message {
    frames: Vec<Bytes>,
}

impl Message {
    /// From received frames; a message without any frame is taken as an empty body.
    pub fn from_frames(frames: Vec<Bytes>) -> Message {
        Message { frames: if frames.is_empty() { vec![Bytes::new()] } else { frames } }
    }

    /// Packs any serialisable body, collecting the frames of its payloads.
    ///
    /// # Errors
    /// [`CommError::Encode`] when a value cannot be packed.
    pub fn encode<T: Serialize + ?Sized>(body: &T) -> Result<Message, CommError> {
        let (packed, payload_frames) = payload::with_outgoing(|| pack::to_vec(body));
        let packed = packed.map_err(|e| CommError::Encode(e.to_string()))?;
        let mut frames = Vec::with_capacity(payload_frames.len() + 1);
        frames.push(packed.into());
        frames.extend(payload_frames);
        Ok(Message { frames })
    }

    /// All frames, body first.
    pub fn frames(&self) -> &[Bytes] {
        &self.frames
    }

    /// The msgpack body.
    pub fn body(&self) -> &Bytes {
        &self.frames[0]
    }

    /// Bytes of all frames.
    pub fn len(&self) -> usize {
        self.frames.iter().map(Bytes::len).sum()
    }

    /// Whether it carries no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Decodes the whole body.
    ///
    /// # Errors
    /// [`DecodeError`] when the body is not of this type.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        self.decode_part(self.body())
    }

    /// Decodes a part of the body (an element of a batch).
    fn decode_part<T: DeserializeOwned>(&self, part: &[u8]) -> Result<T, DecodeError> {
        payload::with_incoming(&self.frames, || unpack::from_slice(part))
    }

    /// Whether the body is the bare text `"OK"` that acknowledges a transfer.
    pub fn is_ok(&self) -> bool {
        matches!(scan::shape(self.body()), Ok(Shape::Text("OK")))
    }

    /// Decodes a batch of stream messages; a bare map counts as a batch of one, and everything from an element `"OK"`
    /// on is skipped, as upstream does.
    ///
    /// # Errors
    /// [`DecodeError`] for the first element that is malformed, names no op, or names one that `T` does not know.
    pub fn decode_stream<T: StreamMessage>(&self) -> Result<Vec<T>, DecodeError> {
        let mut elements = Unpacker::new(self.body());
        payload::with_incoming(&self.frames, || {
            let count = match scan::shape(self.body())? {
                Shape::Map => return Ok(vec![T::decode(scan::op(elements.rest())?, &mut elements)?]),
                Shape::Batch => elements.elements()?,
                Shape::Text(_) | Shape::Other => {
                    return Err(DecodeError::Body("expected a batch of maps".to_owned()));
                }
            };
            let mut messages = Vec::with_capacity(count.min(elements.rest().len() / ELEMENT_BYTES_MIN));
            for _ in 0..count {
                if matches!(scan::shape(elements.rest()), Ok(Shape::Text("OK"))) {
                    break;
                }
                messages.push(T::decode(scan::op(elements.rest())?, &mut elements)?);
            }
            Ok(messages)
        })
    }
}

/// A closed set of stream messages, told apart by `op`.
pub trait StreamMessage: Sized {
    /// Decodes the element with this op, which `from` stands before and stands behind afterwards. Called inside the scope of
    /// its message.
    ///
    /// # Errors
    /// [`DecodeError`] for an unknown op or a malformed body.
    fn decode(op: &str, from: &mut Unpacker<'_>) -> Result<Self, DecodeError>;

    /// The op it travels under.
    fn op(&self) -> &'static str;
}

/// Declares a stream: one enum whose variants are message structs, packed with their `op` inside.
macro_rules! stream {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $op:literal => $variant:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        #[serde(tag = "op")]
        #[allow(clippy::large_enum_variant, reason = "the large ones are the frequent ones; boxes would cost each of them")]
        pub enum $name {
            $($(#[$vmeta])* #[serde(rename = $op)] $variant($variant)),+
        }

        impl $crate::message::StreamMessage for $name {
            fn decode(op: &str, from: &mut $crate::unpack::Unpacker<'_>) -> Result<Self, $crate::error::DecodeError> {
                match op {
                    $($op => <$variant as serde::Deserialize<'_>>::deserialize(from).map($name::$variant),)+
                    other => Err($crate::error::DecodeError::Body(format!("unknown stream op {other:?}"))),
                }
            }

            fn op(&self) -> &'static str {
                match self { $($name::$variant(_) => $op),+ }
            }
        }

        $(impl From<$variant> for $name {
            fn from(message: $variant) -> $name { $name::$variant(message) }
        })+
    };
}
pub(crate) use stream;
