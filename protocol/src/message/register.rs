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

/// Entry of `extra` by which a worker of ours asks for a stream that survives a cut: for how many seconds the scheduler
/// should wait for it. Upstream's schedulers make nothing of it, and answer without [`ResumeGrant`].
pub const RESUME_EXTRA: &str = "dask-rs-resume";

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

    /// Seconds for which the worker wants to be waited for after a cut; `None` when it would not come back.
    pub fn reconnect_grace(&self) -> Option<f64> {
        self.extra.get(RESUME_EXTRA)?.as_f64().filter(|grace| grace.is_finite() && *grace > 0.0)
    }
}

/// The scheduler's promise to wait for this worker after a cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResumeGrant {
    /// Proves that a later connection is the same worker's.
    pub token: String,
    /// Seconds from a cut to the worker's removal.
    pub grace: f64,
}

/// Arguments of `resume-worker`: a new connection takes the place of a worker's stream that was cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResumeWorker {
    /// The address it registered with.
    pub address: Address,
    /// From its registration.
    pub token: String,
    /// How many messages of the stream it has taken in.
    pub received: u64,
    /// Absent means yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve_address: Option<bool>,
}

/// The answer to `resume-worker`; on `OK` the stream goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResumeWorkerReply {
    /// `OK`, or `error` with a `message`: the worker is not waited for any more.
    pub status: String,
    /// How many messages of the stream the scheduler has taken in.
    #[serde(default)]
    pub received: u64,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a heartbeat tells of a resumable stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamState {
    /// From the registration.
    pub token: String,
    /// How many messages of the stream the worker has taken in.
    pub received: u64,
    /// After a cut, until both sides have compared it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<WorkerDigest>,
}

/// What a heartbeat's answer tells of a resumable stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamStateReply {
    /// How many messages of the stream the scheduler has taken in.
    pub received: u64,
    /// Whether the digest that was sent is that of the scheduler's books; absent when messages were on their way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agrees: Option<bool>,
}

/// What a worker holds and has to do, to be compared with what the scheduler believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerDigest {
    /// How many messages the worker had sent when it looked; they carry all that led there.
    pub sent: u64,
    /// The keys whose values it holds.
    pub held: KeysDigest,
    /// The tasks it was given and has not reported.
    pub tasks: KeysDigest,
}

/// A set of keys, in sixteen bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeysDigest {
    /// How many.
    pub count: u64,
    /// The sum of their hashes.
    pub hash: u64,
}

impl<'a> FromIterator<&'a Key> for KeysDigest {
    fn from_iter<I: IntoIterator<Item = &'a Key>>(keys: I) -> KeysDigest {
        keys.into_iter().fold(KeysDigest::default(), |digest, key| KeysDigest {
            count: digest.count + 1,
            hash: digest.hash.wrapping_add(key.stable_hash()),
        })
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
    /// When the worker asked to be waited for after a cut.
    #[serde(rename = "dask-rs-resume", default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<ResumeGrant>,
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
    /// Only where the scheduler granted a resumable stream.
    #[serde(rename = "dask-rs-resume", default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamState>,
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
    /// To a heartbeat that had one.
    #[serde(rename = "dask-rs-resume", default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamStateReply>,
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
