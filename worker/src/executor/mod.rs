//! Where tasks run: native ones on our threads, all others in the Python process.

pub(crate) mod fate;
mod held;
pub(crate) mod native;
pub mod python;
pub(crate) mod replace;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use dask_protocol::message::{ErrorInfo, RunId, StartStop};
use dask_protocol::native::{NativeArg, NativeCall, is_native};
use dask_protocol::pickle::{builtin_exception, read_native_task};
use dask_protocol::{Key, Payload, PayloadKind, Value};
use rustc_hash::FxHashMap;

use crate::native::{ArgSlot, Brief, Call, NativeError, TaskContext};
use crate::server::metrics::Label;
use crate::server::shared::{Shared, stimulus};
use crate::server::spilling;
use crate::spill::SpillError;
use crate::state::{Event, ExecuteOutcome};
use crate::store::Stored;
use native::{Job, Outcome};
use python::message::{Execute, ToPython};

/// One execution, as the state decided it.
#[derive(Debug)]
pub(crate) struct Task {
    pub key: Key,
    pub run_id: RunId,
    pub spec: Payload,
    pub dependencies: Vec<Key>,
    pub annotations: Value,
    pub actor: bool,
    pub span_id: Option<String>,
}

/// Starts a task. Ends in one `ExecuteDone`.
pub(crate) fn execute(shared: &Arc<Shared>, task: Task) {
    let spec = task.spec.clone();
    match native_call(&spec) {
        Ok(Some(call)) => execute_native(shared, task, call),
        Ok(None) => execute_in_python(shared, task),
        Err(message) => fail(shared, &task, "TypeError", &message),
    }
}

/// The native call that a task makes, whether a Rust client wrote it or a Python one.
fn native_call(spec: &Payload) -> Result<Option<Cow<'_, NativeCall>>, String> {
    if let Some(call) = spec.as_call() {
        return Ok(Some(Cow::Borrowed(call)));
    }
    if spec.kind() == PayloadKind::Serialized && is_native(spec).unwrap_or(false) {
        return NativeCall::from_payload(spec).map(|call| Some(Cow::Owned(call))).map_err(|error| error.to_string());
    }
    let Some(pickle) = spec.sub_header().ok().and_then(|header| header.pickled_obj) else { return Ok(None) };
    Ok(read_native_task(&pickle, &spec.logical_frames().unwrap_or_default())?.map(Cow::Owned))
}

/// Asks a task that nobody wants any more to end, unless users want such tasks to be left alone.
pub(crate) fn cancel(shared: &Shared, key: Key, run_id: RunId) {
    if shared.interrupts_cancelled {
        interrupt_run(shared, key, run_id, None);
    }
}

/// Asks a task over its limit in seconds to end.
pub(crate) fn interrupt(shared: &Shared, key: Key, run_id: RunId, limit: f64) {
    tracing::warn!(target: "distributed.worker", "Task {key} is over its timeout of {limit} s; interrupting it");
    interrupt_run(shared, key, run_id, Some(limit));
}

fn interrupt_run(shared: &Shared, key: Key, run_id: RunId, limit: Option<f64>) {
    if shared.runs_in_python(&key, run_id) {
        if let Some(python) = shared.python() {
            python.tell(ToPython::Interrupt { key, run_id, limit });
        }
    } else {
        shared.native.cancel(&key, run_id, limit);
    }
}

/// Drops values in the Python process.
pub(crate) fn drop_in_python(shared: &Shared, keys: Vec<Key>) {
    if let Some(python) = shared.python() {
        python.tell(ToPython::Drop { keys });
    }
}

/// Passes a message of the scheduler's stream to the plugin that handles its op, if there is one.
pub(crate) fn forward_stream(shared: &Shared, op: &str, message: Value) {
    let wanted = shared.plugin_handlers().stream.iter().any(|name| name == op);
    if let (true, Some(python)) = (wanted, shared.python()) {
        python.tell(ToPython::Stream { message });
    }
}

