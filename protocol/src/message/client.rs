//! The stream between client and scheduler, both ways (the `register-client` connection).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::fields::{Keys, Pairs};
use super::stream;
use super::worker::CloseStream;
use crate::address::Address;
use crate::key::Key;
use crate::payload::Payload;
use crate::value::Value;

stream! {
    /// What a client sends on its stream. Where `client` is given it overrides the sender's own id.
    ClientToScheduler {
        /// A graph to compute.
        "update-graph" => UpdateGraph,
        /// A graph of native tasks (extension of ours: no pickled expression).
        "update-native-graph" => UpdateNativeGraph,
        /// Interest in keys ends.
        "client-releases-keys" => ClientReleasesKeys,
        /// Interest in keys begins.
        "client-desires-keys" => ClientDesiresKeys,
        /// The client lives.
        "heartbeat-client" => HeartbeatClient,
        /// Cancel keys.
        "cancel-keys" => CancelKeys,
        /// Say how a key stands.
        "report-key" => ReportKey,
        /// The client leaves.
        "close-client" => CloseClient,
        /// End of stream.
        "close-stream" => CloseStream,
        /// Receive events of a topic.
        "subscribe-topic" => SubscribeTopic,
        /// No longer.
        "unsubscribe-topic" => UnsubscribeTopic,
        /// All earlier stream messages of a publish have arrived.
        "publish_flush_batched_send" => PublishFlush,
        /// The future popped from a queue is held.
        "queue-future-release" => QueueFutureRelease,
        /// One user of a queue less.
        "queue_release" => QueueRelease,
        /// The future read from a variable is held.
        "variable-future-received-confirm" => VariableFutureReceived,
        /// Drop a variable.
        "variable_delete" => VariableDelete,
        /// Register scattered data.
        "update-data" => UpdateData,
    }
}

stream! {
    /// What a scheduler sends on a client's stream.
    SchedulerToClient {
        /// The client is registered.
        "stream-start" => StreamStart,
        /// A key's result is in memory.
        "key-in-memory" => KeyInMemory,
        /// A task erred.
        "task-erred" => ClientTaskErred,
        /// The only copy was lost; it is computed again.
        "lost-data" => LostData,
        /// An erred task runs again.
        "task-retried" => TaskRetried,
        /// Keys are cancelled.
        "cancelled-keys" => CancelledKeys,
        /// Everything was released.
        "restart" => Restart,
        /// An event of a topic subscribed to.
        "event" => TopicEvent,
        /// How often to call.
        "adjust-heartbeat-interval" => AdjustHeartbeatInterval,
        /// End of stream.
        "stream-closed" => StreamClosed,
    }
}

/// `update-graph`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateGraph {
    /// The pickled expression.
    pub expr_ser: Value,
    /// The keys wanted.
    pub keys: Keys,
    /// Order per key, where the client knows it.
    #[serde(default)]
    pub internal_priority: Option<Pairs<Key, f64>>,
    /// The task that submits, for clients inside tasks.
    #[serde(default)]
    pub submitting_task: Option<Key>,
    /// Graphs that arrive within this time of each other share a generation.
    #[serde(default)]
    pub fifo_timeout: Value,
    /// Which keys make actors: nil, a bool, or keys.
    #[serde(default)]
    pub actors: Value,
    /// Pickled source code.
    #[serde(default)]
    pub code: Value,
    /// Pickled annotations.
    #[serde(default)]
    pub annotations: Value,
    /// Pickled span metadata.
    #[serde(default)]
    pub span_metadata: Value,
    /// Overrides the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// A priority for all its tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_priority: Option<f64>,
}

/// `update-native-graph`: tasks whose specs need no Python.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateNativeGraph {
    /// The tasks.
    pub tasks: Vec<NativeTask>,
    /// The keys wanted.
    pub keys: Keys,
    /// The task that submits, for clients inside tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitting_task: Option<Key>,
}

