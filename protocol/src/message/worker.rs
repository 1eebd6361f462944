//! The stream between scheduler and worker, both ways (dask-worker's `register-worker` connection).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::fields::{Keys, Nbytes, Priority, Resources, RunId, ShortText, StartStop, StimulusId, WhoHas, WorkerStatus};
use super::stream;
use crate::address::Address;
use crate::key::Key;
use crate::payload::Payload;
use crate::value::Value;

stream! {
    /// What a scheduler sends on a worker's stream. Upstream's workers die of unknown ops or fields, so these are exact.
    SchedulerToWorker {
        /// Run a task.
        "compute-task" => ComputeTask,
        /// Forget keys, in whatever state they are.
        "free-keys" => FreeKeys,
        /// Release a task that has not started.
        "cancel-compute" => CancelCompute,
        /// Fetch copies.
        "acquire-replicas" => AcquireReplicas,
        /// Drop copies.
        "remove-replicas" => RemoveReplicas,
        /// Ask for a task back.
        "steal-request" => StealRequest,
        /// Who holds what, as asked for.
        "refresh-who-has" => RefreshWhoHas,
        /// Change status.
        "worker-status-change" => WorkerStatusChange,
        /// Another worker left.
        "remove-worker" => RemoveWorker,
        /// Shut down.
        "close" => CloseWorker,
        /// A P2P shuffle failed.
        "shuffle-fail" => ShuffleFail,
        /// End of stream.
        "close-stream" => CloseStream,
    }
}

stream! {
    /// What a worker sends on its stream.
    WorkerToScheduler {
        /// A task's result is in memory here.
        "task-finished" => TaskFinished,
        /// A task raised.
        "task-erred" => TaskErred,
        /// A key is no longer held here.
        "release-worker-data" => ReleaseWorkerData,
        /// Copies arrived.
        "add-keys" => AddKeys,
        /// A task seceded from its thread pool.
        "long-running" => LongRunning,
        /// A task asks to run elsewhere.
        "reschedule" => Reschedule,
        /// Holders of these keys are not known any more.
        "request-refresh-who-has" => RequestRefreshWhoHas,
        /// Answer to a steal request.
        "steal-response" => StealResponse,
        /// The worker's own change of status.
        "worker-status-change" => WorkerStatusChange,
        /// An entry for the event log.
        "log-event" => LogEvent,
        /// Nothing; keeps the connection busy.
        "keep-alive" => KeepAlive,
        /// End of stream.
        "close-stream" => CloseStream,
    }
}

/// `compute-task`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComputeTask {
    /// The task.
    pub key: Key,
    /// Its execution.
    pub run_id: RunId,
    /// The scheduler's triple.
    pub priority: Priority,
    /// Why now.
    pub stimulus_id: StimulusId,
    /// Holders of each direct dependency, at least one each.
    pub who_has: WhoHas,
    /// Bytes of each direct dependency.
    pub nbytes: Nbytes,
    /// What to run.
    pub run_spec: Payload,
    /// Resources it occupies while it runs.
    pub resource_restrictions: Option<Resources>,
    /// Whether its result is an actor.
    pub actor: bool,
    /// User annotations, echoed.
    pub annotations: Value,
    /// The span it belongs to.
    pub span_id: Option<String>,
}

/// `free-keys`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FreeKeys {
    /// The keys.
    pub keys: Keys,
    /// Why now.
    pub stimulus_id: StimulusId,
}

/// `cancel-compute`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancelCompute {
    /// The task.
    pub key: Key,
    /// Why now.
    pub stimulus_id: StimulusId,
}

/// `acquire-replicas`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AcquireReplicas {
    /// The keys and where to fetch them.
    pub who_has: WhoHas,
    /// Their sizes.
    pub nbytes: Nbytes,
    /// Why now.
    pub stimulus_id: StimulusId,
}

/// `remove-replicas`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemoveReplicas {
    /// The keys.
    pub keys: Keys,
    /// Why now.
    pub stimulus_id: StimulusId,
}

/// `steal-request`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StealRequest {
    /// The task wanted back.
    pub key: Key,
    /// Echoed in the response.
    pub stimulus_id: StimulusId,
}

