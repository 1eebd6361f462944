//! Tasks for Python of whose inputs some are on disk: the others are held for them while those are read.

use std::sync::Arc;

use dask_protocol::{Key, Payload, Value};
use tokio::sync::oneshot;

use super::python::message::{Execute, Hold, ToPython};
use super::{Task, describe};
use crate::server::shared::{Input, Shared, stimulus};
use crate::server::spilling;
use crate::spill::SpillError;
use crate::state::{Event, ExecuteOutcome};
use crate::store::Stored;

/// Begins a run whose outcome is waited for. `data` are inputs that Python does not have, `away` those on disk.
pub(super) fn begin(shared: &Arc<Shared>, task: Task, data: Vec<(Key, Payload)>, away: Vec<(Key, Stored)>) {
    let Some(python) = shared.python() else { return };
    let handed: Vec<Key> = data.iter().map(|(key, _)| key.clone()).collect();
    let (key, run_id, dependencies) = (task.key.clone(), task.run_id, task.dependencies.clone());
    python.tell(ToPython::Hold(Hold { key, run_id, dependencies, data: data.into_iter().collect() }));
    for key in &handed {
        shared.store.handed_to_python(key);
    }
    tokio::spawn(read_and_go_on(Arc::clone(shared), task, away));
}

async fn read_and_go_on(shared: Arc<Shared>, task: Task, away: Vec<(Key, Stored)>) {
    let Some(spilling) = shared.spilling.as_ref() else { return };
    let bytes = away.iter().map(|(_, stored)| stored.nbytes).sum();
    let _room = spilling.make_room(&shared.store, bytes).await;
    let mut data = Vec::with_capacity(away.len());
    for (key, stored) in &away {
        let Some(disk) = stored.disk.clone() else { continue };
        match spilling::read(&shared, disk).await {
            Ok(payload) => data.push((key.clone(), payload)),
            Err(failure) => {
                let (key, stored, stage) = (key.clone(), stored.clone(), Arc::clone(&shared));
                let step = move || give_up(&stage, &task, key, &stored, &failure);
                shared.inbox.send(Input::Step(Box::new(step)));
                return;
            }
        }
    }
    let (stage, (done, ended)) = (Arc::clone(&shared), oneshot::channel());
    let step = move || {
        go_on(&stage, task, data, &away);
        let _ = done.send(());
        Vec::new()
    };
    if shared.inbox.send(Input::Step(Box::new(step))) {
        // The room is theirs until they count themselves.
        let _ = ended.await;
    }
}

/// In one step of the driver, like every start.
fn go_on(shared: &Shared, task: Task, data: Vec<(Key, Payload)>, away: &[(Key, Stored)]) {
    let Some(python) = shared.python() else { return };
    let Task { key, run_id, spec, dependencies, annotations, actor, span_id } = task;
    if !shared.runs_in_python(&key, run_id) {
        // Given up meanwhile, or the process is another one.
        python.tell(ToPython::Unhold { key, run_id });
        return;
    }
    let data = data.into_iter().collect();
    python.tell(ToPython::Execute(Execute { key, run_id, spec, dependencies, data, annotations, actor, span_id }));
    let mut freed = Vec::new();
    for (key, before) in away {
        match shared.store.get(key) {
            Some(now) if now.is_same(before) => shared.store.handed_to_python(key),
            // Python keeps what it has.
            Some(now) if now.in_python => {}
            Some(_) | None => freed.push(key.clone()),
        }
    }
    if !freed.is_empty() {
        super::drop_in_python(shared, freed);
    }
}

/// An input is lost, and the scheduler hears of it: it has the value computed again, and then the task. For a value that
/// came from a client that cannot be: the task fails.
fn give_up(shared: &Shared, task: &Task, lost: Key, stored: &Stored, failure: &SpillError) -> Vec<Event> {
    let text = unreadable(shared, &task.key, &lost, failure);
    tracing::error!(target: "distributed.worker", "{text}");
    if let Some(python) = shared.python() {
        python.tell(ToPython::Unhold { key: task.key.clone(), run_id: task.run_id });
    }
    let mut events = Vec::new();
    if shared.end_python_run(&task.key, task.run_id) {
        let (key, run_id) = (task.key.clone(), task.run_id);
        let outcome = if stored.is_scattered {
            let error = describe("OSError", &text);
            ExecuteOutcome::Failure { error, thread: Value::Nil, startstops: Vec::new() }
        } else {
            ExecuteOutcome::Reschedule
        };
        events.push(Event::ExecuteDone { key, run_id, outcome, stimulus_id: stimulus("spilled-value-lost") });
    }
    // What starts on the way and needs the value, too, finds its file and ends like this one.
    events.extend(spilling::forget(shared, lost, stored));
    if !stored.is_scattered {
        // A task to be rescheduled waits for the value again only if the scheduler knows that it is gone.
        events.reverse();
    }
    events
}

/// What is said of a task whose input cannot be read back.
pub(super) fn unreadable(shared: &Shared, task: &Key, lost: &Key, failure: &SpillError) -> String {
    format!(
        "task {task:?} could not start on worker {}: its input {lost:?} had been spilled to disk, and is lost: {failure}",
        shared.identity.address
    )
}
