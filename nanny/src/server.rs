//! The nanny's shell: its port, its clock and its worker process, around [`State`].

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dask_protocol::comm::{CommConfig, ConnectionPool, Listener};
use dask_protocol::logs::LogRing;
use dask_protocol::memory_watch::look_away;
use dask_protocol::{Address, CommError};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::event::{Action, Event};
use crate::memory::Tree;
use crate::process::{WorkerCommand, WorkerProcess};
use crate::python::{Python, PythonOptions};
use crate::rpc::Desk;
use crate::scheduler::{self, Registration};
use crate::state::{Config, State, Status};

/// `distributed.worker.memory.terminate`.
pub const TERMINATE_FRACTION: f64 = 0.95;
/// How far apart the figures are that go with the report of a worker's death, and how many: the last ten seconds.
const MEMORY_CURVE_SECONDS: f64 = 0.5;
const MEMORY_CURVE_MAX: usize = 20;
/// Most connections served at the same time; a nanny is called by its scheduler and a client or two.
const CONNECTIONS_MAX: usize = 256;
/// How long a finished nanny waits for its last answers to be sent and its last directory to be removed.
const FAREWELL_WAIT: Duration = Duration::from_secs(2);

/// What a nanny needs to know.
#[derive(Debug, Clone)]
pub struct NannyOptions {
    /// The scheduler to join.
    pub scheduler: Address,
    /// Where to listen: the first of these that is free.
    pub listen: Vec<Address>,
    /// How connections are made.
    pub comm: CommConfig,
    /// How to start the worker; `--nanny-address` is added to its arguments.
    pub command: WorkerCommand,
    /// Bytes the worker's processes may use together; `None` for no limit.
    pub memory_limit: Option<u64>,
    /// Which part of the limit ends the worker; `None` for never.
    pub terminate_fraction: Option<f64>,
    /// How long a worker may take to register; `None` for ever.
    pub death_timeout: Option<Duration>,
    /// Recent log records, for `get_logs`.
    pub logs: LogRing,
    /// The Python that runs plugins and functions.
    pub python: PythonOptions,
}

/// Why a nanny could not start.
#[derive(Debug, thiserror::Error)]
pub enum NannyError {
    /// None of the addresses to listen on is usable.
    #[error("nanny cannot listen: {0}")]
    Listen(CommError),
    /// No address to listen on was given.
    #[error("nanny was given no address to listen on")]
    NoAddress,
    /// A preload module cannot be loaded; the text says which and why.
    #[error("{0}")]
    Preload(String),
    /// The scheduler cannot be reached, or refused.
    #[error("nanny cannot register with the scheduler at {scheduler}: {error}")]
    Register {
        /// The scheduler.
        scheduler: Address,
        /// What happened.
        error: CommError,
    },
}

/// What is known of a nanny from outside.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) status: Status,
    pub(crate) worker_address: Option<Address>,
    /// Set once the nanny is finished.
    pub(crate) end: Option<Result<(), String>>,
}

/// A running nanny. It goes on when this handle is dropped, until its runtime ends; then it kills its worker.
#[derive(Clone)]
pub struct Nanny {
    desk: Arc<Desk>,
}

impl Nanny {
    /// Listens, registers with the scheduler and begins to start the worker. Dropping the future leaves nothing
    /// behind.
    ///
    /// # Errors
    /// [`NannyError`] when no address can be listened on or the scheduler cannot be joined.
    pub async fn start(options: NannyOptions) -> Result<Nanny, NannyError> {
        let listener = listen(&options).await?;
        let address = listener.contact_address();
        let pool = ConnectionPool::new(options.comm.clone());
        let id = format!("Nanny-{}", uuid::Uuid::new_v4());
        let python = Python::new(options.python, address.clone(), id.clone(), options.scheduler.clone());
        python.preload().await.map_err(NannyError::Preload)?;
        let registration = scheduler::register_nanny(&pool, &options.scheduler, &address).await;
        let (registration, plugins) =
            registration.map_err(|error| NannyError::Register { scheduler: options.scheduler.clone(), error })?;
        let (events, inbox) = mpsc::unbounded_channel();
        let (view, seen) = watch::channel(View { status: Status::Init, worker_address: None, end: None });
        let desk = Arc::new(Desk::new(address.clone(), id, options.logs.clone(), events, seen, python));
        for (name, plugin) in plugins {
            desk.set_up_plugin(&name, plugin).await;
        }
        let mut command = options.command;
        // What follows a double dash belongs to preload modules.
        let end = command.args.iter().position(|arg| arg == "--").unwrap_or(command.args.len());
        command.args.splice(end..end, ["--nanny-address".into(), address.as_str().into()]);
        let driver = Driver {
            state: State::new(Config {
                address,
                scheduler: options.scheduler.clone(),
                death_timeout: options.death_timeout,
                memory_limit: options.memory_limit,
                terminate_fraction: options.terminate_fraction,
            }),
            scheduler: options.scheduler,
            command,
            terminate_bytes: terminate_bytes(options.memory_limit, options.terminate_fraction),
            pool,
            desk: Arc::clone(&desk),
            inbox,
            view,
            process: None,
            registration: Some(registration),
            tasks: TaskTracker::new(),
            started: Instant::now(),
            memory: VecDeque::new(),
        };
        tokio::spawn(driver.run(listener));
        Ok(Nanny { desk })
    }

