//! Putting another Python process in the place of one that a task does not let go of.
//!
//! The worker stays: its values are brought out of the old process first, its plugins are set up in the new one, and what
//! else ran in the old one is sent back to the scheduler. Where that cannot be, because the process holds actors or takes
//! part in a shuffle, only the task's thread is given up: it leaves its pool, and goes on with nobody waiting.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use dask_protocol::message::RunId;
use dask_protocol::{Key, Value};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use super::describe;
use super::python::message::ToPython;
use super::python::{Python, PythonReader};
use crate::server::python_events;
use crate::server::shared::{Input, Shared, stimulus};
use crate::state::{Event, ExecuteOutcome};

/// How long the old process may take to say whether it can be replaced; one whose lock is held says nothing.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How long bringing its values out may take.
const EVACUATION_WAIT: Duration = Duration::from_secs(60);

/// A task that was interrupted at its limit and runs on.
#[derive(Debug, Clone)]
pub(crate) struct Overdue {
    pub key: Key,
    pub run_id: RunId,
    /// In seconds.
    pub limit: f64,
}

/// What is to be done about the process.
enum Verdict {
    /// Its values can be brought out.
    Replace,
    /// It does not answer: what is only there is lost.
    ReplaceSilent,
    /// It holds what cannot be moved.
    GiveUpThread,
    /// It is gone already.
    Nothing,
}

/// Ends an overdue task for good. Several at a time share one replacement.
pub(crate) fn begin(shared: &Arc<Shared>, overdue: Overdue) {
    if !shared.runs_in_python(&overdue.key, overdue.run_id) {
        return super::native::give_up(shared, &overdue);
    }
    let mut waiting = shared.overdue.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.push(overdue);
    if waiting.len() == 1 {
        tokio::spawn(replace(Arc::clone(shared)));
    }
}

async fn replace(shared: Arc<Shared>) {
    let Some(old) = shared.python() else { return };
    let verdict = judge(&shared, &old).await;
    let replacement = match verdict {
        Verdict::Nothing => return,
        Verdict::GiveUpThread => None,
        Verdict::Replace | Verdict::ReplaceSilent => match start_another(&shared).await {
            Ok(replacement) => Some(replacement),
            Err(reason) => {
                warn!(target: "distributed.worker", "No other Python process could be started: {reason}");
                None
            }
        },
    };
    let Some((new, reader)) = replacement else { return give_up_threads(&shared, &old) };
    if matches!(verdict, Verdict::Replace) {
        evacuate(&shared, &old).await;
    }
    if !shared.overdue_still_runs() {
        info!(target: "distributed.worker", "The overdue task has ended after all; its Python process stays");
        return;
    }
    let Some(retired) = shared.stop_reading_python().await else { return };
    let stage = Arc::clone(&shared);
    let step = move || switch(&stage, new);
    if !shared.inbox.send(Input::Step(Box::new(step))) {
        return;
    }
    python_events::start(&shared, reader);
    old.forget_waiting();
    // Ends the process.
    drop(retired);
}

async fn judge(shared: &Shared, old: &Python) -> Verdict {
    match timeout(ANSWER_WAIT, old.is_replaceable()).await {
        Ok(Ok(true)) => Verdict::Replace,
        Ok(Ok(false)) => Verdict::GiveUpThread,
        Ok(Err(_)) => Verdict::Nothing,
        // What it cannot say itself is known from what it was told.
        Err(_) if shared.python_is_bound() => {
            warn!(
                target: "distributed.worker",
                "The Python process of worker {} does not answer, and holds actors or takes part in a shuffle; the worker ends with it",
                shared.identity.address
            );
            old.kill();
            Verdict::Nothing
        }
        Err(_) => Verdict::ReplaceSilent,
    }
}

