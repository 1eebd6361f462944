//! What the Python process reports, turned into events.

use std::process::ExitStatus;
use std::sync::{Arc, PoisonError};

use dask_protocol::logs::LogRecord;
use dask_protocol::message::{ErrorInfo, StartStop};
use dask_protocol::{Key, Value};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::metrics::Label;
use super::monitor::resident_bytes;
use super::shared::{Input, Shared, stimulus};
use super::{Closed, End, spilling};
use crate::executor::python::message::{
    Close, Erred, Finished, FromPython, Log, Measured, Scattered, SetResources, ToPython, measured,
};
use crate::executor::{self, python::PythonReader};
use crate::state::{Event, ExecuteOutcome};
use crate::store::Stored;

/// The task that reads what the Python process says.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Makes it stop and give the reader back.
    pub stop: CancellationToken,
    pub task: JoinHandle<Option<PythonReader>>,
}

/// Starts to read what the Python process says.
pub(crate) fn start(shared: &Arc<Shared>, reader: PythonReader) {
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(Arc::clone(shared), reader, stop.clone()));
    *shared.python_reading.lock().unwrap_or_else(PoisonError::into_inner) = Some(Reading { stop, task });
}

/// Reads until the process ends. Its end is the worker's: a task took it down, and the scheduler must count that.
async fn run(shared: Arc<Shared>, mut reader: PythonReader, stop: CancellationToken) -> Option<PythonReader> {
    let status = loop {
        let next = tokio::select! {
            next = reader.next() => next,
            // Closing is over, so whatever Python still does is not wanted any more. Dropping the reader kills it.
            () = shared.stop.cancelled() => return None,
            // Another process takes its place.
            () = stop.cancelled() => return Some(reader),
        };
        match next {
            Ok(batch) => batch.into_iter().for_each(|message| take(&shared, message)),
            Err(status) => break status,
        }
    };
    if let Some(python) = shared.python() {
        python.forget_waiting();
    }
    if !shared.is_closing() {
        report_end(&shared, status);
    }
    None
}

fn report_end(shared: &Shared, status: ExitStatus) {
    error!(target: "distributed.worker", "The Python process of worker {} ended ({status}); the worker ends with it",
           shared.identity.address);
    shared.request_close(Closed { reason: format!("python-process-ended: {status}"), end: End::Died(status) });
}

fn take(shared: &Arc<Shared>, message: FromPython) {
    match message {
        FromPython::Finished(finished) => finish(shared, finished),
        FromPython::Erred(erred) => fail(shared, erred),
        FromPython::Rescheduled(it) => {
            done(shared, Vec::new(), it.key, it.run_id, ExecuteOutcome::Reschedule, "reschedule");
        }
        FromPython::Seceded(it) => shared.notify(Event::Seceded {
            key: it.key,
            compute_duration: it.compute_duration,
            stimulus_id: stimulus("secede"),
        }),
        FromPython::Reply(reply) => {
            if let Some(python) = shared.python() {
                python.replied(reply);
            }
        }
        FromPython::Scattered(it) => scattered(shared, it),
        FromPython::SetResources(SetResources { id, resources }) => {
            shared.notify(Event::SetResources { resources, stimulus_id: stimulus("set-resources") });
            note(shared, id);
        }
        FromPython::Load(it) => {
            if let Some(asker) = shared.python() {
                tokio::spawn(spilling::serve_load(Arc::clone(shared), asker, it.id, it.key));
            }
        }
        FromPython::LogEvent(event) => shared.send(event),
        FromPython::Handlers(handlers) => {
            let mut known = shared.plugin_handlers.write().unwrap_or_else(PoisonError::into_inner);
            known.calls = handlers.calls;
            known.stream = handlers.stream;
        }
        FromPython::Log(Log { created, level, logger, line }) => {
            shared.logs.push(LogRecord { created, level: level_name(&level), logger, line });
        }
        FromPython::TaskProcesses(it) => {
            *shared.task_processes.lock().unwrap_or_else(PoisonError::into_inner) = it.pids;
        }
        FromPython::Close(Close { nanny, reason }) => {
            let end = if nanny { End::Leaving } else { End::Restarting };
            shared.request_close(Closed { reason, end });
        }
        FromPython::Started => {}
        FromPython::Ready(_) => warn!(target: "distributed.worker", "the Python process introduced itself twice"),
    }
}

/// Python's own names, those between the usual ones rounded down.
fn level_name(level: &str) -> &'static str {
    match level {
        "CRITICAL" => "CRITICAL",
        "ERROR" => "ERROR",
        "WARNING" => "WARNING",
        "DEBUG" => "DEBUG",
        _ => "INFO",
    }
}

