//! Messages as they lie on a byte stream: a table of lengths, then the frames.
//!
//! ```text
//! u64 FIRST      bytes after this field up to some frame boundary: a hint for the reader's first read
//! u64 NFRAMES
//! u64 len[0] .. len[NFRAMES-1]
//! frame[0] .. frame[NFRAMES-1]
//! ```
//!
//! All numbers are little-endian. [`FrameCodec`] reads them, [`Chunks`] writes them, and neither copies large frames: each
//! is read into memory of its own, which it shares with no other value and gives back alone.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::error::{CommError, DecodeError};
pub use crate::large_frame::FrameRoom;
use crate::large_frame::LargeFrame;
use crate::message::Message;
use crate::partial::CutMessage;
pub use crate::region::{give_back_unused, keep_unused_at_most};

/// Most frames one message may have: two per value for two million values in one `gather`.
pub const FRAMES_MAX: u64 = 1 << 22;
/// Largest message: 256 GiB. Memory follows the bytes that arrive, never the length that a peer announces.
pub const MESSAGE_BYTES_MAX: u64 = 1 << 38;
/// Most frames of a handshake; upstream sends one.
pub const HANDSHAKE_FRAMES_MAX: u64 = 4;
/// Largest handshake; upstream sends some 60 bytes.
pub const HANDSHAKE_BYTES_MAX: u64 = 64 << 10;
/// How much room is made for the next read while little is known: one TLS record.
pub const READ_BYTES_MIN: usize = 16 << 10;
/// How much of an announced length is believed before any of it arrived.
pub const TRUST_BYTES_MAX: usize = 1 << 20;
/// Frames of this size are read into memory of their own.
pub const OWN_MEMORY_BYTES_MIN: usize = 64 << 10;
/// A message of this size leaves the read buffer with the buffer's memory, so that an idle connection keeps none.
const DETACH_BYTES_MIN: usize = 64 << 10;
/// Frames below this size are copied next to their neighbours before writing; larger ones are written in place.
const COPY_BYTES_MAX: usize = 16 << 10;

const WORD: usize = size_of::<u64>();

/// What a reader accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Most frames of one message.
    pub frames_max: u64,
    /// Most bytes of one message's frames.
    pub message_bytes_max: u64,
}

impl FrameLimits {
    /// Before the handshake nothing large is believed.
    pub const HANDSHAKE: FrameLimits =
        FrameLimits { frames_max: HANDSHAKE_FRAMES_MAX, message_bytes_max: HANDSHAKE_BYTES_MAX };
}

impl Default for FrameLimits {
    fn default() -> FrameLimits {
        FrameLimits { frames_max: FRAMES_MAX, message_bytes_max: MESSAGE_BYTES_MAX }
    }
}

/// Reads messages out of a growing buffer. Decoding can stop and resume at any byte.
#[derive(Debug)]
pub struct FrameCodec {
    limits: FrameLimits,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Waiting for `FIRST` and `NFRAMES`.
    Head,
    /// Waiting for the lengths; `first_bytes` is what `FIRST` leaves for whole frames.
    Table { first_bytes: u64, count: usize },
    /// Waiting for the frames that are not in `frames` yet.
    Frames { lengths: Vec<usize>, frames: Vec<Bytes>, large: Option<LargeFrame> },
    /// The frames are handed over as they come.
    Rest { bytes: u64 },
}

impl State {
    fn frames(lengths: Vec<usize>) -> State {
        State::Frames { frames: Vec::with_capacity(lengths.len()), lengths, large: None }
    }
}

/// The beginning of a message: its body, while the other frames are still on their way.
#[derive(Debug)]
pub struct MessageHead {
    /// Frame 0.
    pub body: Bytes,
    /// Lengths of the frames that follow, in bytes.
    pub lengths: Vec<usize>,
}

impl MessageHead {
    /// Bytes of the frames that follow.
    pub fn rest_bytes(&self) -> u64 {
        self.lengths.iter().map(|&length| length as u64).sum()
    }
}

impl FrameCodec {
    /// A codec at the start of a message.
    pub fn new(limits: FrameLimits) -> FrameCodec {
        FrameCodec { limits, state: State::Head }
    }

