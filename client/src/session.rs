//! One client's registration with one scheduler: its stream, its interest in keys, its RPC connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use dask_protocol::comm::{BatchedSender, Comm, CommConfig, CommReader, ConnectionPool};
use dask_protocol::message::{
    CancelKeys, ClientDesiresKeys, ClientReleasesKeys, ClientToScheduler, CloseClient, CloseStream, HeartbeatClient,
    Keys, NativeTask, Pairs, ReportKey, SchedulerToClient, UpdateNativeGraph,
};
use dask_protocol::native::{RELEASE, releases_agree};
use dask_protocol::{Address, Key, Payload, Value, native};
use rustc_hash::FxHashMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::error::{ClientError, TaskError};
use crate::future::{Handle, Held, Status};
use crate::remote;

/// How often a client says it lives (`distributed.client.heartbeat`).
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How often a fetch is tried again when the holder left in between: each round waits for the recomputation.
const GATHER_ROUNDS_MAX: usize = 10;

/// Most keys released in one message, so that the scheduler is not kept from others by it for long.
const RELEASED_KEYS_MAX: usize = 1024;

pub(crate) struct Session {
    id: String,
    scheduler: Address,
    stream: BatchedSender<ClientToScheduler>,
    pool: ConnectionPool,
    held: Mutex<FxHashMap<Key, Weak<Held>>>,
    unique: String,
    counter: AtomicU64,
    runtime: tokio::runtime::Handle,
}

#[derive(Serialize)]
struct RegisterClient<'a> {
    op: &'a str,
    client: &'a str,
    reply: bool,
    versions: Value,
}

#[derive(Serialize)]
struct GatherArgs<'a> {
    keys: &'a Keys,
}

#[derive(Deserialize)]
struct GatherReply {
    status: String,
    #[serde(default)]
    data: Pairs<Key, Value>,
}

#[derive(Serialize)]
struct ScatterArgs<'a> {
    data: Pairs<Key, Payload>,
    workers: Option<Vec<String>>,
    client: &'a str,
    broadcast: bool,
    timeout: f64,
}

