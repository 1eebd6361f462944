//! The sending half of a WebSocket.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use rand::Rng;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::mask::{self, Mask};
use super::{BoxedWriter, FRAGMENT_BYTES_MAX, Side};

/// How much is put together before it is written. Masked frames pass through in such pieces.
const PIECE_BYTES: usize = 256 << 10;
/// Frames of this size are written from where they are, if they need no mask.
const IN_PLACE_BYTES_MIN: usize = 16 << 10;

/// How much memory a connection keeps while it has nothing to say.
const KEPT_BYTES_MAX: usize = 16 << 10;

/// The connection, which messages and answers to pings share.
pub(super) type Line = Mutex<BoxedWriter>;

/// Writes messages.
pub(in crate::comm) struct WebSocketWriter {
    line: Arc<Line>,
    side: Side,
    /// The connection, from the beginning of a message to its end.
    held: Option<OwnedMutexGuard<BoxedWriter>>,
    /// Ready to be written.
    pieces: BytesMut,
    /// Lengths of the message's frames that are to come.
    lengths: VecDeque<usize>,
    frame: Open,
}

/// A frame that has begun, in fragments unless it is small.
#[derive(Default)]
struct Open {
    /// Bytes of it that have no header yet.
    later: usize,
    /// Bytes that are still to come of the fragment that has begun.
    missing: usize,
    /// Bytes of that fragment that were put.
    offset: usize,
    mask: Option<Mask>,
}

impl WebSocketWriter {
    pub(super) fn new(line: Arc<Line>, side: Side) -> WebSocketWriter {
        let (lengths, frame) = (VecDeque::new(), Open::default());
        WebSocketWriter { line, side, held: None, pieces: BytesMut::new(), lengths, frame }
    }

    /// Sends a whole message.
    ///
    /// # Errors
    /// When the connection failed. After that, or where this was abandoned, nothing may follow, as in all of these.
    pub(in crate::comm) async fn send(&mut self, frames: &[Bytes]) -> io::Result<()> {
        let lengths: Vec<usize> = frames.iter().map(Bytes::len).collect();
        self.open(&lengths).await?;
        for frame in frames {
            self.put(frame).await?;
        }
        self.flush().await
    }

    /// Begins a message with frames of these lengths.
    ///
    /// # Errors
    /// As [`WebSocketWriter::send`].
    pub(in crate::comm) async fn begin(&mut self, lengths: &[usize]) -> io::Result<()> {
        self.open(lengths).await?;
        self.flush().await
    }

    /// Writes the next bytes of the message that was begun.
    ///
    /// # Errors
    /// As [`WebSocketWriter::send`].
    pub(in crate::comm) async fn write_part(&mut self, part: &[u8]) -> io::Result<()> {
        self.put(part).await?;
        self.flush().await
    }

    /// Tells the peer that nothing more will come, unless a message was begun.
    ///
    /// # Errors
    /// When the connection is gone already.
    pub(in crate::comm) async fn close(&mut self) -> io::Result<()> {
        if let Some(mut io) = self.held.take() {
            return io.shutdown().await;
        }
        let mut close = BytesMut::new();
        let code = u16::from(CloseCode::Normal).to_be_bytes();
        put_frame(&mut close, self.side, OpCode::Control(Control::Close), &code);
        let mut io = self.line.lock().await;
        io.write_all(&close).await?;
        io.shutdown().await
    }

    async fn open(&mut self, lengths: &[usize]) -> io::Result<()> {
        self.held = Some(Arc::clone(&self.line).lock_owned().await);
        let count = (lengths.len() as u64).to_le_bytes();
        put_frame(&mut self.pieces, self.side, OpCode::Data(Data::Binary), &count);
        self.lengths.extend(lengths);
        self.put_headers().await
    }

