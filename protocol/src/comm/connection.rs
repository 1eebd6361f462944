//! A connection of which both ends have agreed to talk.

use std::fmt;
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::BorrowedFd;
use std::os::fd::RawFd;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::codec::Decoder;
use tokio_util::sync::CancellationToken;

use super::batched::BatchedSender;
use super::handshake::{self, Agreement, Offer};
use super::local::{Gone, LocalQueue, LocalReader, LocalWriter};
use super::parts::Parts;
use super::websocket::{BoxedReader, BoxedWriter, WebSocketReader, WebSocketWriter};
use crate::address::Address;
use crate::compression::{COMPRESS_BYTES_MIN, Compression};
use crate::error::CommError;
use crate::frame::{self, Chunks, FrameCodec, FrameLimits, MessageHead};
use crate::message::{Message, StreamMessage};
use crate::partial::CutMessage;

/// Messages up to this size are compressed where they are sent; larger ones on a thread that may block.
const COMPRESS_INLINE_BYTES_MAX: usize = 1 << 20;

/// A connection to a peer. Dropping it closes it.
#[derive(Debug)]
pub struct Comm {
    reader: CommReader,
    writer: CommWriter,
    /// Of the TCP connection below that a peer of ours opened.
    socket: Option<RawFd>,
}

/// The receiving half of a [`Comm`].
pub struct CommReader {
    source: Source,
    /// Of a message whose head was taken, where messages come whole.
    parts: Parts,
    ends: Arc<Ends>,
}

/// Where messages come from.
enum Source {
    Bytes(ByteReader),
    WebSocket(Box<WebSocketReader>),
    Local(LocalReader),
}

struct ByteReader {
    io: BoxedReader,
    buffer: BytesMut,
    codec: FrameCodec,
}

/// Where messages go to.
enum Sink {
    Bytes(BoxedWriter),
    WebSocket(Box<WebSocketWriter>),
    Local(LocalWriter),
}

