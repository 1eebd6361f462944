//! `dask-scheduler`.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser};
use dask_protocol::logs::LogRing;
use dask_scheduler::server::{JupyterOptions, LogLine, LogSource};
use dask_scheduler::{Scheduler, SchedulerOptions};
use tokio::runtime::Builder;
use tracing::{info, warn};

use super::auto_tls;
use super::pid_file::PidFile;
use super::preload_args::sorted;
use super::scheduler_args::{SchedulerArgs, SchedulerPlan};
use super::signals::{CLOSE_WAIT, Signals};
use super::system::raise_open_files_limit;
use super::tls::{Role, page_tls};
use super::{Failure, allocator, http_address, show_version};
use crate::config::DaskConfig;
use crate::logging;

const LOGGER: &str = "distributed.scheduler";
/// Threads for streams and the state, where there are more cores than [`FEW_CORES`].
const RUNTIME_THREADS_MAX: usize = 4;
/// With so few cores, which clients and workers may want too, one thread does it all: it wakes no other one, and needs a seventh
/// to a quarter less processor time for a task.
const FEW_CORES: usize = 2;
/// What the configuration says of the pages' task stream unless it is told otherwise.
const UPSTREAM_STREAM_LENGTH: usize = 1000;
/// What in `distributed.scheduler.http.routes` opens `/api/v1` to everybody.
const HTTP_API_ROUTES: &str = "distributed.http.scheduler.api";

/// Runs the command with these arguments, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    allocator::set_up();
    let mut args = match SchedulerArgs::try_parse_from(sorted(&SchedulerArgs::command(), args, 0)) {
        Ok(args) => args,
        Err(error) => return super::usage(&error),
    };
    if args.version {
        return show_version("dask-scheduler");
    }
    match args.auto_tls.as_deref().map(auto_tls::bundle).transpose() {
        Ok(bundle) => args.tls = bundle.unwrap_or(args.tls),
        Err(error) => return super::report(Err(Failure::Usage(error))),
    }
    super::report(run(&args))
}

fn run(args: &SchedulerArgs) -> Result<ExitCode, Failure> {
    let dask = DaskConfig::load().map_err(Failure::Usage)?;
    let logs = logging::init(args.log_level.as_deref(), &dask).map_err(Failure::Usage)?;
    let plan = args.plan(&dask).map_err(Failure::Usage)?;
    for warning in dask.warnings.iter().chain(&plan.warnings) {
        warn!(target: LOGGER, "{warning}");
    }
    if let Some(directory) = &args.auto_tls {
        info!(target: LOGGER, "Clients and workers find their certificates by DASK_CONFIG={directory}/dask.yaml");
    }
    let options = options(args, &dask, plan, logs).map_err(Failure::Usage)?;
    let _pid_file = PidFile::write(&args.pid_file).map_err(Failure::Usage)?;
    raise_open_files_limit();
    let cannot_start = |error| Failure::Usage(format!("cannot start: {error}"));
    let runtime = Builder::new_multi_thread().worker_threads(runtime_threads()).enable_all().build();
    let runtime = runtime.map_err(cannot_start)?;
    // While a large graph is taken in, health checks are answered.
    let pages = Builder::new_multi_thread().worker_threads(1).thread_name("pages").enable_all().build();
    let pages = pages.map_err(cannot_start)?;
    let served = runtime.block_on(serve(SchedulerOptions { pages: Some(pages.handle().clone()), ..options }));
    runtime.shutdown_background();
    pages.shutdown_background();
    info!(target: LOGGER, "End scheduler");
    served.map(|()| ExitCode::SUCCESS)
}

/// One thread drives the state; what the others read for it has to wait for it anyway.
fn runtime_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(FEW_CORES, NonZeroUsize::get);
    if cores <= FEW_CORES { 1 } else { cores.min(RUNTIME_THREADS_MAX) }
}

