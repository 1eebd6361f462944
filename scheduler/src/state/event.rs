//! What the scheduler's state is told: everything that happens outside it.

use std::sync::Arc;

use dask_protocol::message::{ErrorInfo, Resources, StimulusId, WorkerStatus, WorkerToScheduler};
use dask_protocol::{Address, Key, Payload, Value};

/// Seconds since the Unix epoch, as dask's timestamps.
pub type Seconds = f64;

/// A client's id, such as `Client-1a2b...`, or a pseudo client's (`fire-and-forget`, `published-x`).
pub type ClientId = Arc<str>;

/// One thing that happened. `State::handle` is the only way in.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A client registered; a second registration under one id is a new session.
    AddClient {
        /// Who.
        client: ClientId,
    },
    /// A client left or its connection broke: its interest ends.
    RemoveClient {
        /// Who.
        client: ClientId,
    },
    /// A graph, materialised and ordered (`update-graph`).
    UpdateGraph(Box<UpdateGraph>),
    /// A graph that could not be materialised: every requested key errs for the client.
    UpdateGraphFailed {
        /// Who sent it.
        client: ClientId,
        /// The requested keys.
        keys: Vec<Key>,
        /// The exception for the user.
        error: ErrorInfo,
    },
    /// `client-releases-keys`.
    ClientReleasesKeys {
        /// Whose interest.
        client: ClientId,
        /// In what.
        keys: Vec<Key>,
    },
    /// `client-desires-keys`; makes pseudo clients on first sight.
    ClientDesiresKeys {
        /// Whose interest.
        client: ClientId,
        /// In what.
        keys: Vec<Key>,
    },
    /// `cancel-keys`.
    CancelKeys {
        /// Who cancels.
        client: ClientId,
        /// What.
        keys: Vec<Key>,
        /// Even if other clients want it.
        force: bool,
        /// Passed on to clients.
        reason: Option<String>,
        /// Passed on to clients.
        msg: Option<String>,
    },
    /// `report-key`.
    ReportKey {
        /// Who asks.
        client: ClientId,
        /// About what.
        key: Key,
    },
    /// `update_data`: data scattered to workers by somebody else.
    UpdateData {
        /// Where each key is, and its size in bytes.
        data: Vec<(Key, Vec<Address>, i64)>,
        /// Who wants it from now on.
        client: Option<ClientId>,
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// `retry`: run erred tasks again from their roots.
    Retry {
        /// The keys asked for.
        keys: Vec<Key>,
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// `restart`: release everything (the shell restarts the workers afterwards).
    Restart {
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// `register-worker`.
    AddWorker(Box<NewWorker>),
    /// A worker's stream broke, its nanny reported it dead, or it was retired.
    RemoveWorker {
        /// Which.
        worker: Address,
        /// Whether it was meant to leave: only unexpected losses make its tasks suspicious.
        expected: bool,
        /// Whether to tell it to close.
        close: bool,
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// How a worker died, as it told itself or its nanny did; before or after its removal.
    PostMortem {
        /// Which.
        worker: Address,
        /// What is known, by name; see [`PostMortem`](super::PostMortem).
        report: Value,
    },
    /// `heartbeat_worker`.
    Heartbeat(Box<WorkerHeartbeat>),
    /// A message on a worker's stream.
    WorkerMessage {
        /// From whom.
        worker: Address,
        /// What.
        message: WorkerToScheduler,
    },
    /// `set_resources`.
    SetResources {
        /// Which worker.
        worker: Address,
        /// Its supply from now on, by name.
        resources: Resources,
    },
    /// The scheduler's side of a status change (retiring, and its roll-back).
    SetWorkerStatus {
        /// Which worker.
        worker: Address,
        /// Its status from now on.
        status: WorkerStatus,
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// `retire_workers`: hand over what these workers hold, then let them go.
    RetireWorkers {
        /// Which.
        workers: Vec<Address>,
        /// Remove them when done.
        remove: bool,
        /// Tell them to close when done.
        close: bool,
        /// Names the retirement in [`super::Action::WorkersRetired`].
        token: u64,
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// Replicas the shell moved by RPC (replicate, rebalance): `worker` now holds `keys`.
    ReplicasAdded {
        /// The new holder.
        worker: Address,
        /// What it holds.
        keys: Vec<Key>,
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// Replicas the shell freed by RPC.
    ReplicasRemoved {
        /// The former holder.
        worker: Address,
        /// What it dropped.
        keys: Vec<Key>,
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// Copies the shell made elsewhere (rebalance): `worker` drops those of `keys` that another running worker holds.
    DropReplicas {
        /// The holder with too much.
        worker: Address,
        /// What was copied.
        keys: Vec<Key>,
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// `set_restrictions`: where tasks may run from now on; an empty list lifts the restriction.
    SetRestrictions {
        /// Addresses per task.
        restrictions: Vec<(Key, Vec<Address>)>,
    },
    /// A P2P shuffle starts over: its barrier, the barrier's inputs and outputs run again.
    RestartShuffle {
        /// The key of the barrier task.
        barrier: Key,
        /// Why now.
        stimulus_id: StimulusId,
    },
    /// A P2P shuffle begins: outputs of its barrier are sent out at once rather than queued.
    ShuffleStarted {
        /// The key of the barrier task.
        barrier: Key,
    },
    /// `amm_handler`: switch the active memory manager on or off.
    SetActiveMemoryManager {
        /// Whether it runs periodically from now on.
        running: bool,
    },
    /// `amm_handler`: run the active memory manager once.
    RunActiveMemoryManager,
    /// A time returned by `State::next_timeout` has come.
    Timeout,
}

/// A materialised graph.
#[derive(Debug, Clone, PartialEq)]
pub struct UpdateGraph {
    /// Who sent it.
    pub client: ClientId,
    /// Its tasks, each once, in any order. Dependencies may also name keys the scheduler knows already.
    pub tasks: Vec<NewTask>,
    /// The keys wanted.
    pub keys: Vec<Key>,
    /// The task that submits, for clients inside tasks.
    pub submitting_task: Option<Key>,
    /// Graphs that arrive within this many seconds of each other share a generation.
    pub fifo_timeout: Seconds,
    /// Why now.
    pub stimulus_id: StimulusId,
}

/// Who can run a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Runtime {
    /// A worker with a Python executor (ours or upstream's).
    #[default]
    Python,
    /// A worker with native tasks (ours only).
    Native,
}

impl Runtime {
    /// How many runtimes there are.
    pub(super) const COUNT: usize = 2;

    /// Every runtime.
    pub(super) const ALL: [Runtime; Runtime::COUNT] = [Runtime::Python, Runtime::Native];

    /// Its place in tables.
    pub(super) fn number(self) -> usize {
        match self {
            Runtime::Python => 0,
            Runtime::Native => 1,
        }
    }
}

/// One task of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    /// Its name.
    pub key: Key,
    /// The keys it reads, each once.
    pub dependencies: Vec<Key>,
    /// What to run. Opaque here; sent to the worker as it is.
    pub spec: TaskSpec,
    /// Who can run it.
    pub runtime: Runtime,
    /// Marked as a source of data, hence root-ish (I/O layers, literals).
    pub data_producer: bool,
    /// Whether it is an ordinary task rather than a literal (`DataNode`).
    pub is_task: bool,
    /// Whether workers holding P2P barriers make it; its dependents are never queued.
    pub is_barrier: bool,
    /// Its place in the static order of its graph (`dask.order` or the client's own).
    pub order: f64,
    /// Whether its result is an actor.
    pub actor: bool,
    /// What the user annotated; shared by the many tasks that have the same.
    pub annotations: Arc<Annotations>,
}

/// A task's specification: made into the payload of `compute-task` when it is sent.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskSpec {
    /// A payload as it came (native tasks).
    Payload(Payload),
    /// The pickle of a graph node, whose common parts the tasks of a graph share.
    Pickled(dask_protocol::pickle::TaskSpec),
}

impl TaskSpec {
    /// What travels as `run_spec`.
    pub fn to_payload(&self) -> Payload {
        match self {
            TaskSpec::Payload(payload) => payload.clone(),
            TaskSpec::Pickled(spec) => spec.to_payload(),
        }
    }
}

/// A task's annotations, decoded. Fields by dask's names.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Annotations {
    /// Larger runs earlier; 0 where not given.
    pub priority: f64,
    /// How often to run again after an exception.
    pub retries: u32,
    /// Worker names, addresses or host names, as the user wrote them; empty for no restriction.
    pub workers: Vec<String>,
    /// Whether `workers` is a wish only.
    pub allow_other_workers: bool,
    /// Resources needed, by name.
    pub resources: Vec<(String, f64)>,
    /// Never stolen when false (extension of ours).
    pub stealable: Option<bool>,
    /// Span ids, outermost first; empty for the default span.
    pub span_ids: Vec<String>,
    /// Seconds after which a worker of ours interrupts the task (`timeout`).
    pub timeout: Option<f64>,
    /// All annotations as they are echoed to the worker; a map.
    pub echoed: Value,
}

/// A worker that registers.
#[derive(Debug, Clone, PartialEq)]
pub struct NewWorker {
    /// Its contact address, resolved.
    pub address: Address,
    /// Its name (text or number), unique.
    pub name: Value,
    /// Its unique server id.
    pub server_id: String,
    /// Its status; tasks are sent only when running.
    pub status: WorkerStatus,
    /// Threads.
    pub nthreads: u32,
    /// Bytes; 0 for no limit.
    pub memory_limit: u64,
    /// Resources supplied.
    pub resources: Resources,
    /// Its nanny's address.
    pub nanny: Option<Address>,
    /// What it can run.
    pub runtimes: Vec<Runtime>,
    /// Why now.
    pub stimulus_id: StimulusId,
}

/// What a heartbeat tells the state. The shell keeps the rest of the metrics for display.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerHeartbeat {
    /// From whom.
    pub worker: Address,
    /// Running tasks and for how many seconds.
    pub executing: Vec<(Key, Seconds)>,
    /// The worker's measured bandwidth in bytes per second.
    pub bandwidth: Option<f64>,
    /// Resident memory, in bytes.
    pub memory: u64,
    /// Bytes in memory of the results it has spilled (`spilled_bytes.memory`).
    pub spilled_memory: u64,
    /// Bytes those results take on disk (`spilled_bytes.disk`).
    pub spilled_disk: u64,
}
