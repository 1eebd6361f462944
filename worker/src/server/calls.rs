//! The remote calls a worker answers (upstream's `Worker.handlers`).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use dask_protocol::comm::Comm;
use dask_protocol::logs::GetLogs;
use dask_protocol::message::{ErrorReply, Keys, Pairs, Request, StimulusId};
use dask_protocol::{Address, DecodeError, Key, Payload, Value};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Closed;
use super::benchmark;
use super::serve_data;
use super::shared::{Shared, arrived, error_reply, stimulus};
use super::transfer::{Ended, Transfer};
use crate::executor::python::PythonError;
use crate::state::Event;

/// What becomes of a request.
pub(crate) enum Answer {
    /// Send this, if the caller wants a reply.
    Reply(Value),
    /// The exchange is over.
    Done,
    /// Close the connection.
    Close,
}

/// A call that failed.
enum Failed {
    /// The exception the caller gets.
    Raised(Box<ErrorReply>),
    /// The Python process died, and the worker will with it. The caller gets what a dead worker answers, a broken
    /// connection: clients know what to make of that (those of actors wait for ever after any exception).
    Gone,
}

impl From<PythonError> for Failed {
    fn from(error: PythonError) -> Failed {
        match error {
            PythonError::Gone => Failed::Gone,
            PythonError::Unusable(_) => Failed::new("RuntimeError", &error.to_string()),
        }
    }
}

impl From<DecodeError> for Failed {
    fn from(error: DecodeError) -> Failed {
        Failed::new("TypeError", &error.to_string())
    }
}

impl Failed {
    fn new(class: &str, message: &str) -> Failed {
        Failed::Raised(Box::new(error_reply(class, message)))
    }
}

/// Answers one request.
pub(crate) async fn answer(shared: &Arc<Shared>, comm: &mut Comm, request: &Request) -> Answer {
    let answered = match request.op() {
        "get_data" => return serve_data::answer(shared, comm, request).await,
        "close" => {
            // The reply, if wanted, is all that is left to say.
            if request.reply {
                let _ = comm.send_value("OK").await;
            }
            return Answer::Close;
        }
        op => dispatch(shared, op, comm.peer().clone(), request).await,
    };
    match answered {
        Ok(reply) => Answer::Reply(reply),
        Err(Failed::Raised(reply)) => Answer::Reply(error_value(*reply)),
        Err(Failed::Gone) => Answer::Close,
    }
}

fn error_value(reply: ErrorReply) -> Value {
    Value::map([
        ("status", reply.status.into()),
        ("exception", reply.exception),
        ("traceback", reply.traceback),
        ("exception_text", reply.exception_text.into()),
        ("traceback_text", reply.traceback_text.into()),
    ])
}

async fn dispatch(shared: &Arc<Shared>, op: &str, peer: Address, request: &Request) -> Result<Value, Failed> {
    match op {
        "ping" => Ok(Value::Bin(bytes::Bytes::from_static(b"pong"))),
        "echo" => echo(request),
        "identity" => Ok(identity(shared)),
        "keys" => Ok(Value::Array(shared.store.keys().iter().map(Value::from).collect())),
        "gather" => gather_keys(shared, request).await,
        "update_data" => update_data(shared, request).await,
        "free_keys" => free_keys(shared, request),
        "get_logs" => Ok(request.args::<GetLogs>()?.reply(&shared.logs, "distributed")),
        "get_monitor_info" => monitor_info(shared, request),
        "get_story" => story(shared, request).await,
        "dump_state" => Ok(dump_state(shared).await),
        "profile" if shared.python().is_none() => Ok(empty_profile()),
        "profile_metadata" if shared.python().is_none() => {
            Ok(Value::map(["counts", "keys"].map(|name| (name, Value::Array(Vec::new())))))
        }
        "terminate" => terminate(shared, request),
        "benchmark_disk" => benchmark_disk(shared).await,
        "benchmark_memory" => in_background(benchmark::memory).await,
        "benchmark_network" => benchmark_network(shared, request).await,
        "versions" if shared.python().is_none() => Ok(shared.versions.clone()),
        "run" | "run_coroutine" | "actor_execute" | "actor_attribute" | "plugin-add" | "plugin-remove"
        | "upload_file" | "call_stack" | "versions" | "profile" | "profile_metadata" => {
            to_python(shared, op, peer, request).await
        }
        other if shared.plugin_handlers().calls.iter().any(|name| name == other) => {
            to_python(shared, op, peer, request).await
        }
        other => {
            tracing::warn!(target: "distributed.core", "No handler {other} found in Worker");
            let message = format!("worker {} has no handler {other:?}", shared.identity.address);
            Err(Failed::new("NotImplementedError", &message))
        }
    }
}