/// What is written at a time.
enum Piece<'a> {
    Message(&'a Message),
    /// What comes before the frames of these lengths.
    Table(&'a [usize]),
    Part(Bytes),
}

/// The sending half of a [`Comm`].
pub struct CommWriter {
    sink: Sink,
    compression: Option<Compression>,
    same_host: bool,
    /// A message was begun and not finished: nothing may follow it.
    cut: bool,
    /// Bytes that [`CommWriter::begin`] announced and that are still to be written.
    unwritten: u64,
    ends: Arc<Ends>,
}

#[derive(Debug)]
struct Ends {
    local: Address,
    peer: Address,
    /// Set by [`CommWriter::abort`], so that a reader does not wait for a peer given up.
    aborted: CancellationToken,
}

impl Comm {
    /// Over any byte stream, without a handshake (for streams whose peer is known, and for tests).
    pub fn from_halves(
        reader: impl AsyncRead + Send + Sync + Unpin + 'static,
        writer: impl AsyncWrite + Send + Sync + Unpin + 'static,
        local: Address,
        peer: Address,
    ) -> Comm {
        Comm::from_boxes((Box::new(reader), Box::new(writer)), local, peer)
    }

    pub(super) fn from_boxes((io, writer): (BoxedReader, BoxedWriter), local: Address, peer: Address) -> Comm {
        let codec = FrameCodec::new(FrameLimits::default());
        let source = Source::Bytes(ByteReader { io, buffer: BytesMut::new(), codec });
        Comm::over(source, Sink::Bytes(writer), local, peer)
    }

    pub(super) fn from_websocket(
        reader: WebSocketReader,
        writer: WebSocketWriter,
        local: Address,
        peer: Address,
    ) -> Comm {
        Comm::over(Source::WebSocket(Box::new(reader)), Sink::WebSocket(Box::new(writer)), local, peer)
    }

    pub(super) fn from_local(reader: LocalReader, writer: LocalWriter, local: Address, peer: Address) -> Comm {
        Comm::over(Source::Local(reader), Sink::Local(writer), local, peer)
    }

    fn over(source: Source, sink: Sink, local: Address, peer: Address) -> Comm {
        let ends = Arc::new(Ends { local, peer, aborted: CancellationToken::new() });
        Comm {
            reader: CommReader { source, parts: Parts::default(), ends: Arc::clone(&ends) },
            writer: CommWriter { sink, compression: None, same_host: false, cut: false, unwritten: 0, ends },
            socket: None,
        }
    }

    /// The same, over the socket with this descriptor, which the reader and the writer own.
    pub(super) fn on_socket(self, socket: RawFd) -> Comm {
        Comm { socket: Some(socket), ..self }
    }

    /// From here on the peer may read nothing for as long as it likes, while its host answers. Without this a connection that
    /// was accepted ends once the peer has taken nothing that was sent for [`CommConfig::tcp_timeout`], even if its process is
    /// only busy. A host that is gone is still noticed in that time when nothing is on the way to it, else when TCP has tried often
    /// enough (some 15 minutes).
    ///
    /// # Errors
    /// When the system refuses.
    ///
    /// [`CommConfig::tcp_timeout`]: super::CommConfig::tcp_timeout
    pub fn let_peer_be_busy(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Some(socket) = self.socket {
            // SAFETY: the stream that owns the descriptor is in the reader and the writer, which are both here.
            let socket = unsafe { BorrowedFd::borrow_raw(socket) };
            socket2::SockRef::from(&socket).set_tcp_user_timeout(None)?;
        }
        Ok(())
    }

    /// Tells the peer what we can do and learns what it can.
    pub(super) async fn shake_hands(&mut self, offer: Offer<'_>) -> Result<Agreement, CommError> {
        self.reader.set_limits(FrameLimits::HANDSHAKE);
        self.writer.send(&handshake::hello(offer)?).await?;
        let agreement = handshake::agree(offer, &self.reader.recv().await?, self.peer())?;
        self.reader.set_limits(FrameLimits::default());
        self.writer.compression = agreement.compression;
        self.writer.same_host = agreement.same_host;
        Ok(agreement)
    }

    /// Whether the other end is a process on this machine that said so, as this one did (see [`CommConfig::host`]).
    ///
    /// [`CommConfig::host`]: super::CommConfig::host
    pub fn is_same_host(&self) -> bool {
        self.writer.same_host
    }

    /// Our end.
    pub fn local(&self) -> &Address {
        &self.reader.ends.local
    }

    /// The other end: the address called, or where a caller came from.
    pub fn peer(&self) -> &Address {
        &self.reader.ends.peer
    }

    /// See [`CommReader::recv`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv(&mut self) -> Result<Message, CommError> {
        self.reader.recv().await
    }

    /// See [`CommWriter::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&mut self, message: &Message) -> Result<(), CommError> {
        self.writer.send(message).await
    }

    /// See [`CommReader::recv_head`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv_head(&mut self) -> Result<MessageHead, CommError> {
        self.reader.recv_head().await
    }

    /// See [`CommReader::recv_whole`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv_whole(&mut self, head: MessageHead) -> Result<Message, CommError> {
        self.reader.recv_whole(head).await
    }

    /// See [`CommReader::recv_rest`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv_rest(&mut self, bytes_max: usize) -> Result<Option<Bytes>, CommError> {
        self.reader.recv_rest(bytes_max).await
    }

    /// See [`CommWriter::begin`].
    ///
    /// # Errors
    /// As there.
    pub async fn begin(&mut self, lengths: &[usize]) -> Result<(), CommError> {
        self.writer.begin(lengths).await
    }

    /// See [`CommWriter::write_part`].
    ///
    /// # Errors
    /// As there.
    pub async fn write_part(&mut self, part: Bytes) -> Result<(), CommError> {
        self.writer.write_part(part).await
    }

    /// Packs a value and sends it, such as a reply.
    ///
    /// # Errors
    /// [`CommError::Encode`] when it cannot be packed, else as [`CommWriter::send`].
    pub async fn send_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CommError> {
        let message = Message::encode(value)?;
        self.writer.send(&message).await
    }

    /// What has come of a message, once [`Comm::recv`] failed inside it.
    pub fn take_cut(&mut self) -> Option<CutMessage> {
        match &mut self.reader.source {
            Source::Bytes(bytes) => bytes.codec.take_cut(&mut bytes.buffer),
            Source::WebSocket(socket) => socket.take_cut(),
            Source::Local(_) => None,
        }
    }

    /// The message as it travels to this peer: with its payloads compressed, if that was agreed and pays.
    pub async fn as_sent(&self, message: Message) -> Message {
        self.writer.compressed(&message).await.unwrap_or(message)
    }

    /// Whether a part of a message has arrived, and the rest has not.
    pub(super) fn is_inside_message(&self) -> bool {
        match &self.reader.source {
            Source::Bytes(bytes) => !bytes.buffer.is_empty() || !bytes.codec.at_boundary(),
            Source::WebSocket(socket) => socket.is_inside_message(),
            Source::Local(_) => false,
        }
    }

    /// Whether the peer has closed, or sent something nobody asked for. Does not wait.
    pub fn is_stale(&mut self) -> bool {
        use futures::FutureExt;
        self.reader.recv().now_or_never().is_some()
    }

    /// The two halves, for a stream.
    pub fn split(self) -> (CommReader, CommWriter) {
        (self.reader, self.writer)
    }

    /// Sends what remains and closes.
    pub async fn close(mut self) {
        self.writer.close().await;
    }
}

