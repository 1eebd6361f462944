//! Connections within a process: messages are handed over as they are, without sockets, and streams without packing.
//!
//! A [`Listener`](super::Listener) that lets its own process in ([`CommConfig::in_process`](super::CommConfig)) is found
//! here under its address, and [`Comm::connect`] takes this way without being asked to. To both ends it is a connection
//! like any other; only [`CommReader::recv_batch`](super::CommReader::recv_batch) notices that a stream's elements never
//! were bytes.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc;

use super::connection::Comm;
use crate::address::Address;
use crate::error::CommError;
use crate::message::Message;

/// Who listens in this process, and where callers are handed to.
static LISTENING: Mutex<Option<FxHashMap<Address, mpsc::UnboundedSender<Comm>>>> = Mutex::new(None);

fn listening() -> MutexGuard<'static, Option<FxHashMap<Address, mpsc::UnboundedSender<Comm>>>> {
    LISTENING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A listener's entry among those of this process; dropping it takes it out.
#[derive(Debug)]
pub(super) struct Entrance {
    address: Address,
    knock: mpsc::WeakUnboundedSender<Comm>,
    pub(super) callers: mpsc::UnboundedReceiver<Comm>,
}

impl Entrance {
    pub(super) fn open(address: Address) -> Entrance {
        let (knock, callers) = mpsc::unbounded_channel();
        let weak = knock.downgrade();
        listening().get_or_insert_default().insert(address.clone(), knock);
        Entrance { address, knock: weak, callers }
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        let mut all = listening();
        let Some(all) = &mut *all else { return };
        // Another listener may have the address by now.
        let ours = |knock: &mpsc::UnboundedSender<Comm>| self.knock.upgrade().is_some_and(|it| it.same_channel(knock));
        if all.get(&self.address).is_some_and(ours) {
            all.remove(&self.address);
        }
    }
}

/// A connection to a listener of this process; none if there is no such listener, or it lets nobody in this way.
pub(super) fn connect(address: &Address) -> Option<Comm> {
    let knock = listening().as_ref()?.get(address)?.clone();
    let caller = Address::from_parts("inproc", address.host(), 0);
    let (ours, theirs) = pair(caller, address.clone());
    knock.send(theirs).ok().map(|()| ours)
}

/// The two ends of a new connection.
fn pair(caller: Address, listener: Address) -> (Comm, Comm) {
    let (there, from_caller) = mpsc::unbounded_channel();
    let (back, from_listener) = mpsc::unbounded_channel();
    let ours = (LocalReader::new(from_listener), LocalWriter::new(there));
    let theirs = (LocalReader::new(from_caller), LocalWriter::new(back));
    (
        Comm::from_local(ours.0, ours.1, caller.clone(), listener.clone()),
        Comm::from_local(theirs.0, theirs.1, listener, caller),
    )
}

/// What passes over such a connection. Requests wait for their replies, so few pass at a time; streams have queues of
/// their own, which are bounded.
enum Parcel {
    Message(Message),
    /// From here on the sender's queue is read directly.
    Stream(Attached),
}

/// The queue of a [`BatchedSender`](super::BatchedSender), as its reader sees it.
pub(super) trait LocalQueue: Send + Sync {
    /// All that waits, packed as one message, for readers that want bytes.
    fn message(&self) -> BoxFuture<'_, Result<Message, CommError>>;
    /// The queue itself, for readers that know the type of its elements.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    /// Nobody reads any more.
    fn abandon(&self);
}

/// A queue that is being read; dropping it tells the sender.
pub(super) struct Attached(Arc<dyn LocalQueue>);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// The receiving half.
pub(super) struct LocalReader {
    parcels: mpsc::UnboundedReceiver<Parcel>,
    stream: Option<Attached>,
}

/// The sending half.
pub(super) struct LocalWriter {
    parcels: Option<mpsc::UnboundedSender<Parcel>>,
    begun: Option<Begun>,
}

/// A message that is written in parts.
struct Begun {
    lengths: VecDeque<usize>,
    frames: Vec<Bytes>,
    /// The beginning of the next frame.
    part: BytesMut,
}

/// The other end is gone.
#[derive(Debug)]
pub(super) struct Gone;

impl LocalReader {
    fn new(parcels: mpsc::UnboundedReceiver<Parcel>) -> LocalReader {
        LocalReader { parcels, stream: None }
    }

