//! `dask-worker`: workers under nannies, or one worker in this process.

use std::env;
use std::ffi::OsString;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::{CommandFactory, Parser};
use dask_nanny::{Nanny, NannyOptions, NannyTls, PythonOptions, WorkerCommand, worker_environment};
use dask_protocol::comm::{CommConfig, PageTls};
use dask_protocol::logs::LogRing;
use dask_protocol::{Address, CommError};
use dask_worker::server::nanny_link::NannyLink;
use dask_worker::{Closed, End, OnRegistered, PythonChoice, StartError, TlsFiles, Worker, WorkerOptions};
use futures::future::{join_all, try_join_all};
use tokio::runtime::{Builder, Handle, Runtime};
use tracing::{error, info, warn};

use super::pid_file::PidFile;
use super::preload_args::sorted;
use super::signals::{CLOSE_WAIT, Signals};
use super::system::System;
use super::tls::{Role, page_tls};
use super::worker_args::WorkerArgs;
use super::worker_plan::{Plan, WorkerPlan, find_scheduler, runtime_threads, scheduler_ip};
use super::{Failure, http_address, show_version};
use crate::config::{DaskConfig, Setting};
use crate::logging;

const LOGGER: &str = "distributed.dask_worker";
/// Why a worker closes whose lifetime is over.
const LIFETIME_REASON: &str = "worker-lifetime-reached";
/// How long a nanny gives its worker when a signal asks to close, in seconds; upstream's value.
const SIGNAL_CLOSE_SECONDS: f64 = 10.0;
/// The signal by which a process is asked to go while others stay.
const SIGTERM: i32 = rustix::process::Signal::TERM.as_raw();

/// Runs the command with these arguments, the program's name first. `prefix` is what this program needs in front of
/// such arguments to run this command, when a nanny starts it again.
pub fn main(args: impl IntoIterator<Item = OsString>, prefix: &[&str]) -> ExitCode {
    let args = match WorkerArgs::try_parse_from(sorted(&WorkerArgs::command(), args, 1)) {
        Ok(args) => args,
        Err(error) => return super::usage(&error),
    };
    if args.version {
        return show_version("dask-worker");
    }
    super::report(run(&args, prefix))
}

/// All that the parts of one command share.
struct Command<'a> {
    args: &'a WorkerArgs,
    dask: &'a DaskConfig,
    prefix: &'a [&'a str],
    scheduler: Address,
    comm: CommConfig,
    /// Of the worker's pages.
    page_tls: Option<PageTls>,
    logs: LogRing,
    /// Of a worker in this process.
    transfers: Option<Handle>,
}

fn run(args: &WorkerArgs, prefix: &[&str]) -> Result<ExitCode, Failure> {
    let dask = DaskConfig::load().map_err(Failure::Usage)?;
    let logs = logging::init(args.log_level.as_deref(), &dask).map_err(Failure::Usage)?;
    for warning in dask.warnings.iter().chain(&args.check_unsupported().map_err(Failure::Usage)?) {
        warn!(target: LOGGER, "{warning}");
    }
    let _pid_file = PidFile::write(&args.pid_file).map_err(Failure::Usage)?;
    let system = System::detect();
    let cannot_start = |error| Failure::Usage(format!("cannot start: {error}"));
    let runtime = Builder::new_current_thread().enable_all().build().map_err(cannot_start)?;
    let transfers = args.no_nanny.then(|| transfer_runtime(&system)).transpose().map_err(cannot_start)?;
    let code = runtime.block_on(async {
        let scheduler = find_scheduler(args, &dask).await.map_err(Failure::Usage)?;
        let towards = scheduler_ip(&scheduler).await;
        let plan = Plan::new(args, &dask, &scheduler, towards, &system).map_err(Failure::Logged)?;
        for warning in &plan.warnings {
            warn!(target: "distributed.worker.memory", "{warning}");
        }
        let comm = args.tls.comm_config(Role::Worker, &dask, args.scheduler_sni.as_deref()).map_err(Failure::Usage)?;
        let page_tls = page_tls(&dask).map_err(Failure::Usage)?;
        let transfers = transfers.as_ref().map(|runtime| runtime.handle().clone());
        let command = Command { args, dask: &dask, prefix, scheduler, comm, page_tls, logs, transfers };
        match (&args.nanny_address, &plan.workers[..]) {
            (None, plans) if !args.no_nanny => command.run_nannies(plans).await,
            (None, [plan, ..]) => command.run_worker(plan).await,
            (Some(nanny), [plan, ..]) => command.run_under_nanny(plan, nanny).await,
            (_, []) => Err(Failure::Usage("there is no worker to start".to_owned())),
        }
    });
    // Threads that run user code may never end; the process does.
    runtime.shutdown_background();
    transfers.into_iter().for_each(Runtime::shutdown_background);
    if !matches!(code, Err(Failure::Usage(_))) {
        info!(target: LOGGER, "End worker");
    }
    code
}