impl CommReader {
    /// The next message. Cancel-safe: a read abandoned half way resumes with the next call.
    ///
    /// # Errors
    /// [`CommError::Closed`] when the peer closed, [`CommError::Decode`] when it broke the framing,
    /// [`CommError::Io`] when the connection failed otherwise. After any error the connection is of no more use.
    pub async fn recv(&mut self) -> Result<Message, CommError> {
        let CommReader { source, ends, .. } = self;
        match source {
            Source::Bytes(bytes) => loop {
                if let Some(frames) = bytes.codec.decode(&mut bytes.buffer)? {
                    return Ok(Message::from_frames(frames));
                }
                bytes.read_more(ends).await?;
            },
            Source::WebSocket(socket) => match ends.unless_aborted(socket.recv()).await? {
                Ok(message) => message.ok_or_else(|| ends.closed()),
                Err(CommError::Io(error)) => Err(ends.explain(error)),
                Err(error) => Err(error),
            },
            Source::Local(local) => ends.unless_aborted(local.recv()).await?.unwrap_or_else(|| Err(ends.closed())),
        }
    }

    /// The next elements of a stream. Cancel-safe.
    ///
    /// # Errors
    /// As [`CommReader::recv`]; [`CommError::Decode`] for an element that is malformed or that `T` does not know.
    pub async fn recv_batch<T: StreamMessage + Send + 'static>(&mut self) -> Result<Vec<T>, CommError> {
        let CommReader { source, ends, .. } = self;
        let Source::Local(local) = source else { return Ok(self.recv().await?.decode_stream()?) };
        let queue = match ends.unless_aborted(local.queue()).await? {
            Ok(Ok(queue)) => queue,
            Ok(Err(message)) => return Ok(message.decode_stream()?),
            Err(Gone) => return Err(ends.closed()),
        };
        match BatchedSender::<T>::elements(Arc::clone(&queue)) {
            Some(elements) => ends.unless_aborted(elements).await?.ok_or_else(|| ends.closed()),
            // The sender's elements are of another type: what they are packed, decides.
            None => Ok(ends.unless_aborted(queue.message()).await??.decode_stream()?),
        }
    }

    /// The beginning of the next message, for one too large to be kept. Its frames are to be read with
    /// [`CommReader::recv_rest`] before anything else. Cancel-safe.
    ///
    /// # Errors
    /// As [`CommReader::recv`].
    pub async fn recv_head(&mut self) -> Result<MessageHead, CommError> {
        let CommReader { source: Source::Bytes(bytes), ends, .. } = self else {
            let message = self.recv().await?;
            return Ok(self.parts.take_apart(&message));
        };
        loop {
            if let Some(head) = bytes.codec.decode_head(&mut bytes.buffer)? {
                return Ok(head);
            }
            bytes.read_more(ends).await?;
        }
    }

    /// The whole message that this is the head of, when it is to be kept after all.
    ///
    /// # Errors
    /// As [`CommReader::recv`]; [`CommError::Decode`] when some of its frames were taken already.
    pub async fn recv_whole(&mut self, head: MessageHead) -> Result<Message, CommError> {
        match &mut self.source {
            Source::Bytes(bytes) => bytes.codec.keep_rest(&head)?,
            Source::WebSocket(_) | Source::Local(_) => return Ok(self.parts.put_together(head)?),
        }
        let rest = self.recv().await?;
        let rest = if head.lengths.is_empty() { &[] } else { rest.frames() };
        Ok(Message::from_frames(std::iter::once(head.body).chain(rest.iter().cloned()).collect()))
    }

    /// The next part, of at most `bytes_max`, of the frames behind a head, one after the other without gaps; none at their
    /// end. Cancel-safe.
    ///
    /// # Errors
    /// As [`CommReader::recv`].
    pub async fn recv_rest(&mut self, bytes_max: usize) -> Result<Option<Bytes>, CommError> {
        let CommReader { source: Source::Bytes(bytes), ends, .. } = self else {
            return Ok(self.parts.next(bytes_max));
        };
        loop {
            match bytes.codec.decode_rest(&mut bytes.buffer, bytes_max) {
                None => return Ok(None),
                Some(part) if part.is_empty() => bytes.read_more(ends).await?,
                Some(part) => return Ok(Some(part)),
            }
        }
    }

    fn set_limits(&mut self, limits: FrameLimits) {
        match &mut self.source {
            Source::Bytes(bytes) => bytes.codec.set_limits(limits),
            Source::WebSocket(socket) => socket.set_limits(limits),
            // What a process sends itself needs none.
            Source::Local(_) => {}
        }
    }

    /// Our end.
    pub fn local(&self) -> &Address {
        &self.ends.local
    }

    /// The other end.
    pub fn peer(&self) -> &Address {
        &self.ends.peer
    }
}