    /// The nanny's contact address.
    pub fn address(&self) -> &Address {
        &self.desk.address
    }

    /// The contact address of the worker, while one is running.
    pub fn worker_address(&self) -> Option<Address> {
        self.desk.view.borrow().worker_address.clone()
    }

    /// The nanny's status.
    pub fn status(&self) -> Status {
        self.desk.view.borrow().status
    }

    /// Waits for the first worker.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn started(&self) -> Result<(), String> {
        let mut view = self.desk.view.clone();
        let reached = view.wait_for(|view| view.end.is_some() || view.worker_address.is_some()).await;
        match reached.as_deref() {
            Ok(View { end: Some(end), .. }) => end.clone(),
            Ok(_) => Ok(()),
            Err(_) => Err("the nanny's runtime ended".to_owned()),
        }
    }

    /// As the RPC `close_gracefully`: the nanny ends with its worker instead of starting another one.
    pub fn close_gracefully(&self, reason: &str) {
        let _ = self.desk.events.send(Event::CloseGracefully { reason: reason.to_owned() });
    }

    /// Ends the worker, killing it after 0.8 `timeout` seconds, and then the nanny.
    pub async fn close(&self, timeout: f64, reason: &str) {
        // One that has finished needs no more telling.
        let _ = self.desk.events.send(Event::Close { timeout, reason: reason.to_owned() });
        let _ = self.closed().await;
    }

    /// Waits until the nanny has finished.
    ///
    /// # Errors
    /// Why it failed, if it did.
    pub async fn closed(&self) -> Result<(), String> {
        let mut view = self.desk.view.clone();
        // The driver drops its end after its last word.
        while view.changed().await.is_ok() {}
        let end = view.borrow().end.clone();
        end.unwrap_or_else(|| Err("the nanny's runtime ended".to_owned()))
    }
}

async fn listen(options: &NannyOptions) -> Result<Listener, NannyError> {
    let mut refused = NannyError::NoAddress;
    for address in &options.listen {
        match Listener::bind(address, &options.comm).await {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = NannyError::Listen(error),
        }
    }
    Err(refused)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of the limit"
)]
fn terminate_bytes(limit: Option<u64>, fraction: Option<f64>) -> Option<u64> {
    Some((limit? as f64 * fraction?) as u64)
}

/// Owns the state and does what it says.
struct Driver {
    state: State,
    scheduler: Address,
    command: WorkerCommand,
    /// What the worker's processes may use together.
    terminate_bytes: Option<u64>,
    pool: ConnectionPool,
    desk: Arc<Desk>,
    inbox: mpsc::UnboundedReceiver<Event>,
    view: watch::Sender<View>,
    process: Option<WorkerProcess>,
    registration: Option<Registration>,
    tasks: TaskTracker,
    started: Instant,
    /// The worker's memory lately: seconds since the epoch, and bytes.
    memory: VecDeque<(f64, u64)>,
}

impl Driver {
    /// Keeps every so many samples, so that the last ones reach some seconds back.
    fn note_memory(&mut self, rss: u64) {
        let now = scheduler::now();
        if self.memory.back().is_none_or(|(at, _)| now - at >= MEMORY_CURVE_SECONDS) {
            if self.memory.len() >= MEMORY_CURVE_MAX {
                self.memory.pop_front();
            }
            self.memory.push_back((now, rss));
        } else if let Some(last) = self.memory.back_mut().filter(|(_, bytes)| *bytes < rss) {
            last.1 = rss;
        }
    }

    async fn run(mut self, listener: Listener) {
        let accepting = tokio::spawn(accept(listener, Arc::clone(&self.desk), self.tasks.clone()));
        let mut next_look = Instant::now();
        let mut watched: Option<Tree> = None;
        let mut end = self.handle(Event::Start);
        while end.is_none() {
            let timeout = self.state.next_timeout();
            let event = tokio::select! {
                event = self.inbox.recv() => event.expect("the desk keeps a sender"),
                () = sleep_until(self.started + timeout.unwrap_or_default()), if timeout.is_some() => Event::Timeout,
                () = sleep_until(next_look), if self.terminate_bytes.is_some() && self.process.is_some() => {
                    let pid = self.process.as_ref().map_or(0, WorkerProcess::id);
                    let tree = match &mut watched {
                        Some(tree) if tree.pid() == pid => tree,
                        other => other.insert(Tree::of(pid)),
                    };
                    let found = tree.resident_bytes();
                    let headroom = self.terminate_bytes.unwrap_or_default().saturating_sub(found.unwrap_or(u64::MAX));
                    next_look = Instant::now() + look_away(headroom);
                    let Some(rss) = found else { continue };
                    self.note_memory(rss);
                    Event::Memory { pid, rss }
                }
            };
            end = self.handle(event);
        }
        accepting.abort();
        // Only one that survived SIGKILL is still here; no one can wait for it.
        if let Some(stuck) = self.process.take() {
            std::thread::spawn(move || drop(stuck));
        }
        self.desk.python.close().await;
        self.view.send_modify(|view| view.end = end);
        self.tasks.close();
        if tokio::time::timeout(FAREWELL_WAIT, self.tasks.wait()).await.is_err() {
            debug!("left before everything was said");
        }
    }