impl Session {
    pub(crate) async fn open(scheduler: Address, id: String, config: &CommConfig) -> Result<Arc<Session>, ClientError> {
        let failed = |source| ClientError::Comm { scheduler: scheduler.clone(), source };
        let mut comm = Comm::connect(&scheduler, config).await.map_err(failed)?;
        let versions = Value::map([("dask-rs", RELEASE.into())]);
        let register = RegisterClient { op: "register-client", client: &id, reply: false, versions };
        comm.send_value(&register).await.map_err(failed)?;
        let greeting = comm.recv().await.map_err(failed)?.decode_stream().map_err(|e| failed(e.into()))?;
        let refused = |reason: String| ClientError::Refused { scheduler: scheduler.clone(), reason };
        match greeting.as_slice() {
            [SchedulerToClient::StreamStart(start)] if start.error.is_empty() => {
                check_release(start.release.as_deref()).map_err(refused)?;
                if !start.warning.is_empty() {
                    warn!(target: "distributed.client", "{}", start.warning);
                }
            }
            [SchedulerToClient::StreamStart(start)] => return Err(refused(start.error.clone())),
            other => return Err(refused(format!("expected stream-start, got {other:?}"))),
        }
        let (reader, writer) = comm.split();
        let session = Arc::new(Session {
            unique: uuid::Uuid::new_v4().simple().to_string()[..16].to_owned(),
            id,
            scheduler,
            stream: BatchedSender::spawn(writer),
            pool: ConnectionPool::new(config.clone()),
            held: Mutex::default(),
            counter: AtomicU64::new(0),
            runtime: tokio::runtime::Handle::current(),
        });
        tokio::spawn(read_stream(reader, Arc::downgrade(&session)));
        tokio::spawn(send_heartbeats(Arc::downgrade(&session)));
        Ok(session)
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn scheduler(&self) -> &Address {
        &self.scheduler
    }

    pub(crate) fn pool(&self) -> &ConnectionPool {
        &self.pool
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    pub(crate) fn send(&self, message: impl Into<ClientToScheduler>) {
        self.stream.send(message.into());
    }

    /// A text that nobody else makes.
    pub(crate) fn unique(&self) -> String {
        format!("{}-{}", self.unique, self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// A key that no other client makes: the function's name stays readable in front.
    pub(crate) fn next_key(&self, function: &str) -> Key {
        let n = self.counter.fetch_add(1, Ordering::Relaxed);
        Key::from(format!("{function}-{}-{n}", self.unique))
    }

    /// The shared handle of a key, made on first use. The flag tells whether it is new.
    pub(crate) fn hold(self: &Arc<Session>, key: &Key) -> (Handle, bool) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = held.get(key).and_then(Handle::upgrade) {
            return (handle, false);
        }
        let handle = Handle::new(key.clone(), Status::Pending, self);
        held.insert(key.clone(), handle.downgrade());
        (handle, true)
    }

    /// A handle that failed before anything was sent.
    pub(crate) fn failed(self: &Arc<Session>, key: Key, error: TaskError) -> Handle {
        Handle::new(key, Status::Error(error), self)
    }

    /// Called when the last handle of a key is dropped.
    pub(crate) fn release(&self, dropped: &Held) {
        let key = dropped.held_key();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // A new handle of the same key may have been made meanwhile; then the interest goes on.
        let is_current = held.get(key).is_some_and(|weak| std::ptr::eq(weak.as_ptr(), dropped));
        if is_current {
            held.remove(key);
            // Still in line: a handle made after this one submits its task after the release.
            let keys = vec![key.clone()].into();
            self.stream.send_merging(ClientReleasesKeys { keys, client: None }.into(), merge_releases);
        }
    }

    fn handle_of(&self, key: &Key) -> Option<Handle> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(key).and_then(Handle::upgrade)
    }

    fn all_handles(&self) -> Vec<Handle> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.values().filter_map(Handle::upgrade).collect()
    }

    /// Submits tasks; `within` is the task that does.
    pub(crate) fn submit(&self, tasks: Vec<NativeTask>, keys: Vec<Key>, within: Option<Key>) {
        self.stream.send(UpdateNativeGraph { tasks, keys: keys.into(), submitting_task: within }.into());
    }

    pub(crate) fn desire(&self, keys: Vec<Key>) {
        self.stream.send(ClientDesiresKeys { keys: keys.into(), client: None }.into());
    }

    pub(crate) fn cancel(&self, keys: Vec<Key>, force: bool) {
        let message = CancelKeys { keys: keys.into(), force, reason: None, msg: None, client: None };
        self.stream.send(message.into());
    }

    /// Waits for a result and fetches it, unless it was told.
    pub(crate) async fn result<T: DeserializeOwned>(&self, handle: &Handle) -> Result<T, TaskError> {
        handle.settled().await?;
        if let Some(told) = handle.told() {
            return native::unpack_told(&told).map_err(|e| wrong_type::<T>(handle.key(), e.to_string()));
        }
        let values = self.gather_values(std::slice::from_ref(handle)).await?;
        self.unpack(handle.key(), &values[handle.key()])
    }

    /// Waits for the results and fetches them, in order.
    pub(crate) async fn gather<T: DeserializeOwned>(&self, handles: &[Handle]) -> Result<Vec<T>, TaskError> {
        let values = self.gather_values(handles).await?;
        handles.iter().map(|h| self.unpack(h.key(), &values[h.key()])).collect()
    }

    /// Waits for a result that is bytes and fetches it. What arrives in one piece is not copied.
    pub(crate) async fn gather_bytes(&self, handle: &Handle) -> Result<Bytes, TaskError> {
        let values = self.gather_values(std::slice::from_ref(handle)).await?;
        let value = &values[handle.key()];
        let shared = if let Value::Payload(payload) = value { native::shared_bytes(payload) } else { None };
        shared.map_or_else(|| self.unpack(handle.key(), value), Ok)
    }

    async fn gather_values(&self, handles: &[Handle]) -> Result<FxHashMap<Key, Value>, TaskError> {
        let mut payloads: FxHashMap<Key, Value> = FxHashMap::default();
        for _ in 0..GATHER_ROUNDS_MAX {
            for handle in handles {
                handle.settled().await?;
                if let Some(told) = handle.told() {
                    let payload = Payload::serialized(native::VALUE_SERIALIZER, None, vec![told]);
                    payloads.insert(handle.key().clone(), Value::Payload(payload));
                }
            }
            let mut missing: Vec<Key> = handles.iter().map(|h| h.key().clone()).collect();
            missing.retain(|key| !payloads.contains_key(key));
            missing.sort_unstable();
            missing.dedup();
            if missing.is_empty() {
                return Ok(payloads);
            }
            payloads.extend(self.fetch(missing, handles).await?);
        }
        let key = handles.iter().map(Handle::key).find(|key| !payloads.contains_key(*key)).cloned();
        let key = key.unwrap_or_else(|| Key::from("?"));
        Err(TaskError::Fetch { key, reason: format!("no worker had it in {GATHER_ROUNDS_MAX} tries") })
    }

    /// One round trip. Keys that nobody held are asked about again and counted as pending.
    async fn fetch(&self, keys: Vec<Key>, handles: &[Handle]) -> Result<Pairs<Key, Value>, TaskError> {
        let keys = Keys(keys);
        let reply: Result<GatherReply, _> =
            self.pool.call(&self.scheduler, "gather", &GatherArgs { keys: &keys }).await;
        let reply = reply.map_err(|e| TaskError::Fetch { key: keys[0].clone(), reason: e.to_string() })?;
        if reply.status != "OK" {
            for handle in handles.iter().filter(|h| keys.contains(h.key()) && h.status() == Status::Finished) {
                handle.set(Status::Pending);
                self.stream.send(ReportKey { key: handle.key().clone() }.into());
            }
        }
        Ok(reply.data)
    }

    fn unpack<T: DeserializeOwned>(&self, key: &Key, value: &Value) -> Result<T, TaskError> {
        let wrong = |reason| wrong_type::<T>(key, reason);
        match value {
            Value::Payload(payload) => native::unpack_value(payload).map_err(|e| wrong(e.to_string())),
            plain => from_value(plain).map_err(wrong),
        }
    }

    /// Sends a value to the workers.
    pub(crate) async fn scatter(&self, key: Key, payload: Payload, broadcast: bool) -> Result<(), TaskError> {
        const SCATTER_TIMEOUT_SECONDS: f64 = 30.0;
        let args = ScatterArgs {
            data: Pairs(vec![(key.clone(), payload)]),
            workers: None,
            client: &self.id,
            broadcast,
            timeout: SCATTER_TIMEOUT_SECONDS,
        };
        let reply: Result<Value, _> = self.pool.call(&self.scheduler, "scatter", &args).await;
        reply.map(drop).map_err(|e| TaskError::Fetch { key, reason: e.to_string() })
    }

    /// Leaves the scheduler; every key loses this client's interest.
    pub(crate) async fn close(&self) {
        self.stream.send(CloseClient {}.into());
        self.stream.send(CloseStream {}.into());
        self.stream.close();
        self.stream.closed().await;
        self.pool.close();
    }

    fn on_message(&self, message: SchedulerToClient) {
        match message {
            SchedulerToClient::KeyInMemory(m) => {
                if let Some(handle) = self.handle_of(&m.key) {
                    handle.finish(m.value);
                }
            }
            SchedulerToClient::ClientTaskErred(m) => {
                self.set(&m.key, || Status::Error(remote::failure(&m.key, &m.exception, &m.traceback)));
            }
            SchedulerToClient::LostData(m) => {
                // What was told is not lost, whoever else has to wait until it is computed again.
                if let Some(handle) = self.handle_of(&m.key).filter(|handle| handle.told().is_none()) {
                    handle.set(Status::Pending);
                }
            }
            SchedulerToClient::TaskRetried(m) => self.set(&m.key, || Status::Pending),
            SchedulerToClient::CancelledKeys(m) => {
                for key in m.keys {
                    let reason = m.reason.clone();
                    self.set(&key, || Status::Error(TaskError::Cancelled { key: key.clone(), reason }));
                }
            }
            SchedulerToClient::Restart(_) => {
                for handle in self.all_handles() {
                    let (key, reason) = (handle.key().clone(), Some("the cluster was restarted".to_owned()));
                    handle.set(Status::Error(TaskError::Cancelled { key, reason }));
                }
            }
            SchedulerToClient::StreamStart(_)
            | SchedulerToClient::TopicEvent(_)
            | SchedulerToClient::AdjustHeartbeatInterval(_)
            | SchedulerToClient::StreamClosed(_) => {}
        }
    }

    fn set(&self, key: &Key, status: impl FnOnce() -> Status) {
        if let Some(handle) = self.handle_of(key) {
            handle.set(status());
        }
    }

    fn on_disconnect(&self) {
        for handle in self.all_handles() {
            if handle.status() == Status::Pending {
                let (key, scheduler) = (handle.key().clone(), self.scheduler.clone());
                handle.set(Status::Error(TaskError::ConnectionLost { key, scheduler }));
            }
        }
    }
}

/// Whether a scheduler of this release understands what this client says.
fn check_release(scheduler: Option<&str>) -> Result<(), String> {
    match scheduler {
        Some(release) if releases_agree(release, RELEASE) => Ok(()),
        Some(release) => {
            Err(format!("it is of dask-rs {release}, this client of {RELEASE}; build both with one release"))
        }
        None => Err(format!("it is no scheduler of dask-rs, which this client of dask-rs {RELEASE} needs")),
    }
}

/// Many futures dropped one after the other are released in one message.
fn merge_releases(last: &mut ClientToScheduler, next: ClientToScheduler) -> Option<ClientToScheduler> {
    match (last, next) {
        (
            ClientToScheduler::ClientReleasesKeys(ClientReleasesKeys { keys, client: None }),
            ClientToScheduler::ClientReleasesKeys(ClientReleasesKeys { keys: more, client: None }),
        ) if keys.len() < RELEASED_KEYS_MAX => {
            keys.0.extend(more.0);
            None
        }
        (_, next) => Some(next),
    }
}

fn wrong_type<T>(key: &Key, reason: String) -> TaskError {
    TaskError::Type { key: key.clone(), expected: std::any::type_name::<T>(), reason }
}

/// A value that came as plain msgpack, as a `T`.
pub(crate) fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    let packed = rmp_serde::to_vec_named(value).map_err(|e| e.to_string())?;
    rmp_serde::from_slice(&packed).map_err(|e| e.to_string())
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stream.send(CloseClient {}.into());
        self.stream.send(CloseStream {}.into());
        self.stream.close();
    }
}

async fn read_stream(mut reader: CommReader, session: Weak<Session>) {
    loop {
        let batch = reader.recv_batch::<SchedulerToClient>().await;
        let Some(session) = session.upgrade() else { return };
        match batch {
            Ok(messages) => messages.into_iter().for_each(|m| session.on_message(m)),
            Err(error) => {
                debug!(target: "distributed.client", %error, "stream ended");
                session.on_disconnect();
                return;
            }
        }
    }
}

async fn send_heartbeats(session: Weak<Session>) {
    let mut ticks = tokio::time::interval(HEARTBEAT_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(session) = session.upgrade() else { return };
        if !session.stream.send(HeartbeatClient {}.into()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_of_another_release_is_told_apart() {
        assert_eq!(check_release(Some(RELEASE)), Ok(()));
        let other = check_release(Some("7.1.0")).expect_err("another release");
        assert!(other.contains("7.1.0") && other.contains(RELEASE), "{other}");
        assert!(check_release(None).expect_err("dask.distributed's").contains("no scheduler of dask-rs"));
    }
}