impl ByteReader {
    async fn read_more(&mut self, ends: &Ends) -> Result<(), CommError> {
        let read = tokio::select! {
            biased;
            read = read_some(&mut self.io, &mut self.codec, &mut self.buffer) => read,
            () = ends.aborted.cancelled() => return Err(ends.closed()),
        };
        match read {
            Ok(0) => Err(ends.closed()),
            Ok(_) => Ok(()),
            Err(error) => Err(ends.explain(error)),
        }
    }
}

/// Reads what there is to where it belongs.
async fn read_some(
    io: &mut (dyn AsyncRead + Send + Sync + Unpin),
    codec: &mut FrameCodec,
    buffer: &mut BytesMut,
) -> io::Result<usize> {
    match codec.large_frame() {
        Some(mut frame) => io.read_buf(&mut frame).await,
        None => io.read_buf(buffer).await,
    }
}

impl CommWriter {
    /// Sends one message, compressing payload frames if that was agreed and pays. Not cancel-safe: a call abandoned
    /// half way makes every later one fail, because the peer could not tell where the next message starts.
    ///
    /// # Errors
    /// [`CommError::Closed`] or [`CommError::Io`] when the connection is gone.
    pub async fn send(&mut self, message: &Message) -> Result<(), CommError> {
        if self.cut || self.ends.aborted.is_cancelled() {
            return Err(self.ends.closed());
        }
        if let Sink::Local(local) = &self.sink {
            return local.send(message.clone()).map_err(|Gone| self.ends.closed());
        }
        match self.compressed(message).await {
            Some(smaller) => self.write(Piece::Message(&smaller)).await,
            None => self.write(Piece::Message(message)).await,
        }
    }

    /// Sends one message made of these stream elements.
    ///
    /// # Errors
    /// [`CommError::Encode`] when an element cannot be packed, else as [`CommWriter::send`].
    pub async fn send_batch<T: Serialize>(&mut self, batch: &[T]) -> Result<(), CommError> {
        self.send(&Message::encode(batch)?).await
    }

    /// Begins a message with frames of these lengths, body first, for one too large to be kept. Its bytes are then to be
    /// written with [`CommWriter::write_part`]; until they are, every other call fails. Nothing is compressed.
    ///
    /// # Errors
    /// As [`CommWriter::send`].
    pub async fn begin(&mut self, lengths: &[usize]) -> Result<(), CommError> {
        if self.cut || self.ends.aborted.is_cancelled() {
            return Err(self.ends.closed());
        }
        if let Sink::Local(local) = &mut self.sink {
            return local.begin(lengths).map_err(|Gone| self.ends.closed());
        }
        self.unwritten = lengths.iter().map(|&length| length as u64).sum();
        self.write(Piece::Table(lengths)).await?;
        self.cut = self.unwritten > 0;
        Ok(())
    }

    /// Writes the next bytes of the message that was begun.
    ///
    /// # Errors
    /// As [`CommWriter::send`]; [`CommError::Closed`] for more bytes than the message has.
    pub async fn write_part(&mut self, part: Bytes) -> Result<(), CommError> {
        if let Sink::Local(local) = &mut self.sink {
            return local.write_part(part).map_err(|Gone| self.ends.closed());
        }
        let left = self.unwritten.checked_sub(part.len() as u64).ok_or_else(|| self.ends.closed())?;
        self.unwritten = 0;
        self.write(Piece::Part(part)).await?;
        self.unwritten = left;
        self.cut = left > 0;
        Ok(())
    }

