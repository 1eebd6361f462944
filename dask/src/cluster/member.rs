//! One worker of a [`LocalCluster`](super::LocalCluster): on threads of this process, or a process under a nanny.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use std::{io, thread};

use dask_nanny::Nanny;
use dask_protocol::{Address, Value};
use dask_worker::{PythonChoice, Worker, WorkerOptions};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::{ClusterError, LocalClusterBuilder};
use crate::cli::worker::start_nanny;

/// Why members close that nobody needs any more.
const REASON: &str = "local-cluster-close";
/// How long a worker process may take to end, in seconds, before its nanny kills it.
const PROCESS_CLOSE_SECONDS: f64 = 10.0;

/// The program that a cluster's worker processes run.
#[derive(Debug, Clone)]
pub(super) struct WorkerProgram {
    pub program: PathBuf,
    /// What goes in front of a worker's own arguments.
    pub arguments: Vec<String>,
}

pub(super) enum Member {
    Threads(Threads),
    Process(Nanny),
}

/// A worker on threads of this process.
pub(super) struct Threads {
    worker: Worker,
    /// The thread on which it decides, unless it is one of the caller's runtime. It ends when this is dropped.
    _apart: Option<oneshot::Sender<()>>,
}

impl Threads {
    async fn start(options: WorkerOptions, apart: Option<i64>) -> Result<Threads, String> {
        let worker = Worker::start(options);
        let Some(name) = apart else {
            return Ok(Threads { worker: worker.await.map_err(|error| error.to_string())?, _apart: None });
        };
        let (runtime, end) = start_runtime(name).map_err(|error| error.to_string())?;
        let worker = runtime.spawn(worker).await.map_err(|error| error.to_string())?;
        Ok(Threads { worker: worker.map_err(|error| error.to_string())?, _apart: Some(end) })
    }
}

/// A runtime on a thread of its own, which ends when the sender is dropped.
fn start_runtime(name: i64) -> io::Result<(Handle, oneshot::Sender<()>)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (end, ended) = oneshot::channel::<()>();
    let handle = runtime.handle().clone();
    thread::Builder::new().name(format!("dask-worker-{name}")).spawn(move || drop(runtime.block_on(ended)))?;
    Ok((handle, end))
}

impl Member {
    pub(super) async fn start(
        settings: &LocalClusterBuilder,
        scheduler: &Address,
        name: i64,
    ) -> Result<Member, ClusterError> {
        let failed = |reason: String| ClusterError::Worker { name, reason };
        match &settings.program {
            None => {
                let options = options(settings, scheduler, name).map_err(failed)?;
                let apart = settings.apart.then_some(name);
                Threads::start(options, apart).await.map(Member::Threads).map_err(failed)
            }
            Some(program) => process(settings, program, scheduler, name).await.map(Member::Process).map_err(failed),
        }
    }

    /// The worker's address; none while its process has not registered.
    pub(super) fn address(&self) -> Option<Address> {
        match self {
            Member::Threads(threads) => Some(threads.worker.address().clone()),
            Member::Process(nanny) => nanny.worker_address(),
        }
    }

    /// Closes it, or waits until it is closed if it is closing already.
    pub(super) async fn close(&self) {
        match self {
            Member::Threads(threads) => drop(threads.worker.close(REASON).await),
            Member::Process(nanny) => nanny.close(PROCESS_CLOSE_SECONDS, REASON).await,
        }
    }
}

fn options(settings: &LocalClusterBuilder, scheduler: &Address, name: i64) -> Result<WorkerOptions, String> {
    let defaults = WorkerOptions::new(scheduler.clone()).map_err(|error| error.to_string())?;
    Ok(WorkerOptions {
        name: Value::Int(name),
        nthreads: settings.threads(),
        resources: settings.resources.iter().cloned().collect(),
        memory_limit: settings.memory_limit,
        listen_address: Address::from_parts("tcp", "127.0.0.1", 0),
        dashboard_address: None,
        python: settings.python.clone(),
        comm: settings.comm(),
        // Within a process no connection is cut.
        reconnect_grace: if settings.in_process { Duration::ZERO } else { defaults.reconnect_grace },
        ..defaults
    })
}

async fn process(
    settings: &LocalClusterBuilder,
    program: &WorkerProgram,
    scheduler: &Address,
    name: i64,
) -> Result<Nanny, String> {
    let mut arguments: Vec<OsString> = vec!["dask-worker".into(), scheduler.as_str().into()];
    let mut option = |name: &str, value: String| arguments.extend([name.into(), value.into()]);
    option("--name", name.to_string());
    option("--nthreads", settings.threads().to_string());
    option("--host", "127.0.0.1".to_owned());
    option("--memory-limit", settings.memory_limit.unwrap_or(0).to_string());
    match &settings.python {
        PythonChoice::Auto => {}
        PythonChoice::Path(path) => option("--python", path.display().to_string()),
        PythonChoice::Off => option("--python", "none".to_owned()),
    }
    if !settings.resources.is_empty() {
        let resources = settings.resources.iter().map(|(name, amount)| format!("{name}={amount}"));
        option("--resources", resources.collect::<Vec<_>>().join(","));
    }
    arguments.push("--no-dashboard".into());
    let nanny = start_nanny(arguments, program.program.clone(), &program.arguments).await?;
    nanny.started().await?;
    Ok(nanny)
}
