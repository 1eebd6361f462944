//! What the worker's state wants done. The shell does it and decides nothing.

use dask_protocol::message::{Priority, RunId, StimulusId, WorkerToScheduler};
use dask_protocol::{Address, Key, Payload, Value};

/// One thing to do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send on the scheduler's stream.
    Send(WorkerToScheduler),
    /// Fetch these keys from a peer in one request; ends in one `GatherDone`.
    Gather {
        /// From whom.
        worker: Address,
        /// What.
        keys: Vec<Key>,
        /// Their expected bytes together.
        total_nbytes: i64,
        /// To be echoed.
        stimulus_id: StimulusId,
    },
    /// Run a task whose dependencies are all stored; ends in one `ExecuteDone`.
    ///
    /// The shell takes hold of the dependencies' values as it carries this out: a `DropData` that follows must not take
    /// them away from it.
    Execute {
        /// The task.
        key: Key,
        /// To be echoed.
        run_id: RunId,
        /// What to run.
        spec: Payload,
        /// The keys it reads.
        dependencies: Vec<Key>,
        /// Its priority here, for pools that queue.
        priority: Priority,
        /// User annotations (`executor` names the pool).
        annotations: Value,
        /// Its span.
        span_id: Option<String>,
        /// Whether the result is an actor.
        actor: bool,
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// The result of a running task is no longer wanted; the shell may interrupt it. `ExecuteDone` still follows.
    CancelExecution {
        /// The task.
        key: Key,
        /// The execution.
        run_id: RunId,
    },
    /// A running task is over the limit that its annotation `timeout` sets: it shall end with a `TimeoutError`.
    /// `ExecuteDone` still follows.
    InterruptExecution {
        /// The task.
        key: Key,
        /// The execution.
        run_id: RunId,
        /// Its limit, in seconds.
        limit: f64,
    },
    /// It goes on in spite of that: what runs it shall be ended and replaced. `ExecuteDone` follows for all that ran there.
    ReplaceExecutor {
        /// The task.
        key: Key,
        /// The execution.
        run_id: RunId,
        /// Its limit, in seconds.
        limit: f64,
    },
    /// Drop a stored value.
    DropData {
        /// What.
        key: Key,
    },
    /// The scheduler sent what it must not; nothing of it was taken over. The shell logs it and leaves.
    Illegal {
        /// What was wrong, with the key.
        reason: String,
    },
    /// The scheduler wants the worker to close.
    Close {
        /// Why.
        reason: String,
    },
}

/// Actions in the order in which they were decided.
pub type Actions = Vec<Action>;
