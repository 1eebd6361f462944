//! `/json/live.json`: a frame, in rows of few characters.

use serde_json::{Map, Value as Json, json};

use super::frame::{Frame, PrefixRow, STATES, WorkerRow};
use super::process::Process;

/// Most workers told of; the busiest ones.
const WORKERS_MAX: usize = 2_000;

/// What the columns of a worker's row are.
const WORKER_COLUMNS: [&str; 29] = [
    "address",
    "name",
    "status",
    "nthreads",
    "memory_limit",
    "processing",
    "in_memory",
    "nbytes",
    "process",
    "managed",
    "unmanaged_old",
    "unmanaged_recent",
    "spilled",
    "occupancy",
    "cpu",
    "fds",
    "net_read",
    "net_write",
    "disk_read",
    "disk_write",
    "incoming",
    "outgoing",
    "bandwidth",
    "tick",
    "last_seen",
    "idle",
    "saturated",
    "dashboard",
    "nanny",
];

/// The whole answer.
pub(super) fn json(frame: &Frame, id: &str) -> Json {
    let mut workers: Vec<&WorkerRow> = frame.workers.iter().collect();
    if workers.len() > WORKERS_MAX {
        workers.sort_by_key(|worker| std::cmp::Reverse(worker.processing));
        workers.truncate(WORKERS_MAX);
    }
    let states: Map<String, Json> =
        STATES.iter().zip(frame.tasks).map(|(state, count)| (state.name().to_owned(), json!(count))).collect();
    let process = Process::sample();
    json!({
        "id": id,
        "address": frame.address.as_str(),
        "now": frame.now,
        "started": frame.started,
        "clients": frame.clients,
        "tasks": states,
        "task_groups": frame.task_groups,
        "desired_workers": frame.desired_workers,
        "occupancy": rounded(frame.occupancy),
        "bandwidth": rounded(frame.bandwidth),
        "transitions": frame.transitions,
        "worker_count": frame.workers.len(),
        "threads": frame.threads(),
        "worker_columns": WORKER_COLUMNS,
        "workers": workers.iter().map(|worker| row(worker, frame.now)).collect::<Vec<_>>(),
        "prefix_count": frame.prefix_count,
        "prefixes": frame.prefixes.iter().map(prefix).collect::<Vec<_>>(),
        "scheduler": {
            "busy": frame.turns.busy,
            "turns": frame.turns.count,
            "answered_in": frame.answered_in,
            "cpu_seconds": process.cpu_seconds,
            "memory": process.memory,
            "fds": process.open_files,
        },
    })
}

fn row(worker: &WorkerRow, now: f64) -> Json {
    let (memory, figures) = (&worker.memory, &worker.figures);
    json!([
        worker.address.as_str(),
        worker.name,
        worker.status.name(),
        worker.nthreads,
        worker.memory_limit,
        worker.processing,
        worker.in_memory,
        worker.nbytes,
        memory.process,
        memory.managed,
        memory.unmanaged_old,
        memory.unmanaged.saturating_sub(memory.unmanaged_old),
        memory.spilled,
        rounded(worker.occupancy),
        rounded(figures.cpu),
        rounded(figures.open_files),
        rounded(figures.network.0),
        rounded(figures.network.1),
        rounded(figures.disk.0),
        rounded(figures.disk.1),
        rounded(figures.transfers.0),
        rounded(figures.transfers.1),
        rounded(figures.bandwidth),
        rounded(figures.tick),
        rounded((now - worker.last_seen).max(0.0)),
        u8::from(worker.idle),
        u8::from(worker.saturated),
        worker.dashboard,
        worker.nanny.as_ref().map(dask_protocol::Address::as_str),
    ])
}

/// Name, tasks per state of [`STATES`], bytes, seconds per task, seconds per action.
fn prefix(prefix: &PrefixRow) -> Json {
    let seconds: Map<String, Json> =
        prefix.seconds.iter().map(|(action, seconds)| (action.clone(), json!(rounded(*seconds)))).collect();
    json!([prefix.name, prefix.tasks, prefix.nbytes, prefix.duration.map(rounded), seconds, prefix.suspicious])
}

/// Few digits are enough for pictures.
fn rounded(number: f64) -> f64 {
    if number.abs() >= 1e6 { number.round() } else { (number * 1e4).round() / 1e4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_few_digits() {
        assert_eq!([rounded(0.123_456), rounded(1_234_567.8)], [0.1235, 1_234_568.0]);
    }
}