/// `refresh-who-has`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefreshWhoHas {
    /// Holders, possibly none.
    pub who_has: WhoHas,
    /// Why now.
    pub stimulus_id: StimulusId,
}

/// `worker-status-change`, either way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatusChange {
    /// The new status.
    pub status: WorkerStatus,
    /// Why now.
    pub stimulus_id: StimulusId,
}

/// `remove-worker`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemoveWorker {
    /// The worker that left.
    pub worker: Address,
    /// Why now.
    pub stimulus_id: StimulusId,
}

/// `close`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CloseWorker {
    /// `scheduler-remove-worker`, `scheduler-close-worker` or `scheduler-close`.
    #[serde(default)]
    pub reason: String,
}

/// `shuffle-fail`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShuffleFail {
    /// The shuffle.
    pub shuffle_id: String,
    /// Its run.
    pub run_id: i64,
    /// Why.
    pub message: String,
}

/// `close-stream`, either way.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CloseStream {}

/// `keep-alive`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct KeepAlive {}

fn ok() -> ShortText {
    "OK".into()
}
fn error() -> ShortText {
    "error".into()
}

/// `task-finished`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskFinished {
    /// The task.
    pub key: Key,
    /// Which execution.
    pub run_id: RunId,
    /// Size of the result, in bytes.
    pub nbytes: i64,
    /// The pickled class of the result, or nil.
    #[serde(rename = "type", default)]
    pub type_pickle: Option<Bytes>,
    /// The name of its class.
    pub typename: ShortText,
    /// What plugins attached.
    #[serde(default)]
    pub metadata: Value,
    /// The thread that ran it, or nil.
    #[serde(default)]
    pub thread: Value,
    /// The timed parts of its life.
    #[serde(default)]
    pub startstops: Vec<StartStop>,
    /// The result itself, packed, if its call asked for that and it is small: at most
    /// [`TOLD_BYTES_MAX`](crate::native::TOLD_BYTES_MAX).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Bytes>,
    /// `OK`.
    #[serde(default = "ok")]
    pub status: ShortText,
    /// Why now.
    pub stimulus_id: StimulusId,
}

/// `task-erred`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskErred {
    /// The task.
    pub key: Key,
    /// Which execution.
    pub run_id: RunId,
    /// The exception, as the worker sent it.
    pub exception: Value,
    /// The traceback, or nil.
    #[serde(default)]
    pub traceback: Value,
    /// `repr` of the exception.
    #[serde(default)]
    pub exception_text: String,
    /// The traceback as text.
    #[serde(default)]
    pub traceback_text: String,
    /// The thread that ran it, or nil.
    #[serde(default)]
    pub thread: Value,
    /// The timed parts of its life.
    #[serde(default)]
    pub startstops: Vec<StartStop>,
    /// `error`.
    #[serde(default = "error")]
    pub status: ShortText,
    /// Why now.
    pub stimulus_id: StimulusId,
}

/// `release-worker-data`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseWorkerData {
    /// The key.
    pub key: Key,
    /// Why now.
    pub stimulus_id: StimulusId,
}

/// `add-keys`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AddKeys {
    /// The keys.
    pub keys: Keys,
    /// Why now.
    pub stimulus_id: StimulusId,
}

/// `long-running`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LongRunning {
    /// The task.
    pub key: Key,
    /// Which execution.
    pub run_id: RunId,
    /// Seconds until it seceded; nil when it was already known to be long-running.
    pub compute_duration: Option<f64>,
    /// Why now.
    pub stimulus_id: StimulusId,
}

/// `reschedule`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reschedule {
    /// The task.
    pub key: Key,
    /// Why now.
    pub stimulus_id: StimulusId,
}

/// `request-refresh-who-has`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestRefreshWhoHas {
    /// The keys.
    pub keys: Keys,
    /// Why now.
    pub stimulus_id: StimulusId,
}

/// `steal-response`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StealResponse {
    /// The task.
    pub key: Key,
    /// Its state on the worker, by upstream's name; nil when unknown there.
    pub state: Option<String>,
    /// The request's.
    pub stimulus_id: StimulusId,
}

/// `log-event`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEvent {
    /// One topic or several.
    pub topic: Value,
    /// The event.
    pub msg: Value,
}