    /// Handles one event and does what follows; the nanny's end when that was it.
    fn handle(&mut self, event: Event) -> Option<Result<(), String>> {
        // An exited process waits to be reaped.
        if let Event::WorkerExited { .. } = event {
            self.process = None;
        }
        let mut actions = Vec::new();
        self.state.handle(self.started.elapsed(), event, &mut actions);
        self.view.send_modify(|view| {
            view.status = self.state.status();
            view.worker_address = self.state.worker_address().cloned();
        });
        actions.into_iter().fold(None, |end, action| self.act(action).or(end))
    }

    /// The command with what plugins have changed of its environment.
    fn command_now(&self) -> WorkerCommand {
        let mut command = self.command.clone();
        command.env.extend(self.desk.python.environment());
        command
    }

    fn act(&mut self, action: Action) -> Option<Result<(), String>> {
        match action {
            Action::Spawn => match WorkerProcess::spawn(&self.command_now(), &self.desk.events) {
                Ok(process) => self.process = Some(process),
                Err(error) => {
                    let text = format!("{}: {error}", self.command.program.display());
                    self.send(Event::SpawnFailed { text });
                }
            },
            Action::AskToStop { timeout, reason } => {
                if let Some(process) = &mut self.process {
                    process.ask_to_stop(timeout, reason);
                }
            }
            Action::Signal(signal) => {
                if let Some(process) = &self.process {
                    process.signal(signal);
                }
            }
            Action::Unregister { address: None } => self.send(Event::Unregistered),
            Action::Unregister { address: Some(worker) } => {
                let (pool, scheduler, events) = (self.pool.clone(), self.scheduler.clone(), self.desk.events.clone());
                self.tasks.spawn(async move {
                    scheduler::unregister(&pool, &scheduler, &worker).await;
                    // The nanny may have finished meanwhile.
                    let _ = events.send(Event::Unregistered);
                });
            }
            Action::Disown { address } => {
                let (pool, scheduler) = (self.pool.clone(), self.scheduler.clone());
                self.tasks.spawn(async move { scheduler::unregister(&pool, &scheduler, &address).await });
            }
            Action::ReportDeath { address, pid, exit } => {
                let (pool, scheduler) = (self.pool.clone(), self.scheduler.clone());
                let memory = std::mem::take(&mut self.memory);
                self.tasks.spawn(async move {
                    scheduler::report_death(&pool, &scheduler, &address, pid, exit, memory.into()).await;
                });
            }
            Action::RemoveDirectory { path } => {
                self.tasks.spawn_blocking(move || remove_directory(&path));
            }
            Action::LogMemoryRestart { worker, pid, rss } => {
                let (pool, scheduler) = (self.pool.clone(), self.scheduler.clone());
                self.tasks.spawn(async move {
                    scheduler::log_memory_restart(&pool, &scheduler, &worker, pid, rss).await;
                });
            }
            Action::AnnounceStarted { ok } => {
                if let Some(registration) = self.registration.take() {
                    self.tasks.spawn(registration.complete(ok));
                }
            }
            Action::Answer { waiter, outcome } => self.desk.answer(waiter, outcome),
            Action::Finish { failure } => return Some(failure.map_or(Ok(()), Err)),
        }
        None
    }

    fn send(&self, event: Event) {
        self.desk.events.send(event).expect("the inbox lives as long as the driver");
    }
}

async fn accept(listener: Listener, desk: Arc<Desk>, tasks: TaskTracker) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok(incoming) => {
                let desk = Arc::clone(&desk);
                tasks.spawn(async move {
                    desk.serve(incoming).await;
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(target: "distributed.nanny", "Nanny accepts no more connections: {error}");
                return;
            }
        }
    }
}

/// A worker that was killed could not remove its directory.
fn remove_directory(path: &Path) {
    match std::fs::remove_dir_all(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => debug!(%error, path = %path.display(), "could not remove a worker's directory"),
    }
    let mut lock = path.as_os_str().to_owned();
    lock.push(".dirlock");
    // The next worker in this place would remove it too.
    let _ = std::fs::remove_file(lock);
}