fn execute_in_python(shared: &Arc<Shared>, task: Task) {
    let Some(python) = shared.python() else {
        let message = format!(
            "task {} needs Python, but worker {} has no Python with dask.distributed; start the worker with --python",
            task.key, shared.identity.address
        );
        return fail(shared, &task, "RuntimeError", &message);
    };
    let (mut data, mut away) = (Vec::new(), Vec::new());
    for key in &task.dependencies {
        let Some(stored) = shared.store.get(key) else { continue };
        shared.store.used(key, &stored);
        if stored.in_python {
            continue;
        }
        if !stored.is_in_memory() {
            away.push((key.clone(), stored));
            continue;
        }
        match outside_python(stored) {
            Ok(payload) => data.push((key.clone(), payload)),
            Err(error) => return fail(shared, &task, "TypeError", &error.to_string()),
        }
    }
    shared.begin_python_run(&task.key, task.run_id);
    if !away.is_empty() {
        return held::begin(shared, task, data, away);
    }
    let handed: Vec<Key> = data.iter().map(|(key, _)| key.clone()).collect();
    let Task { key, run_id, spec, dependencies, annotations, actor, span_id } = task;
    if actor {
        shared.bind_python();
    }
    let data = data.into_iter().collect();
    python.tell(ToPython::Execute(Execute { key, run_id, spec, dependencies, data, annotations, actor, span_id }));
    // Only now: whoever finds no serialised form here asks Python, and that question must come behind the values.
    for key in &handed {
        shared.store.handed_to_python(key);
    }
}

/// The form in which Python can read a value that is in memory and that it does not have.
fn outside_python(stored: Stored) -> Result<Payload, NativeError> {
    match (stored.payload, stored.native) {
        (Some(payload), _) => Ok(payload),
        (None, Some(value)) => value.to_payload(),
        (None, None) => unreachable!("one of the two is what is in memory"),
    }
}

fn execute_native(shared: &Arc<Shared>, task: Task, call: Cow<'_, NativeCall>) {
    let function = match shared.registry.lookup(&call.function) {
        Ok(function) => (function.call(), function.as_brief()),
        Err(error) => return fail(shared, &task, "RuntimeError", &error.to_string()),
    };
    // Taken now: the state may drop values while the task waits for a thread.
    let mut found: FxHashMap<Key, Stored> =
        task.dependencies.iter().filter_map(|key| Some((key.clone(), shared.store.get(key)?))).collect();
    found.iter().for_each(|(key, stored)| shared.store.used(key, stored));
    let elsewhere: Vec<Key> = found
        .iter()
        .filter(|(_, it)| it.native.is_none() && it.payload.is_none())
        .map(|(key, _)| key.clone())
        .collect();
    if elsewhere.is_empty() {
        return submit(shared, task, function, &call, &found);
    }
    let (shared, call) = (Arc::clone(shared), call.into_owned());
    tokio::spawn(async move {
        match bring(&shared, elsewhere, &mut found).await {
            Ok(()) => {
                submit(&shared, task, function, &call, &found);
                shared.native.announce();
            }
            Err((key, failure)) => {
                let text = held::unreadable(&shared, &task.key, &key, &failure);
                if found[&key].is_scattered {
                    fail(&shared, &task, "OSError", &text);
                    spilling::lose(&shared, &key, &found[&key], &failure);
                } else {
                    spilling::lose(&shared, &key, &found[&key], &failure);
                    finish(&shared, Vec::new(), &task, ExecuteOutcome::Reschedule);
                }
            }
        }
    });
}

/// Adds serialised forms to values that are on disk or in Python.
async fn bring(
    shared: &Arc<Shared>,
    mut keys: Vec<Key>,
    found: &mut FxHashMap<Key, Stored>,
) -> Result<(), (Key, SpillError)> {
    for (key, stored) in found.iter_mut().filter(|(key, _)| keys.contains(key)) {
        let (Some(disk), false, Some(spilling)) = (&stored.disk, stored.in_python, &shared.spilling) else { continue };
        let _room = spilling.make_room(&shared.store, stored.nbytes).await;
        match spilling::read(shared, Arc::clone(disk)).await {
            Ok(payload) => {
                shared.store.back_in_memory(key, stored, payload.clone());
                stored.payload = Some(payload);
            }
            Err(failure) => return Err((key.clone(), failure)),
        }
    }
    keys.retain(|key| found[key].payload.is_none());
    for (key, payload) in shared.payloads(&keys).await {
        if let Some(stored) = found.get_mut(&key) {
            stored.payload = Some(payload);
        }
    }
    Ok(())
}

