//! What a worker needs to know to start.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dask_protocol::comm::{CommConfig, PageTls};
use dask_protocol::compression::Compression;
use dask_protocol::logs::LogRing;
use dask_protocol::message::Resources;
use dask_protocol::{Address, Value};
use tokio::runtime::Handle;

use crate::native::Registry;

/// Which Python runs user code.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PythonChoice {
    /// The first found of `DASK_PYTHON`, the active virtual environment, `python3` and `python`. Without any, or
    /// without `distributed` in it, the worker says so and runs native tasks only.
    #[default]
    Auto,
    /// This interpreter; without it the worker does not start.
    Path(PathBuf),
    /// None: native tasks only.
    Off,
}

/// The worker's certificates, each a path or PEM text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority.
    pub ca: String,
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

/// Called once the scheduler has accepted a worker, before anything else is told: with its address and its directory.
#[derive(Clone)]
pub struct OnRegistered(pub Arc<RegistrationListener>);

/// A function of a worker's address and directory.
pub type RegistrationListener = dyn Fn(&Address, &Path) + Send + Sync;

impl fmt::Debug for OnRegistered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnRegistered")
    }
}

/// Default of [`WorkerOptions::reconnect_grace`].
pub const RECONNECT_GRACE: Duration = Duration::from_secs(30);

/// How to start a [`Worker`](crate::Worker). [`WorkerOptions::new`] fills in what upstream's worker defaults to.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The scheduler to join.
    pub scheduler: Address,
    /// Text or number, unique in the cluster; nil for the worker's address.
    pub name: Value,
    /// Tasks that run at the same time.
    pub nthreads: u32,
    /// Bytes; `None` for no limit.
    pub memory_limit: Option<u64>,
    /// Resources that tasks may ask for.
    pub resources: Resources,
    /// Where `dask-scratch-space/worker-...` is made; the system's temporary directory by default.
    pub local_directory: Option<PathBuf>,
    /// Where to listen, such as `tcp://:0`.
    pub listen_address: Address,
    /// The address to tell peers, when it is not the one listened on.
    pub contact_address: Option<Address>,
    /// `host:port` of the HTTP server (`:0` takes any port); `None` for no server.
    pub dashboard_address: Option<String>,
    /// The certificate of that server, which then speaks https alone (`distributed.scheduler.dashboard.tls`).
    pub http_tls: Option<PageTls>,
    /// Which Python runs user code.
    pub python: PythonChoice,
    /// Modules, files or URLs that the Python process loads before its first task (`distributed.worker.preload`).
    pub preload: Vec<String>,
    /// Arguments for them.
    pub preload_argv: Vec<String>,
    /// The nanny that started this process.
    pub nanny: Option<Address>,
    /// How connections are made, including certificates.
    pub comm: CommConfig,
    /// The same certificates as text, for the Python process's own connections.
    pub tls_files: Option<TlsFiles>,
    /// How long to wait for the scheduler at start; `None` for ever.
    pub death_timeout: Option<Duration>,
    /// How long a connection to the scheduler that was cut may take to be made again before the worker closes; zero to close
    /// at once, as upstream's workers do. Schedulers of ours only.
    pub reconnect_grace: Duration,
    /// When to retire and close; `None` for never.
    pub lifetime: Option<Duration>,
    /// What happens as memory fills up.
    pub memory: MemoryOptions,
    /// Bounds of what is on its way to the worker.
    pub transfer: TransferOptions,
    /// Rows kept for `story` (`distributed.admin.low-level-log-length`).
    pub story_rows_max: usize,
    /// Whether the state checks itself after every event (`distributed.worker.validate`); slow.
    pub validate: bool,
    /// Whether a running task that nobody wants any more is interrupted; else it runs on and its result is dropped, as
    /// upstream does.
    pub interrupt_cancelled: bool,
    /// How long a task that was interrupted at its `timeout` may go on before its executor is replaced.
    pub interrupt_grace: Duration,
    /// Whether each Python task that runs has a process of its own, in which neither another task nor what serves its values
    /// can hold it up; values stay in one process. Tasks with the annotation `executor="processes"` have one anyway.
    pub task_processes: bool,
    /// The native tasks this worker can run.
    pub registry: Registry,
    /// Recent log records, for `get_logs`.
    pub logs: LogRing,
    /// Where connections of peers and transfers are served; by default where the worker is started. With a runtime of its
    /// own, what a task's way through the worker needs can do with one thread, which none of its steps has to wake.
    pub transfers: Option<Handle>,
    /// Whom to tell that the worker is registered: its nanny, which would otherwise learn later than everybody else.
    pub on_registered: Option<OnRegistered>,
}

