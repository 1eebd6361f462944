//! A scheduler's state in a form that does not depend on who keeps it: what is compared after every event.

use dask_protocol::{Address, Key};
use dask_scheduler::state::{State, TaskState, TaskView, WorkerView};
use indexmap::IndexMap;
use serde::Serialize;

/// Everything about a task; fields by dask's names, sets sorted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskSnapshot {
    state: &'static str,
    on: Option<Address>,
    who_has: Vec<Address>,
    who_wants: Vec<String>,
    dependencies: Vec<String>,
    dependents: Vec<String>,
    waiting_on: Vec<String>,
    waiters: Vec<String>,
    priority: Option<[f64; 3]>,
    retries: u32,
    suspicious: u32,
    nbytes: i64,
    actor: bool,
    #[serde(rename = "type")]
    type_name: Option<String>,
    blame: Option<String>,
    erred_on: Vec<Address>,
    lost: bool,
    group: String,
    prefix: String,
}

/// Everything about a worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerSnapshot {
    status: &'static str,
    processing: Vec<String>,
    long_running: Vec<String>,
    has_what: Vec<String>,
    nbytes: u64,
    occupancy: f64,
    idle: bool,
    saturated: bool,
    used_resources: IndexMap<String, f64>,
    actors: usize,
}

/// What is common to all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Totals {
    nthreads: u64,
    memory: u64,
    occupancy: f64,
    bandwidth: f64,
    queued: usize,
    unrunnable: Vec<String>,
    clients: Vec<String>,
    /// Tasks per state.
    groups: IndexMap<String, IndexMap<&'static str, usize>>,
    /// Tasks asked back: key, worker, and the thief unless it has left.
    in_flight: Vec<(String, Address, Option<Address>)>,
    /// Average duration in seconds, and suspicious losses of workers.
    prefixes: IndexMap<String, (Option<f64>, u64)>,
}

fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    items.sort_unstable();
    items
}

fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    sorted(items.into_iter().map(|item| item.to_string()))
}

/// Everything about a task.
pub fn task(task: &TaskView<'_>) -> TaskSnapshot {
    TaskSnapshot {
        state: task.state.name(),
        on: task.processing_on.cloned(),
        who_has: sorted(task.who_has.iter().copied().cloned()),
        who_wants: texts(&task.who_wants),
        dependencies: texts(&task.dependencies),
        dependents: texts(&task.dependents),
        waiting_on: texts(&task.waiting_on),
        waiters: texts(&task.waiters),
        priority: task.priority,
        retries: task.retries,
        suspicious: task.suspicious,
        nbytes: task.nbytes,
        actor: task.actor,
        type_name: task.type_name.map(str::to_owned),
        blame: task.exception_blame.map(Key::to_string),
        erred_on: sorted(task.erred_on.iter().cloned()),
        lost: task.has_lost_dependencies,
        group: task.group.to_string(),
        prefix: task.prefix.to_owned(),
    }
}

/// Everything about a worker.
pub fn worker(state: &State, worker: &WorkerView<'_>) -> WorkerSnapshot {
    let processing = state.processing(worker.address);
    let seceded = |key: &&Key| state.task(key).is_some_and(|task| task.long_running);
    let used = worker.used_resources.iter().filter(|(_, amount)| *amount != 0.0);
    WorkerSnapshot {
        status: worker.status.name(),
        long_running: texts(processing.iter().filter(seceded)),
        processing: texts(processing),
        has_what: texts(state.has_what(worker.address)),
        nbytes: worker.nbytes,
        occupancy: worker.occupancy,
        idle: worker.idle,
        saturated: worker.saturated,
        used_resources: used.map(|(name, amount)| ((*name).to_owned(), *amount)).collect(),
        actors: worker.actors,
    }
}

/// What is common to all.
pub fn totals(state: &State) -> Totals {
    let groups = state.groups().map(|(name, _, counts)| {
        let states = TaskState::ALL.into_iter().filter(|state| counts.get(*state) > 0);
        (name.to_string(), states.map(|state| (state.name(), counts.get(state))).collect())
    });
    let prefixes = state.prefixes().map(|p| (p.name.to_owned(), (p.duration_average, p.suspicious)));
    Totals {
        nthreads: state.total_nthreads(),
        memory: state.total_memory(),
        occupancy: state.total_occupancy(),
        bandwidth: state.bandwidth(),
        queued: state.queued_count(),
        unrunnable: texts(state.unrunnable().map(|(key, _)| key)),
        clients: texts(state.clients().map(|client| &**client)),
        groups: groups.collect(),
        in_flight: sorted(
            state.stealing_in_flight().map(|(key, victim, thief)| (key.to_string(), victim.clone(), thief.cloned())),
        ),
        prefixes: prefixes.collect(),
    }
}
