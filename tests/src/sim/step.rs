//! What can happen in a simulated cluster. A list of steps is a whole run: it replays without any chance.

use serde::{Deserialize, Serialize};

/// One incarnation of a worker process; a restart gets a new number and a new address.
pub type WorkerNo = u32;
/// A client, by number.
pub type ClientNo = u32;

/// One direction of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Link {
    /// Scheduler to worker.
    ToWorker(WorkerNo),
    /// Worker to scheduler.
    FromWorker(WorkerNo),
    /// Scheduler to client.
    ToClient(ClientNo),
    /// Client to scheduler.
    FromClient(ClientNo),
}

/// How an execution ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// With a value of so many bytes.
    Success(i64),
    /// It raises.
    Failure,
    /// It asks to run elsewhere.
    Reschedule,
}

/// How a transfer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arrival {
    /// With the reply.
    Reply,
    /// The connection broke.
    Cut,
    /// The connection broke when half of the values had come.
    CutInside,
    /// The reply came and cannot be deserialised.
    Unusable,
}

/// One task of a graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct TaskDef {
    /// Its key.
    pub key: String,
    /// The keys it reads.
    pub deps: Vec<String>,
    /// How often it is retried.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retries: u32,
    /// The user's priority.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: i32,
    /// GPUs it needs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gpus: u32,
    /// The host it must run on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub host: Option<String>,
    /// Whether the host is a wish only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub loose: bool,
    /// Whether it makes an actor.
    #[serde(default, skip_serializing_if = "is_default")]
    pub actor: bool,
    /// Whether it is a source of data.
    #[serde(default, skip_serializing_if = "is_default")]
    pub data_producer: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// The oldest message of a stream arrives.
    Deliver(Link),
    /// An execution ends.
    Finish {
        /// Where.
        worker: WorkerNo,
        /// Which task.
        key: String,
        /// Which run.
        run: i64,
        /// How.
        outcome: Outcome,
    },
    /// A running task secedes.
    Secede {
        /// Where.
        worker: WorkerNo,
        /// Which task.
        key: String,
    },
    /// A request for data reaches its holder.
    Serve {
        /// Who asks.
        to: WorkerNo,
        /// Who is asked.
        from: WorkerNo,
        /// Whether it says it is busy.
        busy: bool,
    },
    /// A request for data ends where it began.
    Arrive {
        /// Who asked.
        to: WorkerNo,
        /// Who was asked.
        from: WorkerNo,
        /// How it ends.
        arrival: Arrival,
    },
    /// A time the scheduler waited for has come.
    SchedulerTimeout,
    /// A time a worker waited for has come.
    WorkerTimeout(WorkerNo),
    /// A worker process of this slot starts and registers.
    Start {
        /// Which slot (name, host, threads, resources).
        slot: u32,
    },
    /// A worker process dies; so many of its messages still reach the scheduler, then the end of the stream.
    Kill {
        /// Which.
        worker: WorkerNo,
        /// Messages that were sent in time.
        kept: usize,
    },
    /// The stream between a worker and the scheduler breaks; both sides learn of it in their own time.
    Cut {
        /// Which.
        worker: WorkerNo,
    },
    /// A worker's executor process dies: runs end, and these values are gone.
    ExecutorDies {
        /// Which.
        worker: WorkerNo,
        /// What is lost.
        lost: Vec<String>,
    },
    /// A worker's memory fills up.
    Pause(WorkerNo),
    /// A worker's memory is free again.
    Unpause(WorkerNo),
    /// A worker calls.
    Heartbeat(WorkerNo),
    /// A client connects.
    Connect(ClientNo),
    /// A client's connection ends.
    Disconnect(ClientNo),
    /// A client submits a graph.
    Submit {
        /// Who.
        client: ClientNo,
        /// Its tasks.
        tasks: Vec<TaskDef>,
        /// What it wants of them.
        wants: Vec<String>,
    },
    /// A client releases keys.
    Release {
        /// Who.
        client: ClientNo,
        /// What.
        keys: Vec<String>,
    },
    /// A client cancels keys.
    Cancel {
        /// Who.
        client: ClientNo,
        /// What.
        keys: Vec<String>,
        /// Even if others want them.
        force: bool,
    },
    /// A client retries erred keys.
    Retry {
        /// Who.
        client: ClientNo,
        /// What.
        keys: Vec<String>,
    },
    /// Values are put on a worker; the scheduler hears of it later.
    Scatter {
        /// Where.
        worker: WorkerNo,
        /// What, and its size in bytes.
        data: Vec<(String, i64)>,
    },
    /// The scheduler hears of scattered values.
    Scattered {
        /// For whom.
        client: ClientNo,
        /// Where they were put.
        worker: WorkerNo,
        /// What, and its size in bytes.
        data: Vec<(String, i64)>,
    },
    /// Somebody retires workers.
    Retire {
        /// Which.
        workers: Vec<WorkerNo>,
    },
    /// The scheduler removes a worker (time to live).
    Remove(WorkerNo),
    /// A client restarts the cluster.
    Restart,
}

/// A step and when it happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    /// Seconds of virtual time.
    #[serde(with = "exact")]
    pub at: f64,
    /// What happens.
    pub step: Step,
}

/// Times as text: they are read back to the last bit, unlike numbers of JSON.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(at: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(at)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
