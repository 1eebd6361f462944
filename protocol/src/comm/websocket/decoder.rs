//! Dask's messages as they lie in WebSocket messages: one binary message holds the number of frames, a little-endian `u64`,
//! and as many follow, each of which is one frame.
//!
//! A payload is read into memory that grows with what arrives, as on a byte stream: never as much is set aside as a peer
//! announces. A frame that comes in fragments is put together from them, and the limits hold for all of them together.

use std::io::Cursor;

use bytes::{Buf, Bytes, BytesMut};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::mask::{self, Mask};
use super::{CONTROL_BYTES_MAX, Side};
use crate::error::DecodeError;
use crate::frame::{FrameLimits, FrameRoom, OWN_MEMORY_BYTES_MIN, READ_BYTES_MIN, limit};
use crate::large_frame::LargeFrame;
use crate::partial::CutMessage;

/// Size of the number of frames.
const COUNT_BYTES: u64 = size_of::<u64>() as u64;

/// Reads messages out of a growing buffer. Decoding can stop and resume at any byte.
#[derive(Debug)]
pub(super) struct MessageDecoder {
    limits: FrameLimits,
    /// Who reads: clients mask what they send, and servers do not.
    side: Side,
    state: State,
    /// The message that has begun.
    message: Option<Begun>,
    /// The frame whose first fragments are here.
    fragments: Option<Vec<u8>>,
    /// How many fragments the message has had.
    fragment_count: u64,
    ping: Option<Bytes>,
}

#[derive(Debug)]
enum State {
    /// Waiting for a header.
    Header,
    /// Waiting for all of a payload, which is small.
    Small { opcode: OpCode, bytes: usize, mask: Option<Mask> },
    /// Waiting for the rest of a large frame, so many bytes of which are without their mask.
    Large { frame: LargeFrame, mask: Option<Mask>, unmasked: usize },
    /// Waiting for the rest of a fragment, so many bytes of which are here.
    Fragment { is_final: bool, bytes: u64, here: u64, mask: Option<Mask> },
    /// The peer has said that nothing more will come.
    Closed,
}

/// A message of which the number of frames is known.
#[derive(Debug)]
struct Begun {
    count: u64,
    frames: Vec<Bytes>,
    bytes: u64,
}

impl MessageDecoder {
    /// A decoder at the start of a message, for what this side reads.
    pub(super) fn new(side: Side) -> MessageDecoder {
        let limits = FrameLimits::default();
        let (state, message, fragments) = (State::Header, None, None);
        MessageDecoder { limits, side, state, message, fragments, fragment_count: 0, ping: None }
    }

