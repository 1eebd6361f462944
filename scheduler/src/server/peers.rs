//! Who is connected: clients and workers as the driver knows them beside the state.

use std::sync::Arc;

use dask_protocol::comm::BatchedSender;
use dask_protocol::message::{RegisterWorker, SchedulerToClient, SchedulerToWorker};
use dask_protocol::{Address, Value};
use futures::future::BoxFuture;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::reconnect::Away;
use super::worker_link::Link;
use crate::state::Seconds;

/// Tells a connection from an earlier one of the same client or worker.
pub(crate) type Session = u64;

/// Most messages that wait for a worker or client whose registration reply is still being written.
const EARLY_MESSAGES_MAX: usize = 100_000;

/// Messages to one peer: collected during a turn of the driver, then handed to the stream's writer task at once. Before
/// the stream is open they wait here.
pub(crate) struct Outbox<T> {
    sender: Option<BatchedSender<T>>,
    queued: Vec<T>,
}

impl<T: Serialize + Send + 'static> Outbox<T> {
    /// For a stream that is not open yet.
    pub(crate) fn waiting() -> Outbox<T> {
        Outbox { sender: None, queued: Vec::new() }
    }

    /// Opens the stream and sends what waited.
    pub(crate) fn attach(&mut self, sender: BatchedSender<T>) {
        self.sender = Some(sender);
        self.flush();
    }

    /// Queues a message; true when it is the first since the last flush.
    #[must_use]
    pub(crate) fn push(&mut self, message: T) -> bool {
        if self.sender.is_none() && self.queued.len() >= EARLY_MESSAGES_MAX {
            return false;
        }
        self.queued.push(message);
        self.queued.len() == 1
    }

    /// Hands what is queued to the writer task. A stream that is gone swallows it: its reading task tells the driver.
    pub(crate) fn flush(&mut self) {
        if let Some(sender) = &self.sender {
            sender.send_all(self.queued.drain(..));
        }
    }

    /// The stream's writer task, once it is open.
    pub(crate) fn sender(&self) -> Option<&BatchedSender<T>> {
        self.sender.as_ref()
    }

    /// Whether nothing was queued since the last flush.
    pub(crate) fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    /// Sends what is queued and ends the stream; the future completes when all is sent.
    pub(crate) fn close(mut self) -> BoxFuture<'static, ()> {
        self.flush();
        if let Some(sender) = &self.sender {
            sender.close();
        }
        Box::pin(async move {
            if let Some(sender) = self.sender {
                sender.closed().await;
            }
        })
    }
}

/// A registered client.
pub(crate) struct ClientPeer {
    pub(crate) session: Session,
    /// Whether it is one of ours, that knows results in messages.
    pub(crate) is_native: bool,
    pub(crate) outbox: Outbox<SchedulerToClient>,
    pub(crate) last_seen: Seconds,
}

/// A registered worker.
pub(crate) struct WorkerPeer {
    pub(crate) session: Session,
    pub(crate) outbox: Outbox<SchedulerToWorker>,
    /// What it said at registration.
    pub(crate) info: WorkerInfo,
    /// The metrics of its last heartbeat; a map.
    pub(crate) metrics: Value,
    pub(crate) last_seen: Seconds,
    /// Cancelled when it is removed, so that its reading task ends.
    pub(crate) removed: CancellationToken,
    /// When its stream may go on over another connection.
    pub(crate) link: Option<Arc<Link>>,
    /// Its connection is cut, and it is waited for.
    pub(crate) away: Option<Away>,
    /// Comparisons in a row that showed that it and the state believe different things.
    pub(crate) disagreements: u32,
}

/// What a worker said of itself at registration, for its identity.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WorkerInfo {
    pub(crate) address: Address,
    pub(crate) name: Value,
    pub(crate) nanny: Option<Address>,
    pub(crate) local_directory: String,
    pub(crate) services: Value,
    pub(crate) versions: Value,
    pub(crate) extra: Value,
    pub(crate) pid: i64,
    pub(crate) server_id: String,
}

impl WorkerInfo {
    pub(crate) fn new(registration: &RegisterWorker, address: &Address) -> WorkerInfo {
        WorkerInfo {
            address: address.clone(),
            name: name_or_address(&registration.name, address),
            nanny: registration.nanny.clone(),
            local_directory: registration.local_directory.clone(),
            services: registration.services.clone(),
            versions: registration.versions.clone(),
            extra: registration.extra.clone(),
            pid: registration.pid,
            server_id: registration.server_id.clone(),
        }
    }
}

/// A worker without a name is called by its address.
pub(crate) fn name_or_address(name: &Value, address: &Address) -> Value {
    if name.is_nil() { Value::from(address.as_str()) } else { name.clone() }
}

/// A worker's name as text, as logs show it and as `retire_workers(names=...)` compares it.
pub(crate) fn name_text(name: &Value) -> String {
    match name {
        Value::Str(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        other => other.to_key().map_or_else(|| "?".to_owned(), |key| key.to_string()),
    }
}