    /// Accepts other sizes from the next message on.
    pub fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
    }

    /// Whether the stream may end here without cutting a message.
    pub fn at_boundary(&self) -> bool {
        matches!(self.state, State::Head)
    }

    /// The body of the next message, once it is there. The other frames then come from [`FrameCodec::decode_rest`].
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn decode_head(&mut self, src: &mut BytesMut) -> Result<Option<MessageHead>, CommError> {
        loop {
            let needed = self.needed();
            if src.len() < needed {
                make_room(src, needed);
                return Ok(None);
            }
            self.state = match std::mem::replace(&mut self.state, State::Head) {
                State::Head => self.read_head(src)?,
                State::Table { first_bytes, count } => self.read_table(src, first_bytes, count)?,
                State::Frames { frames, large, .. } if large.is_some() || !frames.is_empty() => {
                    return Err(DecodeError::FrameTable("a part of the message was read before").into());
                }
                State::Frames { mut lengths, .. } => {
                    let body = if lengths.is_empty() { 0 } else { lengths.remove(0) };
                    let head = MessageHead { body: src.split_to(body).freeze(), lengths };
                    self.state = State::Rest { bytes: head.rest_bytes() };
                    return Ok(Some(head));
                }
                State::Rest { .. } => {
                    return Err(DecodeError::FrameTable("the last message was not read to its end").into());
                }
            };
        }
    }

    /// The frames behind a head are to be decoded as one message after all, with no body.
    ///
    /// # Errors
    /// [`DecodeError`] when some of their bytes were handed over already.
    pub fn keep_rest(&mut self, head: &MessageHead) -> Result<(), DecodeError> {
        if !matches!(self.state, State::Rest { bytes } if bytes == head.rest_bytes()) {
            return Err(DecodeError::FrameTable("the rest of the message is not there any more"));
        }
        self.state = State::frames(head.lengths.clone());
        Ok(())
    }

    /// What has come of the frames behind a head, at most `bytes_max`; empty when more is to come, none at the end.
    pub fn decode_rest(&mut self, src: &mut BytesMut, bytes_max: usize) -> Option<Bytes> {
        let State::Rest { bytes } = &mut self.state else { return None };
        if *bytes == 0 {
            self.state = State::Head;
            return None;
        }
        let come = usize::try_from(*bytes).unwrap_or(usize::MAX).min(src.len()).min(bytes_max);
        *bytes -= come as u64;
        if come == 0 {
            src.reserve(bytes_max.min(TRUST_BYTES_MAX));
        }
        Some(src.split_to(come).freeze())
    }

    /// What has come of the message in which the stream ended; nothing of it is decoded any more.
    pub fn take_cut(&mut self, src: &mut BytesMut) -> Option<CutMessage> {
        match std::mem::replace(&mut self.state, State::Head) {
            State::Frames { frames, large, .. } => {
                let tail = large.map_or_else(|| src.split().freeze(), LargeFrame::into_arrived);
                Some(CutMessage::new(frames, tail))
            }
            State::Head | State::Table { .. } | State::Rest { .. } => None,
        }
    }

    /// Where the next bytes of the stream belong, if they are part of a large frame: its memory, limited to what is
    /// missing. Otherwise they belong into the buffer that is given to [`FrameCodec::decode`].
    pub fn large_frame(&mut self) -> Option<FrameRoom<'_>> {
        match &mut self.state {
            State::Frames { large: Some(frame), .. } => Some(frame.room()),
            State::Head | State::Table { .. } | State::Frames { .. } | State::Rest { .. } => None,
        }
    }

    /// Bytes without which there is no next step.
    fn needed(&self) -> usize {
        match &self.state {
            State::Head => 2 * WORD,
            State::Table { count, .. } => count * WORD,
            State::Frames { lengths, .. } => lengths.first().copied().unwrap_or(0),
            State::Rest { .. } => 0,
        }
    }

    fn read_head(&self, src: &mut BytesMut) -> Result<State, DecodeError> {
        let (first, count) = (src.get_u64_le(), src.get_u64_le());
        limit("number of frames", count, self.limits.frames_max)?;
        let table_bytes = (count + 1) * WORD as u64;
        let first_bytes = first
            .checked_sub(table_bytes)
            .ok_or(DecodeError::FrameTable("the first read would end inside the frame table"))?;
        limit("size of the first read", first_bytes, self.limits.message_bytes_max)?;
        Ok(State::Table { first_bytes, count: usize::try_from(count).expect("limited above") })
    }

    fn read_table(&self, src: &mut BytesMut, first_bytes: u64, count: usize) -> Result<State, DecodeError> {
        let (mut lengths, mut total, mut first_on_boundary) = (Vec::with_capacity(count), 0_u64, first_bytes == 0);
        for _ in 0..count {
            let length = src.get_u64_le();
            total = total.saturating_add(length);
            limit("message size", total, self.limits.message_bytes_max)?;
            first_on_boundary |= total == first_bytes;
            lengths.push(usize::try_from(length).map_err(|_| DecodeError::FrameTable("a frame exceeds memory"))?);
        }
        if !first_on_boundary {
            return Err(DecodeError::FrameTable("the first read would end inside a frame"));
        }
        Ok(State::frames(lengths))
    }
}

