//! A scheduler's state in a form that does not depend on who keeps it: what is compared after every event.

use dask_protocol::Address;
use dask_scheduler::state::{State, TaskView, WorkerView};
use serde_json::{Value as Json, json};

fn sorted<T: ToString>(items: impl IntoIterator<Item = T>) -> Json {
    let mut texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    texts.sort_unstable();
    texts.into()
}

fn addresses<'a>(items: impl IntoIterator<Item = &'a Address>) -> Json {
    sorted(items.into_iter().map(Address::as_str))
}

/// Everything about a task.
pub fn task(task: &TaskView<'_>) -> Json {
    json!({
        "state": task.state.name(),
        "on": task.processing_on.map(Address::as_str),
        "long_running": task.long_running,
        "who_has": addresses(task.who_has.iter().copied()),
        "who_wants": sorted(&task.who_wants),
        "dependencies": sorted(&task.dependencies),
        "dependents": sorted(&task.dependents),
        "waiting_on": sorted(&task.waiting_on),
        "waiters": sorted(&task.waiters),
        "priority": task.priority,
        "retries": task.retries,
        "suspicious": task.suspicious,
        "nbytes": task.nbytes,
        "actor": task.actor,
        "type": task.type_name,
        "blame": task.exception_blame.map(ToString::to_string),
        "erred_on": addresses(task.erred_on),
        "lost": task.has_lost_dependencies,
        "group": task.group.to_string(),
        "prefix": task.prefix,
    })
}

/// Everything about a worker.
pub fn worker(state: &State, worker: &WorkerView<'_>) -> Json {
    let used: serde_json::Map<String, Json> =
        worker.used_resources.iter().filter(|(_, n)| *n != 0.0).map(|(name, n)| ((*name).into(), json!(n))).collect();
    json!({
        "status": worker.status.name(),
        "processing": sorted(state.processing(worker.address)),
        "has_what": sorted(state.has_what(worker.address)),
        "nbytes": worker.nbytes,
        "occupancy": worker.occupancy,
        "idle": worker.idle,
        "saturated": worker.saturated,
        "used_resources": used,
    })
}

/// What is common to all.
pub fn totals(state: &State) -> Json {
    let groups: serde_json::Map<String, Json> = state
        .groups()
        .map(|(name, _, counts)| {
            let states = dask_scheduler::state::TaskState::ALL.iter().filter(|s| counts.get(**s) > 0);
            let states: serde_json::Map<String, Json> =
                states.map(|s| (s.name().to_owned(), counts.get(*s).into())).collect();
            (name.to_string(), states.into())
        })
        .collect();
    let durations: serde_json::Map<String, Json> = state
        .prefixes()
        .map(|prefix| (prefix.name.to_owned(), json!([prefix.duration_average, prefix.suspicious])))
        .collect();
    json!({
        "nthreads": state.total_nthreads(),
        "memory": state.total_memory(),
        "occupancy": state.total_occupancy(),
        "bandwidth": state.bandwidth(),
        "queued": state.queued_count(),
        "unrunnable": sorted(state.unrunnable().map(|(key, _)| key)),
        "clients": sorted(state.clients().map(|client| &**client)),
        "groups": groups,
        "prefixes": durations,
    })
}