/// Starts one worker process under a nanny in this process; `arguments` are those of `dask-worker`, its name first, and
/// `program` with `prefix` in front of such arguments is what runs it.
pub(crate) async fn start_nanny(
    arguments: Vec<OsString>,
    program: PathBuf,
    prefix: &[String],
) -> Result<Nanny, String> {
    let args = WorkerArgs::try_parse_from(arguments).map_err(|error| error.to_string())?;
    let dask = DaskConfig::load()?;
    let scheduler = find_scheduler(&args, &dask).await?;
    let plan = Plan::new(&args, &dask, &scheduler, scheduler_ip(&scheduler).await, &System::detect())?;
    let [plan] = plan.workers.as_slice() else { return Err("these arguments start several workers".to_owned()) };
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let command = Command {
        args: &args,
        dask: &dask,
        prefix: &prefix,
        scheduler,
        comm: CommConfig::default(),
        page_tls: None,
        logs: LogRing::new(),
        transfers: None,
    };
    Nanny::start(command.nanny_options(plan, program)?).await.map_err(|error| error.to_string())
}

/// A worker moves data on several threads; for all else, as for a nanny, one is enough, and waking others would cost more
/// than they do.
fn transfer_runtime(system: &System) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(runtime_threads(system.cpus)).thread_name("transfers").enable_all().build()
}

