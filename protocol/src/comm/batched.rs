//! The sending side of a stream. A task packs everything that waits into one message, writes it, and looks again: an
//! idle stream sends at once, a busy one batches by itself, and no timer is needed.
//!
//! A resumable stream outlives its connection: what the peer has not confirmed is kept in a [`SentLog`] and written again
//! when [`BatchedSender::resume`] brings another connection.

use std::any::Any;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::connection::CommWriter;
use super::local::LocalQueue;
use super::sent_log::{Gap, SentLimits, SentLog};
use crate::address::Address;
use crate::error::CommError;
use crate::message::Message;

/// Most memory for messages waiting for one peer, counting each message's own size (payloads are shared with whoever
/// sent them): 512 MiB, some two million messages. A peer further behind is given up, as it could never catch up.
pub const QUEUE_BYTES_MAX: usize = 512 << 20;
/// Most elements in one message, so that packing one never holds a thread for long.
pub const BATCH_MESSAGES_MAX: usize = 4096;

/// A handle to a stream's sending task. All clones feed the same stream; it closes when the last one is dropped.
#[derive(Debug)]
pub struct BatchedSender<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    queue: Mutex<Queue<T>>,
    /// Wakes the task: something was queued, or the stream is to close.
    wake: Notify,
    handles: AtomicUsize,
    /// The task has ended.
    ended: CancellationToken,
    peer: Address,
}

#[derive(Debug)]
struct Queue<T> {
    messages: Vec<T>,
    /// Messages taken by the task and not written yet.
    in_flight: usize,
    state: QueueState,
    /// Makes both halves of the present connection fail.
    abort: CancellationToken,
    /// What was sent and is not confirmed, where the stream may go on over another connection.
    log: Option<SentLog<Message>>,
    /// That other connection, and how many messages its peer has.
    next: Option<(CommWriter, u64)>,
}

/// Why a stream cannot go on over another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// It is closed, or was never meant to.
    #[error("the stream has ended")]
    Ended,
    /// What the peer lacks is not kept any more.
    #[error(transparent)]
    Gap(#[from] Gap),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QueueState {
    Open,
    /// Send what waits, then close.
    Closing,
    /// Nothing will be sent any more.
    Closed,
}

impl<T: Serialize + Send + 'static> BatchedSender<T> {
    /// Starts the task. Must be called within a tokio runtime.
    pub fn spawn(writer: CommWriter) -> BatchedSender<T> {
        BatchedSender::start(writer, None)
    }

    /// As [`BatchedSender::spawn`], for a stream that waits for another connection when this one breaks. It ends when it
    /// is closed or aborted; it is for its owner to do that when no other connection comes.
    pub fn spawn_resumable(writer: CommWriter) -> BatchedSender<T> {
        BatchedSender::start(writer, Some(SentLog::new(SentLimits::DEFAULT)))
    }

    fn start(writer: CommWriter, log: Option<SentLog<Message>>) -> BatchedSender<T> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                messages: Vec::new(),
                in_flight: 0,
                state: QueueState::Open,
                abort: writer.abort_handle(),
                log,
                next: None,
            }),
            wake: Notify::new(),
            handles: AtomicUsize::new(1),
            ended: CancellationToken::new(),
            peer: writer.peer().clone(),
        });
        if !writer.attach(Arc::clone(&shared) as Arc<dyn LocalQueue>) {
            tokio::spawn(run(Arc::clone(&shared), writer));
        }
        BatchedSender { shared }
    }
}

impl<T> BatchedSender<T> {
    /// Queues one message and wakes the task. Returns whether the stream still takes messages; where it does not, the
    /// stream's reader ends too, and that is where the peer's departure is handled.
    pub fn send(&self, message: T) -> bool {
        self.send_all([message])
    }

    /// Queues messages in order, waking the task once: what the driver calls when it has drained its events.
    pub fn send_all(&self, messages: impl IntoIterator<Item = T>) -> bool {
        let open = self.shared.push(messages);
        self.shared.wake.notify_one();
        open
    }

    /// Queues one message, unless `merge` can add it to the last one that waits: it is given both, and gives the new one
    /// back if it cannot.
    pub fn send_merging(&self, message: T, merge: impl FnOnce(&mut T, T) -> Option<T>) -> bool {
        let left = {
            let mut queue = self.shared.lock();
            if queue.state != QueueState::Open {
                return false;
            }
            match queue.messages.last_mut() {
                Some(last) => merge(last, message),
                None => Some(message),
            }
        };
        left.is_none_or(|message| self.send(message))
    }

    /// Messages queued or being written.
    pub fn len(&self) -> usize {
        let queue = self.shared.lock();
        queue.messages.len() + queue.in_flight + queue.log.as_ref().map_or(0, SentLog::unwritten)
    }