    /// The queue of the stream that this half belongs to, once it is one. Cancel-safe, as all that follow.
    pub(super) async fn queue(&mut self) -> Result<Result<Arc<dyn LocalQueue>, Message>, Gone> {
        if self.stream.is_none() {
            match self.parcels.recv().await.ok_or(Gone)? {
                Parcel::Message(message) => return Ok(Err(message)),
                Parcel::Stream(stream) => self.stream = Some(stream),
            }
        }
        let stream = self.stream.as_ref().expect("set above where it was not");
        Ok(Ok(Arc::clone(&stream.0)))
    }

    /// The next message, or `None` at the end.
    pub(super) async fn recv(&mut self) -> Option<Result<Message, CommError>> {
        match self.queue().await {
            Ok(Ok(queue)) => Some(queue.message().await),
            Ok(Err(message)) => Some(Ok(message)),
            Err(Gone) => None,
        }
    }
}

impl LocalWriter {
    fn new(parcels: mpsc::UnboundedSender<Parcel>) -> LocalWriter {
        LocalWriter { parcels: Some(parcels), begun: None }
    }

    fn hand_over(&self, parcel: Parcel) -> Result<(), Gone> {
        self.parcels.as_ref().ok_or(Gone)?.send(parcel).map_err(|_| Gone)
    }

    /// Hands a message over; its frames are shared.
    pub(super) fn send(&self, message: Message) -> Result<(), Gone> {
        self.hand_over(Parcel::Message(message))
    }

    /// Lets the other end read this queue from here on. A queue that nobody can read any more is abandoned at once.
    pub(super) fn attach(&self, queue: Arc<dyn LocalQueue>) {
        // An error gives the parcel back, and dropping it abandons the queue.
        drop(self.hand_over(Parcel::Stream(Attached(queue))));
    }

    /// Begins a message with frames of these lengths.
    pub(super) fn begin(&mut self, lengths: &[usize]) -> Result<(), Gone> {
        let begun = Begun { lengths: lengths.iter().copied().collect(), frames: Vec::new(), part: BytesMut::new() };
        self.begun = Some(begun);
        self.write_part(Bytes::new())
    }

    /// Adds bytes to the message that was begun; sends it when it is complete.
    pub(super) fn write_part(&mut self, mut part: Bytes) -> Result<(), Gone> {
        let begun = self.begun.as_mut().ok_or(Gone)?;
        while let Some(&length) = begun.lengths.front() {
            let missing = length - begun.part.len();
            if part.len() < missing {
                begun.part.reserve(missing);
                begun.part.extend_from_slice(&part);
                return Ok(());
            }
            let end = part.split_to(missing);
            // A frame that comes whole is passed on as it is.
            let frame = if begun.part.is_empty() {
                end
            } else {
                begun.part.extend_from_slice(&end);
                begun.part.split().freeze()
            };
            begun.frames.push(frame);
            begun.lengths.pop_front();
        }
        let whole = self.begun.take().expect("looked at above");
        self.send(Message::from_frames(whole.frames))
    }

