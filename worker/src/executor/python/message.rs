//! What the worker and its Python process say to each other, in the wire's framing, batched both ways.

use bytes::Bytes;
use dask_protocol::error::DecodeError;
use dask_protocol::message::{Pairs, Resources, RunId, ShortText, StreamMessage};
use dask_protocol::unpack::Unpacker;
use dask_protocol::{Address, Key, Payload, Value};
use serde::{Deserialize, Serialize};

use crate::options::TlsFiles;

/// Paths of the certificates that Python's own connections use.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TlsPaths {
    tls_ca_file: String,
    tls_worker_cert: String,
    tls_worker_key: String,
    tls_client_cert: String,
    tls_client_key: String,
    require_encryption: bool,
}

impl TlsPaths {
    pub(crate) fn new(files: &TlsFiles, require_encryption: bool) -> TlsPaths {
        let TlsFiles { ca, cert, key } = files.clone();
        TlsPaths {
            tls_ca_file: ca,
            tls_worker_cert: cert.clone(),
            tls_worker_key: key.clone(),
            tls_client_cert: cert,
            tls_client_key: key,
            require_encryption,
        }
    }
}

/// Who the worker is; the first message, sent alone.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Introduction {
    pub address: Address,
    pub id: String,
    pub name: Value,
    pub nthreads: u32,
    pub scheduler: Address,
    pub nanny: Option<Address>,
    pub local_directory: String,
    pub memory_limit: Option<u64>,
    pub resources: Resources,
    pub scheduler_delay: f64,
    pub tls: Option<TlsPaths>,
    pub preload: Vec<String>,
    pub preload_argv: Vec<String>,
    /// Whether tasks run in processes of their own.
    pub task_processes: bool,
}

/// To the Python process.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum ToPython {
    /// See [`Introduction`].
    Introduce(Box<Introduction>),
    /// Run a task.
    Execute(Execute),
    /// Keep hold of a task's inputs until it is to run.
    Hold(Hold),
    /// It is not to run.
    Unhold { key: Key, run_id: RunId },
    /// Forget values.
    Drop { keys: Vec<Key> },
    /// Forget values that are on disk from now on; answered by a reply once the memory is free.
    Evict { id: u64, keys: Vec<Key> },
    /// The answer to [`FromPython::Load`].
    Loaded(Loaded),
    /// Serialise values for a peer; answered by a reply.
    Fetch { id: u64, keys: Vec<Key> },
    /// Keep values in place, so that another process of this machine can copy them; answered by a reply.
    Lend { id: u64, keys: Vec<Key> },
    /// Nobody copies them any more.
    TakeBack { id: u64 },
    /// Copy values that another process lends, in the words of its reply; answered by a reply.
    Borrow { id: u64, lent: Value },
    /// They are the worker's from now on.
    KeepBorrowed { id: u64 },
    /// They are not.
    DropBorrowed { id: u64 },
    /// Keep values and tell their sizes; answered by a reply.
    Measure { id: u64, data: Pairs<Key, Payload> },
    /// Answer a peer's request; answered by a reply.
    Request { id: u64, request: Value, peer: Address },
    /// End an execution: it is over its limit in seconds, or nobody wants it any more.
    Interrupt { key: Key, run_id: RunId, limit: Option<f64> },
    /// The answer to [`FromPython::Scattered`] and [`FromPython::SetResources`]: it is on the worker's books.
    Noted { id: u64 },
    /// Answered by a reply: whether the process holds nothing that cannot be moved (actors, shuffles).
    Replaceable { id: u64 },
    /// Nobody waits for an execution any more: its thread leaves the pool.
    GiveUp { key: Key, run_id: RunId },
    /// A message of the scheduler's stream for a plugin.
    Stream { message: Value },
    /// The scheduler's clock minus ours.
    Delay { seconds: f64 },
    /// Tear plugins down and exit.
    Close {},
}

/// A task to run, with those of its dependencies that the process does not have.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Execute {
    pub key: Key,
    pub run_id: RunId,
    pub spec: Payload,
    pub dependencies: Vec<Key>,
    pub data: Pairs<Key, Payload>,
    pub annotations: Value,
    pub actor: bool,
    /// Echoed.
    pub span_id: Option<String>,
}

/// A task that is to run once the rest of its inputs is read from disk.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Hold {
    pub key: Key,
    pub run_id: RunId,
    pub dependencies: Vec<Key>,
    /// Those that the process does not have and that are in memory.
    pub data: Pairs<Key, Payload>,
}

/// A value that user code asked for, if it is there.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Loaded {
    pub id: u64,
    pub key: Key,
    pub data: Option<Payload>,
}

impl From<Loaded> for ToPython {
    fn from(loaded: Loaded) -> ToPython {
        ToPython::Loaded(loaded)
    }
}

/// From the Python process.
#[derive(Debug)]
pub(crate) enum FromPython {
    Ready(Ready),
    Started,
    Finished(Finished),
    Erred(Erred),
    Rescheduled(Rescheduled),
    Seceded(Seceded),
    Reply(Reply),
    Scattered(Scattered),
    SetResources(SetResources),
    Load(Load),
    LogEvent(dask_protocol::message::LogEvent),
    Handlers(Handlers),
    Log(Log),
    TaskProcesses(TaskProcesses),
    Close(Close),
}

/// `distributed` is imported.
#[derive(Debug, Deserialize)]
pub(crate) struct Ready {
    pub pid: u32,
    pub versions: Value,
    /// Its descriptor of the memory in which it writes down what has begun.
    pub runs: Option<u32>,
}

