//! The worker's shell: connections, processes and clocks around [`state`](crate::state).
//!
//! [`Worker::start`] assembles the parts; the driver then owns the state, and everything else talks to it by messages.

mod benchmark;
mod calls;
mod closing;
mod connection;
mod directory;
mod drain;
mod driver;
mod gather;
mod heartbeat;
mod http;
mod inbox;
mod memory;
pub(crate) mod metrics;
mod monitor;
pub mod nanny_link;
pub(crate) mod python_events;
mod python_process;
mod reconnect;
mod registration;
mod serve_data;
pub(crate) mod shared;
pub(crate) mod spilling;
mod transfer;

pub use closing::{Closed, End};

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dask_protocol::comm::{BatchedSender, Comm, ConnectionPool, Listener};
use dask_protocol::message::{RegisterWorkerReply, WorkerStatus, WorkerStatusChange};
use dask_protocol::{Address, CommError, Value, pages};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::executor::native::NativePool;
use crate::executor::python::message::{Introduction, TlsPaths};
use crate::executor::python::{Interpreter, PythonError, PythonReader, lending};
use crate::options::WorkerOptions;
use crate::spill::SpillDirectory;
use crate::state::{Config, State};
use closing::{retire_after, supervise};
use directory::LocalDirectory;
use driver::{Driver, Stream};
use inbox::Inbox;
use python_process::PythonStart;
use reconnect::Link;
use shared::{Identity, Input, Shared, stimulus};
use spilling::Spilling;

const LOGGER: &str = "distributed.worker";
const LINE: &str = "-------------------------------------------------";

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The scheduler could not be reached.
    #[error("could not join scheduler {scheduler}: {error}")]
    Scheduler {
        /// Which.
        scheduler: Address,
        /// The last failure.
        error: CommError,
    },
    /// The scheduler does not want this worker.
    #[error("scheduler {scheduler} refused this worker: {reason}")]
    Refused {
        /// Which.
        scheduler: Address,
        /// Its words.
        reason: String,
    },
    /// The address to listen on cannot be used.
    #[error("cannot listen: {0}")]
    Listen(#[from] CommError),
    /// The local directory, the HTTP port or a thread was refused by the system.
    #[error("{what}: {error}")]
    System {
        /// What was asked for.
        what: String,
        /// The system's answer.
        error: std::io::Error,
    },
    /// The interpreter that was named cannot serve.
    #[error(transparent)]
    Python(#[from] PythonError),
}

/// A running worker. It ends with [`Worker::close`], or on its own when the scheduler is gone; dropping the handle does
/// not end it.
#[derive(Debug, Clone)]
pub struct Worker {
    address: Address,
    shared: Arc<Shared>,
    closed: watch::Receiver<Option<Closed>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("address", &self.identity.address).finish_non_exhaustive()
    }
}

impl Worker {
    /// Starts a worker: listens, starts Python, registers. Returns once the scheduler has accepted it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(mut options: WorkerOptions) -> Result<Worker, StartError> {
        let system = |what: &str| {
            let what = what.to_owned();
            move |error| StartError::System { what, error }
        };
        let directory =
            LocalDirectory::create(options.local_directory.as_deref()).map_err(system("local directory"))?;
        if options.transfer.shared_memory {
            options.comm.host = lending::host();
        }
        let listener = listen(&options).await?;
        let http = match &options.dashboard_address {
            Some(address) => Some(pages::bind(address).await.map_err(system(&format!("dashboard address {address}")))?),
            None => None,
        };
        let dashboard_port = http.as_ref().and_then(|http| http.local_addr().ok()).map(|bound| bound.port());
        let interpreter = Interpreter::start(&options.python, &directory.path()).await?;
        let native = NativePool::start(options.nthreads).map_err(system("threads"))?;

