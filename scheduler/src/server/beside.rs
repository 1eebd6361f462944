//! Starting modules of our Python package in processes beside the scheduler.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use dask_protocol::Value;
use dask_protocol::comm::Comm;
use dask_protocol::comm::child::spawn_with_socketpair;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tracing::info;

use super::shared::Server;
use crate::graph::helper::{Candidate, LastLines, candidates, forward_lines};

/// How long Python may take to start and import dask: slow network file systems included.
const START_MAX: Duration = Duration::from_secs(120);
/// How long to wait for the exit status of a process that did not start.
const EXIT_MAX: Duration = Duration::from_secs(5);

/// Runs a module of the package, which is found in the folder named first; what it prints goes where errors go.
const BOOTSTRAP: &str = "import os, sys
os.dup2(2, 1)
sys.path.insert(0, sys.argv.pop(1))
from importlib import import_module
program = import_module(sys.argv.pop(1))
sys.path[0] = os.getcwd()
program.main()";

/// Our Python package.
const SOURCES: [(&str, &str); 7] = [
    ("__init__.py", include_str!("../../python/dask_rs_scheduler/__init__.py")),
    ("__main__.py", include_str!("../../python/dask_rs_scheduler/__main__.py")),
    ("facade.py", include_str!("../../python/dask_rs_scheduler/facade.py")),
    ("jupyter.py", include_str!("../../python/dask_rs_scheduler/jupyter.py")),
    ("link.py", include_str!("../../python/dask_rs_scheduler/link.py")),
    ("service.py", include_str!("../../python/dask_rs_scheduler/service.py")),
    ("views.py", include_str!("../../python/dask_rs_scheduler/views.py")),
];

/// What is started.
pub(super) struct Program<'a> {
    /// The module, whose `main` is called.
    pub(super) module: &'a str,
    /// What goes before each line that it logs.
    pub(super) who: &'static str,
    /// Variables for it.
    pub(super) environment: &'a [(String, String)],
    /// The first message, to which its own first one is the answer.
    pub(super) introduction: Value,
}

/// Starts a program with the first Python that serves, and waits until it is ready.
///
/// # Errors
/// Why none does, as text for the user.
pub(super) async fn start(server: &Server, program: &Program<'_>) -> Result<(Child, Comm), String> {
    let directory = server.graphs.helpers().directory().map_err(|error| error.to_string())?;
    let folder = write_package(directory).map_err(|error| error.to_string())?;
    let mut tried = Vec::new();
    for candidate in candidates(server.options.python.as_deref(), |name| std::env::var_os(name)) {
        match start_with(&candidate, &folder, program).await {
            Ok(started) => return Ok(started),
            Err(why) => tried.push(format!("{} (from {}): {why}", candidate.program.display(), candidate.origin)),
        }
    }
    Err(tried.join("; "))
}

async fn start_with(candidate: &Candidate, folder: &Path, program: &Program<'_>) -> Result<(Child, Comm), String> {
    let mut command = Command::new(&candidate.program);
    command.args(["-u", "-c", BOOTSTRAP]).arg(folder).arg(program.module);
    command.envs(program.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let (mut child, mut comm) = spawn_with_socketpair(command).map_err(|error| error.to_string())?;
    let pid = child.id().unwrap_or_default();
    let last_lines = LastLines::default();
    let stderr = child.stderr.take().expect("standard error is piped");
    tokio::spawn(forward_lines(stderr, pid, program.who, Arc::clone(&last_lines)));
    if let Err(why) = greet(&mut comm, &program.introduction).await {
        let status = timeout(EXIT_MAX, child.wait()).await;
        let ending = status.ok().and_then(Result::ok).map_or_else(|| why, |status| status.to_string());
        let lines = last_lines.lock().expect("no panic while the lines are held");
        return Err(lines.back().map_or(ending, Clone::clone));
    }
    info!(target: "distributed.scheduler", pid, python = %candidate.program.display(), "Started a process beside the scheduler: {}", program.who);
    Ok((child, comm))
}

/// Tells the process whom it works for and waits until it is ready.
async fn greet(comm: &mut Comm, introduction: &Value) -> Result<(), String> {
    comm.send_value(&[introduction]).await.map_err(|error| error.to_string())?;
    let hello = timeout(START_MAX, comm.recv()).await;
    let hello = hello.map_err(|_| format!("not ready within {} s", START_MAX.as_secs()))?;
    hello.map_err(|error| error.to_string())?;
    Ok(())
}

/// Writes our package below `directory`; the folder to import it from.
fn write_package(directory: &Path) -> std::io::Result<PathBuf> {
    let folder = directory.join("python");
    let package = folder.join("dask_rs_scheduler");
    std::fs::create_dir_all(&package)?;
    for (name, text) in SOURCES {
        std::fs::write(package.join(name), text)?;
    }
    Ok(folder)
}
