//! What a scheduler can be told at its start.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dask_protocol::Address;
use dask_protocol::comm::{CommConfig, PageTls};
use tokio::runtime::Handle;

use super::jupyter::JupyterOptions;
use crate::state;

/// `distributed.scheduler.worker-ttl`.
pub const WORKER_TTL: Duration = Duration::from_secs(300);
/// The port dask's schedulers listen on.
pub const SCHEDULER_PORT: u16 = 8786;
/// The port of dask's dashboard.
pub const DASHBOARD_PORT: u16 = 8787;
/// Bytes of results held whole while they are gathered: a fetch that breaks can then be tried elsewhere.
pub const GATHER_WINDOW_BYTES: usize = 128 << 20;

/// An hour, as upstream.
const EVENTS_CLEANUP_DELAY: Duration = Duration::from_secs(3600);
/// Records of tasks that ran.
const TASK_STREAM_LENGTH: usize = 100_000;
/// Parts of tasks for the pages, which ask four times a second while somebody looks: this is 100,000 tasks a second. Twice
/// 3 MB when full: what waits for the pages, and what they drew.
const PAGE_STREAM_LENGTH: usize = 25_000;

/// Everything [`super::Scheduler::start`] needs. `Default` is a scheduler as `dask scheduler` starts it.
#[derive(Clone)]
pub struct SchedulerOptions {
    /// Addresses to listen on; an empty host means every interface, port 0 any port.
    pub listen: Vec<Address>,
    /// The address told to others, where it is not the first one listened on (`scheduler.contact-address`).
    pub contact_address: Option<Address>,
    /// `host:port` or `:port` of the HTTP server; none for no HTTP server.
    pub dashboard_address: Option<String>,
    /// Where pages are served; by default where the scheduler is started. On a runtime of its own the HTTP server answers while a
    /// large graph is taken in.
    pub pages: Option<Handle>,
    /// A path under which the HTTP server's pages are served too, for a proxy that passes it on (`--dashboard-prefix`).
    pub dashboard_prefix: Option<String>,
    /// With a certificate the pages are served over TLS alone.
    pub http_tls: Option<PageTls>,
    /// With these a Jupyter server is started, and served below `/jupyter/` to whoever reaches the pages (`--jupyter`).
    pub jupyter: Option<JupyterOptions>,
    /// What a caller must know to change something over HTTP (`Authorization: Bearer ...`); none lets only callers on
    /// this machine do so.
    pub http_token: Option<String>,
    /// Whether anybody may change something over HTTP, as upstream with `distributed.http.scheduler.api` among its routes.
    pub http_api: bool,
    /// Connections: timeouts, TLS, compression.
    pub comm: CommConfig,
    /// The Python that materialises graphs; none to search as the graph helper does.
    pub python: Option<PathBuf>,
    /// Modules, files or URLs that Python beside the scheduler loads at the start (`distributed.scheduler.preload`).
    pub preload: Vec<String>,
    /// Arguments for them.
    pub preload_argv: Vec<String>,
    /// The settings of the state machine.
    pub state: state::Config,
    /// Policies of the active memory manager beside dask's (`active-memory-manager.policies`).
    pub memory_policies: Vec<MemoryPolicyMaker>,
    /// Close after this long without work; none for never.
    pub idle_timeout: Option<Duration>,
    /// Restart workers that have not called for this long; none for never.
    pub worker_ttl: Option<Duration>,
    /// How long the events of clients and workers that left are kept (`scheduler.events-cleanup-delay`).
    pub events_cleanup_delay: Duration,
    /// Where to write the identity as JSON for others to find the scheduler; removed at close.
    pub scheduler_file: Option<PathBuf>,
    /// Where to record what is computed, as JSON lines that `dask-sim` can run again; none for no recording.
    pub event_log: Option<PathBuf>,
    /// RPC ops refused with an error (`scheduler.blocked-handlers`).
    pub blocked_handlers: Vec<String>,
    /// Records kept for `get_task_stream` (`scheduler.dashboard.tasks.task-stream-length`).
    pub task_stream_length: usize,
    /// Parts of tasks that the pages' task stream keeps; what is short is drawn together and counts as one.
    pub page_stream_length: usize,
    /// Bytes of results that are held whole at once while they are gathered through the scheduler; more goes through in pieces.
    pub gather_window_bytes: usize,
    /// Recent log lines for `get_logs`, newest first; none answers with no lines.
    pub logs: Option<LogSource>,
    /// Called when nothing has happened for a second after something did, by the runtime: must return at once.
    pub when_quiet: Option<fn()>,
}

/// Makes one policy for each scheduler that starts.
pub type MemoryPolicyMaker = Arc<dyn Fn() -> Box<dyn state::MemoryPolicy> + Send + Sync>;

/// One line of the log: unix time in seconds, level name, formatted text.
pub type LogLine = (f64, String, String);

/// Where `get_logs` finds recent lines; called with the most lines wanted, answers newest first.
pub type LogSource = Arc<dyn Fn(usize) -> Vec<LogLine> + Send + Sync>;

impl Default for SchedulerOptions {
    fn default() -> SchedulerOptions {
        SchedulerOptions {
            listen: vec![Address::from_parts("tcp", "", SCHEDULER_PORT)],
            contact_address: None,
            dashboard_address: Some(format!(":{DASHBOARD_PORT}")),
            pages: None,
            dashboard_prefix: None,
            http_tls: None,
            jupyter: None,
            http_token: None,
            http_api: false,
            comm: CommConfig::default(),
            python: None,
            preload: Vec::new(),
            preload_argv: Vec::new(),
            // docs/scheduling.md compares the policies.
            state: state::Config { policy: state::Policy::Native, ..state::Config::default() },
            memory_policies: Vec::new(),
            idle_timeout: None,
            worker_ttl: Some(WORKER_TTL),
            events_cleanup_delay: EVENTS_CLEANUP_DELAY,
            scheduler_file: None,
            event_log: None,
            blocked_handlers: Vec::new(),
            task_stream_length: TASK_STREAM_LENGTH,
            page_stream_length: PAGE_STREAM_LENGTH,
            gather_window_bytes: GATHER_WINDOW_BYTES,
            logs: None,
            when_quiet: None,
        }
    }
}

impl fmt::Debug for SchedulerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchedulerOptions")
            .field("listen", &self.listen)
            .field("contact_address", &self.contact_address)
            .field("dashboard_address", &self.dashboard_address)
            .field("python", &self.python)
            .finish_non_exhaustive()
    }
}