    /// Whether everything was handed to the operating system.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The other end.
    pub fn peer(&self) -> &Address {
        &self.shared.peer
    }

    /// Takes no more messages, sends what waits, then closes the sending direction.
    pub fn close(&self) {
        self.shared.finish();
    }

    /// Drops what waits and makes both halves of the connection fail.
    pub fn abort(&self) {
        self.shared.give_up();
    }

    /// Completes when the task has ended, for whatever reason.
    pub async fn closed(&self) {
        self.shared.ended.cancelled().await;
    }
}

/// Of streams within a process: there is no task, the reader takes what waits.
impl<T: Send + 'static> BatchedSender<T> {
    /// The next elements of a queue, if they are of this type: `None` at the stream's end. Cancel-safe.
    pub(super) fn elements(queue: Arc<dyn LocalQueue>) -> Option<impl Future<Output = Option<Vec<T>>>> {
        let shared = queue.into_any().downcast::<Shared<T>>().ok()?;
        Some(async move { shared.take_when_there().await })
    }
}

impl<T> Shared<T> {
    async fn take_when_there(&self) -> Option<Vec<T>> {
        loop {
            {
                let mut queue = self.lock();
                if !queue.messages.is_empty() {
                    return Some(std::mem::take(&mut queue.messages));
                }
                match queue.state {
                    QueueState::Open => {}
                    QueueState::Closing | QueueState::Closed => {
                        queue.state = QueueState::Closed;
                        self.ended.cancel();
                        return None;
                    }
                }
            }
            self.wake.notified().await;
        }
    }
}

impl<T: Serialize + Send + 'static> LocalQueue for Shared<T> {
    fn message(&self) -> BoxFuture<'_, Result<Message, CommError>> {
        Box::pin(async {
            let closed = || CommError::Closed { peer: self.peer.as_str().to_owned() };
            let elements = self.take_when_there().await.ok_or_else(closed)?;
            Message::encode(&elements)
        })
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn abandon(&self) {
        self.give_up();
        self.ended.cancel();
    }
}

/// Of resumable streams.
impl<T> BatchedSender<T> {
    /// Forgets messages that the peer has taken in; it counts them from the stream's beginning.
    pub fn confirm(&self, received: u64) {
        if let Some(log) = &mut self.shared.lock().log {
            log.confirm(received);
        }
    }

    /// How many messages carry everything queued so far; `None` while some of it is in no message yet.
    pub fn position(&self) -> Option<u64> {
        let queue = self.shared.lock();
        let packed = queue.messages.is_empty() && queue.in_flight == 0;
        queue.log.as_ref().filter(|_| packed).map(SentLog::next_number)
    }

    /// Gives the present connection up, both halves of it, and waits for another. Whether the stream can go on with a peer
    /// that has `received` messages.
    ///
    /// # Errors
    /// [`ResumeError`] when it cannot.
    pub fn detach(&self, received: u64) -> Result<(), ResumeError> {
        let queue = self.shared.lock();
        queue.abort.cancel();
        queue.resumable(received)
    }

    /// Goes on over this connection, to a peer that has `received` messages; how many it will be sent again.
    ///
    /// # Errors
    /// [`ResumeError`] when the stream cannot go on; the connection is dropped then.
    pub fn resume(&self, writer: CommWriter, received: u64) -> Result<u64, ResumeError> {
        let mut queue = self.shared.lock();
        queue.resumable(received)?;
        queue.abort.cancel();
        queue.abort = writer.abort_handle();
        queue.next = Some((writer, received));
        let written = queue.log.as_ref().map_or(0, |log| log.next_number() - log.unwritten() as u64);
        drop(queue);
        self.shared.wake.notify_one();
        Ok(written.saturating_sub(received))
    }
}

impl<T> Queue<T> {
    fn resumable(&self, received: u64) -> Result<(), ResumeError> {
        match (&self.log, self.state) {
            (Some(log), QueueState::Open) => Ok(log.check(received)?),
            (None, _) | (_, QueueState::Closing | QueueState::Closed) => Err(ResumeError::Ended),
        }
    }
}