        let scheduler_ip = options.scheduler.host().parse().ok();
        let address = options.contact_address.clone().unwrap_or_else(|| listener.contact_address_towards(scheduler_ip));
        let identity = Identity {
            id: format!("Worker-{}", uuid::Uuid::new_v4()),
            name: registration::name_or_address(&options.name, &address),
            address: address.clone(),
            nthreads: options.nthreads,
            memory_limit: options.memory_limit,
            scheduler: options.scheduler.clone(),
            nanny: options.nanny.clone(),
            local_directory: directory.path(),
        };
        announce(&identity, &listener, &options, dashboard_port);
        let (inbox, inputs) = Inbox::new();
        let versions = interpreter.as_ref().map_or_else(own_versions, |it| it.versions().clone());
        let pool = ConnectionPool::new(options.comm.clone());
        let memory = &options.memory;
        let storage = SpillDirectory::new(&directory.path(), memory.max_spill, memory.compression);
        let spilling = Spilling::new(options.memory_limit, memory, storage);
        let shared = Arc::new(Shared::new(identity, versions, &options, spilling, pool, native, inbox));
        let reader = match interpreter {
            Some(interpreter) => Some(start_python(&shared, interpreter, &options).await?),
            None => None,
        };
        shared.transfers.spawn(connection::accept(Arc::clone(&shared), listener));
        if let Some(http) = http {
            tokio::spawn(http::serve(Arc::clone(&shared), http, options.http_tls.clone()));
        }
        if let Some(reader) = reader {
            python_events::start(&shared, reader);
        }
        let registered = registration::register(&shared, &options, dashboard_port);
        let (comm, reply) = match registered.await {
            Ok(registered) => registered,
            Err(error) => {
                shared.stop.cancel();
                return Err(error);
            }
        };
        if let Some(tell) = &options.on_registered {
            (tell.0)(&shared.identity.address, &shared.identity.local_directory);
        }
        Ok(run(shared, directory, &options, comm, inputs, reply).await)
    }

    /// Its contact address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its working directory, removed when it closes.
    pub fn local_directory(&self) -> &Path {
        &self.shared.identity.local_directory
    }

    /// Closes the worker for good and waits until it is closed. When it is closing already, the first reason counts.
    pub async fn close(&self, reason: impl Into<String>) -> Closed {
        self.close_as(Closed::leaving(reason)).await
    }

    /// As [`Worker::close`], saying what a nanny should make of it.
    pub async fn close_as(&self, closed: Closed) -> Closed {
        self.shared.request_close(closed);
        self.closed().await
    }

    /// Moves values of which only this worker has a copy to others, for at most `grace`; to be closed afterwards. What could
    /// not be moved is logged.
    pub async fn drain(&self, grace: Duration, reason: &str) {
        drain::drain(&self.shared, Some(grace), reason).await;
    }

    /// Waits until the worker is closed, for whatever reason.
    pub async fn closed(&self) -> Closed {
        let mut closed = self.closed.clone();
        let end = closed.wait_for(Option::is_some).await;
        end.ok().and_then(|end| end.clone()).unwrap_or_else(|| Closed::leaving("runtime-shutdown"))
    }
}

/// Listens where connections are served.
async fn listen(options: &WorkerOptions) -> Result<Listener, CommError> {
    let (address, comm) = (options.listen_address.clone(), options.comm.clone());
    let bind = async move { Listener::bind(&address, &comm).await };
    match &options.transfers {
        Some(transfers) => transfers.spawn(bind).await.map_err(|error| CommError::Io(std::io::Error::other(error)))?,
        None => bind.await,
    }
}

/// The lines upstream's worker prints before it registers.
fn announce(identity: &Identity, listener: &Listener, options: &WorkerOptions, dashboard_port: Option<u16>) {
    let address = &identity.address;
    info!(target: LOGGER, "      Start worker at: {:>26}", address.as_str());
    info!(target: LOGGER, "         Listening to: {:>26}", listener.local_address().as_str());
    match &options.name {
        Value::Nil => {}
        Value::Str(name) => info!(target: LOGGER, "          Worker name: {name:>26}"),
        other => info!(target: LOGGER, "          Worker name: {:>26}", other.as_i64().unwrap_or_default()),
    }
    if let Some(port) = dashboard_port {
        info!(target: LOGGER, "         dashboard at: {:>26}", format!("{}:{port}", address.host()));
    }
    info!(target: LOGGER, "Waiting to connect to: {:>26}", options.scheduler.as_str());
    info!(target: LOGGER, "{LINE}");
    info!(target: LOGGER, "              Threads: {:>26}", options.nthreads);
    if let Some(limit) = options.memory_limit {
        info!(target: LOGGER, "               Memory: {:>26}", memory::format_bytes(limit));
    }
    info!(target: LOGGER, "      Local Directory: {:>26}", identity.local_directory.display().to_string());
    info!(target: LOGGER, "{LINE}");
}

/// The versions payload of a worker without Python.
fn own_versions() -> Value {
    let host = Value::map([("OS", std::env::consts::OS.into()), ("machine", std::env::consts::ARCH.into())]);
    let packages = Value::map([("dask-rs", env!("CARGO_PKG_VERSION").into())]);
    Value::map([("host", host), ("packages", packages)])
}

