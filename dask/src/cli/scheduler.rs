//! `dask-scheduler`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use dask_protocol::logs::LogRing;
use dask_scheduler::server::{LogLine, LogSource};
use dask_scheduler::{Scheduler, SchedulerOptions};
use tokio::runtime::Builder;
use tracing::{info, warn};

use super::parse::preload_modules;
use super::pid_file::PidFile;
use super::scheduler_args::{SchedulerArgs, SchedulerPlan};
use super::signals::{CLOSE_WAIT, Signals};
use super::system::raise_open_files_limit;
use super::{Failure, http_address, show_version};
use crate::logging;

const LOGGER: &str = "distributed.scheduler";
/// `distributed.scheduler.preload`.
const PRELOAD_VARIABLE: &str = "DASK_DISTRIBUTED__SCHEDULER__PRELOAD";

/// Runs the command with these arguments, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match SchedulerArgs::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => return super::usage(&error),
    };
    if args.version {
        return show_version("dask-scheduler");
    }
    super::report(run(&args))
}

fn run(args: &SchedulerArgs) -> Result<ExitCode, Failure> {
    let logs = logging::init(args.log_level.as_deref()).map_err(Failure::Usage)?;
    let plan = args.plan().map_err(Failure::Usage)?;
    for warning in &plan.warnings {
        warn!(target: LOGGER, "{warning}");
    }
    let options = options(args, plan, logs)?;
    let _pid_file = PidFile::write(&args.pid_file).map_err(Failure::Usage)?;
    raise_open_files_limit();
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Usage(format!("cannot start: {error}")))?;
    let served = runtime.block_on(serve(options));
    runtime.shutdown_background();
    info!(target: LOGGER, "End scheduler");
    served.map(|()| ExitCode::SUCCESS)
}

fn options(args: &SchedulerArgs, plan: SchedulerPlan, logs: LogRing) -> Result<SchedulerOptions, Failure> {
    Ok(SchedulerOptions {
        listen: plan.listen,
        dashboard_address: Some(http_address(&args.dashboard_address)),
        comm: args.tls.comm_config(None).map_err(Failure::Usage)?,
        python: args.python.as_ref().map(PathBuf::from),
        state: args.config.config(|name| std::env::var(name).ok()).map_err(Failure::Usage)?,
        worker_ttl: args.config.worker_ttl(|name| std::env::var(name).ok()).map_err(Failure::Usage)?,
        preload: preload_modules(&args.preload, PRELOAD_VARIABLE, |name| std::env::var(name).ok()),
        preload_argv: args.preload_argv.clone(),
        idle_timeout: plan.idle_timeout,
        event_log: args.event_log.clone(),
        scheduler_file: Some(&args.scheduler_file).filter(|path| !path.is_empty()).map(PathBuf::from),
        logs: Some(log_source(logs)),
        ..SchedulerOptions::default()
    })
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
