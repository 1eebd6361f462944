//! `dask explain KEY`: asks a scheduler why a task waits, why it is where it is, and what happened to it.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dask_protocol::comm::ConnectionPool;
use dask_protocol::{Address, Value};
use serde::Serialize;
use tokio::runtime::Builder;

use super::Failure;
use super::tls::{Role, TlsArgs};
use super::worker_plan::{NO_SCHEDULER, SCHEDULER_ADDRESS, locate_scheduler};
use crate::config::DaskConfig;

/// How long the scheduler may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Tell why a task waits, why it is where it is, and what happened to it
#[derive(Debug, Clone, Parser)]
#[command(name = "dask explain", disable_version_flag = true)]
pub(super) struct ExplainArgs {
    /// The task's key, as text or as Python prints it: inc-1a2b, "('sum-3c4d', 0, 1)"
    #[arg(allow_hyphen_values = true)]
    key: String,
    /// The scheduler's address, such as tcp://10.0.0.1:8786; else --scheduler-file or DASK_SCHEDULER_ADDRESS
    #[arg(long)]
    scheduler: Option<String>,
    /// Filename of the JSON file with the scheduler's connection information
    #[arg(long)]
    scheduler_file: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Runs the command with these arguments, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match ExplainArgs::try_parse_from(args) {
        Ok(args) => super::report(run(&args)),
        Err(error) => super::usage(&error),
    }
}

fn run(args: &ExplainArgs) -> Result<ExitCode, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Usage(format!("cannot start: {error}")))?;
    let answer = runtime.block_on(ask(args)).map_err(Failure::Usage)?;
    let known = answer.get("state").is_some_and(|state| !state.is_nil());
    let told = if args.json {
        serde_json::to_string_pretty(&dask_scheduler::value_to_json(&answer)).expect("JSON values always print")
    } else {
        let text = answer.get("text").and_then(Value::as_str);
        text.ok_or_else(|| Failure::Usage("this scheduler cannot explain: it is not ours".to_owned()))?.to_owned()
    };
    // Nobody to tell when the reader is gone.
    let _ = writeln!(std::io::stdout(), "{told}");
    Ok(if known { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn no_scheduler(error: String) -> String {
    if error == NO_SCHEDULER {
        "Need the scheduler: --scheduler ADDRESS or --scheduler-file FILE".to_owned()
    } else {
        error
    }
}

/// Asks; the answer is the map of the RPC `explain`.
async fn ask(args: &ExplainArgs) -> Result<Value, String> {
    #[derive(Serialize)]
    struct About<'a> {
        key: &'a str,
    }
    let dask = DaskConfig::load()?;
    let configured = dask.key(SCHEDULER_ADDRESS);
    let configured = configured.as_ref().map(|said| said.text());
    let scheme = args.tls.default_scheme(&dask)?;
    let (given, file) = (args.scheduler.as_deref(), args.scheduler_file.as_deref());
    let scheduler: Address =
        locate_scheduler(given, file, Some(Duration::ZERO), configured, scheme).await.map_err(no_scheduler)?;
    let pool = ConnectionPool::new(args.tls.comm_config(Role::Client, &dask, None)?);
    let about = About { key: &args.key };
    match tokio::time::timeout(TIMEOUT, pool.call(&scheduler, "explain", &about)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer from {scheduler} within {} s", TIMEOUT.as_secs())),
    }
}