async fn start_another(shared: &Arc<Shared>) -> Result<(Arc<Python>, PythonReader), String> {
    let (python, mut reader) = shared.start_python().await.map_err(|error| error.to_string())?;
    let python = Arc::new(python);
    for (name, request) in shared.plugin_requests() {
        let peer = shared.identity.scheduler.clone();
        // Nobody else reads what it says yet.
        let answered = tokio::select! {
            answered = python.request(request, peer) => answered.is_ok(),
            () = answer_only(&python, &mut reader) => false,
        };
        if !answered {
            return Err(format!("it ended while plugin {name} was set up"));
        }
    }
    Ok((python, reader))
}

/// Passes replies on until the process ends.
async fn answer_only(python: &Python, reader: &mut PythonReader) {
    while let Ok(batch) = reader.next().await {
        for message in batch {
            if let super::python::message::FromPython::Reply(reply) = message {
                python.replied(reply);
            }
        }
    }
}

/// Copies what only the old process has.
async fn evacuate(shared: &Shared, old: &Python) {
    let keys = shared.store.only_in_python();
    let (count, deadline) = (keys.len(), Instant::now() + EVACUATION_WAIT);
    let mut kept = 0;
    for key in keys {
        match timeout_at(deadline, old.fetch(vec![key])).await {
            Ok(Ok(fetched)) => {
                for (key, payload) in fetched {
                    let unreadable = payload.sub_header().ok().and_then(|header| header.serializer);
                    if unreadable.as_deref() != Some("error") {
                        shared.store.keep_copy(&key, payload);
                        kept += 1;
                    }
                }
            }
            Ok(Err(_)) | Err(_) => break,
        }
    }
    info!(target: "distributed.worker", "{kept} of {count} values brought out of the Python process");
}

/// In one step of the driver: from here on everything goes to the new process.
fn switch(shared: &Shared, new: Arc<Python>) -> Vec<Event> {
    let overdue = std::mem::take(&mut *shared.overdue.lock().unwrap_or_else(PoisonError::into_inner));
    shared.set_python(new);
    let lost = shared.store.lose_python();
    let runs = shared.take_python_runs();
    warn!(
        target: "distributed.worker",
        "Replaced the Python process of worker {}: {} tasks over their timeout ended, {} others start again, {} values lost",
        shared.identity.address, overdue.len(), runs.len().saturating_sub(overdue.len()), lost.len()
    );
    let mut events = vec![Event::DataLost { keys: lost, stimulus_id: stimulus("executor-replaced") }];
    for (key, run_id) in runs {
        let limit = overdue.iter().find(|it| it.key == key && it.run_id == run_id).map(|it| it.limit);
        let outcome = match limit {
            Some(limit) => overdue_failure(shared, &key, limit, "its Python process was replaced"),
            None => ExecuteOutcome::Reschedule,
        };
        events.push(Event::ExecuteDone { key, run_id, outcome, stimulus_id: stimulus("executor-replaced") });
    }
    events
}

fn give_up_threads(shared: &Shared, old: &Python) {
    let overdue = std::mem::take(&mut *shared.overdue.lock().unwrap_or_else(PoisonError::into_inner));
    for Overdue { key, run_id, limit } in overdue {
        if !shared.end_python_run(&key, run_id) {
            continue;
        }
        warn!(target: "distributed.worker", "Task {key} goes on in a thread that was given up: it is over its timeout of {limit} s");
        old.tell(ToPython::GiveUp { key: key.clone(), run_id });
        let outcome = overdue_failure(shared, &key, limit, "its thread was given up");
        shared.notify(Event::ExecuteDone { key, run_id, outcome, stimulus_id: stimulus("task-timeout") });
    }
}

/// What the client gets for a task that could not be interrupted.
pub(crate) fn overdue_failure(shared: &Shared, key: &Key, limit: f64, what: &str) -> ExecuteOutcome {
    let text = format!(
        "task {key:?} on worker {} ran longer than its timeout of {limit} s and did not end when it was interrupted; {what}",
        shared.identity.address
    );
    ExecuteOutcome::Failure { error: describe("TimeoutError", &text), thread: Value::Nil, startstops: Vec::new() }
}