impl Command<'_> {
    async fn run_nannies(&self, plans: &[WorkerPlan]) -> Result<ExitCode, Failure> {
        let mut signals = listen_to_signals()?;
        let program =
            env::current_exe().map_err(|error| Failure::Usage(format!("cannot find this program: {error}")))?;
        let options: Result<Vec<_>, _> = plans.iter().map(|plan| self.nanny_options(plan, program.clone())).collect();
        let starting = try_join_all(options.map_err(Failure::Usage)?.into_iter().map(Nanny::start));
        let nannies = tokio::select! {
            nannies = starting => nannies.map_err(|error| Failure::Logged(error.to_string()))?,
            _ = signals.received() => return Ok(ExitCode::SUCCESS),
        };
        let signal = tokio::select! {
            ended = first_failure_or_all(nannies.iter().map(Nanny::closed)) => {
                // The others end with the one that could not start, as upstream's command does.
                if let Err(text) = ended {
                    join_all(nannies.iter().map(|nanny| nanny.close(SIGNAL_CLOSE_SECONDS, "nanny-start-failed"))).await;
                    return Err(Failure::Logged(text));
                }
                return Ok(ExitCode::SUCCESS);
            }
            signal = signals.received() => signal,
        };
        let reason = signal_reason(signal);
        let grace = plans.iter().map(|plan| drain_grace(plan, &reason)).max().unwrap_or_default();
        let seconds = SIGNAL_CLOSE_SECONDS + grace.as_secs_f64() / dask_nanny::state::STOP_SHARE;
        let closing = join_all(nannies.iter().map(|nanny| nanny.close(seconds, &reason)));
        // The children notice that their nannies are gone if this takes too long.
        signals.while_closing(CLOSE_WAIT + grace, closing).await;
        Ok(ExitCode::SUCCESS)
    }

    fn nanny_options(&self, plan: &WorkerPlan, program: PathBuf) -> Result<NannyOptions, String> {
        let prefix = self.prefix.iter().map(OsString::from);
        let args = prefix.chain(plan.child_args(self.args, &self.scheduler).into_iter().map(OsString::from)).collect();
        Ok(NannyOptions {
            scheduler: self.scheduler.clone(),
            listen: plan.nanny_listen.clone(),
            comm: self.comm.clone(),
            command: WorkerCommand {
                program,
                args,
                env: worker_environment(&self.configured_environment()?, |name| env::var_os(name)),
            },
            memory_limit: plan.memory_limit,
            terminate_fraction: plan.terminate_fraction,
            death_timeout: plan.death_timeout,
            logs: self.logs.clone(),
            python: PythonOptions {
                candidates: python_candidates(self.args.python.as_deref()),
                preload: self.listed(&self.args.preload_nanny, "distributed.nanny.preload")?,
                tls: self.nanny_tls(),
            },
        })
    }

    /// What the command line says, or else the configuration.
    fn listed(&self, given: &[String], key: &'static str) -> Result<Vec<String>, String> {
        if given.is_empty() { self.dask.texts(key) } else { Ok(given.to_vec()) }
    }

    /// Variables that the configuration has for workers' processes; a null takes one away. Both keys are one here: a
    /// worker's process is born with them.
    fn configured_environment(&self) -> Result<Vec<(String, Option<String>)>, String> {
        let mut variables = Vec::new();
        for key in ["distributed.nanny.pre-spawn-environ", "distributed.nanny.environ"] {
            self.dask.entries(key)?;
            let Some(Setting::Map(entries)) = self.dask.get(key).map(|node| &node.setting) else { continue };
            variables.extend(entries.iter().map(|(name, node)| {
                let value = (node.setting != Setting::Null).then(|| node.setting.to_string());
                (name.clone(), value)
            }));
        }
        Ok(variables)
    }

    fn nanny_tls(&self) -> Option<NannyTls> {
        let paths = self.args.tls.paths(Role::Worker, self.dask).ok().flatten()?;
        Some(NannyTls { ca: paths.ca, cert: paths.cert, key: paths.key })
    }

    /// A worker without nanny: signals close it.
    async fn run_worker(&self, plan: &WorkerPlan) -> Result<ExitCode, Failure> {
        let mut signals = listen_to_signals()?;
        let worker = tokio::select! {
            worker = self.start_worker(plan, None) => worker.map_err(|error| start_failure(&error))?,
            _ = signals.received() => return Ok(ExitCode::SUCCESS),
        };
        tokio::select! {
            closed = worker.closed() => Ok(end_as(&closed)),
            signal = signals.received() => {
                let reason = signal_reason(signal);
                let grace = drain_grace(plan, &reason);
                let closing = async {
                    drain(&worker, grace, &reason).await;
                    worker.close(reason).await
                };
                signals.while_closing(CLOSE_WAIT + grace, closing).await;
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    /// The process that a nanny started. Signals keep their usual effect: the nanny reports them and starts another
    /// worker.
    async fn run_under_nanny(&self, plan: &WorkerPlan, nanny: &str) -> Result<ExitCode, Failure> {
        let mut link = NannyLink::from_stdin()
            .map_err(|error| Failure::Usage(format!("--nanny-address is only for nannies: {error}")))?;
        let worker = tokio::select! {
            worker = self.start_worker(plan, Some((Address::from(nanny), link.on_registered()))) => worker,
            _ = link.stop_requested() => return Ok(ExitCode::SUCCESS),
        };
        let worker = worker.inspect_err(|error| link.failed(error.to_string())).map_err(|_| Failure::Told)?;
        tokio::select! {
            closed = worker.closed() => {
                let restarts = closed.end == End::Restarting
                    || closed.reason == LIFETIME_REASON && plan.settings.lifetime_restart;
                if closed.end == End::Leaving && !restarts {
                    link.closing_gracefully(closed.reason.clone());
                }
                Ok(end_as(&closed))
            }
            stop = link.stop_requested() => {
                drain(&worker, drain_grace(plan, &stop.reason), &stop.reason).await;
                worker.close_as(Closed::restarting(stop.reason)).await;
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    /// Starts the worker on the first of its addresses that is free.
    async fn start_worker(
        &self,
        plan: &WorkerPlan,
        nanny: Option<(Address, OnRegistered)>,
    ) -> Result<Worker, StartError> {
        let mut options = self.worker_options(plan, nanny)?;
        let (last, others) = plan.listen.split_last().expect("every worker has an address to listen on");
        for address in others {
            options.listen_address = address.clone();
            match Worker::start(options.clone()).await {
                Err(StartError::Listen(CommError::Io(error))) if error.kind() == io::ErrorKind::AddrInUse => {}
                other => return other,
            }
        }
        options.listen_address = last.clone();
        Worker::start(options).await
    }

    fn worker_options(
        &self,
        plan: &WorkerPlan,
        nanny: Option<(Address, OnRegistered)>,
    ) -> Result<WorkerOptions, StartError> {
        let (nanny, on_registered) = nanny.unzip();
        let failed = |error| StartError::System { what: "native tasks".to_owned(), error: io::Error::other(error) };
        let mut defaults = WorkerOptions::new(self.scheduler.clone()).map_err(failed)?;
        for library in &plan.settings.task_libraries {
            defaults.registry.load_library(library).map_err(failed)?;
        }
        let tls_files = self.args.tls.paths(Role::Worker, self.dask).ok().flatten();
        Ok(WorkerOptions {
            name: plan.name.clone(),
            nthreads: u32::try_from(plan.nthreads).unwrap_or(u32::MAX),
            memory_limit: plan.memory_limit,
            memory: plan.memory.clone(),
            resources: plan.resources.iter().cloned().collect(),
            local_directory: plan.settings.local_directory.clone(),
            contact_address: plan.contact.clone(),
            dashboard_address: Some(http_address(&self.args.dashboard_address)),
            http_tls: self.page_tls.clone(),
            python: match self.args.python.as_deref() {
                None => PythonChoice::Auto,
                Some("none") => PythonChoice::Off,
                Some(path) => PythonChoice::Path(path.into()),
            },
            preload: plan.settings.preload.clone(),
            preload_argv: plan.settings.preload_argv.clone(),
            nanny,
            comm: self.comm.clone(),
            tls_files: tls_files.map(|paths| TlsFiles { ca: paths.ca, cert: paths.cert, key: paths.key }),
            death_timeout: plan.death_timeout,
            lifetime: plan.staggered_lifetime(chance()),
            task_processes: self.args.task_processes,
            interrupt_cancelled: !self.args.no_interrupt_cancelled,
            interrupt_grace: plan.interrupt_grace.unwrap_or(defaults.interrupt_grace),
            reconnect_grace: plan.reconnect_grace.unwrap_or(defaults.reconnect_grace),
            transfer: plan.settings.transfer,
            story_rows_max: plan.settings.story_rows_max.unwrap_or(defaults.story_rows_max),
            validate: plan.settings.validate,
            logs: self.logs.clone(),
            transfers: self.transfers.clone(),
            on_registered,
            ..defaults
        })
    }
}

/// The reason a command closes for after this signal; a nanny passes it on to its worker.
fn signal_reason(signal: i32) -> String {
    format!("signal-{signal}")
}

/// How long a worker may take to hand over what only it holds, when it closes for this reason: SIGTERM is what Kubernetes
/// and batch systems send to one of many; SIGINT comes from a terminal, for all of them.
fn drain_grace(plan: &WorkerPlan, reason: &str) -> Duration {
    if reason == signal_reason(SIGTERM) { plan.drain_grace } else { Duration::ZERO }
}

async fn drain(worker: &Worker, grace: Duration, reason: &str) {
    if !grace.is_zero() {
        worker.drain(grace, reason).await;
    }
}

/// The interpreters that may run the plugins of a nanny, best first; the same that its worker tries.
pub(super) fn python_candidates(argument: Option<&str>) -> Vec<PathBuf> {
    match argument {
        Some("none") => Vec::new(),
        Some(path) => vec![PathBuf::from(path)],
        None => {
            let named = env::var_os("DASK_PYTHON").map(PathBuf::from);
            let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(env::var_os);
            let interpreters = environments.map(|prefix| PathBuf::from(prefix).join("bin/python"));
            named.into_iter().chain(interpreters).chain(["python3", "python"].map(PathBuf::from)).collect()
        }
    }
}

/// A number between 0 and 1. The standard library's random hash keys are chance enough to spread lifetimes.
fn chance() -> f64 {
    let random = std::hash::RandomState::new().build_hasher().finish();
    f64::from((random >> 32) as u32) / f64::from(u32::MAX)
}

fn start_failure(error: &StartError) -> Failure {
    if let StartError::Scheduler { .. } = error {
        info!(target: LOGGER, "Timed out starting worker");
    }
    Failure::Logged(error.to_string())
}

/// Ends as the worker's Python process did, so that whoever watches this process sees the same death.
fn end_as(closed: &Closed) -> ExitCode {
    match closed.end {
        End::Leaving | End::Restarting => ExitCode::SUCCESS,
        End::Died(status) => {
            error!(target: LOGGER, "The worker's Python process died: {status}");
            die_as(status)
        }
    }
}

fn die_as(status: ExitStatus) -> ExitCode {
    let signal = status.signal().and_then(rustix::process::Signal::from_named_raw);
    if let Some(signal) = signal {
        let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
    }
    // Still here: this process handles that signal itself.
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

fn listen_to_signals() -> Result<Signals, Failure> {
    Signals::listen().map_err(|error| Failure::Usage(format!("cannot listen to signals: {error}")))
}

/// Completes with the first failure, or when all have ended well.
async fn first_failure_or_all(
    ends: impl Iterator<Item = impl Future<Output = Result<(), String>>>,
) -> Result<(), String> {
    try_join_all(ends).await.map(drop)
}
