//! The Python process: user code runs there, and the values it makes live there.
//!
//! One child process with as many threads as the worker has. We write [`message::ToPython`] and read
//! [`message::FromPython`]; nothing here ever waits for the interpreter except those who ask it for an answer.

mod interpreter;
pub(crate) mod lending;
pub(crate) mod message;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dask_protocol::comm::{BatchedSender, Comm, CommReader};
use dask_protocol::message::{Message, RunId};
use dask_protocol::{Address, Key, Payload, Value};
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::options::PythonChoice;
use message::{FromPython, Introduction, Measured, Ready, ToPython};

/// How long an interpreter may take to start; a cold network file system can be slow.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// Numbers of runs that the Python process writes down as having begun (`hello.py`), 8 bytes each.
const RUNS_BYTES: usize = 512 * size_of::<RunId>();

/// Status with which our program says that something it needs cannot be imported.
const IMPORT_FAILED_STATUS: i32 = 78;

/// Why no Python process is there.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// No interpreter was found or none has `distributed`.
    #[error("no usable Python: {0}")]
    Unusable(String),
    /// The process ended while it was asked something.
    #[error("the worker's Python process is gone")]
    Gone,
}

/// A process that has what it needs to run tasks and waits to be told whom it works for.
#[derive(Debug)]
pub(crate) struct Interpreter {
    comm: Comm,
    child: Child,
    ready: Ready,
    path: PathBuf,
}

impl Interpreter {
    /// Starts the first interpreter of `choice` that can serve; `None` when none was asked for or found.
    ///
    /// # Errors
    /// [`PythonError::Unusable`] when an interpreter was named and cannot serve.
    pub(crate) async fn start(choice: &PythonChoice, directory: &Path) -> Result<Option<Interpreter>, PythonError> {
        let mut reasons = Vec::new();
        for path in interpreter::candidates(choice) {
            match Interpreter::try_start(&path, directory).await {
                Ok(interpreter) => return Ok(Some(interpreter)),
                Err(reason) => reasons.push(format!("{}: {reason}", path.display())),
            }
        }
        match choice {
            PythonChoice::Off => Ok(None),
            PythonChoice::Path(_) => Err(PythonError::Unusable(reasons.join("; "))),
            PythonChoice::Auto => {
                warn!(target: "distributed.worker", "No Python with dask.distributed found ({}); running native tasks only",
                      reasons.join("; "));
                Ok(None)
            }
        }
    }

    async fn try_start(path: &Path, directory: &Path) -> Result<Interpreter, String> {
        let (mut child, mut comm) = interpreter::spawn(path, directory).map_err(|e| e.to_string())?;
        let first = timeout(READY_TIMEOUT, comm.recv()).await;
        let batch = match first {
            Err(_) => return Err(format!("did not start within {} s", READY_TIMEOUT.as_secs())),
            Ok(Err(_)) => {
                let status = child.wait().await.map_err(|e| e.to_string())?;
                return Err(match status.code() {
                    Some(IMPORT_FAILED_STATUS) => "dask.distributed is not installed".to_owned(),
                    _ => format!("ended at start ({status})"),
                });
            }
            Ok(Ok(message)) => message.decode_stream::<FromPython>().map_err(|e| e.to_string())?,
        };
        match batch.into_iter().next() {
            Some(FromPython::Ready(ready)) => Ok(Interpreter { comm, child, ready, path: path.to_owned() }),
            other => Err(format!("began with {other:?}")),
        }
    }

    /// Which interpreter it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The versions of its packages, for the registration.
    pub(crate) fn versions(&self) -> &Value {
        &self.ready.versions
    }

    /// Tells it whom it works for. What it reports afterwards comes from the returned reader.
    pub(crate) async fn introduce(self, introduction: Introduction) -> Result<(Python, PythonReader), PythonError> {
        let Interpreter { mut comm, child, ready, path } = self;
        debug!(pid = ready.pid, python = %path.display(), "Python process ready");
        let sent = comm.send_value(&[ToPython::Introduce(Box::new(introduction))]).await;
        sent.map_err(|_| PythonError::Gone)?;
        let (reader, writer) = comm.split();
        // Its own view of the descriptor: what is written there is still to be read when the process is gone.
        let runs = ready.runs.and_then(|number| File::open(format!("/proc/{}/fd/{number}", ready.pid)).ok());
        let python = Python {
            sender: BatchedSender::spawn(writer),
            pid: ready.pid,
            runs,
            next_id: AtomicU64::new(0),
            waiting: Mutex::new(Some(HashMap::new())),
            gone: CancellationToken::new(),
        };
        Ok((python, PythonReader { reader, child }))
    }
}

