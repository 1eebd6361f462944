//! What all parts of a running worker share.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use dask_protocol::comm::{BatchedSender, ConnectionPool};
use dask_protocol::logs::LogRing;
use dask_protocol::message::{ErrorReply, RunId, StimulusId, WorkerStatus, WorkerToScheduler, stimulus_at};
use dask_protocol::pickle::builtin_exception;
use dask_protocol::{Address, Key, Payload, Value};
use indexmap::{IndexMap, IndexSet};
use rustc_hash::FxBuildHasher;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::clock::{SchedulerClock, unix_now};
use crate::executor::native::NativePool;
use crate::executor::python::{Python, PythonError};
use crate::executor::replace::Overdue;
use crate::native::Registry;
use crate::options::WorkerOptions;
use crate::state::{Event, State};
use crate::store::{Store, Stored};

use super::inbox::Inbox;
use super::memory::Growth;
use super::metrics::Metrics;
use super::python_events::Reading;
use super::python_process::PythonStart;
use super::reconnect::Link;
use super::spilling::{self, Spilling};
use super::{Closed, monitor::Monitor};

/// Something for the driver.
#[expect(clippy::large_enum_variant, reason = "nearly all inputs are events; a box for each would only cost")]
pub(crate) enum Input {
    /// For the state. Values are stored in the same step, so that no other event sees one without the other.
    Event {
        /// What to store first.
        values: Vec<(Key, Stored)>,
        /// What happened.
        event: Event,
    },
    /// A question to the state; it answers through what it captured.
    Ask(Box<dyn FnOnce(&State) + Send>),
    /// A change to what is shared, made between two events, and the events it leads to.
    Step(Box<dyn FnOnce() -> Vec<Event> + Send>),
}

/// Names of remote calls and stream messages that plugins in the Python process answer.
#[derive(Debug, Default)]
pub(crate) struct PluginHandlers {
    pub calls: Vec<String>,
    pub stream: Vec<String>,
}

/// Departures of peers remembered for transfers that have not looked yet; one missed costs a connect timeout.
const REMOVALS_MAX: usize = 256;

/// Who a worker is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub id: String,
    pub address: Address,
    pub name: Value,
    pub nthreads: u32,
    pub memory_limit: Option<u64>,
    pub scheduler: Address,
    pub nanny: Option<Address>,
    pub local_directory: PathBuf,
}

/// One worker, as its tasks and connections see it.
pub(crate) struct Shared {
    pub identity: Identity,
    pub versions: Value,
    pub logs: LogRing,
    pub registry: Registry,
    pub clock: SchedulerClock,
    pub store: Store,
    /// Where values go when memory is short, if they may.
    pub spilling: Option<Spilling>,
    pub growth: Growth,
    /// Whether values may be copied from the memory of peers on this machine; not any more once the kernel has refused.
    pub borrows: AtomicBool,
    pub pool: ConnectionPool,
    pub native: NativePool,
    /// What waits on behalf of native tasks.
    pub runtime: tokio::runtime::Handle,
    /// What native tasks share, by type.
    task_states: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
    /// Where connections of peers and transfers are served.
    pub transfers: Handle,
    /// Set before the worker registers, if it has one; another may take its place.
    pub(super) python: RwLock<Option<Arc<Python>>>,
    /// How to start another one.
    pub python_start: OnceLock<PythonStart>,
    /// The processes in which it runs tasks.
    pub task_processes: Mutex<Vec<u32>>,
    /// The task that reads what it says.
    pub python_reading: Mutex<Option<Reading>>,
    /// What it was told to run and has not ended.
    pub(super) python_runs: Mutex<IndexSet<(Key, RunId), FxBuildHasher>>,
    /// Tasks for which it is being replaced.
    pub overdue: Mutex<Vec<Overdue>>,
    /// The requests by which plugins were added, by name.
    pub(super) plugin_requests: Mutex<IndexMap<String, Value, FxBuildHasher>>,
    /// Whether the process has something that can be in no other: actors, parts of a shuffle.
    pub(super) python_bound: AtomicBool,
    /// Whether a task that nobody wants any more is interrupted.
    pub interrupts_cancelled: bool,
    pub plugin_handlers: RwLock<PluginHandlers>,
    pub metrics: Metrics,
    pub monitor: Mutex<Monitor>,
    pub inbox: Inbox,
    /// Workers that left, as the scheduler tells.
    pub removals: broadcast::Sender<Address>,
    /// Set at registration.
    pub stream: OnceLock<BatchedSender<WorkerToScheduler>>,
    /// Set at registration, if the stream may go on over another connection after a cut.
    pub link: OnceLock<Link>,
    /// The scheduler was asked to let this worker go.
    leaving: AtomicBool,
    status: Mutex<WorkerStatus>,
    /// The first reason given wins.
    close_requested: watch::Sender<Option<Closed>>,
    /// Ends every task of the worker.
    pub stop: CancellationToken,
}