/// A task returned.
#[derive(Debug, Deserialize)]
pub(crate) struct Finished {
    pub key: Key,
    pub run_id: RunId,
    pub nbytes: i64,
    #[serde(rename = "type")]
    pub type_pickle: Option<Bytes>,
    pub typename: ShortText,
    pub thread: Value,
    pub start: f64,
    pub stop: f64,
    /// Seconds of processor time.
    pub cpu: f64,
    pub span_id: Option<String>,
    /// A serialised copy, if the value is small.
    pub value: Option<Payload>,
    /// Whether the value is an actor, and the copy its proxy.
    pub actor: bool,
}

/// A task raised.
#[derive(Debug, Deserialize)]
pub(crate) struct Erred {
    pub key: Key,
    pub run_id: RunId,
    pub exception: Value,
    pub traceback: Value,
    pub exception_text: String,
    pub traceback_text: String,
    pub thread: Value,
    pub start: f64,
    pub stop: f64,
    pub span_id: Option<String>,
}

/// A task raised `Reschedule`.
#[derive(Debug, Deserialize)]
pub(crate) struct Rescheduled {
    pub key: Key,
    pub run_id: RunId,
}

/// A task left its thread pool.
#[derive(Debug, Deserialize)]
pub(crate) struct Seceded {
    pub key: Key,
    pub compute_duration: f64,
}

/// The answer to a message with an id.
#[derive(Debug, Deserialize)]
pub(crate) struct Reply {
    pub id: u64,
    pub reply: Value,
}

/// User code scatters values onto its own worker: they are in the process, and described as in a `measure` reply.
#[derive(Debug, Deserialize)]
pub(crate) struct Scattered {
    pub id: u64,
    pub data: Value,
}

/// User code changes what the worker supplies.
#[derive(Debug, Deserialize)]
pub(crate) struct SetResources {
    pub id: u64,
    pub resources: Resources,
}

/// User code wants a value that the process does not have.
#[derive(Debug, Deserialize)]
pub(crate) struct Load {
    pub id: u64,
    pub key: Key,
}

/// Remote calls and stream messages that plugins answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Handlers {
    pub calls: Vec<String>,
    pub stream: Vec<String>,
}

/// The processes in which it runs tasks now.
#[derive(Debug, Deserialize)]
pub(crate) struct TaskProcesses {
    pub pids: Vec<u32>,
}

/// A log record of Python's `distributed` loggers, as printed there.
#[derive(Debug, Deserialize)]
pub(crate) struct Log {
    pub created: f64,
    pub level: String,
    pub logger: String,
    pub line: String,
}

/// User code closes the worker.
#[derive(Debug, Deserialize)]
pub(crate) struct Close {
    pub nanny: bool,
    pub reason: String,
}

impl StreamMessage for FromPython {
    fn decode(op: &str, from: &mut Unpacker<'_>) -> Result<FromPython, DecodeError> {
        fn read<T: serde::de::DeserializeOwned>(from: &mut Unpacker<'_>) -> Result<T, DecodeError> {
            T::deserialize(from)
        }
        Ok(match op {
            "ready" => FromPython::Ready(read(from)?),
            "started" => {
                from.skip()?;
                FromPython::Started
            }
            "finished" => FromPython::Finished(read(from)?),
            "erred" => FromPython::Erred(read(from)?),
            "rescheduled" => FromPython::Rescheduled(read(from)?),
            "seceded" => FromPython::Seceded(read(from)?),
            "reply" => FromPython::Reply(read(from)?),
            "scattered" => FromPython::Scattered(read(from)?),
            "set-resources" => FromPython::SetResources(read(from)?),
            "load" => FromPython::Load(read(from)?),
            "log-event" => FromPython::LogEvent(read(from)?),
            "handlers" => FromPython::Handlers(read(from)?),
            "log" => FromPython::Log(read(from)?),
            "task_processes" => FromPython::TaskProcesses(read(from)?),
            "close" => FromPython::Close(read(from)?),
            other => return Err(DecodeError::Body(format!("unknown op {other:?} from the Python process"))),
        })
    }

    fn op(&self) -> &'static str {
        match self {
            FromPython::Ready(_) => "ready",
            FromPython::Started => "started",
            FromPython::Finished(_) => "finished",
            FromPython::Erred(_) => "erred",
            FromPython::Rescheduled(_) => "rescheduled",
            FromPython::Seceded(_) => "seceded",
            FromPython::Reply(_) => "reply",
            FromPython::Scattered(_) => "scattered",
            FromPython::SetResources(_) => "set-resources",
            FromPython::Load(_) => "load",
            FromPython::LogEvent(_) => "log-event",
            FromPython::Handlers(_) => "handlers",
            FromPython::Log(_) => "log",
            FromPython::TaskProcesses(_) => "task_processes",
            FromPython::Close(_) => "close",
        }
    }
}

/// One value of a `measure` reply.
#[derive(Debug)]
pub(crate) struct Measured {
    pub nbytes: i64,
    pub copy: Option<Payload>,
}

/// Reads a `measure` reply; keys the process did not answer for are left out.
pub(crate) fn measured(reply: Value) -> Vec<(Key, Measured)> {
    let Value::Map(entries) = reply else { return Vec::new() };
    let read = |(key, value): (Value, Value)| {
        let nbytes = value.get("nbytes")?.as_i64()?;
        let copy = match value.get("value") {
            Some(Value::Payload(payload)) => Some(payload.clone()),
            _ => None,
        };
        Some((key.to_key()?, Measured { nbytes, copy }))
    };
    entries.into_iter().filter_map(read).collect()
}

/// Reads a `fetch` reply.
pub(crate) fn fetched(reply: Value) -> Vec<(Key, Payload)> {
    let Value::Map(entries) = reply else { return Vec::new() };
    let read = |(key, value): (Value, Value)| match value {
        Value::Payload(payload) => Some((key.to_key()?, payload)),
        _ => None,
    };
    entries.into_iter().filter_map(read).collect()
}