/// One task of an [`UpdateNativeGraph`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NativeTask {
    /// Its name.
    pub key: Key,
    /// What to run, in the native serializer family.
    pub run_spec: Payload,
    /// The keys it reads.
    pub dependencies: Vec<Key>,
    /// Annotations by dask's names (priority, retries, resources, workers, ...); a map or nil.
    #[serde(default)]
    pub annotations: Value,
}

/// `client-releases-keys`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientReleasesKeys {
    /// The keys.
    pub keys: Keys,
    /// Overrides the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// `client-desires-keys`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientDesiresKeys {
    /// The keys.
    pub keys: Keys,
    /// Overrides the sender (`fire-and-forget`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// `heartbeat-client`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct HeartbeatClient {}

/// `cancel-keys`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancelKeys {
    /// The keys.
    pub keys: Keys,
    /// Even if other clients want them.
    #[serde(default)]
    pub force: bool,
    /// Why, for the user.
    #[serde(default)]
    pub reason: Option<String>,
    /// More, for the user.
    #[serde(default)]
    pub msg: Option<String>,
    /// Overrides the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// `report-key`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportKey {
    /// The key.
    pub key: Key,
}

/// `close-client`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CloseClient {}

/// `subscribe-topic`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubscribeTopic {
    /// The topic.
    pub topic: Value,
}

/// `unsubscribe-topic`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnsubscribeTopic {
    /// The topic.
    pub topic: Value,
}

/// `publish_flush_batched_send`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishFlush {
    /// Which publish.
    pub uid: Value,
}

/// `queue-future-release`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueFutureRelease {
    /// The queue.
    pub name: Value,
    /// The future's key.
    pub key: Key,
}

/// `queue_release`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueRelease {
    /// The queue.
    pub name: Value,
}

/// `variable-future-received-confirm`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariableFutureReceived {
    /// The variable.
    pub name: Value,
    /// The future's key.
    pub key: Key,
    /// From the `variable_get` reply.
    pub token: Value,
}

/// `variable_delete`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariableDelete {
    /// The variable.
    pub name: Value,
}

/// `update-data`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateData {
    /// Where each key is.
    pub who_has: Pairs<Key, Vec<Address>>,
    /// How large it is.
    pub nbytes: Pairs<Key, i64>,
    /// Who wants it.
    #[serde(default)]
    pub client: Option<String>,
}

/// `stream-start`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StreamStart {
    /// Shown to the user when not empty.
    #[serde(default)]
    pub warning: String,
    /// Ends the client when not empty.
    #[serde(default)]
    pub error: String,
    /// The release of a scheduler of ours, for Rust clients.
    #[serde(default, rename = "dask-rs", skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
}

/// `key-in-memory`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyInMemory {
    /// The key.
    pub key: Key,
    /// The pickled class of the value.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_pickle: Option<Bytes>,
    /// Holders, for scattered data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<Vec<Address>>,
    /// The result itself, packed, if its call asked for that and it is small. Only to clients of ours: Python's know no such
    /// field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Bytes>,
}

/// `task-erred` to a client; exactly these fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientTaskErred {
    /// The key.
    pub key: Key,
    /// The exception.
    pub exception: Value,
    /// The traceback, or nil.
    pub traceback: Value,
}

/// `lost-data`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LostData {
    /// The key.
    pub key: Key,
}

/// `task-retried`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRetried {
    /// The key.
    pub key: Key,
}

/// `cancelled-keys`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancelledKeys {
    /// The keys.
    pub keys: Keys,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// More.
    #[serde(default)]
    pub msg: Option<String>,
}

/// `restart`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Restart {}

/// `event`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopicEvent {
    /// The topic.
    pub topic: Value,
    /// When (seconds) and what.
    pub event: (f64, Value),
}

/// `adjust-heartbeat-interval`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdjustHeartbeatInterval {
    /// Seconds.
    pub interval: f64,
}

/// `stream-closed`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StreamClosed {}