    /// Puts bytes of the message where they belong, and the headers behind them.
    async fn put(&mut self, mut part: &[u8]) -> io::Result<()> {
        while !part.is_empty() {
            if self.frame.missing == 0 {
                return Err(io::Error::other("more bytes than the message was to have"));
            }
            let (now, rest) = part.split_at(part.len().min(self.frame.missing));
            self.put_payload(now).await?;
            self.put_headers().await?;
            part = rest;
        }
        Ok(())
    }

    /// Headers up to the next that has bytes behind it.
    async fn put_headers(&mut self) -> io::Result<()> {
        while self.frame.missing == 0 {
            let (opcode, left) = match self.frame.later {
                0 => match self.lengths.pop_front() {
                    Some(length) => (Data::Binary, length),
                    None => return Ok(()),
                },
                later => (Data::Continue, later),
            };
            let missing = left.min(FRAGMENT_BYTES_MAX);
            let later = left - missing;
            let mask = put_header(&mut self.pieces, self.side, OpCode::Data(opcode), missing, later == 0);
            self.frame = Open { later, missing, offset: 0, mask };
            self.write_pieces(PIECE_BYTES).await?;
        }
        Ok(())
    }

    /// Bytes of the fragment that has begun.
    async fn put_payload(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.frame.mask {
            None if bytes.len() >= IN_PLACE_BYTES_MIN => {
                self.write_pieces(0).await?;
                self.io()?.write_all(bytes).await?;
            }
            mask => {
                let mut offset = self.frame.offset;
                for piece in bytes.chunks(PIECE_BYTES) {
                    put_masked(&mut self.pieces, mask, offset, piece);
                    offset += piece.len();
                    self.write_pieces(PIECE_BYTES).await?;
                }
            }
        }
        self.frame.offset += bytes.len();
        self.frame.missing -= bytes.len();
        Ok(())
    }

    /// Writes what is put together, if it is so much.
    async fn write_pieces(&mut self, bytes_min: usize) -> io::Result<()> {
        if self.pieces.is_empty() || self.pieces.len() < bytes_min {
            return Ok(());
        }
        let io = self.held.as_mut().ok_or_else(not_begun)?;
        io.write_all(&self.pieces).await?;
        self.pieces.clear();
        Ok(())
    }

    /// Sends what was put, and lets others write once the message is complete.
    async fn flush(&mut self) -> io::Result<()> {
        self.write_pieces(0).await?;
        self.io()?.flush().await?;
        if self.lengths.is_empty() && self.frame.missing == 0 && self.frame.later == 0 {
            self.held = None;
            if self.pieces.capacity() > KEPT_BYTES_MAX {
                self.pieces = BytesMut::new();
            }
        }
        Ok(())
    }

    fn io(&mut self) -> io::Result<&mut BoxedWriter> {
        self.held.as_deref_mut().ok_or_else(not_begun)
    }
}

fn not_begun() -> io::Error {
    io::Error::other("no message was begun")
}

/// A small frame as it is sent by this side.
pub(super) fn put_frame(out: &mut BytesMut, side: Side, opcode: OpCode, payload: &[u8]) {
    let mask = put_header(out, side, opcode, payload.len(), true);
    put_masked(out, mask, 0, payload);
}

fn put_header(out: &mut BytesMut, side: Side, opcode: OpCode, bytes: usize, is_final: bool) -> Option<Mask> {
    let mask = match side {
        Side::Client => Some(rand::rng().random()),
        Side::Server => None,
    };
    let header = FrameHeader { is_final, rsv1: false, rsv2: false, rsv3: false, opcode, mask };
    header.format(bytes as u64, &mut out.writer()).expect("a buffer takes all that is written");
    mask
}

fn put_masked(out: &mut BytesMut, mask: Option<Mask>, offset: usize, bytes: &[u8]) {
    let start = out.len();
    out.extend_from_slice(bytes);
    if let Some(mask) = mask {
        mask::apply(mask, offset, &mut out[start..]);
    }
}