fn finish(shared: &Arc<Shared>, it: Finished) {
    let wall = (it.stop - it.start).max(0.0);
    let span = it.span_id.as_deref();
    shared.metrics.executed(&it.key, span, Label::ThreadCpu, it.cpu.min(wall));
    shared.metrics.executed(&it.key, span, Label::ThreadNonCpu, (wall - it.cpu).max(0.0));
    let startstops = vec![compute(shared, it.start, it.stop)];
    if let Some(reason) = refusal(shared, &it) {
        let text = format!("task {:?} ran on worker {}, but {reason}", it.key, shared.identity.address);
        error!(target: "distributed.worker", "Compute Failed\nKey:       {}\nException: MemoryError: {text}", it.key);
        let error = executor::describe("MemoryError", &text);
        executor::drop_in_python(shared, vec![it.key.clone()]);
        let outcome = ExecuteOutcome::Failure { error, thread: it.thread, startstops };
        return done(shared, Vec::new(), it.key, it.run_id, outcome, "task-erred");
    }
    let outcome = ExecuteOutcome::Success {
        nbytes: it.nbytes,
        typename: it.typename,
        type_pickle: it.type_pickle,
        value: None,
        metadata: Value::Map(Vec::new()),
        thread: it.thread,
        startstops,
    };
    let stored = if it.actor { Stored::actor(it.nbytes, it.value) } else { Stored::python(it.nbytes, it.value) };
    let values = vec![(it.key.clone(), stored)];
    done(shared, values, it.key, it.run_id, outcome, "task-finished");
}

/// Why a result cannot be kept. Small ones always are.
fn refusal(shared: &Shared, it: &Finished) -> Option<String> {
    let spilling = shared.spilling.as_ref().filter(|_| it.value.is_none())?;
    spilling.refusal(|| resident_bytes(&shared.python_pids()), it.nbytes)
}

fn fail(shared: &Arc<Shared>, it: Erred) {
    shared.metrics.executed(&it.key, it.span_id.as_deref(), Label::Failed, (it.stop - it.start).max(0.0));
    let error = ErrorInfo {
        exception: it.exception,
        traceback: it.traceback,
        exception_text: it.exception_text.into(),
        traceback_text: it.traceback_text.into(),
    };
    let startstops = vec![compute(shared, it.start, it.stop)];
    let outcome = ExecuteOutcome::Failure { error, thread: it.thread, startstops };
    done(shared, Vec::new(), it.key, it.run_id, outcome, "task-erred");
}

/// A task scatters onto its own worker. The scheduler learns of it from the task's client, once this is acknowledged.
fn scattered(shared: &Arc<Shared>, it: Scattered) {
    let stored = |(key, value): (Key, Measured)| (key, Stored::python(value.nbytes, value.copy).scattered());
    let values: Vec<(Key, Stored)> = measured(it.data).into_iter().map(stored).collect();
    let data = values.iter().map(|(key, value)| (key.clone(), value.nbytes)).collect();
    shared.notify_with(values, Event::DataStored { data, report: false, stimulus_id: stimulus("update-data") });
    note(shared, it.id);
}

/// Tells the Python process that what was said before is on the books, in one order with what else it is told.
fn note(shared: &Arc<Shared>, id: u64) {
    let noted = Arc::clone(shared);
    let acknowledge = move || {
        if let Some(python) = noted.python() {
            python.tell(ToPython::Noted { id });
        }
        Vec::new()
    };
    // Nobody waits once the driver has ended.
    shared.inbox.send(Input::Step(Box::new(acknowledge)));
}

fn compute(shared: &Shared, start: f64, stop: f64) -> StartStop {
    let delay = shared.clock.delay();
    StartStop { action: "compute".into(), start: start + delay, stop: stop + delay, source: None }
}

fn done(shared: &Shared, values: Vec<(Key, Stored)>, key: Key, run_id: i64, outcome: ExecuteOutcome, what: &str) {
    if !shared.end_python_run(&key, run_id) {
        // Given up: nobody waits for it, and nobody would ever drop its value.
        drop_unwanted(shared, values);
        return;
    }
    shared.notify_with(values, Event::ExecuteDone { key, run_id, outcome, stimulus_id: stimulus(what) });
}

fn drop_unwanted(shared: &Shared, values: Vec<(Key, Stored)>) {
    let keys: Vec<Key> = values.into_iter().map(|(key, _)| key).filter(|key| shared.store.get(key).is_none()).collect();
    if !keys.is_empty() {
        executor::drop_in_python(shared, keys);
    }
}