pub(crate) fn limit(what: &'static str, actual: u64, limit: u64) -> Result<(), DecodeError> {
    if actual > limit { Err(DecodeError::TooLarge { what, actual, limit }) } else { Ok(()) }
}

/// Makes room for a part of what is missing: at most twice what has already come, or a small amount to begin with.
fn make_room(src: &mut BytesMut, needed: usize) {
    let missing = needed.saturating_sub(src.len());
    let trusted = missing.min(src.len().max(TRUST_BYTES_MAX));
    src.reserve(trusted.max(READ_BYTES_MIN.saturating_sub(src.len())));
}

/// Moves frames that are here to the others. Whether all of them are.
fn take_frames(
    src: &mut BytesMut,
    lengths: &[usize],
    frames: &mut Vec<Bytes>,
    large: &mut Option<LargeFrame>,
) -> Result<bool, DecodeError> {
    let total_bytes = lengths.iter().sum();
    if total_bytes < READ_BYTES_MIN {
        if src.len() < total_bytes {
            make_room(src, total_bytes);
            return Ok(false);
        }
        // Copied: what is kept of a small message, such as one task's specification, must not keep a whole read buffer, and
        // a buffer of which nothing is kept serves the next read.
        let mut message = Bytes::copy_from_slice(&src[..total_bytes]);
        src.advance(total_bytes);
        frames.extend(lengths.iter().map(|&length| message.split_to(length)));
        return Ok(true);
    }
    while let Some(&bytes) = lengths.get(frames.len()) {
        if bytes >= OWN_MEMORY_BYTES_MIN {
            let frame = match large {
                Some(frame) => frame,
                None => large.insert(LargeFrame::new(bytes)?),
            };
            frame.fill(src)?;
            if frame.missing() > 0 {
                return Ok(false);
            }
            frames.extend(large.take().map(LargeFrame::finish));
        } else if src.len() >= bytes {
            frames.push(src.split_to(bytes).freeze());
        } else {
            let small = lengths[frames.len()..].iter().take_while(|&&bytes| bytes < OWN_MEMORY_BYTES_MIN);
            make_room(src, small.sum());
            return Ok(false);
        }
    }
    if total_bytes >= DETACH_BYTES_MIN {
        *src = BytesMut::from(&src[..]);
    }
    Ok(true)
}

impl Decoder for FrameCodec {
    type Item = Vec<Bytes>;
    type Error = CommError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Vec<Bytes>>, CommError> {
        loop {
            if let State::Frames { lengths, frames, large } = &mut self.state {
                if !take_frames(src, lengths, frames, large)? {
                    return Ok(None);
                }
                let frames = std::mem::take(frames);
                self.state = State::Head;
                return Ok(Some(frames));
            }
            let needed = self.needed();
            if src.len() < needed {
                make_room(src, needed);
                return Ok(None);
            }
            self.state = match std::mem::replace(&mut self.state, State::Head) {
                State::Head => self.read_head(src)?,
                State::Table { first_bytes, count } => self.read_table(src, first_bytes, count)?,
                State::Rest { .. } => {
                    return Err(DecodeError::FrameTable("the last message was not read to its end").into());
                }
                frames @ State::Frames { .. } => frames,
            };
        }
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Vec<Bytes>>, CommError> {
        match self.decode(src)? {
            Some(frames) => Ok(Some(frames)),
            None if src.is_empty() && self.at_boundary() => Ok(None),
            None => Err(DecodeError::FrameTable("the stream ends inside a message").into()),
        }
    }
}

impl Encoder<Message> for FrameCodec {
    type Error = CommError;

