//! The sending side of a stream. A task packs everything that waits into one message, writes it, and looks again: an
//! idle stream sends at once, a busy one batches by itself, and no timer is needed.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::connection::CommWriter;
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
    abort: CancellationToken,
    peer: Address,
}

#[derive(Debug)]
struct Queue<T> {
    messages: Vec<T>,
    /// Messages taken by the task and not written yet.
    in_flight: usize,
    state: QueueState,
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
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { messages: Vec::new(), in_flight: 0, state: QueueState::Open }),
            wake: Notify::new(),
            handles: AtomicUsize::new(1),
            ended: CancellationToken::new(),
            abort: writer.abort_handle(),
            peer: writer.peer().clone(),
        });
        tokio::spawn(run(Arc::clone(&shared), writer));
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

    /// Messages queued or being written.
    pub fn len(&self) -> usize {
        let queue = self.shared.lock();
        queue.messages.len() + queue.in_flight
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
        let unsent = std::mem::take(&mut queue.messages);
        drop(queue);
        drop(unsent);
        self.abort.cancel();
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
}

async fn run<T: Serialize + Send + 'static>(shared: Arc<Shared<T>>, mut writer: CommWriter) {
    match write_batches(&shared, &mut writer).await {
        Ok(()) => writer.close().await,
        Err(error) => {
            if !matches!(error, CommError::Closed { .. }) {
                tracing::warn!(peer = %shared.peer, %error, "cannot send on this stream; closing it");
            }
            shared.give_up();
        }
    }
    shared.lock().in_flight = 0;
    shared.ended.cancel();
}

async fn write_batches<T: Serialize>(shared: &Shared<T>, writer: &mut CommWriter) -> Result<(), CommError> {
    let mut waiting = Vec::new();
    while shared.take_waiting(&mut waiting).is_some() {
        for start in (0..waiting.len()).step_by(BATCH_MESSAGES_MAX) {
            let end = waiting.len().min(start + BATCH_MESSAGES_MAX);
            let message = Message::encode(&waiting[start..end])?;
            writer.send(&message).await?;
            shared.lock().in_flight = waiting.len() - end;
        }
        if waiting.is_empty() {
            tokio::select! {
                () = shared.wake.notified() => {}
                () = shared.abort.cancelled() => return Ok(()),
            }
        }
    }
    Ok(())
}
