//! [`Scheduler`]: start, look, close.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dask_protocol::comm::{ConnectionPool, Listener};
use dask_protocol::{Address, CommError, Value};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::clock::Clock;
use super::core::Core;
use super::driver::Driver;
use super::extensions::Extensions;
use super::graphs::Graphs;
use super::jupyter::Jupyter;
use super::listener::{self, Room};
use super::options::SchedulerOptions;
use super::recording::Recording;
use super::rpc::gather::Window;
use super::rpc::metadata::Metadata;
use super::rpc::nanny::StartingNannies;
use super::rpc::plugins::Plugins;
use super::shared::Server;
use super::sidecar::Sidecar;
use super::{identity, periodic};
use crate::graph::helper::HelperOptions;
use crate::graph::intake::Intake;
use crate::http;
use crate::state::State;

/// How long the farewell to workers may take at the close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long plugins and preload modules may take to close.
const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(5);
const RULE: &str = "-----------------------------------------------";

/// A running scheduler. Dropping it does not stop it; [`Scheduler::close`] does.
#[derive(Clone)]
pub struct Scheduler {
    server: Arc<Server>,
    closed: watch::Receiver<Option<String>>,
}

/// Why a scheduler could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot start the scheduler: {0}")]
    Listen(#[from] CommError),
    /// No address was given.
    #[error("cannot start the scheduler: no address to listen on")]
    NoAddress,
    /// A preload module cannot be loaded.
    #[error("cannot start the scheduler: its preload modules cannot be loaded: {0}")]
    Preload(String),
    /// The Jupyter server cannot be started.
    #[error("cannot start the scheduler's Jupyter server: {0}")]
    Jupyter(String),
    /// The event log cannot be written.
    #[error("cannot write the event log {path:?}: {error}")]
    EventLog {
        /// The path.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// The scheduler file cannot be written.
    #[error("cannot write the scheduler file {path:?}: {error}")]
    SchedulerFile {
        /// The path.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
}

fn recording(options: &SchedulerOptions) -> Result<Option<Recording>, StartError> {
    let Some(path) = &options.event_log else { return Ok(None) };
    let started = Recording::start(path).map_err(|error| StartError::EventLog { path: path.clone(), error });
    started.map(Some)
}

impl Scheduler {
    /// Listens and serves. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] when an address or file cannot be used.
    pub async fn start(options: SchedulerOptions) -> Result<Scheduler, StartError> {
        info!(target: "distributed.scheduler", "{RULE}");
        let mut listeners = Vec::with_capacity(options.listen.len());
        for address in &options.listen {
            listeners.push(Listener::bind(address, &options.comm).await?);
        }
        let contacts: Vec<Address> = listeners.iter().map(Listener::contact_address).collect();
        let address =
            options.contact_address.clone().or_else(|| contacts.first().cloned()).ok_or(StartError::NoAddress)?;
        let clock = Clock::start();
        let mut state = State::new(options.state.clone(), clock.now());
        options.memory_policies.iter().for_each(|make| state.add_memory_policy(make()));
        info!(target: "distributed.scheduler", "State start");
        info!(target: "distributed.scheduler", "{RULE}");
        let pool = ConnectionPool::new(options.comm.clone());
        let (driver, driving) = {
            let mut core = Core::new(state, clock, pool.clone(), &options);
            core.recording = recording(&options)?;
            Driver::start(core)
        };
        let intake = Intake::new(HelperOptions { python: options.python.clone(), ..HelperOptions::default() });
        let server = Arc::new(Server {
            id: format!("Scheduler-{}", Uuid::new_v4()),
            address,
            started: clock.now(),
            clock,
            driver,
            pool,
            graphs: Graphs::new(intake, clock),
            plugins: Plugins::new(),
            nannies: StartingNannies::default(),
            metadata: Metadata::default(),
            window: Window::new(options.gather_window_bytes),
            extensions: Extensions::default(),
            sidecar: Sidecar::default(),
            jupyter: OnceLock::new(),
            dashboard_port: OnceLock::new(),
            replicas: AsyncMutex::new(()),
            closing: CancellationToken::new(),
            close_requested: watch::Sender::new(None),
            options,
        });
        start_jupyter(&server).await?;
        http::start(&server).await;
        announce(&server, &contacts);
        write_scheduler_file(&server).await?;
        let room = Arc::new(Room::new());
        for listener in listeners {
            tokio::spawn(listener::serve(Arc::clone(&server), listener, Arc::clone(&room)));
        }
        tokio::spawn(periodic::run(Arc::clone(&server)));
        let (closed_sender, closed) = watch::channel(None);
        tokio::spawn(supervise(Arc::clone(&server), driving, closed_sender));
        server.sidecar.preload(&server).await.map_err(|failure| StartError::Preload(failure.to_string()))?;
        Ok(Scheduler { server, closed })
    }

    /// The address workers and clients connect to.
    pub fn address(&self) -> &Address {
        &self.server.address
    }

    /// The port of the HTTP server, if there is one.
    pub fn dashboard_port(&self) -> Option<u16> {
        self.server.dashboard_port.get().copied()
    }

    /// The identity as clients get it; nil when the scheduler has closed.
    pub async fn identity(&self) -> Value {
        let server = Arc::clone(&self.server);
        self.server.driver.run(move |core| identity::scheduler(&server, core, -1)).await.unwrap_or_default()
    }

    /// Tells workers to close, ends all connections, and completes when that is done or its time is up.
    pub async fn close(&self, reason: &str) {
        self.server.request_close(reason);
        self.closed().await;
    }

    /// Completes when the scheduler has closed, with the reason.
    pub async fn closed(&self) -> String {
        let mut closed = self.closed.clone();
        let reason = closed.wait_for(Option::is_some).await.map(|reason| reason.clone());
        // Without a reason the supervising task died with the runtime.
        reason.ok().flatten().unwrap_or_else(|| "the runtime ended".to_owned())
    }
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scheduler({})", self.server.address)
    }
}

async fn start_jupyter(server: &Arc<Server>) -> Result<(), StartError> {
    let Some(options) = &server.options.jupyter else { return Ok(()) };
    let jupyter = Jupyter::start(server, options, http::prefix(&server.options)).await.map_err(StartError::Jupyter)?;
    // Set once here, before anybody can ask.
    let _ = server.jupyter.set(jupyter);
    Ok(())
}

fn announce(server: &Server, contacts: &[Address]) {
    for contact in contacts {
        info!(target: "distributed.scheduler", "  Scheduler at: {:>25}", contact.as_str());
    }
    if let Some(port) = server.dashboard_port.get() {
        let host = server.address.host();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let scheme = if server.options.http_tls.is_some() { "https" } else { "http" };
        info!(target: "distributed.scheduler", "  dashboard at:  {:>25}", format!("{scheme}://{host}:{port}/status"));
        if let Some(jupyter) = server.jupyter.get() {
            let pages = format!("{scheme}://{host}:{port}{}/", jupyter.base);
            info!(target: "distributed.scheduler", "  Jupyter at:    {pages:>25}");
        }
    }
    info!(target: "distributed.scheduler", "Registering Worker plugin shuffle");
}

async fn write_scheduler_file(server: &Arc<Server>) -> Result<(), StartError> {
    let Some(path) = &server.options.scheduler_file else { return Ok(()) };
    let shared = Arc::clone(server);
    let identity = server.driver.run(move |core| identity::scheduler(&shared, core, -1)).await.unwrap_or_default();
    let text = serde_json::to_string_pretty(&http::to_json(&identity)).expect("JSON values always print");
    write_whole(path, &text).map_err(|error| StartError::SchedulerFile { path: path.clone(), error })
}

/// Writes beside and renames, so that nobody reads half a file.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(directory)?;
    std::fs::write(file.path(), text)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Waits for the wish to close, or the driver's end, and closes.
async fn supervise(server: Arc<Server>, mut driving: JoinHandle<()>, closed: watch::Sender<Option<String>>) {
    let mut requested = server.close_requested.subscribe();
    let reason = tokio::select! {
        reason = requested.wait_for(Option::is_some) => {
            reason.map(|reason| reason.clone()).ok().flatten().unwrap_or_default()
        }
        ended = &mut driving => {
            error!(target: "distributed.scheduler", "The scheduler's driver ended: {ended:?}");
            "internal-error".to_owned()
        }
    };
    info!(target: "distributed.scheduler", "Closing scheduler. Reason: {reason}");
    if let Some(path) = &server.options.scheduler_file
        && let Err(error) = std::fs::remove_file(path)
    {
        warn!(target: "distributed.scheduler", "Could not remove the scheduler file {path:?}: {error}");
    }
    if timeout(TEARDOWN_TIMEOUT, server.sidecar.tear_down(&server)).await.is_err() {
        warn!(target: "distributed.scheduler", "Plugins and preload modules were not torn down in time");
    }
    if let Some(jupyter) = server.jupyter.get() {
        jupyter.close().await;
    }
    info!(target: "distributed.scheduler", "Scheduler closing all comms");
    if timeout(CLOSE_TIMEOUT, farewell(&server)).await.is_err() {
        warn!(target: "distributed.scheduler", "Some connections did not close in time");
    }
    server.closing.cancel();
    server.pool.close();
    driving.abort();
    closed.send_replace(Some(reason));
}

/// Ends the streams and waits until what they still had to say is sent.
async fn farewell(server: &Server) {
    let Ok(streams) = server.driver.run(super::core::Core::close_streams).await else { return };
    futures::future::join_all(streams).await;
}