    fn encode(&mut self, message: Message, dst: &mut BytesMut) -> Result<(), CommError> {
        let mut chunks = Chunks::new(message.frames());
        dst.reserve(chunks.remaining());
        dst.put(&mut chunks);
        Ok(())
    }
}

/// What comes before the frames of these lengths.
pub(crate) fn table(lengths: &[usize]) -> BytesMut {
    let frames_bytes: u64 = lengths.iter().map(|&length| length as u64).sum();
    let table_bytes = WORD * (1 + lengths.len());
    let mut table = BytesMut::with_capacity(WORD + table_bytes);
    table.put_u64_le(table_bytes as u64 + frames_bytes);
    table.put_u64_le(lengths.len() as u64);
    lengths.iter().for_each(|&length| table.put_u64_le(length as u64));
    table
}

/// A message ready for writing: the table and small frames in one piece, large frames in place.
#[derive(Debug)]
pub struct Chunks {
    chunks: VecDeque<Bytes>,
    remaining: usize,
}

impl Chunks {
    /// Lays out the frames behind their table; `FIRST` covers everything, the simplest choice that is right.
    pub fn new(frames: &[Bytes]) -> Chunks {
        let frames_bytes: usize = frames.iter().map(Bytes::len).sum();
        let small_bytes: usize = frames.iter().map(Bytes::len).filter(|&n| n < COPY_BYTES_MAX).sum();
        let table_bytes = WORD * (1 + frames.len());
        let mut copied = BytesMut::with_capacity(WORD + table_bytes + small_bytes);
        copied.put_u64_le((table_bytes + frames_bytes) as u64);
        copied.put_u64_le(frames.len() as u64);
        frames.iter().for_each(|frame| copied.put_u64_le(frame.len() as u64));
        let mut chunks = VecDeque::new();
        for frame in frames {
            if frame.len() < COPY_BYTES_MAX {
                copied.put_slice(frame);
            } else {
                chunks.extend([copied.split().freeze(), frame.clone()]);
            }
        }
        chunks.push_back(copied.freeze());
        chunks.retain(|chunk| !chunk.is_empty());
        Chunks { chunks, remaining: WORD + table_bytes + frames_bytes }
    }
}

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| &chunk[..])
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let filled = dst.iter_mut().zip(&self.chunks);
        filled.map(|(slot, chunk)| *slot = IoSlice::new(chunk)).count()
    }

    fn advance(&mut self, mut count: usize) {
        self.remaining = self.remaining.checked_sub(count).expect("advance stays within the message");
        while count > 0 {
            let front = self.chunks.front_mut().expect("remaining counts the chunks' bytes");
            let step = count.min(front.len());
            front.advance(step);
            count -= step;
            if front.is_empty() {
                self.chunks.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(frames: &[Bytes]) -> Vec<u8> {
        let mut chunks = Chunks::new(frames);
        chunks.copy_to_bytes(chunks.remaining()).to_vec()
    }

    #[test]
    fn upstreams_handshake_has_these_bytes() {
        let body = Bytes::from_static(b"\x83\xabcompression\xc0\xa6python\x93\x03\x0b\x07\xafpickle-protocol\x05");
        let bytes = wire(std::slice::from_ref(&body));
        assert_eq!(bytes[..24], [0x3a, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x2a, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[24..], body);
    }

    #[test]
    fn large_frames_are_written_in_place() {
        let large = Bytes::from(vec![7; COPY_BYTES_MAX]);
        let mut chunks = Chunks::new(&[Bytes::from_static(b"body"), large.clone(), Bytes::new(), large.clone()]);
        let mut slices = [IoSlice::new(&[]); 8];
        let count = chunks.chunks_vectored(&mut slices);
        assert_eq!(slices[1..count].iter().map(|s| s.as_ptr()).collect::<Vec<_>>(), [large.as_ptr(); 2]);
        chunks.advance(chunks.remaining());
        assert!(chunks.chunk().is_empty());
    }

    #[test]
    fn a_message_is_read_piece_by_piece_once_its_body_is_there() {
        let frames = [Bytes::from_static(b"body"), Bytes::from(vec![1; 10]), Bytes::new(), Bytes::from(vec![2; 5])];
        let bytes = [wire(&frames), wire(&frames[..1])].concat();
        for step in [1, 7, 64, bytes.len()] {
            let (mut codec, mut src) = (FrameCodec::new(FrameLimits::default()), BytesMut::new());
            let (mut head, mut rest, mut next) = (None, BytesMut::new(), None);
            for piece in bytes.chunks(step) {
                src.extend_from_slice(piece);
                if head.is_none() {
                    head = codec.decode_head(&mut src).expect("legal");
                }
                while head.is_some()
                    && let Some(part) = codec.decode_rest(&mut src, 4).filter(|part| !part.is_empty())
                {
                    assert!(part.len() <= 4);
                    rest.extend_from_slice(&part);
                }
                if rest.len() == 15 {
                    next = codec.decode(&mut src).expect("legal").or(next);
                }
            }
            let head = head.expect("complete");
            assert_eq!((&head.body[..], &head.lengths[..], head.rest_bytes()), (&b"body"[..], &[10, 0, 5][..], 15));
            assert_eq!(rest, [&[1; 10][..], &[2; 5]].concat());
            assert_eq!(next.expect("the next message is read whole"), [Bytes::from_static(b"body")]);
        }
    }

    #[test]
    fn a_message_half_read_is_no_place_for_the_next() {
        let mut src = BytesMut::from(&wire(&[Bytes::from_static(b"body"), Bytes::from_static(b"x")])[..]);
        let mut codec = FrameCodec::new(FrameLimits::default());
        assert!(codec.decode_head(&mut src).expect("legal").is_some());
        assert!(!codec.at_boundary() && codec.decode(&mut src).is_err());
    }

    #[test]
    fn announced_lengths_reserve_no_more_than_the_trusted_amount() {
        let mut src = BytesMut::new();
        for word in [24 + (1_u64 << 37), 2, 1 << 36, 1 << 36] {
            src.put_u64_le(word);
        }
        let mut codec = FrameCodec::new(FrameLimits::default());
        assert!(codec.decode(&mut src).expect("legal so far").is_none());
        assert!(src.capacity() <= 4 * TRUST_BYTES_MAX, "{}", src.capacity());
    }

    #[test]
    fn small_messages_that_are_kept_leave_the_read_buffer_alone() {
        let (mut codec, mut src) = (FrameCodec::new(FrameLimits::default()), BytesMut::new());
        let mut kept = Vec::new();
        src.reserve(READ_BYTES_MIN);
        let before = src.as_ptr();
        for _ in 0..100 {
            src.extend_from_slice(&wire(&[Bytes::from_static(b"a small message")]));
            kept.push(codec.decode(&mut src).expect("valid").expect("complete"));
            // The reader makes room as it does before every read.
            assert!(codec.decode(&mut src).expect("valid").is_none());
        }
        assert_eq!(src.as_ptr(), before, "the buffer serves on");
    }

    #[test]
    fn a_small_message_after_a_large_one_does_not_keep_its_memory() {
        let mut src = BytesMut::from(&wire(&[Bytes::from(vec![1; 1 << 20])])[..]);
        src.extend_from_slice(&wire(&[Bytes::from_static(b"x")]));
        let mut codec = FrameCodec::new(FrameLimits::default());
        let large = codec.decode(&mut src).expect("legal").expect("complete");
        assert_eq!(large[0].len(), 1 << 20);
        drop(large);
        assert!(src.capacity() < DETACH_BYTES_MIN);
        assert_eq!(codec.decode(&mut src).expect("legal").expect("complete"), [Bytes::from_static(b"x")]);
    }
}