async fn start_python(
    shared: &Arc<Shared>,
    interpreter: Interpreter,
    options: &WorkerOptions,
) -> Result<PythonReader, PythonError> {
    let identity = &shared.identity;
    let tls = options.tls_files.as_ref().map(|files| TlsPaths::new(files, options.comm.require_encryption));
    let introduction = Introduction {
        address: identity.address.clone(),
        id: identity.id.clone(),
        name: identity.name.clone(),
        nthreads: identity.nthreads,
        scheduler: identity.scheduler.clone(),
        nanny: identity.nanny.clone(),
        local_directory: identity.local_directory.display().to_string(),
        memory_limit: identity.memory_limit,
        resources: options.resources.clone(),
        scheduler_delay: 0.0,
        tls,
        preload: options.preload.clone(),
        preload_argv: options.preload_argv.clone(),
        task_processes: options.task_processes,
    };
    let (path, directory) = (interpreter.path().to_owned(), identity.local_directory.clone());
    // The cell was made a moment ago and only this function fills it.
    let _ = shared.python_start.set(PythonStart { path, directory, introduction: introduction.clone() });
    let (python, reader) = interpreter.introduce(introduction).await?;
    shared.set_python(Arc::new(python));
    Ok(reader)
}

/// Starts what keeps a registered worker going.
async fn run(
    shared: Arc<Shared>,
    directory: LocalDirectory,
    options: &WorkerOptions,
    comm: Comm,
    inbox: mpsc::UnboundedReceiver<Input>,
    reply: RegisterWorkerReply,
) -> Worker {
    let (stream, writer) = comm.split();
    // Registration happens once, so the cells are empty.
    let _ = match reply.resume.clone().filter(|_| !options.reconnect_grace.is_zero()) {
        Some(grant) => {
            let _ = shared.link.set(Link::new(grant, options.reconnect_grace));
            shared.stream.set(BatchedSender::spawn_resumable(writer))
        }
        None => shared.stream.set(BatchedSender::spawn(writer)),
    };
    shared.set_status(WorkerStatus::Running);
    let driver = Driver {
        shared: Arc::clone(&shared),
        state: State::new(config(&shared, options), shared.clock.steady()),
        stream: Stream::Open(stream),
        inbox,
    };
    let driven = tokio::spawn(driver.run());
    shared.send(WorkerStatusChange { status: WorkerStatus::Running, stimulus_id: stimulus("worker-status-change") });
    add_plugins(&shared, reply).await;
    info!(target: LOGGER, "        Registered to: {:>26}", shared.identity.scheduler.as_str());
    info!(target: LOGGER, "{LINE}");
    info!(target: "distributed.core", "Starting established connection to {}", shared.identity.scheduler);
    tokio::spawn(heartbeat::run(Arc::clone(&shared)));
    tokio::spawn(heartbeat::keep_alive(Arc::clone(&shared)));
    tokio::spawn(watch_loop(Arc::clone(&shared)));
    if let Some(limit) = options.memory_limit {
        tokio::spawn(memory::run(Arc::clone(&shared), limit, options.memory.pause, options.memory.spill));
    }
    tokio::spawn(spilling::run(Arc::clone(&shared)));
    if let Some(lifetime) = options.lifetime {
        tokio::spawn(retire_after(Arc::clone(&shared), lifetime));
    }
    let (ended, closed) = watch::channel(None);
    tokio::spawn(supervise(Arc::clone(&shared), driven, directory, ended));
    Worker { address: shared.identity.address.clone(), shared, closed }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of the limit"
)]
fn config(shared: &Shared, options: &WorkerOptions) -> Config {
    let mut config = Config::new(shared.identity.address.clone(), options.nthreads);
    config.resources = options.resources.clone();
    let share = options.memory_limit.zip(options.transfer.memory);
    config.transfer_incoming_bytes_max = share.map(|(limit, share)| (limit as f64 * share) as u64);
    config.transfer_incoming_count_max = options.transfer.count_max;
    config.transfer_message_bytes_max = options.transfer.message_bytes_max;
    config.story_rows_max = options.story_rows_max;
    config.validate = options.validate;
    config.interrupt_grace = options.interrupt_grace.as_secs_f64();
    config.seed = uuid::Uuid::new_v4().as_u64_pair().0;
    config
}

/// Sets up the plugins that the scheduler has for every worker.
async fn add_plugins(shared: &Arc<Shared>, reply: RegisterWorkerReply) {
    let Some(python) = shared.python() else { return };
    for (name, plugin) in reply.worker_plugins {
        let request =
            Value::map([("op", "plugin-add".into()), ("plugin", plugin.into()), ("name", name.clone().into())]);
        shared.note_plugin_request(&request);
        match python.request(request, shared.identity.scheduler.clone()).await {
            Ok(reply) if reply.get("status").and_then(Value::as_str) == Some("OK") => {}
            Ok(reply) => {
                let text = reply.get("exception_text").and_then(Value::as_str).unwrap_or("no reason given").to_owned();
                warn!(target: LOGGER, "Worker plugin {name} failed to set up: {text}");
            }
            // The process's end is noticed and handled where it is read.
            Err(PythonError::Gone | PythonError::Unusable(_)) => return,
        }
    }
}

async fn watch_loop(shared: Arc<Shared>) {
    tokio::select! {
        () = shared.stop.cancelled() => {}
        () = shared.metrics.watch_loop() => {}
    }
}
