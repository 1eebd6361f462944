//! `--jupyter`: a Jupyter server in a Python process beside the scheduler, for notebooks that use this cluster. It listens
//! on a socket that only this user opens; the HTTP server passes on to it what comes below `/jupyter/`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dask_protocol::Value;
use dask_protocol::comm::{Comm, CommReader};
use tokio::process::Child;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::beside::{self, Program};
use super::shared::Server;
use crate::state::Seconds;

/// How long it may take to shut its kernels down.
const CLOSE_MAX: Duration = Duration::from_secs(4);

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
    /// Where it listens.
    pub(crate) socket: PathBuf,
    /// When a page or kernel last did something, as bits of a time; at first, when it could for the first time.
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
        let introduction = Value::map([
            ("address", Value::from(server.address.as_str())),
            ("base_url", format!("{}/", jupyter.base).into()),
            ("socket", jupyter.socket.to_string_lossy().into_owned().into()),
        ]);
        let (module, environment) = ("dask_rs_scheduler.jupyter", &options.environment);
        let (child, comm) =
            beside::start(server, &Program { module, who: "jupyter", environment, introduction }).await?;
        // A scheduler that waited for it has not been idle for as long.
        jupyter.used_at(server.clock.now());
        tokio::spawn(follow(Arc::clone(server), Arc::clone(&jupyter), comm, child));
        Ok(jupyter)
    }

    fn used_at(&self, at: Seconds) {
        self.active.store(at.to_bits(), Ordering::Relaxed);
    }

    /// When somebody last used it, in unix time; before anybody has, when it was there.
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
                jupyter.used_at(at);
            }
        }
    }
}