/// What a worker does at which share of its memory limit (`distributed.worker.memory`); a `None` turns it off. The defaults
/// are upstream's. Ending a worker that is over them all is its nanny's part.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryOptions {
    /// Values beyond this share, by the sum of their sizes, go to disk, the longest unused first.
    pub target: Option<f64>,
    /// Values go to disk while the process is larger than this share.
    pub spill: Option<f64>,
    /// Nothing new starts while the process is larger than this share.
    pub pause: Option<f64>,
    /// Most bytes on disk; `None` for no bound.
    pub max_spill: Option<u64>,
    /// How files are compressed, where it makes them smaller.
    pub compression: Option<Compression>,
}

impl Default for MemoryOptions {
    fn default() -> MemoryOptions {
        MemoryOptions {
            target: Some(0.60),
            spill: Some(0.70),
            pause: Some(0.80),
            max_spill: None,
            compression: Some(Compression::Lz4),
        }
    }
}

/// How much may be on its way to a worker at once; the defaults are upstream's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TransferOptions {
    /// Most transfers at once (`distributed.worker.connections.outgoing`).
    pub count_max: usize,
    /// Most bytes asked for in one request, except for its first key (`distributed.worker.transfer.message-bytes-limit`).
    pub message_bytes_max: u64,
    /// Most bytes on their way as a share of the memory limit (`distributed.worker.memory.transfer`); `None` for no bound.
    pub memory: Option<f64>,
    /// Whether Python processes of workers of one machine and user copy large values from each other's memory
    /// (`distributed.worker.transfer.shared-memory`, ours).
    pub shared_memory: bool,
}

impl Default for TransferOptions {
    fn default() -> TransferOptions {
        TransferOptions { count_max: 50, message_bytes_max: 50_000_000, memory: Some(0.10), shared_memory: true }
    }
}

impl WorkerOptions {
    /// One thread, no memory limit, any port, and the native tasks of this binary.
    ///
    /// # Errors
    /// [`crate::native::RegistryError`] when two native tasks have the same name.
    pub fn new(scheduler: Address) -> Result<WorkerOptions, crate::native::RegistryError> {
        let listen_address = Address::new(format!("{}://:0", scheduler.scheme()));
        Ok(WorkerOptions {
            scheduler,
            name: Value::Nil,
            nthreads: 1,
            memory_limit: None,
            resources: Resources::default(),
            local_directory: None,
            listen_address,
            contact_address: None,
            dashboard_address: Some(":0".to_owned()),
            http_tls: None,
            python: PythonChoice::Auto,
            preload: Vec::new(),
            preload_argv: Vec::new(),
            nanny: None,
            comm: CommConfig::default(),
            tls_files: None,
            death_timeout: None,
            reconnect_grace: RECONNECT_GRACE,
            lifetime: None,
            memory: MemoryOptions::default(),
            transfer: TransferOptions::default(),
            story_rows_max: crate::state::STORY_ROWS_MAX_DEFAULT,
            validate: false,
            interrupt_cancelled: true,
            task_processes: false,
            interrupt_grace: Duration::from_secs_f64(crate::state::INTERRUPT_GRACE_DEFAULT),
            registry: Registry::from_binary()?,
            logs: LogRing::new(),
            transfers: None,
            on_registered: None,
        })
    }
}
