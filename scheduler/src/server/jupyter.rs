//! `--jupyter`: a Jupyter server in a Python process beside the scheduler, for notebooks that use this cluster. It listens
//! on a socket that only this user opens; the HTTP server passes on to it what comes below `/jupyter/`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dask_protocol::Value;
use dask_protocol::comm::child::spawn_with_socketpair;
use dask_protocol::comm::{Comm, CommReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::shared::Server;
use super::sidecar::write_package;
use crate::graph::helper::{Candidate, LastLines, candidates, forward_lines};
use crate::state::Seconds;

/// How long Jupyter and its extensions may take to start: slow network file systems included.
const START_MAX: Duration = Duration::from_secs(120);
/// How long it may take to shut its kernels down.
const CLOSE_MAX: Duration = Duration::from_secs(4);

const BOOTSTRAP: &str = "import os, sys
os.dup2(2, 1)
sys.path.insert(0, sys.argv.pop(1))
import dask_rs_scheduler.jupyter as program
sys.path[0] = os.getcwd()
program.main()";

/// What a Jupyter server is started with.
#[derive(Debug, Clone, Default)]
pub struct JupyterOptions {
    /// Variables for it and its kernels, such as those that name a client's certificate.
    pub environment: Vec<(String, String)>,
}

/// A Jupyter server.
#[derive(Debug)]
pub(crate) struct Jupyter {
    /// The path of its pages, without a slash at the end.
    pub(crate) base: String,
    socket: PathBuf,
    /// When a page or kernel last did something, as bits of a time.
    active: AtomicU64,
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Jupyter {
    /// Starts it, and waits until it serves. Its pages are those below `prefix`.
    ///
    /// # Errors
    /// Why it does not start, for the user.
    pub(crate) async fn start(
        server: &Arc<Server>,
        options: &JupyterOptions,
        prefix: &str,
    ) -> Result<Arc<Jupyter>, String> {
        let directory = server.graphs.helpers().directory().map_err(|error| error.to_string())?;
        let jupyter = Arc::new(Jupyter {
            base: if prefix.is_empty() { "/jupyter".to_owned() } else { format!("/{prefix}/jupyter") },
            socket: directory.join("jupyter"),
            active: AtomicU64::new(0),
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
        });
        let mut tried = Vec::new();
        for candidate in candidates(server.options.python.as_deref(), |name| std::env::var_os(name)) {
            match jupyter.start_with(server, options, &candidate, directory).await {
                Ok((child, comm)) => {
                    tokio::spawn(follow(Arc::clone(server), Arc::clone(&jupyter), comm, child));
                    return Ok(jupyter);
                }
                Err(why) => tried.push(format!("{} (from {}): {why}", candidate.program.display(), candidate.origin)),
            }
        }
        Err(tried.join("; "))
    }

    async fn start_with(
        &self,
        server: &Arc<Server>,
        options: &JupyterOptions,
        candidate: &Candidate,
        directory: &Path,
    ) -> Result<(Child, Comm), String> {
        let folder = write_package(directory).map_err(|error| error.to_string())?;
        let mut command = Command::new(&candidate.program);
        command.args(["-u", "-c", BOOTSTRAP]).arg(folder);
        command.envs(options.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let (mut child, mut comm) = spawn_with_socketpair(command).map_err(|error| error.to_string())?;
        let pid = child.id().unwrap_or_default();
        let last_lines = LastLines::default();
        let stderr = child.stderr.take().expect("standard error is piped");
        tokio::spawn(forward_lines(stderr, pid, "jupyter", Arc::clone(&last_lines)));
        let introduction = Value::map([
            ("address", Value::from(server.address.as_str())),
            ("base_url", format!("{}/", self.base).into()),
            ("socket", self.socket.to_string_lossy().into_owned().into()),
        ]);
        let greeting = async {
            comm.send_value(&[introduction]).await?;
            comm.recv().await
        };
        let why = match timeout(START_MAX, greeting).await {
            Ok(Ok(_)) => return Ok((child, comm)),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not ready within {} s", START_MAX.as_secs()),
        };
        let status = timeout(CLOSE_MAX, child.wait()).await.ok().and_then(Result::ok);
        let lines = last_lines.lock().expect("no panic while the lines are held");
        Err(lines.back().cloned().or(status.map(|status| status.to_string())).unwrap_or(why))
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// When somebody last used it, in unix time; 0 before anybody has.
    pub(crate) fn last_active(&self) -> Seconds {
        f64::from_bits(self.active.load(Ordering::Relaxed))
    }

    /// Shuts it down with its kernels, and waits for that for a while.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }
}

/// Takes what the process says until it ends, and sees to that.
async fn follow(server: Arc<Server>, jupyter: Arc<Jupyter>, comm: Comm, mut child: Child) {
    let (reader, writer) = comm.split();
    tokio::select! {
        () = hear(&jupyter, reader) => {}
        () = jupyter.stop.cancelled() => {}
    }
    // It ends when nobody is there.
    drop(writer);
    let status = timeout(CLOSE_MAX, child.wait()).await.ok().and_then(Result::ok);
    if status.is_none() {
        let _ = child.kill().await;
    }
    jupyter.ended.cancel();
    if jupyter.stop.is_cancelled() {
        return;
    }
    match status {
        Some(status) if status.success() => {
            info!(target: "distributed.scheduler", "Shutting down on /api/shutdown request.");
            server.request_close("jupyter-requested-shutdown");
        }
        Some(status) => error!(target: "distributed.scheduler", "The Jupyter server ended ({status})"),
        None => error!(target: "distributed.scheduler", "The Jupyter server said nothing more, and was killed"),
    }
}

async fn hear(jupyter: &Jupyter, mut reader: CommReader) {
    while let Ok(Ok(batch)) = reader.recv().await.map(|message| message.decode::<Value>()) {
        for message in batch.as_items().unwrap_or_default() {
            if let Some(at) = message.get("at").and_then(Value::as_f64) {
                jupyter.active.store(at.to_bits(), Ordering::Relaxed);
            }
        }
    }
}
