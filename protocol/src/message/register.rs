//! How workers and nannies come to a scheduler: `register-worker`, `heartbeat_worker`, `register_nanny`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::fields::{Pairs, Resources, StimulusId, WorkerStatus};
use crate::address::Address;
use crate::key::Key;
use crate::value::Value;

/// Entry of `extra` in which a worker of ours lists what it can run (`python`, `native`). Upstream's schedulers show it
/// in the worker's identity and make nothing of it; a worker without it runs Python only.
pub const RUNTIMES_EXTRA: &str = "dask-rs-runtimes";

/// Arguments of `register-worker` (sent with `op` and `reply: false`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegisterWorker {
    /// Contact address.
    pub address: Address,
    /// `init`; tasks come once it reports `running`.
    pub status: WorkerStatus,
    /// Threads.
    pub nthreads: u32,
    /// Text or number, unique; nil for the address.
    #[serde(default)]
    pub name: Value,
    /// The worker's clock, in unix seconds.
    #[serde(default)]
    pub now: Option<f64>,
    /// Resources supplied.
    #[serde(default)]
    pub resources: Option<Resources>,
    /// Bytes; nil for no limit.
    #[serde(default)]
    pub memory_limit: Option<u64>,
    /// Where it keeps files.
    #[serde(default)]
    pub local_directory: String,
    /// Ports by service name, such as `dashboard`; a map.
    #[serde(default)]
    pub services: Value,
    /// Its nanny.
    #[serde(default)]
    pub nanny: Option<Address>,
    /// Process id.
    #[serde(default)]
    pub pid: i64,
    /// Versions payload; a map.
    #[serde(default)]
    pub versions: Value,
    /// The first heartbeat's metrics; a map.
    #[serde(default)]
    pub metrics: Value,
    /// Merged into its identity; a map. See [`RUNTIMES_EXTRA`].
    #[serde(default)]
    pub extra: Value,
    /// `worker-connect-<time>`.
    #[serde(default)]
    pub stimulus_id: Option<StimulusId>,
    /// `Worker-<uuid>`.
    #[serde(default)]
    pub server_id: String,
    /// Whether the scheduler should look the host name up; absent means yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve_address: Option<bool>,
}

impl RegisterWorker {
    /// The runtimes listed in `extra`; `None` when it lists none.
    pub fn runtimes(&self) -> Option<Vec<&str>> {
        let listed = self.extra.get(RUNTIMES_EXTRA)?.as_items()?;
        Some(listed.iter().filter_map(Value::as_str).collect())
    }
}

/// The answer to `register-worker`: a bare map, before the stream begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegisterWorkerReply {
    /// `OK`, or `error` with a `message`.
    pub status: String,
    /// The scheduler's clock, in unix seconds.
    #[serde(default)]
    pub time: f64,
    /// Seconds between heartbeats.
    #[serde(rename = "heartbeat-interval", default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval: Option<f64>,
    /// Pickled plugins by name.
    #[serde(rename = "worker-plugins", default)]
    pub worker_plugins: Pairs<String, Bytes>,
    /// Shown to the operator when not empty.
    #[serde(default)]
    pub warning: String,
    /// Ends the worker when not empty.
    #[serde(default)]
    pub error: String,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Arguments of `heartbeat_worker`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeartbeatWorker {
    /// Who.
    pub address: Address,
    /// The worker's clock, in unix seconds.
    #[serde(default)]
    pub now: Option<f64>,
    /// A map of the wire reference's 5.4.
    pub metrics: Value,
    /// Running tasks and for how many seconds.
    #[serde(default)]
    pub executing: Pairs<Key, f64>,
    /// By extension name; a map.
    #[serde(default)]
    pub extensions: Value,
    /// Absent means yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve_address: Option<bool>,
}

/// The answer to `heartbeat_worker`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeartbeatWorkerReply {
    /// `OK`, or `missing`: the worker is not registered and must close.
    pub status: String,
    /// The scheduler's clock, in unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<f64>,
    /// Seconds until the next.
    #[serde(rename = "heartbeat-interval", default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval: Option<f64>,
}

/// The answer to `register_nanny`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegisterNannyReply {
    /// `OK`.
    pub status: String,
    /// Pickled plugins by name.
    #[serde(rename = "nanny-plugins", default)]
    pub nanny_plugins: Pairs<String, Bytes>,
}
