//! What programs coordinate through the scheduler: datasets, queues, variables, events, semaphores, locks.
//!
//! Each keeps its own table; the state only knows the pseudo clients (`queue-x`, `variable-x`, `published-x`) that hold
//! the futures inside.

mod events;
mod memory_sampler;
mod multi_lock;
mod publish;
mod queues;
mod semaphores;
mod shuffle;
mod table;
mod variables;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dask_protocol::message::Request;
use dask_protocol::{Key, Value};
use serde::Serialize;

use self::events::Events;
use self::memory_sampler::MemorySamplers;
use self::multi_lock::MultiLocks;
use self::publish::Published;
use self::queues::Queues;
use self::semaphores::Semaphores;
pub(crate) use self::semaphores::{LEASE_VALIDATION_INTERVAL, SemaphoreFigures};
use self::variables::Variables;
use super::failure::{Failure, Reply, SchedulerClosed};
use super::rpc::scatter::timeout_argument;
use super::shared::Server;
use crate::state::{ClientId, Event};

/// Most names in each table; a program that makes one name per task and never drops it stops here.
pub(crate) const NAMES_MAX: usize = 1_000_000;

/// All of them.
#[derive(Default)]
pub(crate) struct Extensions {
    pub(crate) publish: Published,
    pub(crate) queues: Queues,
    pub(crate) variables: Variables,
    events: Events,
    pub(crate) semaphores: Semaphores,
    multi_locks: MultiLocks,
    memory_samplers: MemorySamplers,
}

impl Extensions {
    /// `Client.restart`: futures inside are gone; names and locks stay, as upstream keeps them.
    pub(crate) fn restart(&self) {
        self.publish.clear();
    }
}

/// Answers an op of an extension; `None` for ops that belong to none.
pub(crate) async fn answer(server: &Arc<Server>, request: &Request) -> Option<Reply> {
    let all = &server.extensions;
    Some(match request.op() {
        "publish_put" => all.publish.put(server, request).await,
        "publish_get" => all.publish.get(request),
        "publish_list" => all.publish.list(),
        "publish_delete" => all.publish.delete(server, request).await,
        "queue_create" => all.queues.create(request),
        "queue_put" => all.queues.put(server, request).await,
        "queue_get" => all.queues.get(server, request).await,
        "queue_qsize" => all.queues.size(request),
        "variable_set" => all.variables.set(server, request).await,
        "variable_get" => all.variables.get(server, request).await,
        "event_wait" => all.events.wait(request).await,
        "event_set" => all.events.set(request),
        "event_clear" => all.events.clear(request),
        "event_is_set" => all.events.is_set(request),
        "semaphore_register" => all.semaphores.register(request),
        "semaphore_acquire" => all.semaphores.acquire(request).await,
        "semaphore_release" => all.semaphores.release(request),
        "semaphore_refresh_leases" => all.semaphores.refresh(request),
        "semaphore_value" => all.semaphores.value(request),
        "semaphore_close" => all.semaphores.close(request),
        "shuffle_get_or_create" => shuffle::get_or_create(server, request).await,
        "shuffle_get" => shuffle::get(server, request).await,
        "shuffle_barrier" => shuffle::barrier(server, request).await,
        "shuffle_restrict_task" => shuffle::restrict_task(server, request).await,
        "memory_sampler_start" => all.memory_samplers.start(server, request).await,
        "memory_sampler_stop" => all.memory_samplers.stop(request),
        "multi_lock_acquire" => all.multi_locks.acquire(request).await,
        "multi_lock_release" => all.multi_locks.release(request),
        _ => return None,
    })
}

/// The name of a queue, variable, ...: anything that can be a key.
fn name_key(name: &Value) -> Result<Key, Failure> {
    name.to_key().ok_or_else(|| Failure::builtin("TypeError", "the name must be a text, a number or a tuple of these"))
}

/// When to stop waiting; `None` for never.
fn deadline(timeout: &Value) -> Result<Option<Instant>, Failure> {
    if timeout.is_nil() {
        return Ok(None);
    }
    Ok(Instant::now().checked_add(timeout_argument(timeout, Duration::MAX)?))
}

/// The pseudo client that holds the futures of a named thing.
fn pseudo_client(kind: &str, name: &Key) -> ClientId {
    format!("{kind}-{name}").into()
}

/// How a key stands, as records of queues and variables tell it.
#[derive(Debug, Serialize)]
struct KeyStatus {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exception: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceback: Option<Value>,
}

async fn key_status(server: &Server, key: Key) -> Result<KeyStatus, SchedulerClosed> {
    let status = server.driver.run(move |core| {
        let state = core.state.task_state(&key).map_or("lost", |state| state.name());
        let error = core.state.error(&key).map(|(_, error)| (error.exception.clone(), error.traceback.clone()));
        let (exception, traceback) = error.unzip();
        KeyStatus { state, exception, traceback }
    });
    status.await
}

/// How often to look whether a key has arrived with the caller's stream.
const KEY_POLL: Duration = Duration::from_millis(10);

/// Waits until the scheduler knows a key: the request may have overtaken the stream that brings it.
async fn wait_for_key(server: &Server, key: &Key, deadline: Option<Instant>) -> Result<(), Failure> {
    loop {
        let wanted = key.clone();
        if server.driver.run(move |core| core.state.task_state(&wanted).is_some()).await? {
            return Ok(());
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Failure::timeout(format!("Task {key} unknown to scheduler.")));
        }
        tokio::time::sleep(KEY_POLL).await;
    }
}

async fn desire(server: &Server, client: ClientId, keys: Vec<Key>) -> Result<(), SchedulerClosed> {
    server.driver.event(Event::ClientDesiresKeys { client, keys }).await
}

async fn unwant(server: &Server, client: ClientId, keys: Vec<Key>) -> Result<(), SchedulerClosed> {
    if keys.is_empty() {
        return Ok(());
    }
    server.driver.event(Event::ClientReleasesKeys { client, keys }).await
}