/// A running Python process.
#[derive(Debug)]
pub(crate) struct Python {
    sender: BatchedSender<ToPython>,
    pid: u32,
    /// Memory in which it writes down what has begun.
    runs: Option<File>,
    next_id: AtomicU64,
    /// Who waits for which reply; `None` once the process is gone.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Value>>>>,
    gone: CancellationToken,
}

/// What the Python process says, and its end.
#[derive(Debug)]
pub(crate) struct PythonReader {
    reader: CommReader,
    child: Child,
}

impl PythonReader {
    /// The next batch, or how the process ended.
    pub(crate) async fn next(&mut self) -> Result<Vec<FromPython>, ExitStatus> {
        let received: Result<Message, _> = self.reader.recv().await;
        let decoded = received
            .map_err(|e| e.to_string())
            .and_then(|message| message.decode_stream::<FromPython>().map_err(|e| e.to_string()));
        match decoded {
            Ok(batch) => Ok(batch),
            Err(reason) => {
                debug!(reason, "the Python process closed its connection");
                let _ = self.child.start_kill();
                Err(self.child.wait().await.unwrap_or_default())
            }
        }
    }
}

impl Python {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The runs that were under way when it was last alive, of those that it was told to run; `None` if that is not known.
    /// It writes them down in memory that this process sees too: numbers, 0 where there is none, else a run's number plus 1.
    pub(crate) fn begun(&self) -> Option<Vec<RunId>> {
        let mut table = [0; RUNS_BYTES];
        self.runs.as_ref()?.read_exact_at(&mut table, 0).ok()?;
        let numbers =
            table.chunks_exact(size_of::<RunId>()).map(|it| RunId::from_ne_bytes(it.try_into().expect("exact")));
        Some(numbers.filter(|number| *number != 0).map(|number| number.wrapping_sub(1)).collect())
    }

    /// Sends something that has no answer of its own.
    pub(crate) fn tell(&self, message: ToPython) {
        self.sender.send(message);
    }

    /// Whether another process could take its place.
    pub(crate) async fn is_replaceable(&self) -> Result<bool, PythonError> {
        self.ask(|id| ToPython::Replaceable { id }).await.map(|reply| reply.as_bool() == Some(true))
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // An error here means that it has ended already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    /// Completes when the process's end of the connection is closed.
    pub(crate) async fn closed(&self) {
        self.gone.cancelled().await;
    }

    /// Tells it how far the scheduler's clock is ahead, in seconds.
    pub(crate) fn delay(&self, seconds: f64) {
        self.tell(ToPython::Delay { seconds });
    }

    /// The serialised forms of values that live there.
    pub(crate) async fn fetch(&self, keys: Vec<Key>) -> Result<Vec<(Key, Payload)>, PythonError> {
        self.ask(|id| ToPython::Fetch { id, keys }).await.map(message::fetched)
    }

    /// Hands values over and learns their sizes.
    pub(crate) async fn measure(&self, data: Vec<(Key, Payload)>) -> Result<Vec<(Key, Measured)>, PythonError> {
        let data = data.into_iter().collect();
        self.ask(|id| ToPython::Measure { id, data }).await.map(message::measured)
    }

    /// Has a peer's request answered there.
    pub(crate) async fn request(&self, request: Value, peer: Address) -> Result<Value, PythonError> {
        self.ask(|id| ToPython::Request { id, request, peer }).await
    }

    /// Has values forgotten that are on disk from now on. It is told at once; the answer says that their memory is free, or
    /// does not come because the process is gone.
    pub(crate) fn evict(&self, keys: Vec<Key>) -> oneshot::Receiver<Value> {
        self.begin_to_ask(|id| ToPython::Evict { id, keys })
    }

    async fn ask(&self, question: impl FnOnce(u64) -> ToPython) -> Result<Value, PythonError> {
        self.begin_to_ask(question).await.map_err(|_| PythonError::Gone)
    }

    pub(super) fn begin_to_ask(&self, question: impl FnOnce(u64) -> ToPython) -> oneshot::Receiver<Value> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        // Of a process that is gone the answer is dropped here.
        if let Some(waiting) = self.waiting().as_mut() {
            waiting.insert(id, answer);
        }
        if !self.sender.send(question(id)) {
            self.forget_waiting();
        }
        answered
    }

    /// Gives a reply to whoever waits for it.
    pub(crate) fn replied(&self, reply: message::Reply) {
        let waiting = self.waiting().as_mut().and_then(|waiting| waiting.remove(&reply.id));
        if let Some(answer) = waiting {
            // Whoever asked may have given up.
            let _ = answer.send(reply.reply);
        }
    }

    /// Fails everybody who waits: the process is gone.
    pub(crate) fn forget_waiting(&self) {
        *self.waiting() = None;
        self.gone.cancel();
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Value>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
