//! Python beside the nanny: preload modules, nanny plugins, and functions of `Client.run(..., nanny=True)`.
//!
//! One process, started when it is first needed (at the nanny's start, if there are preload modules) and killed with the nanny. It answers one request at a time, with an object
//! that stands for upstream's `Nanny`, and tells with each answer which environment workers start with from then on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dask_protocol::comm::Comm;
use dask_protocol::comm::child::spawn_with_socketpair;
use dask_protocol::{Address, Value};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::timeout;
use tracing::{debug, info, warn};

/// The program.
const SCRIPT: &str = include_str!("../python/nanny_python.py");
/// Its name in the folder it is written to.
const SCRIPT_NAME: &str = "nanny_python.py";
/// How long Python may take to start and import dask: slow network file systems included.
const START_MAX: Duration = Duration::from_secs(120);
/// How long plugins and preload modules have to leave things in order at the nanny's end.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// Most variables that plugins may set for workers, and most bytes of one.
const VARIABLES_MAX: usize = 1_000;
const VARIABLE_BYTES_MAX: usize = 1 << 20;

/// Paths of the certificates that Python's own connections use.
#[derive(Debug, Clone)]
pub struct NannyTls {
    /// The authority.
    pub ca: String,
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

/// Which Python there is.
#[derive(Debug, Clone, Default)]
pub struct PythonOptions {
    /// Interpreters to try, best first; none for a nanny that refuses to run Python.
    pub candidates: Vec<PathBuf>,
    /// Modules, files, URLs or programs that are loaded at the nanny's start (`distributed.nanny.preload`).
    pub preload: Vec<String>,
    /// For connections over TLS.
    pub tls: Option<NannyTls>,
}

/// What the process answered.
pub(crate) struct Answered {
    /// For the caller.
    pub(crate) reply: Value,
    /// Whether the worker must start again for the change to count.
    pub(crate) restart: bool,
}

/// Why Python does not run.
enum NotStarted {
    /// This interpreter is of no use.
    Unusable(String),
    /// What was to be loaded cannot be.
    Refused(String),
}

/// The process, if there is one, and the environment it wants for workers.
#[derive(Debug)]
pub(crate) struct Python {
    options: PythonOptions,
    address: Address,
    id: String,
    scheduler: Address,
    running: AsyncMutex<Option<Running>>,
    environment: Mutex<Vec<(String, OsString)>>,
}

#[derive(Debug)]
struct Running {
    comm: Comm,
    /// Killed when dropped.
    _child: Child,
    /// Holds the program, and what plugins bring for workers.
    _directory: TempDir,
}

impl Python {
    pub(crate) fn new(options: PythonOptions, address: Address, id: String, scheduler: Address) -> Python {
        Python { options, address, id, scheduler, running: AsyncMutex::new(None), environment: Mutex::default() }
    }

    /// Whether it may be asked at all.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.options.candidates.is_empty()
    }

    /// Loads the preload modules, if there are any.
    ///
    /// # Errors
    /// Why they cannot be, as text for the user.
    pub(crate) async fn preload(&self) -> Result<(), String> {
        if self.options.preload.is_empty() {
            return Ok(());
        }
        *self.running.lock().await = Some(self.start().await?);
        Ok(())
    }

    /// Lets plugins and preload modules leave things in order. The process is gone afterwards.
    pub(crate) async fn close(&self) {
        let closing = async {
            let mut running = self.running.lock().await;
            let Some(mut process) = running.take() else { return };
            let request = Value::map([("op", "close".into())]);
            if let Err(error) = exchange(&mut process.comm, question(request, None)).await {
                debug!(%error, "the Python process of the nanny ended before it was done");
            }
        };
        if timeout(CLOSE_MAX, closing).await.is_err() {
            warn!(
                target: "distributed.nanny",
                "Plugins and preload modules of the nanny at {} took longer than {} s to end",
                self.address,
                CLOSE_MAX.as_secs()
            );
        }
    }

