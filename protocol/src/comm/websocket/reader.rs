//! The receiving half of a WebSocket.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tungstenite::protocol::frame::coding::{Control, OpCode};

use super::decoder::MessageDecoder;
use super::writer::{Line, put_frame};
use super::{BoxedReader, Side};
use crate::error::CommError;
use crate::frame::FrameLimits;
use crate::message::Message;
use crate::partial::CutMessage;

/// Reads messages, and has pings answered.
pub(in crate::comm) struct WebSocketReader {
    io: BoxedReader,
    buffer: BytesMut,
    decoder: MessageDecoder,
    pongs: Pongs,
}

impl WebSocketReader {
    /// Reads what `io` brings after what is in `buffer` already.
    pub(super) fn new(io: BoxedReader, buffer: BytesMut, side: Side, line: &Arc<Line>) -> WebSocketReader {
        let pongs = Pongs { line: Arc::downgrade(line), side, busy: Arc::default() };
        WebSocketReader { io, buffer, decoder: MessageDecoder::new(side), pongs }
    }

    /// Accepts other sizes from here on.
    pub(in crate::comm) fn set_limits(&mut self, limits: FrameLimits) {
        self.decoder.set_limits(limits);
    }

    /// The next message, or `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// [`CommError::Decode`] for what no dask peer sends, [`CommError::Io`] when the connection failed.
    pub(in crate::comm) async fn recv(&mut self) -> Result<Option<Message>, CommError> {
        loop {
            let decoded = self.decoder.decode(&mut self.buffer)?;
            if let Some(ping) = self.decoder.take_ping() {
                self.pongs.answer(ping);
            }
            if let Some(frames) = decoded {
                return Ok(Some(Message::from_frames(frames)));
            }
            if self.decoder.is_closed() || self.read_some().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Whether a part of a message has arrived, and the rest has not.
    pub(in crate::comm) fn is_inside_message(&self) -> bool {
        !self.decoder.at_boundary() || !self.decoder.is_closed() && !self.buffer.is_empty()
    }

    /// What has come of the message in which the stream ended.
    pub(in crate::comm) fn take_cut(&mut self) -> Option<CutMessage> {
        self.decoder.take_cut()
    }

    /// Reads what there is to where it belongs.
    async fn read_some(&mut self) -> std::io::Result<usize> {
        match self.decoder.large_frame() {
            Some(mut frame) => self.io.read_buf(&mut frame).await,
            None => self.io.read_buf(&mut self.buffer).await,
        }
    }
}

/// Answers to pings. They are sent between messages, by a task of their own: nobody may be sending when a ping comes.
struct Pongs {
    line: Weak<Line>,
    side: Side,
    /// One is on its way: the pings that come meanwhile go without, so that they cannot pile up.
    busy: Arc<AtomicBool>,
}

impl Pongs {
    fn answer(&self, ping: Bytes) {
        let Some(line) = self.line.upgrade() else { return };
        if self.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let (busy, side) = (Arc::clone(&self.busy), self.side);
        tokio::spawn(async move {
            let mut pong = BytesMut::new();
            put_frame(&mut pong, side, OpCode::Control(Control::Pong), &ping);
            let mut io = line.lock().await;
            // The half that sends messages notices for itself when the connection is gone.
            if io.write_all(&pong).await.is_ok() {
                let _gone = io.flush().await;
            }
            busy.store(false, Ordering::Release);
        });
    }
}
