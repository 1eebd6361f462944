//! `/metrics`: Prometheus text by upstream's names.

use std::fmt::{Display, Write};

use dask_protocol::message::WorkerStatus;

use super::snapshot::{STATES, Snapshot};

/// The whole exposition.
pub(super) fn text(snapshot: &Snapshot) -> String {
    let mut out = Exposition(String::new());
    out.family("clients", "gauge", "Number of clients connected", [(String::new(), snapshot.clients.len())]);
    out.one("client_connections_added", "counter", "Client connections added", snapshot.totals.clients_added);
    out.one("client_connections_removed", "counter", "Client connections removed", snapshot.totals.clients_removed);
    out.one(
        "desired_workers",
        "gauge",
        "Number of workers the scheduler needs for its tasks",
        snapshot.desired_workers,
    );
    let workers = worker_states(snapshot).map(|(state, count)| (label("state", state), count));
    out.family("workers", "gauge", "Number of workers known by the scheduler", workers);
    out.one("workers_added", "counter", "Workers added", snapshot.totals.workers_added);
    out.one("workers_removed", "counter", "Workers removed", snapshot.totals.workers_removed);
    let tasks = STATES.iter().zip(snapshot.tasks).map(|(state, count)| (label("state", state.name()), count));
    out.family("tasks", "gauge", "Number of tasks known by the scheduler", tasks);
    out.one("task_groups", "gauge", "Number of task groups known by the scheduler", snapshot.task_groups);
    out.one("task_prefixes", "gauge", "Number of task prefixes remembered", snapshot.task_prefixes);
    let (topics, events, bytes) = snapshot.events;
    out.one("event_topics", "gauge", "Number of topics of the event log", topics);
    out.one("events", "gauge", "Number of events kept", events);
    out.one("events_bytes", "gauge", "Bytes of the events kept", bytes);
    out.0
}

fn label(name: &str, value: &str) -> String {
    format!("{{{name}=\"{value}\"}}")
}

fn worker_states(snapshot: &Snapshot) -> impl Iterator<Item = (&'static str, usize)> {
    let mut counts = [("idle", 0), ("partially_saturated", 0), ("saturated", 0), ("paused", 0), ("retiring", 0)];
    for worker in &snapshot.workers {
        let at = match (worker.status, worker.idle, worker.saturated) {
            (WorkerStatus::Paused, _, _) => 3,
            (WorkerStatus::ClosingGracefully | WorkerStatus::Closing | WorkerStatus::Closed, _, _) => 4,
            (WorkerStatus::Init | WorkerStatus::Running, true, _) => 0,
            (WorkerStatus::Init | WorkerStatus::Running, false, true) => 2,
            (WorkerStatus::Init | WorkerStatus::Running, false, false) => 1,
        };
        counts[at].1 += 1;
    }
    counts.into_iter()
}

struct Exposition(String);

impl Exposition {
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help, [(String::new(), value)]);
    }

    fn family<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, V)>,
    ) {
        let total = if kind == "counter" { "_total" } else { "" };
        let name = format!("dask_scheduler_{name}{total}");
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }
}