/// Forwards the whole request to the Python process.
async fn to_python(shared: &Shared, op: &str, peer: Address, request: &Request) -> Result<Value, Failed> {
    let Some(python) = shared.python() else {
        let message = format!("{op:?} needs Python, and worker {} runs native tasks only", shared.identity.address);
        return Err(Failed::new("RuntimeError", &message));
    };
    let whole: Value = request.args()?;
    shared.note_plugin_request(&whole);
    if op.starts_with("shuffle_") {
        shared.bind_python();
    }
    Ok(python.request(whole, peer).await?)
}

fn args<T: DeserializeOwned>(request: &Request) -> Result<T, Failed> {
    request.args().map_err(Failed::from)
}

fn echo(request: &Request) -> Result<Value, Failed> {
    #[derive(Deserialize)]
    struct Echo {
        #[serde(default)]
        data: Value,
    }
    Ok(args::<Echo>(request)?.data)
}

fn identity(shared: &Shared) -> Value {
    let identity = &shared.identity;
    Value::map([
        ("type", "Worker".into()),
        ("id", identity.name.clone()),
        ("scheduler", identity.scheduler.as_str().into()),
        ("nthreads", i64::from(identity.nthreads).into()),
        ("memory_limit", identity.memory_limit.into()),
    ])
}

/// Stores scattered values.
async fn update_data(shared: &Shared, request: &Request) -> Result<Value, Failed> {
    #[derive(Deserialize)]
    struct UpdateData {
        data: Pairs<Key, Value>,
        #[serde(default)]
        stimulus_id: Option<StimulusId>,
    }
    let UpdateData { data, stimulus_id } = args(request)?;
    let payloads =
        data.into_iter().map(|(key, value)| Ok((key, as_payload(value)?))).collect::<Result<Vec<_>, Failed>>()?;
    let values = shared.take_in(payloads).await?;
    let values: Vec<_> = values.into_iter().map(|(key, value)| (key, value.scattered())).collect();
    let sizes: Vec<(Key, i64)> = values.iter().map(|(key, value)| (key.clone(), value.nbytes)).collect();
    let nbytes = sizes.iter().map(|(key, nbytes)| (Value::from(key), Value::from(*nbytes))).collect();
    let stimulus_id = stimulus_id.unwrap_or_else(|| stimulus("update-data"));
    // The scheduler learns of scattered keys from whoever scattered them.
    shared.notify_with(values, Event::DataStored { data: sizes, report: false, stimulus_id });
    // Whoever scattered may ask for the value at once.
    shared.ask(|_| ()).await;
    Ok(Value::map([("nbytes", Value::Map(nbytes)), ("status", "OK".into())]))
}

/// A scattered value as it is stored; plain msgpack values are packed as such.
fn as_payload(value: Value) -> Result<Payload, Failed> {
    match value {
        Value::Payload(payload) => Ok(payload),
        plain => dask_protocol::native::pack_value(&plain).map_err(|e| Failed::new("TypeError", &e.to_string())),
    }
}

fn free_keys(shared: &Shared, request: &Request) -> Result<Value, Failed> {
    #[derive(Deserialize)]
    struct FreeKeys {
        keys: Keys,
        #[serde(default)]
        stimulus_id: Option<StimulusId>,
    }
    let FreeKeys { keys, stimulus_id } = args(request)?;
    let stimulus_id = stimulus_id.unwrap_or_else(|| stimulus("free-keys"));
    shared.notify(Event::FreeKeys { keys: keys.0, stimulus_id });
    Ok(Value::Nil)
}

/// Fetches keys from peers on the scheduler's behalf (rebalance, replicate).
async fn gather_keys(shared: &Shared, request: &Request) -> Result<Value, Failed> {
    #[derive(Deserialize)]
    struct Gather {
        who_has: Pairs<Key, Vec<Address>>,
    }
    let Gather { who_has } = args(request)?;
    let mut holders: HashMap<Key, Vec<Address>> =
        who_has.into_iter().filter(|(key, _)| shared.store.get(key).is_none()).collect();
    // Every round drops one holder of each key still missing, so this ends.
    while holders.values().any(|left| !left.is_empty()) {
        let mut by_peer: HashMap<Address, Vec<Key>> = HashMap::new();
        for (key, left) in &mut holders {
            if let Some(peer) = left.pop() {
                by_peer.entry(peer).or_default().push(key.clone());
            }
        }
        let mut arrivals = Vec::new();
        for (peer, keys) in by_peer {
            arrivals.extend(fetch_patiently(shared, &peer, &keys).await);
        }
        for (key, _) in &arrivals {
            holders.remove(key);
        }
        let values: Vec<_> = arrivals.into_iter().map(arrived).collect();
        let data = values.iter().map(|(key, value)| (key.clone(), value.nbytes)).collect();
        shared.notify_with(values, Event::DataStored { data, report: false, stimulus_id: stimulus("gather") });
        shared.ask(|_| ()).await;
    }
    if holders.is_empty() {
        return Ok(Value::map([("status", "OK".into())]));
    }
    let failed: Vec<Value> = holders.keys().map(Value::from).collect();
    tracing::error!(target: "distributed.worker", "Could not find data: {failed:?}");
    Ok(Value::map([("status", "partial-fail".into()), ("keys", Value::Array(failed))]))
}