impl Shared {
    /// The value of this type that native tasks share.
    pub(crate) fn task_state(
        &self,
        of: TypeId,
        make: impl FnOnce() -> Arc<dyn Any + Send + Sync>,
    ) -> Arc<dyn Any + Send + Sync> {
        let mut states = self.task_states.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(states.entry(of).or_insert_with(make))
    }

    /// A worker that is not registered yet. [`Worker::start`](super::Worker::start) calls this.
    pub(crate) fn new(
        identity: Identity,
        versions: Value,
        options: &WorkerOptions,
        spilling: Option<Spilling>,
        pool: ConnectionPool,
        native: NativePool,
        inbox: Inbox,
    ) -> Shared {
        Shared {
            identity,
            versions,
            logs: options.logs.clone(),
            registry: options.registry.clone(),
            clock: SchedulerClock::default(),
            store: if spilling.is_some() { Store::with_recency() } else { Store::default() },
            spilling,
            growth: Growth::new(options.memory_limit),
            borrows: AtomicBool::new(options.transfer.shared_memory),
            pool,
            native,
            runtime: tokio::runtime::Handle::current(),
            task_states: Mutex::default(),
            transfers: options.transfers.clone().unwrap_or_else(Handle::current),
            python: RwLock::default(),
            python_start: OnceLock::new(),
            task_processes: Mutex::default(),
            python_reading: Mutex::default(),
            python_runs: Mutex::default(),
            overdue: Mutex::default(),
            plugin_requests: Mutex::default(),
            python_bound: AtomicBool::new(false),
            interrupts_cancelled: options.interrupt_cancelled,
            plugin_handlers: RwLock::default(),
            metrics: Metrics::default(),
            monitor: Mutex::new(Monitor::new()),
            inbox,
            removals: broadcast::Sender::new(REMOVALS_MAX),
            stream: OnceLock::new(),
            link: OnceLock::new(),
            leaving: AtomicBool::new(false),
            status: Mutex::new(WorkerStatus::Init),
            close_requested: watch::channel(None).0,
            stop: CancellationToken::new(),
        }
    }

    /// Tells the driver that something happened. After the driver's end nobody needs to know.
    pub(crate) fn notify(&self, event: Event) {
        self.notify_with(Vec::new(), event);
    }

    /// As [`Shared::notify`], for an event that reports values.
    pub(crate) fn notify_with(&self, values: Vec<(Key, Stored)>, event: Event) {
        self.inbox.send(Input::Event { values, event });
    }

    /// As [`Shared::notify_with`], for the end of a task in a thread: it may wait a moment while the threads have enough to do.
    pub(crate) fn notify_soon(&self, values: Vec<(Key, Stored)>, event: Event) {
        self.inbox.send_soon(Input::Event { values, event }, || self.native.jobs_left());
    }

    /// Stores values. Only in a step of the driver, which hears of them in the same step.
    pub(crate) fn keep(&self, values: Vec<(Key, Stored)>) {
        if values.is_empty() {
            return;
        }
        for (key, value) in values {
            self.growth.stored(value.nbytes);
            self.store.insert(key, value);
        }
        if let Some(spilling) = &self.spilling {
            spilling.stored(&self.store);
        }
    }