fn options(
    args: &SchedulerArgs,
    dask: &DaskConfig,
    plan: SchedulerPlan,
    logs: LogRing,
) -> Result<SchedulerOptions, String> {
    let listed = |given: &[String], key| if given.is_empty() { dask.texts(key) } else { Ok(given.to_vec()) };
    let default = SchedulerOptions::default();
    let events_cleanup_delay = dask
        .key("distributed.scheduler.events-cleanup-delay")
        .map_or(Ok(default.events_cleanup_delay), |said| said.duration())?;
    let length = |key, default| dask.key(key).map_or(Ok(default), |said| said.count());
    Ok(SchedulerOptions {
        task_stream_length: length(
            "distributed.scheduler.dashboard.tasks.task-stream-length",
            default.task_stream_length,
        )?,
        page_stream_length: length(
            "distributed.scheduler.dashboard.status.task-stream-length",
            UPSTREAM_STREAM_LENGTH,
        )?
        .saturating_mul(default.page_stream_length / UPSTREAM_STREAM_LENGTH),
        listen: plan.listen,
        contact_address: plan.contact_address,
        dashboard_address: Some(http_address(&args.dashboard_address)),
        dashboard_prefix: args.dashboard_prefix.clone(),
        http_tls: page_tls(dask)?,
        jupyter: args.jupyter.then(|| jupyter(args, dask)).transpose()?,
        // A setting of ours: what callers of `/api/v1` must show to change something.
        http_token: dask.texts("distributed.scheduler.http.token")?.pop(),
        http_api: dask.texts("distributed.scheduler.http.routes")?.iter().any(|route| route == HTTP_API_ROUTES),
        comm: args.tls.comm_config(Role::Scheduler, dask, None)?,
        python: args.python.as_ref().map(PathBuf::from),
        state: args.config.config(dask)?,
        worker_ttl: args.config.worker_ttl(dask)?,
        preload: listed(&args.preload, "distributed.scheduler.preload")?,
        preload_argv: listed(&args.preload_argv, "distributed.scheduler.preload-argv")?,
        blocked_handlers: dask.texts("distributed.scheduler.blocked-handlers")?,
        idle_timeout: plan.idle_timeout,
        events_cleanup_delay,
        event_log: args.event_log.clone(),
        scheduler_file: Some(&args.scheduler_file).filter(|path| !path.is_empty()).map(PathBuf::from),
        logs: Some(log_source(logs)),
        when_quiet: Some(allocator::give_back),
        ..default
    })
}

/// A notebook's client connects with the scheduler's certificate.
fn jupyter(args: &SchedulerArgs, dask: &DaskConfig) -> Result<JupyterOptions, String> {
    let paths = args.tls.paths(Role::Scheduler, dask)?;
    let variables = paths.into_iter().flat_map(|paths| {
        [("CA_FILE", paths.ca), ("CLIENT__CERT", paths.cert), ("CLIENT__KEY", paths.key)]
            .map(|(name, text)| (format!("DASK_DISTRIBUTED__COMM__TLS__{name}"), text))
    });
    Ok(JupyterOptions { environment: variables.collect() })
}

fn log_source(logs: LogRing) -> LogSource {
    Arc::new(move |n| {
        let line = |record: dask_protocol::logs::LogRecord| -> LogLine {
            (record.created, record.level.to_owned(), record.line)
        };
        logs.recent(LOGGER, 0.0, Some(n)).into_iter().map(line).collect()
    })
}

/// Runs the scheduler until it closes by itself or a signal closes it.
async fn serve(options: SchedulerOptions) -> Result<(), Failure> {
    let mut signals =
        Signals::listen().map_err(|error| Failure::Usage(format!("cannot listen to signals: {error}")))?;
    let scheduler = tokio::select! {
        scheduler = Scheduler::start(options) => scheduler.map_err(|error| Failure::Logged(error.to_string()))?,
        _ = signals.received() => return Ok(()),
    };
    tokio::select! {
        _ = scheduler.closed() => {}
        signal = signals.received() => {
            signals.while_closing(CLOSE_WAIT, scheduler.close(&format!("signal-{signal}"))).await;
        }
    }
    info!(target: LOGGER, "Stopped scheduler at '{}'", scheduler.address());
    Ok(())
}