/// What is called, and whether it needs no thread of its own.
type Function = (Call, Option<&'static Brief>);

fn submit(
    shared: &Arc<Shared>,
    task: Task,
    (function, brief): Function,
    call: &NativeCall,
    found: &FxHashMap<Key, Stored>,
) {
    let args = match call.args.iter().map(|arg| slot(arg, found)).collect::<Result<Vec<_>, _>>() {
        Ok(args) => args,
        Err(message) => return fail(shared, &task, "KeyError", &message),
    };
    let (run_id, tells_result) = (task.run_id, call.tells_result);
    let context = TaskContext::new(shared, task.key.clone(), run_id);
    let done_shared = Arc::clone(shared);
    let done = Box::new(move |outcome: Outcome| native_done(&done_shared, &task, outcome, tells_result));
    shared.native.submit(Job { call: function, brief, context, args, done });
}

fn slot(arg: &NativeArg, found: &FxHashMap<Key, Stored>) -> Result<ArgSlot, String> {
    match arg {
        NativeArg::Value(packed) => Ok(ArgSlot::Inline(packed.clone())),
        NativeArg::Future(key) => match found.get(key) {
            Some(Stored { native: Some(value), .. }) => Ok(ArgSlot::Native(value.clone())),
            Some(Stored { payload: Some(payload), .. }) => Ok(ArgSlot::Payload(payload.clone())),
            Some(_) | None => Err(format!("dependency {key} is not on this worker")),
        },
        NativeArg::List(items) => {
            items.iter().map(|item| slot(item, found)).collect::<Result<_, _>>().map(ArgSlot::List)
        }
        NativeArg::Map(entries) => {
            let entry = |(key, arg): &(Bytes, NativeArg)| Ok((key.clone(), slot(arg, found)?));
            entries.iter().map(entry).collect::<Result<_, _>>().map(ArgSlot::Map)
        }
    }
}

fn native_done(shared: &Arc<Shared>, task: &Task, outcome: Outcome, tells_result: bool) {
    let delay = shared.clock.delay();
    let label = if outcome.result.is_ok() { Label::ThreadCpu } else { Label::Failed };
    shared.metrics.executed(&task.key, task.span_id.as_deref(), label, outcome.stop - outcome.start);
    let startstops = vec![StartStop {
        action: "compute".into(),
        start: outcome.start + delay,
        stop: outcome.stop + delay,
        source: None,
    }];
    let thread = Value::from(outcome.thread);
    let (values, ended) = match outcome.result {
        Ok(value) => {
            let typename = value.type_name().into();
            let told = if tells_result { value.told() } else { None };
            let stored = Stored::native(value);
            let nbytes = stored.nbytes;
            let success = ExecuteOutcome::Success {
                nbytes,
                typename,
                type_pickle: None,
                metadata: Value::Map(Vec::new()),
                thread,
                startstops,
                value: told,
            };
            (vec![(task.key.clone(), stored)], success)
        }
        Err(error) => {
            tracing::error!(target: "distributed.worker", "Compute Failed\nKey:       {}\nException: {error}", task.key);
            let mut info = match outcome.overdue {
                None => describe("RuntimeError", &error.to_string()),
                Some(limit) => overdue_error(shared, &task.key, limit, &error),
            };
            if let NativeError::Panicked { backtrace: Some(backtrace), .. } = error {
                // A text: Python clients pass over it, ours show it.
                info.traceback = Value::Str(backtrace.clone());
                info.traceback_text = backtrace.into();
            }
            (Vec::new(), ExecuteOutcome::Failure { error: info, thread, startstops })
        }
    };
    shared.notify_soon(values, execute_done(task, ended));
}

/// What the client gets for a task that ended in an error when it was told that it is over its limit in seconds.
fn overdue_error(shared: &Shared, key: &Key, limit: f64, error: &NativeError) -> ErrorInfo {
    let worker = &shared.identity.address;
    let text =
        format!("task {key:?} on worker {worker} ran longer than its timeout of {limit} s; it ended with: {error}");
    describe("TimeoutError", &text)
}

fn fail(shared: &Arc<Shared>, task: &Task, class: &str, message: &str) {
    tracing::error!(target: "distributed.worker", "Compute Failed\nKey:       {}\nException: {class}: {message}", task.key);
    let error = describe(class, message);
    finish(shared, Vec::new(), task, ExecuteOutcome::Failure { error, thread: Value::Nil, startstops: Vec::new() });
}

/// A builtin exception that Python clients raise and Rust clients read.
pub(crate) fn describe(class: &str, message: &str) -> ErrorInfo {
    let exception = builtin_exception(class, message);
    ErrorInfo {
        exception: exception.pickle.into(),
        traceback: Value::Nil,
        exception_text: exception.text.into(),
        traceback_text: "".into(),
    }
}

fn finish(shared: &Arc<Shared>, values: Vec<(Key, Stored)>, task: &Task, outcome: ExecuteOutcome) {
    shared.notify_with(values, execute_done(task, outcome));
}

fn execute_done(task: &Task, outcome: ExecuteOutcome) -> Event {
    let (key, run_id) = (task.key.clone(), task.run_id);
    let what = match &outcome {
        ExecuteOutcome::Success { .. } => "task-finished",
        ExecuteOutcome::Failure { .. } => "task-erred",
        ExecuteOutcome::Reschedule => "reschedule",
    };
    Event::ExecuteDone { key, run_id, outcome, stimulus_id: stimulus(what) }
}