    /// Asks the state; `None` once the driver has ended.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let ask = Box::new(move |state: &State| drop(answer.send(question(state))));
        self.inbox.send(Input::Ask(ask)).then_some(())?;
        answered.await.ok()
    }

    /// Sends on the scheduler's stream, once there is one.
    pub(crate) fn send(&self, message: impl Into<WorkerToScheduler>) {
        if let Some(stream) = self.stream.get() {
            stream.send(message.into());
        }
    }

    /// The status as last told to the scheduler.
    pub(crate) fn status(&self) -> WorkerStatus {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_status(&self, status: WorkerStatus) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// Asks the worker to close. Only the first request counts.
    pub(crate) fn request_close(&self, closed: Closed) {
        self.close_requested.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(closed);
            }
            first
        });
    }

    /// Whether somebody asked the worker to close.
    pub(crate) fn is_closing(&self) -> bool {
        self.close_requested.borrow().is_some()
    }

    /// From here on the end of the stream is the scheduler's farewell.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether the scheduler was asked to let this worker go.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Waits until somebody asked the worker to close.
    pub(crate) async fn close_request(&self) -> Closed {
        let mut requests = self.close_requested.subscribe();
        let request = requests.wait_for(Option::is_some).await.expect("the sender lives in self");
        request.clone().expect("waited for it")
    }

    /// What plugins answer.
    pub(crate) fn plugin_handlers(&self) -> std::sync::RwLockReadGuard<'_, PluginHandlers> {
        self.plugin_handlers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The Python process.
    pub(crate) fn python(&self) -> Option<Arc<Python>> {
        self.python.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The Python process and those in which it runs tasks.
    pub(crate) fn python_pids(&self) -> Vec<u32> {
        let tasks = self.task_processes.lock().unwrap_or_else(PoisonError::into_inner);
        self.python().map(|python| python.pid()).into_iter().chain(tasks.iter().copied()).collect()
    }

    /// The serialised forms of these values; keys not here are left out. Waits for Python or the disk only where it must.
    pub(crate) async fn payloads(self: &Arc<Self>, keys: &[Key]) -> Vec<(Key, Payload)> {
        let mut found = Vec::with_capacity(keys.len());
        let mut in_python = Vec::new();
        for key in keys {
            match self.store.get(key) {
                None => {}
                Some(Stored { payload: Some(payload), .. }) => found.push((key.clone(), payload)),
                Some(Stored { native: Some(value), .. }) => {
                    let payload = value.to_payload().unwrap_or_else(|error| {
                        Payload::serialized("error", None, vec![error.to_string().into_bytes().into()])
                    });
                    found.push((key.clone(), payload));
                }
                Some(stored) => match self.read_back(key, &stored).await {
                    Some(read) => found.push(read),
                    None if stored.in_python => in_python.push(key.clone()),
                    None => {}
                },
            }
        }
        if let (false, Some(python)) = (in_python.is_empty(), self.python()) {
            // A process that dies meanwhile takes the worker with it; the caller sees absent keys until then.
            let mut fetched = python.fetch(in_python.clone()).await.unwrap_or_default();
            for key in
                in_python.iter().filter(|key| !fetched.iter().any(|(there, _)| there == *key)).collect::<Vec<_>>()
            {
                // It may have gone to disk before Python was asked.
                if let Some(stored) = self.store.get(key) {
                    fetched.extend(self.read_back(key, &stored).await);
                }
            }
            found.extend(fetched);
        }
        found
    }

    /// A value from its file, if it has one. One that is nowhere else and cannot be read is not here any more.
    async fn read_back(self: &Arc<Self>, key: &Key, stored: &Stored) -> Option<(Key, Payload)> {
        let disk = stored.disk.clone()?;
        match spilling::read(self, disk).await {
            Ok(payload) => Some((key.clone(), payload)),
            Err(failure) if stored.in_python => {
                warn!(target: "distributed.spill", "The file of {key:?}, which is in memory too, is dropped: {failure}");
                self.store.drop_file(key, stored);
                None
            }
            Err(failure) => {
                spilling::lose(self, key, stored, &failure);
                None
            }
        }
    }

    /// Values that came from outside, sized and ready to be stored. Only Python knows the size of a pickled object.
    ///
    /// # Errors
    /// [`PythonError::Gone`] when the Python process ended meanwhile.
    pub(crate) async fn take_in(&self, data: Vec<(Key, Payload)>) -> Result<Vec<(Key, Stored)>, PythonError> {
        let Some(python) = self.python() else {
            return Ok(data.into_iter().map(arrived).collect());
        };
        let (native, foreign): (Vec<_>, Vec<_>) = data.into_iter().partition(|(_, payload)| is_native_value(payload));
        let mut values: Vec<(Key, Stored)> = native.into_iter().map(arrived).collect();
        if !foreign.is_empty() {
            let measured = python.measure(foreign).await?;
            values.extend(measured.into_iter().map(|(key, it)| (key, Stored::python(it.nbytes, it.copy))));
        }
        Ok(values)
    }
}

/// A value as it arrived, at its serialised size.
pub(crate) fn arrived((key, payload): (Key, Payload)) -> (Key, Stored) {
    let nbytes = i64::try_from(payload.len()).unwrap_or(i64::MAX);
    (key, Stored::serialised(payload, nbytes))
}

/// Whether Rust can read the value without Python.
fn is_native_value(payload: &Payload) -> bool {
    let family = payload.sub_header().ok().and_then(|header| header.serializer);
    family.as_deref() == Some(dask_protocol::native::VALUE_SERIALIZER)
}

/// A stimulus id of this moment, such as `task-finished-1700000000.1`.
pub(crate) fn stimulus(what: &str) -> StimulusId {
    stimulus_at(what, unix_now())
}

/// A reply that raises a builtin exception in the caller.
pub(crate) fn error_reply(class: &str, message: &str) -> ErrorReply {
    let exception = builtin_exception(class, message);
    ErrorReply::uncaught(exception.pickle, exception.text)
}