impl<T> Clone for BatchedSender<T> {
    fn clone(&self) -> BatchedSender<T> {
        self.shared.handles.fetch_add(1, Ordering::Relaxed);
        BatchedSender { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for BatchedSender<T> {
    fn drop(&mut self) {
        if self.shared.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.finish();
        }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue<T>> {
        self.queue.lock().expect("no code panics while it holds the queue")
    }

    fn push(&self, messages: impl IntoIterator<Item = T>) -> bool {
        let messages = messages.into_iter();
        let mut queue = self.lock();
        if queue.state != QueueState::Open {
            return false;
        }
        queue.messages.extend(messages);
        let waiting = queue.messages.len() + queue.in_flight;
        if waiting.saturating_mul(size_of::<T>().max(1)) <= QUEUE_BYTES_MAX {
            return true;
        }
        drop(queue);
        tracing::warn!(peer = %self.peer, waiting, "peer does not keep up with its messages; closing its stream");
        self.give_up();
        false
    }

    fn finish(&self) {
        let mut queue = self.lock();
        if queue.state == QueueState::Open {
            queue.state = QueueState::Closing;
        }
        drop(queue);
        self.wake.notify_one();
    }

    fn give_up(&self) {
        let mut queue = self.lock();
        queue.state = QueueState::Closed;
        let unsent = (std::mem::take(&mut queue.messages), queue.log.take(), queue.next.take());
        queue.abort.cancel();
        drop(queue);
        drop(unsent);
        self.wake.notify_one();
    }

    /// Exchanges the messages just written for everything that waits; `None` when the stream is over.
    fn take_waiting(&self, written: &mut Vec<T>) -> Option<()> {
        written.clear();
        if written.capacity() > BATCH_MESSAGES_MAX {
            *written = Vec::new();
        }
        let mut queue = self.lock();
        std::mem::swap(&mut queue.messages, written);
        queue.in_flight = written.len();
        match queue.state {
            QueueState::Closed => None,
            QueueState::Closing if written.is_empty() => None,
            QueueState::Open | QueueState::Closing => Some(()),
        }
    }

    /// Puts a message where it can be found again, unless this stream keeps none; it is written from there.
    fn keep(&self, message: &Message) -> bool {
        let mut queue = self.lock();
        let Some(log) = &mut queue.log else { return false };
        log.push(message.clone(), message.len());
        true
    }

    /// The next message to be written that is kept.
    fn next_kept(&self) -> Option<Message> {
        self.lock().log.as_mut()?.next()
    }

    /// Waits, after a cut, for another connection; `None` when there will be none.
    async fn next_connection(&self) -> Option<CommWriter> {
        loop {
            {
                let mut queue = self.lock();
                queue.abort_if_waiting();
                if let Some((writer, received)) = queue.next.take() {
                    return queue.log.as_mut()?.rewind(received).ok().map(|_| writer);
                }
                if queue.state != QueueState::Open {
                    return None;
                }
            }
            self.wake.notified().await;
        }
    }
}

impl<T> Queue<T> {
    /// Makes the reading half of a connection that cannot be written to fail too, unless there is another one already.
    fn abort_if_waiting(&self) {
        if self.next.is_none() {
            self.abort.cancel();
        }
    }
}

/// How the writing to one connection ended.
enum End {
    /// All is sent that was to be sent, or the stream was given up.
    Over,
    /// The connection broke.
    Cut,
}

async fn run<T: Serialize + Send + 'static>(shared: Arc<Shared<T>>, mut writer: CommWriter) {
    let mut batches = Batches { waiting: Vec::new(), packed: 0 };
    let resumable = shared.lock().log.is_some();
    loop {
        match write_batches(&shared, &mut writer, &mut batches).await {
            Ok(End::Cut) if resumable => {}
            Err(CommError::Closed { .. } | CommError::Io(_)) if resumable => {}
            Ok(End::Over | End::Cut) => {
                writer.close().await;
                break;
            }
            Err(error) => {
                if !matches!(error, CommError::Closed { .. }) {
                    tracing::warn!(peer = %shared.peer, %error, "cannot send on this stream; closing it");
                }
                shared.give_up();
                break;
            }
        }
        match shared.next_connection().await {
            Some(next) => writer = next,
            None => {
                shared.give_up();
                break;
            }
        }
    }
    shared.lock().in_flight = 0;
    shared.ended.cancel();
}

/// Elements taken from the queue, of which the first `packed` are in messages.
struct Batches<T> {
    waiting: Vec<T>,
    packed: usize,
}

async fn write_batches<T: Serialize>(
    shared: &Shared<T>,
    writer: &mut CommWriter,
    batches: &mut Batches<T>,
) -> Result<End, CommError> {
    let abort = writer.abort_handle();
    loop {
        while let Some(message) = shared.next_kept() {
            writer.send(&message).await?;
        }
        let Batches { waiting, packed } = batches;
        if *packed < waiting.len() {
            let end = waiting.len().min(*packed + BATCH_MESSAGES_MAX);
            let message = Message::encode(&waiting[*packed..end])?;
            *packed = end;
            if !shared.keep(&message) {
                writer.send(&message).await?;
            }
            shared.lock().in_flight = waiting.len() - end;
            continue;
        }
        *packed = 0;
        if shared.take_waiting(waiting).is_none() {
            // Another connection may wait for what is kept.
            return Ok(if abort.is_cancelled() { End::Cut } else { End::Over });
        }
        if waiting.is_empty() {
            tokio::select! {
                () = shared.wake.notified() => {}
                () = abort.cancelled() => return Ok(End::Cut),
            }
        }
    }
}