/// Asks a peer until it is not busy any more; what came when it cannot be reached.
async fn fetch_patiently(shared: &Shared, peer: &Address, keys: &[Key]) -> Vec<(Key, Payload)> {
    const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(150);
    const ATTEMPTS_MAX: u32 = 200;
    let mut transfer = Transfer::in_messages(peer.clone(), keys.to_vec());
    for _ in 0..ATTEMPTS_MAX {
        match transfer.run(shared).await {
            Ok(Ended::Answered(_)) => break,
            Ok(Ended::Busy) => tokio::time::sleep(BUSY_PAUSE).await,
            Err(error) => {
                tracing::warn!(target: "distributed.worker", %peer, %error, "could not gather");
                break;
            }
        }
    }
    transfer.into_values()
}

/// Runs what blocks on a thread of its own.
async fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failed> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|stopped| Failed::new("RuntimeError", &stopped.to_string()))
}

async fn benchmark_disk(shared: &Shared) -> Result<Value, Failed> {
    let directory = shared.identity.local_directory.clone();
    let measured = in_background(move || benchmark::disk(&directory)).await?;
    measured.map_err(|error| Failed::new("OSError", &format!("the worker's directory cannot be written: {error}")))
}

async fn benchmark_network(shared: &Shared, request: &Request) -> Result<Value, Failed> {
    #[derive(Deserialize)]
    struct Network {
        address: Address,
    }
    let Network { address } = args(request)?;
    let measured = benchmark::network(&shared.pool, &address).await;
    measured.map_err(|error| Failed::new("OSError", &format!("worker {address} does not answer: {error}")))
}

fn monitor_info(shared: &Shared, request: &Request) -> Result<Value, Failed> {
    #[derive(Deserialize)]
    struct MonitorInfo {
        #[serde(default)]
        start: u64,
    }
    let MonitorInfo { start } = args(request)?;
    let monitor = shared.monitor.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Value::map([
        ("range_query", monitor.range(start)),
        ("count", monitor.count().into()),
        ("last_time", monitor.recent().time.into()),
    ]))
}

async fn story(shared: &Shared, request: &Request) -> Result<Value, Failed> {
    #[derive(Deserialize)]
    struct Story {
        keys_or_stimuli: Vec<Value>,
    }
    let Story { keys_or_stimuli } = args(request)?;
    let keys: Vec<Key> = keys_or_stimuli.iter().filter_map(Value::to_key).collect();
    let stimuli: Vec<String> = keys_or_stimuli.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let rows = shared.ask(move |state| state.story(&keys, &stimuli).cloned().collect::<Vec<_>>()).await;
    Ok(Value::Array(rows.unwrap_or_default().iter().map(|row| story_row(shared, row)).collect()))
}

fn story_row(shared: &Shared, row: &crate::state::StoryRow) -> Value {
    let time = shared.clock.moment(row.time);
    Value::Array(vec![(&row.key).into(), format!("{:?}", row.what).into(), (*row.stimulus_id).into(), time.into()])
}

async fn dump_state(shared: &Shared) -> Value {
    let tasks = shared.ask(|state| {
        let row = |(key, task): (&Key, crate::state::TaskState)| {
            (Value::from(key), Value::map([("key", key.into()), ("state", task.name().into())]))
        };
        (state.tasks().map(row).collect::<Vec<_>>(), state.executing_count(), state.executed_count())
    });
    let (tasks, executing, executed) = tasks.await.unwrap_or_default();
    let identity = &shared.identity;
    Value::map([
        ("type", "Worker".into()),
        ("id", identity.id.as_str().into()),
        ("address", identity.address.as_str().into()),
        ("name", identity.name.clone()),
        ("status", shared.status().name().into()),
        ("nthreads", i64::from(identity.nthreads).into()),
        ("memory_limit", identity.memory_limit.into()),
        ("local_directory", identity.local_directory.display().to_string().into()),
        ("executing_count", i64::from(executing).into()),
        ("executed_count", executed.into()),
        ("managed_bytes", shared.store.nbytes().into()),
        ("tasks", Value::Map(tasks)),
    ])
}

/// Without Python there is nothing to profile: the root alone, as `distributed.profile.create` makes it.
fn empty_profile() -> Value {
    let nothing = || Value::Map(Vec::new());
    let texts = ["filename", "name", "line"].map(|name| (name, Value::from("")));
    Value::map([
        ("count", Value::Int(0)),
        ("children", nothing()),
        ("identifier", "root".into()),
        ("description", Value::map(texts.into_iter().chain([("line_number", Value::Int(0))]))),
    ])
}

fn terminate(shared: &Shared, request: &Request) -> Result<Value, Failed> {
    #[derive(Deserialize)]
    struct Terminate {
        #[serde(default)]
        reason: Option<String>,
    }
    let Terminate { reason } = args(request)?;
    shared.request_close(Closed::leaving(reason.unwrap_or_else(|| "worker-terminate".to_owned())));
    Ok("OK".into())
}