    /// Nothing more will come.
    pub(super) fn close(&mut self) {
        self.parcels = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;
    use crate::comm::{BatchedSender, CommConfig, Listener};
    use crate::message::{ClientReleasesKeys, ClientToScheduler, SchedulerToWorker, WorkerToScheduler};

    async fn both_ends() -> (Listener, Comm, Comm) {
        let config = CommConfig { in_process: true, ..CommConfig::default() };
        let listener = Listener::bind(&Address::from_parts("tcp", "127.0.0.1", 0), &config).await.expect("a port");
        let ours = Comm::connect(&listener.contact_address(), &CommConfig::default()).await.expect("it listens");
        let theirs = listener.accept().await.expect("a caller").handshake().await.expect("nothing to agree on");
        (listener, ours, theirs)
    }

    fn release(name: &str) -> ClientToScheduler {
        ClientReleasesKeys { keys: vec![Key::from(name)].into(), client: None }.into()
    }

    #[tokio::test]
    async fn messages_share_their_frames_and_an_end_is_noticed() {
        let (listener, mut ours, mut theirs) = both_ends().await;
        assert_eq!((ours.local().scheme(), ours.peer()), ("inproc", &listener.contact_address()));
        let frame = Bytes::from(vec![7; 1000]);
        let message = Message::from_frames(vec![Bytes::from_static(b"\x01"), frame.clone()]);
        ours.send(&message).await.expect("open");
        let arrived = theirs.recv().await.expect("open");
        assert_eq!(arrived.frames()[1].as_ptr(), frame.as_ptr());
        drop(ours);
        assert!(matches!(theirs.recv().await, Err(CommError::Closed { .. })));
        assert!(matches!(theirs.send(&message).await, Err(CommError::Closed { .. })));
    }

    #[tokio::test]
    async fn a_message_in_parts_arrives_as_one_and_can_be_taken_in_parts() {
        let (_listener, mut ours, mut theirs) = both_ends().await;
        let frames = vec![Bytes::from_static(b"body"), Bytes::new(), Bytes::from(vec![1; 10]), Bytes::from(vec![2; 5])];
        let lengths: Vec<usize> = frames.iter().map(Bytes::len).collect();
        for pieces in [1, 3, 100] {
            ours.begin(&lengths).await.expect("open");
            for piece in frames.concat().chunks(pieces) {
                ours.write_part(Bytes::copy_from_slice(piece)).await.expect("open");
            }
        }
        assert_eq!(theirs.recv().await.expect("whole").frames(), frames);
        let head = theirs.recv_head().await.expect("whole");
        assert_eq!((&head.body[..], &head.lengths[..]), (&b"body"[..], &[0, 10, 5][..]));
        let mut parts = Vec::new();
        while let Some(part) = theirs.recv_rest(4).await.expect("whole") {
            assert!(part.len() <= 4);
            parts.extend_from_slice(&part);
        }
        assert_eq!(parts, frames.concat()[4..]);
        let head = theirs.recv_head().await.expect("whole");
        assert_eq!(theirs.recv_whole(head).await.expect("untouched").frames(), frames);
    }

    #[tokio::test]
    async fn elements_of_a_stream_arrive_in_order_and_as_they_are() {
        let (_listener, ours, theirs) = both_ends().await;
        let (mut reader, _writer) = theirs.split();
        let sender = BatchedSender::<ClientToScheduler>::spawn(ours.split().1);
        sender.send_all([release("a"), release("b")]);
        let batch: Vec<ClientToScheduler> = reader.recv_batch().await.expect("open");
        assert_eq!(batch, [release("a"), release("b")]);
        sender.send(release("c"));
        sender.close();
        assert!(!sender.send(release("d")), "closed");
        assert_eq!(reader.recv_batch::<ClientToScheduler>().await.expect("was sent"), [release("c")]);
        assert!(reader.recv_batch::<ClientToScheduler>().await.is_err());
        sender.closed().await;
    }

    #[tokio::test]
    async fn a_reader_of_bytes_gets_them_packed_and_a_wrong_type_is_refused() {
        let (_listener, ours, theirs) = both_ends().await;
        let (mut reader, _writer) = theirs.split();
        let sender = BatchedSender::<ClientToScheduler>::spawn(ours.split().1);
        sender.send(release("a"));
        let message = reader.recv().await.expect("open");
        assert_eq!(message.decode_stream::<ClientToScheduler>().expect("packed"), [release("a")]);
        sender.send(release("b"));
        assert!(matches!(reader.recv_batch::<WorkerToScheduler>().await, Err(CommError::Decode(_))));
    }

    #[tokio::test]
    async fn a_sender_learns_that_its_reader_left_and_a_reader_that_its_sender_gave_up() {
        let (_listener, ours, theirs) = both_ends().await;
        let (reader, writer) = theirs.split();
        let (mut back, there) = ours.split();
        let sender = BatchedSender::<SchedulerToWorker>::spawn(there);
        let answers = BatchedSender::<WorkerToScheduler>::spawn(writer);
        drop(reader);
        sender.closed().await;
        // Its other half is of no more use either, as with a socket.
        assert!(back.recv_batch::<WorkerToScheduler>().await.is_err());
        drop(back);
        answers.closed().await;
    }

    #[tokio::test]
    async fn nobody_is_found_once_the_listener_is_gone() {
        let (listener, _ours, _theirs) = both_ends().await;
        let address = listener.contact_address();
        drop(listener);
        assert!(connect(&address).is_none());
    }
}
