//! What the worker's state is told: everything that happens outside it.
//!
//! Values never pass through the state. The shell stores a value in the same step in which it reports it (no other event
//! comes between), and drops it when told to.

use bytes::Bytes;
use dask_protocol::message::{ErrorInfo, Resources, RunId, SchedulerToWorker, ShortText, StartStop, StimulusId};
use dask_protocol::{Address, Key, Value};

/// Seconds since the Unix epoch on the scheduler's clock.
pub type Seconds = f64;

/// One thing that happened. `State::handle` is the only way in.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A message on the scheduler's stream.
    Scheduler(SchedulerToWorker),
    /// A transfer ended.
    GatherDone {
        /// From whom.
        worker: Address,
        /// What the request asked for, all of it.
        keys: Vec<Key>,
        /// What arrived and is stored, and its size in bytes.
        received: Vec<(Key, i64)>,
        /// How it ended for the others.
        outcome: GatherOutcome,
        /// When it began.
        start: Seconds,
        /// When it ended.
        stop: Seconds,
        /// The request's.
        stimulus_id: StimulusId,
    },
    /// An execution ended.
    ExecuteDone {
        /// The task.
        key: Key,
        /// The execution, as in the action that started it.
        run_id: RunId,
        /// How it ended.
        outcome: ExecuteOutcome,
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// A running task seceded from its thread pool.
    Seceded {
        /// The task.
        key: Key,
        /// Seconds it had run.
        compute_duration: Seconds,
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// Values stored by RPC (`update_data`, `gather`).
    DataStored {
        /// What, and its size in bytes.
        data: Vec<(Key, i64)>,
        /// Whether to tell the scheduler with `add-keys`.
        report: bool,
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// Keys dropped by RPC (`free_keys`).
    FreeKeys {
        /// What.
        keys: Vec<Key>,
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// Values that were stored are gone (their executor died). They count as released. Reported before the executions
    /// that ended with them: those free slots, and what starts next must not count on these values.
    DataLost {
        /// What.
        keys: Vec<Key>,
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// `set_resources`: supplies named are replaced, others stay.
    SetResources {
        /// By name.
        resources: Resources,
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// Memory is over the pause fraction.
    Pause {
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// Memory is below it again.
    Unpause {
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// The worker leaves: nothing new starts.
    Close {
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// A time returned by `State::next_timeout` has come.
    Timeout,
}

/// How a transfer ended, for what did not arrive.
#[derive(Debug, Clone, PartialEq)]
pub enum GatherOutcome {
    /// The peer has sent all that it has.
    Answered,
    /// The peer has too many transfers; ask again after a pause.
    Busy,
    /// The peer could not be reached or the connection broke.
    Unreachable,
    /// The values arrived and could not be stored or read.
    Failed {
        /// Why.
        error: ErrorInfo,
    },
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq)]
pub enum ExecuteOutcome {
    /// The value is stored.
    Success {
        /// Its size in bytes.
        nbytes: i64,
        /// The name of its class.
        typename: ShortText,
        /// The pickled class.
        type_pickle: Option<Bytes>,
        /// What plugins attached.
        metadata: Value,
        /// The thread that ran it.
        thread: Value,
        /// The timed parts.
        startstops: Vec<StartStop>,
        /// The value itself, packed, if it is to be told.
        value: Option<Bytes>,
    },
    /// It raised.
    Failure {
        /// What.
        error: ErrorInfo,
        /// The thread that ran it.
        thread: Value,
        /// The timed parts.
        startstops: Vec<StartStop>,
    },
    /// It asked to run elsewhere, its executor died under it, or it was interrupted after `CancelExecution`.
    Reschedule,
}