    /// Accepts other sizes from here on.
    pub(super) fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
    }

    /// Whether the stream may end here without cutting a message.
    pub(super) fn at_boundary(&self) -> bool {
        let between = matches!(self.state, State::Header | State::Closed);
        between && self.message.is_none() && self.fragments.is_none()
    }

    /// What has come of the message in which the stream ended; nothing of it is decoded any more.
    pub(super) fn take_cut(&mut self) -> Option<CutMessage> {
        let Begun { frames, .. } = self.message.take()?;
        let tail = match std::mem::replace(&mut self.state, State::Closed) {
            State::Large { mut frame, unmasked, .. } => {
                debug_assert_eq!(frame.arrived_mut().len(), unmasked, "a stream ends once all that came was decoded");
                frame.into_arrived().slice(..unmasked)
            }
            State::Header | State::Small { .. } | State::Fragment { .. } | State::Closed => {
                self.fragments.take().unwrap_or_default().into()
            }
        };
        Some(CutMessage::new(frames, tail))
    }

    /// Whether the peer has closed.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// The last ping that is to be answered.
    pub(super) fn take_ping(&mut self) -> Option<Bytes> {
        self.ping.take()
    }

    /// Where the next bytes of the stream belong, if they are part of a large frame.
    pub(super) fn large_frame(&mut self) -> Option<FrameRoom<'_>> {
        match &mut self.state {
            State::Large { frame, .. } => Some(frame.room()),
            State::Header | State::Small { .. } | State::Fragment { .. } | State::Closed => None,
        }
    }

    /// The frames of the next message, once all are there.
    ///
    /// # Errors
    /// [`DecodeError`] for what no dask peer sends.
    pub(super) fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Vec<Bytes>>, DecodeError> {
        loop {
            let payload = match std::mem::replace(&mut self.state, State::Header) {
                State::Header => match parse_header(src)? {
                    Some((header, bytes)) => {
                        self.state = self.begin(header, bytes)?;
                        continue;
                    }
                    None => return Ok(None),
                },
                State::Small { opcode, bytes, mask } if src.len() >= bytes => {
                    let payload = take_small(src, bytes, mask);
                    match opcode {
                        OpCode::Data(_) => payload,
                        OpCode::Control(control) => {
                            self.control(control, payload);
                            continue;
                        }
                    }
                }
                State::Large { mut frame, mask, unmasked } => {
                    frame.fill(src)?;
                    let arrived = frame.arrived_mut();
                    if let Some(mask) = mask {
                        mask::apply(mask, unmasked, &mut arrived[unmasked..]);
                    }
                    let unmasked = arrived.len();
                    if frame.missing() > 0 {
                        self.state = State::Large { frame, mask, unmasked };
                        return Ok(None);
                    }
                    frame.finish()
                }
                State::Fragment { is_final, bytes, here, mask } => {
                    let here = here + self.join(src, bytes - here, here, mask)?;
                    if here < bytes {
                        self.state = State::Fragment { is_final, bytes, here, mask };
                        src.reserve(OWN_MEMORY_BYTES_MIN);
                        return Ok(None);
                    }
                    match self.fragments.take_if(|_| is_final) {
                        Some(whole) => Bytes::from(whole),
                        None => continue,
                    }
                }
                State::Small { opcode, bytes, mask } => {
                    self.state = State::Small { opcode, bytes, mask };
                    src.reserve((bytes - src.len()).max(READ_BYTES_MIN));
                    return Ok(None);
                }
                State::Closed => {
                    self.state = State::Closed;
                    return Ok(None);
                }
            };
            if let Some(frames) = self.take(payload)? {
                return Ok(Some(frames));
            }
        }
    }

    /// What follows this header.
    fn begin(&mut self, header: FrameHeader, bytes: u64) -> Result<State, DecodeError> {
        let FrameHeader { is_final, rsv1, rsv2, rsv3, opcode, mask } = header;
        if rsv1 || rsv2 || rsv3 {
            return Err(wrong("an extension is used that was not agreed"));
        }
        match (self.side, mask) {
            (Side::Server, None) => return Err(wrong("a client's frame has no mask")),
            (Side::Client, Some(_)) => return Err(wrong("a server's frame has a mask")),
            (Side::Server, Some(_)) | (Side::Client, None) => {}
        }
        let is_next = match opcode {
            OpCode::Control(_) if !is_final => return Err(wrong("a control frame comes in fragments")),
            OpCode::Control(_) => {
                limit("size of a control frame", bytes, CONTROL_BYTES_MAX)?;
                return Ok(State::Small { opcode, bytes: to_size(bytes)?, mask });
            }
            OpCode::Data(Data::Binary) => self.fragments.is_none(),
            OpCode::Data(Data::Continue) => self.fragments.is_some(),
            OpCode::Data(Data::Text) => return Err(wrong("a text frame, where dask's are binary")),
            OpCode::Data(Data::Reserved(_)) => return Err(wrong("a frame of no known kind")),
        };
        if !is_next {
            return Err(wrong("the fragments of two messages are mixed"));
        }
        self.check_size(bytes)?;
        if is_final && self.fragments.is_none() {
            let bytes = to_size(bytes)?;
            if bytes < OWN_MEMORY_BYTES_MIN {
                return Ok(State::Small { opcode, bytes, mask });
            }
            return Ok(State::Large { frame: LargeFrame::new(bytes)?, mask, unmasked: 0 });
        }
        self.fragment_count += 1;
        limit("number of fragments", self.fragment_count, self.limits.frames_max)?;
        self.fragments.get_or_insert_default();
        Ok(State::Fragment { is_final, bytes, here: 0, mask })
    }

    /// Whether so many bytes more may come.
    fn check_size(&self, bytes: u64) -> Result<(), DecodeError> {
        let bytes = bytes.saturating_add(self.fragments.as_ref().map_or(0, |joined| joined.len() as u64));
        match &self.message {
            None => limit("size of the number of frames", bytes, COUNT_BYTES),
            Some(begun) => limit("message size", begun.bytes.saturating_add(bytes), self.limits.message_bytes_max),
        }
    }

    /// Moves what is here of a fragment to those before it. How much it was.
    fn join(&mut self, src: &mut BytesMut, missing: u64, offset: u64, mask: Option<Mask>) -> Result<u64, DecodeError> {
        let joined = self.fragments.get_or_insert_default();
        let step = usize::try_from(missing).unwrap_or(usize::MAX).min(src.len());
        joined.try_reserve(step).map_err(|_| wrong("the fragments of a frame exceed memory"))?;
        if let Some(mask) = mask {
            // Only its remainder counts.
            mask::apply(mask, (offset % mask.len() as u64) as usize, &mut src[..step]);
        }
        joined.extend_from_slice(&src[..step]);
        src.advance(step);
        Ok(step as u64)
    }

    fn control(&mut self, control: Control, payload: Bytes) {
        match control {
            Control::Close => self.state = State::Closed,
            Control::Ping => self.ping = Some(payload),
            Control::Pong | Control::Reserved(_) => {}
        }
    }

    /// The next payload. The frames, when it was the last.
    fn take(&mut self, payload: Bytes) -> Result<Option<Vec<Bytes>>, DecodeError> {
        let Some(begun) = &mut self.message else {
            let count = payload.as_ref().try_into().map_err(|_| wrong("a number of frames has eight bytes"))?;
            let count = u64::from_le_bytes(count);
            limit("number of frames", count, self.limits.frames_max)?;
            self.message = Some(Begun { count, frames: Vec::new(), bytes: 0 });
            return Ok(self.finish());
        };
        begun.bytes += payload.len() as u64;
        begun.frames.push(payload);
        Ok(self.finish())
    }

    fn finish(&mut self) -> Option<Vec<Bytes>> {
        let whole = self.message.take_if(|begun| begun.frames.len() as u64 == begun.count)?;
        self.fragment_count = 0;
        Some(whole.frames)
    }
}

fn parse_header(src: &mut BytesMut) -> Result<Option<(FrameHeader, u64)>, DecodeError> {
    let mut cursor = Cursor::new(&src[..]);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|error| DecodeError::WebSocket(error.to_string()))?;
    let header_bytes = usize::try_from(cursor.position()).expect("it is within a slice");
    match parsed {
        Some(_) => src.advance(header_bytes),
        None => src.reserve(READ_BYTES_MIN),
    }
    Ok(parsed)
}

/// Copied, so that a small frame does not keep the buffer it came through.
fn take_small(src: &mut BytesMut, bytes: usize, mask: Option<Mask>) -> Bytes {
    if let Some(mask) = mask {
        mask::apply(mask, 0, &mut src[..bytes]);
    }
    let payload = Bytes::copy_from_slice(&src[..bytes]);
    src.advance(bytes);
    payload
}

fn to_size(bytes: u64) -> Result<usize, DecodeError> {
    usize::try_from(bytes).map_err(|_| wrong("a frame exceeds memory"))
}

fn wrong(what: &str) -> DecodeError {
    DecodeError::WebSocket(what.to_owned())
}