    async fn write(&mut self, piece: Piece<'_>) -> Result<(), CommError> {
        let CommWriter { sink, cut, ends, .. } = self;
        *cut = true;
        let written = async {
            match (sink, piece) {
                (Sink::Bytes(io), Piece::Message(message)) => write_all(io, Chunks::new(message.frames())).await,
                (Sink::Bytes(io), Piece::Table(lengths)) => write_all(io, frame::table(lengths)).await,
                (Sink::Bytes(io), Piece::Part(part)) => write_all(io, part).await,
                (Sink::WebSocket(socket), Piece::Message(message)) => Box::pin(socket.send(message.frames())).await,
                (Sink::WebSocket(socket), Piece::Table(lengths)) => Box::pin(socket.begin(lengths)).await,
                (Sink::WebSocket(socket), Piece::Part(part)) => Box::pin(socket.write_part(&part)).await,
                // What stays in the process is never bytes.
                (Sink::Local(_), _) => Err(io::ErrorKind::NotConnected.into()),
            }
        };
        let written = tokio::select! {
            biased;
            written = written => written,
            () = ends.aborted.cancelled() => return Err(ends.closed()),
        };
        written.map_err(|error| ends.explain(error))?;
        *cut = false;
        Ok(())
    }

    async fn compressed(&self, message: &Message) -> Option<Message> {
        let compression = self.compression?;
        if message.frames()[1..].iter().all(|frame| frame.len() < COMPRESS_BYTES_MIN) {
            return None;
        }
        if message.len() <= COMPRESS_INLINE_BYTES_MAX {
            return handshake::compress(message, compression);
        }
        let message = message.clone();
        tokio::task::spawn_blocking(move || handshake::compress(&message, compression)).await.ok().flatten()
    }

    /// Our end.
    pub fn local(&self) -> &Address {
        &self.ends.local
    }

    /// The other end.
    pub fn peer(&self) -> &Address {
        &self.ends.peer
    }

    /// Gives the peer up: both halves fail from now on, also where they wait.
    pub fn abort(&mut self) {
        self.ends.aborted.cancel();
    }

    /// What [`CommWriter::abort`] sets, to be used where the writer itself is away.
    pub(super) fn abort_handle(&self) -> CancellationToken {
        self.ends.aborted.clone()
    }

    /// Lets the peer, which is in this process, read a queue directly from here on; false when it is elsewhere.
    pub(super) fn attach(&self, queue: Arc<dyn LocalQueue>) -> bool {
        match &self.sink {
            Sink::Bytes(_) | Sink::WebSocket(_) => false,
            Sink::Local(local) => {
                local.attach(queue);
                true
            }
        }
    }

    /// Tells the peer that nothing more will come; the reading half may still receive.
    pub async fn close(&mut self) {
        let closed = match &mut self.sink {
            Sink::Bytes(io) => io.shutdown().await,
            Sink::WebSocket(socket) => self.ends.unless_aborted(socket.close()).await.unwrap_or(Ok(())),
            Sink::Local(local) => return local.close(),
        };
        if let Err(error) = closed {
            tracing::trace!(peer = %self.ends.peer, %error, "shutdown of a connection that was gone already");
        }
    }
}

async fn write_all(io: &mut BoxedWriter, mut bytes: impl Buf) -> io::Result<()> {
    io.write_all_buf(&mut bytes).await?;
    io.flush().await
}

impl Ends {
    /// What this resolves to, unless the connection is given up first.
    async fn unless_aborted<T>(&self, what: impl Future<Output = T>) -> Result<T, CommError> {
        tokio::select! {
            biased;
            what = what => Ok(what),
            () = self.aborted.cancelled() => Err(self.closed()),
        }
    }

    fn closed(&self) -> CommError {
        CommError::Closed { peer: self.peer.as_str().to_owned() }
    }

    /// A connection cut by the peer is one kind of error, whatever the operating system calls it.
    fn explain(&self, error: io::Error) -> CommError {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut, UnexpectedEof};
        match error.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | TimedOut | UnexpectedEof => self.closed(),
            _ => match tls_failure(&error) {
                Some(reason) => CommError::Tls(format!("{}: {reason}", self.peer)),
                None => CommError::Io(error),
            },
        }
    }
}

/// What rustls says, where an error of the operating system's kind carries it.
pub(super) fn tls_failure(error: &io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref::<rustls::Error>().map(ToString::to_string)
}

impl fmt::Debug for CommReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommReader({} <- {})", self.ends.local, self.ends.peer)
    }
}

impl fmt::Debug for CommWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommWriter({} -> {})", self.ends.local, self.ends.peer)
    }
}
