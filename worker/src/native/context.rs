//! What a native task can ask of its worker while it runs.

use std::any::{Any, TypeId};
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Instant;

use dask_protocol::message::{LogEvent, RunId};
use dask_protocol::{Address, Key, Value};

use super::NativeError;
use super::library::HostTask;
use crate::executor::fate::Fate;
use crate::server::shared::{Shared, stimulus};
use crate::state::Event;

/// One running native task, as it sees itself.
#[derive(Clone)]
pub struct TaskContext {
    key: Key,
    run_id: RunId,
    worker: Address,
    scheduler: Address,
    since: Instant,
    pub(crate) fate: Arc<Fate>,
    home: Home,
}

/// Whom it asks.
#[derive(Clone)]
enum Home {
    /// The worker of this process.
    Worker(Weak<Shared>),
    /// The worker that loaded this library.
    Host(Arc<HostTask>),
}

impl TaskContext {
    pub(crate) fn new(shared: &Arc<Shared>, key: Key, run_id: RunId) -> TaskContext {
        TaskContext {
            key,
            run_id,
            worker: shared.identity.address.clone(),
            scheduler: shared.identity.scheduler.clone(),
            since: Instant::now(),
            fate: Arc::default(),
            home: Home::Worker(Arc::downgrade(shared)),
        }
    }

    /// The context of a task of a library, which the worker calls.
    pub(super) fn in_library(
        host: HostTask,
        key: Key,
        run_id: RunId,
        worker: Address,
        scheduler: Address,
    ) -> TaskContext {
        let fate = Arc::default();
        host.watch(&fate);
        TaskContext { key, run_id, worker, scheduler, since: Instant::now(), fate, home: Home::Host(Arc::new(host)) }
    }

    /// The context of a job that no worker runs.
    #[cfg(test)]
    pub(crate) fn without_worker(key: Key, run_id: RunId) -> TaskContext {
        let (worker, scheduler) = ("tcp://127.0.0.1:1".into(), "tcp://127.0.0.1:2".into());
        let fate = Arc::default();
        TaskContext { key, run_id, worker, scheduler, since: Instant::now(), fate, home: Home::Worker(Weak::new()) }
    }

    pub(crate) fn run(&self) -> (Key, RunId) {
        (self.key.clone(), self.run_id)
    }

    /// The key of the running task.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The address of the worker it runs on.
    pub fn worker(&self) -> &Address {
        &self.worker
    }

    /// The scheduler's address.
    pub fn scheduler(&self) -> &Address {
        &self.scheduler
    }

    /// Whether the task should end: nobody wants its result any more, or it is over its `timeout`.
    pub fn is_cancelled(&self) -> bool {
        self.fate.is_cancelled()
    }

    /// Resolves when the task should end.
    pub async fn cancelled(&self) {
        self.fate.cancelled().await;
    }

    /// Leaves the worker's threads to other tasks (dask's `secede`): for tasks that wait for other tasks. It goes on in a
    /// thread of its own.
    ///
    /// # Errors
    /// [`NativeError::WorkerClosed`]; [`NativeError::Failed`] when the system has no more threads.
    pub fn secede(&self) -> Result<(), NativeError> {
        let shared = match &self.home {
            Home::Worker(shared) => shared.upgrade().ok_or(NativeError::WorkerClosed)?,
            Home::Host(host) => return host.secede(),
        };
        let left = shared.native.secede(&self.key, self.run_id);
        if left.map_err(|error| NativeError::Failed(format!("no thread to take its place: {error}")))? {
            let (key, compute_duration) = (self.key.clone(), self.since.elapsed().as_secs_f64());
            shared.notify(Event::Seceded { key, compute_duration, stimulus_id: stimulus("secede") });
        }
        Ok(())
    }

    /// Tells all who follow a topic of the scheduler's events (dask's `Worker.log_event`), such as how far the task is.
    ///
    /// # Errors
    /// [`NativeError::WorkerClosed`].
    pub fn log_event(&self, topic: &str, message: impl Into<Value>) -> Result<(), NativeError> {
        let shared = match &self.home {
            Home::Worker(shared) => shared.upgrade().ok_or(NativeError::WorkerClosed)?,
            Home::Host(host) => return host.log_event(topic, &message.into()),
        };
        shared.send(LogEvent { topic: topic.into(), msg: message.into() });
        Ok(())
    }

    /// The value of a type that all native tasks of this worker share, made when it is first asked for: a connection, a
    /// model, a cache.
    ///
    /// # Errors
    /// [`NativeError::WorkerClosed`].
    pub fn worker_state<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Result<Arc<T>, NativeError> {
        let of = TypeId::of::<T>();
        let state = match &self.home {
            Home::Worker(shared) => {
                shared.upgrade().ok_or(NativeError::WorkerClosed)?.task_state(of, || Arc::new(make()))
            }
            Home::Host(_) => HostTask::worker_state(&self.worker, of, || Arc::new(make())),
        };
        Ok(state.downcast::<T>().expect("values are kept by their type"))
    }

    /// Waits in a task's thread for something asynchronous, on the worker's runtime. What it waits for is dropped when the
    /// task is cancelled.
    ///
    /// # Errors
    /// [`NativeError::Cancelled`] when the task was cancelled first; [`NativeError::WorkerClosed`].
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output, NativeError> {
        let runtime = match &self.home {
            Home::Worker(shared) => shared.upgrade().ok_or(NativeError::WorkerClosed)?.runtime.clone(),
            Home::Host(_) => HostTask::runtime()?,
        };
        runtime.block_on(async {
            tokio::select! {
                biased;
                value = future => Ok(value),
                () = self.fate.cancelled() => Err(NativeError::Cancelled),
            }
        })
    }
}

impl std::fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TaskContext({} on {})", self.key, self.worker)
    }
}