    /// Variables that plugins set for workers.
    pub(crate) fn environment(&self) -> Vec<(String, OsString)> {
        self.environment.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has a request answered.
    ///
    /// # Errors
    /// Why Python cannot, as text for the user.
    pub(crate) async fn ask(&self, request: Value, worker: Option<&Address>) -> Result<Answered, String> {
        let mut running = self.running.lock().await;
        if running.is_none() {
            *running = Some(self.start().await?);
        }
        let process = running.as_mut().expect("a process was just started");
        let answer = match exchange(&mut process.comm, question(request, worker)).await {
            Ok(answer) => answer,
            Err(error) => {
                *running = None;
                return Err(format!("the Python process of the nanny at {} ended: {error}", self.address));
            }
        };
        self.take_environment(&answer);
        let restart = answer.get("restart").and_then(Value::as_bool).unwrap_or(false);
        Ok(Answered { reply: answer.get("reply").cloned().unwrap_or_default(), restart })
    }

    fn take_environment(&self, answer: &Value) {
        *self.environment.lock().unwrap_or_else(PoisonError::into_inner) = variables(answer.get("env"));
    }

    async fn start(&self) -> Result<Running, String> {
        let mut tried = Vec::new();
        for program in &self.options.candidates {
            match self.start_with(program).await {
                Ok(running) => return Ok(running),
                Err(NotStarted::Unusable(why)) => tried.push(format!("{}: {why}", program.display())),
                Err(NotStarted::Refused(why)) => {
                    let modules = self.options.preload.join(", ");
                    return Err(format!("the nanny at {} cannot preload {modules}: {why}", self.address));
                }
            }
        }
        Err(format!(
            "the nanny at {} found no Python with dask.distributed to run this in ({}); start the worker with --python",
            self.address,
            tried.join("; ")
        ))
    }

    async fn start_with(&self, program: &Path) -> Result<Running, NotStarted> {
        let unusable = |error: std::io::Error| NotStarted::Unusable(error.to_string());
        let directory = tempfile::Builder::new().prefix("dask-rs-nanny-").tempdir().map_err(unusable)?;
        let script = directory.path().join(SCRIPT_NAME);
        std::fs::write(&script, SCRIPT).map_err(unusable)?;
        let mut command = Command::new(program);
        // What it prints goes where the nanny's own log goes.
        command.arg("-u").arg(script).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let (child, mut comm) = spawn_with_socketpair(command).map_err(unusable)?;
        let tls = self.options.tls.as_ref().map_or(Value::Nil, |tls| {
            let paths = [("tls_ca_file", &tls.ca), ("tls_worker_cert", &tls.cert), ("tls_worker_key", &tls.key)];
            Value::map(paths.map(|(name, path)| (name, path.as_str().into())))
        });
        let introduction = Value::map([
            ("address", Value::from(self.address.as_str())),
            ("id", self.id.as_str().into()),
            ("scheduler", self.scheduler.as_str().into()),
            ("directory", directory.path().to_string_lossy().into_owned().into()),
            ("tls", tls),
            ("preload", self.options.preload.clone().into()),
        ]);
        let ready = timeout(START_MAX, exchange(&mut comm, introduction)).await;
        let ready = ready.map_err(|_| NotStarted::Unusable(format!("not ready within {} s", START_MAX.as_secs())))?;
        let ended = |_| NotStarted::Unusable("it ended at its start; the log above says why".to_owned());
        let ready = ready.map_err(ended)?;
        if let Some(why) = ready.get("refused").and_then(Value::as_str) {
            return Err(NotStarted::Refused(why.to_owned()));
        }
        self.take_environment(&ready);
        info!(target: "distributed.nanny", pid = child.id(), "Started Python beside the nanny");
        Ok(Running { comm, _child: child, _directory: directory })
    }
}

fn question(request: Value, worker: Option<&Address>) -> Value {
    Value::map([("request", request), ("worker_address", worker.map(Address::as_str).into())])
}

async fn exchange(comm: &mut Comm, message: Value) -> Result<Value, dask_protocol::CommError> {
    comm.send_value(&[message]).await?;
    let answer: Value = comm.recv().await?.decode()?;
    Ok(answer.as_items().and_then(|items| items.first()).cloned().unwrap_or_default())
}

/// Variables that a process can be started with.
fn variables(told: Option<&Value>) -> Vec<(String, OsString)> {
    let Some(Value::Map(entries)) = told else { return Vec::new() };
    let usable = |text: &str| text.len() <= VARIABLE_BYTES_MAX && !text.contains('\0');
    let variable = |(name, value): &(Value, Value)| {
        let (name, value) = (name.as_str()?, value.as_str()?);
        let fits = !name.is_empty() && !name.contains('=') && usable(name) && usable(value);
        if !fits {
            debug!(name, "no variable of a process can be this");
        }
        fits.then(|| (name.to_owned(), value.into()))
    };
    entries.iter().filter_map(variable).take(VARIABLES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_a_variable_becomes_one() {
        let told = Value::map([
            ("GOOD", Value::from("yes")),
            ("", "no".into()),
            ("A=B", "no".into()),
            ("NUL", "a\0b".into()),
            ("NUMBER", Value::Int(1)),
        ]);
        assert_eq!(variables(Some(&told)), [("GOOD".to_owned(), OsString::from("yes"))]);
        assert!(variables(None).is_empty());
    }
}
