//! What the pages show, copied from the driver in one go.

use dask_protocol::message::WorkerStatus;
use serde_json::json;

use super::json as to_json;
use crate::server::peers::name_text;
use crate::server::{Core, SchedulerClosed, Server};
use crate::state::TaskState;

/// Task states in the order pages list them.
pub(super) const STATES: [TaskState; 7] = [
    TaskState::Released,
    TaskState::Waiting,
    TaskState::NoWorker,
    TaskState::Queued,
    TaskState::Processing,
    TaskState::Memory,
    TaskState::Erred,
];

/// Everything any page needs. Small: counts and one row per worker.
pub(super) struct Snapshot {
    pub(super) address: String,
    pub(super) now: f64,
    pub(super) started: f64,
    pub(super) clients: Vec<String>,
    pub(super) workers: Vec<WorkerRow>,
    /// Tasks in each of [`STATES`].
    pub(super) tasks: [usize; STATES.len()],
    pub(super) desired_workers: usize,
    pub(super) totals: crate::server::Totals,
    pub(super) task_groups: usize,
    pub(super) task_prefixes: usize,
    /// Topics, events, and bytes of the event log.
    pub(super) events: (usize, usize, usize),
    /// Workers that died, newest first, and what is known of that.
    pub(super) deaths: Vec<(String, String)>,
}

/// One worker.
pub(super) struct WorkerRow {
    pub(super) address: String,
    pub(super) name: String,
    pub(super) status: WorkerStatus,
    pub(super) nthreads: u32,
    pub(super) processing: usize,
    pub(super) in_memory: usize,
    pub(super) nbytes: u64,
    pub(super) memory: u64,
    pub(super) memory_limit: u64,
    pub(super) cpu: f64,
    pub(super) last_seen: f64,
    pub(super) nanny: Option<String>,
    pub(super) local_directory: String,
    /// The port of its own pages.
    pub(super) dashboard: Option<i64>,
    pub(super) idle: bool,
    pub(super) saturated: bool,
    pub(super) metrics: serde_json::Value,
}

impl Snapshot {
    pub(super) async fn take(server: &Server) -> Result<Snapshot, SchedulerClosed> {
        let (address, started) = (server.address.as_str().to_owned(), server.started);
        server.driver.run(move |core| Snapshot::of(core, address, started)).await
    }

    fn of(core: &Core, address: String, started: f64) -> Snapshot {
        let mut workers = Vec::with_capacity(core.workers.len());
        for (address, peer) in &core.workers {
            let Some(view) = core.state.worker(address) else { continue };
            workers.push(WorkerRow {
                address: address.as_str().to_owned(),
                name: name_text(&peer.info.name),
                status: view.status,
                nthreads: view.nthreads,
                processing: view.processing,
                in_memory: view.in_memory,
                nbytes: view.nbytes,
                memory: view.memory.process,
                memory_limit: view.memory_limit,
                cpu: peer.metrics.get("cpu").and_then(dask_protocol::Value::as_f64).unwrap_or(0.0),
                last_seen: peer.last_seen,
                nanny: peer.info.nanny.as_ref().map(|nanny| nanny.as_str().to_owned()),
                local_directory: peer.info.local_directory.clone(),
                dashboard: peer.info.services.get("dashboard").and_then(dask_protocol::Value::as_i64),
                idle: view.idle,
                saturated: view.saturated,
                metrics: to_json(&peer.metrics),
            });
        }
        let counts = core.state.state_counts();
        Snapshot {
            address,
            now: core.clock.now(),
            started,
            clients: core.clients.keys().map(|client| (**client).to_owned()).collect(),
            workers,
            tasks: STATES.map(|state| counts.get(state)),
            desired_workers: core.state.adaptive_target(DESIRED_TARGET_SECONDS),
            totals: core.totals,
            task_groups: core.state.groups().count(),
            task_prefixes: core.state.prefixes().count(),
            events: core.events.size(),
            deaths: core
                .state
                .post_mortems()
                .map(|(worker, death)| (worker.as_str().to_owned(), format!("Worker {worker} {death}")))
                .collect(),
        }
    }

    fn tasks_in(&self, state: TaskState) -> usize {
        STATES.iter().position(|&known| known == state).map_or(0, |at| self.tasks[at])
    }

    /// `/json/counts.json`.
    pub(super) fn counts(&self) -> serde_json::Value {
        let hosts: std::collections::BTreeSet<&str> =
            self.workers.iter().map(|w| w.address.rsplit_once(':').map_or("", |(host, _)| host)).collect();
        json!({
            "bytes": self.workers.iter().map(|w| w.nbytes).sum::<u64>(),
            "clients": self.clients.len(),
            "cores": self.workers.iter().map(|w| u64::from(w.nthreads)).sum::<u64>(),
            "erred": self.tasks_in(TaskState::Erred),
            "hosts": hosts.len(),
            "idle": self.workers.iter().filter(|w| w.idle).count(),
            "memory": self.tasks_in(TaskState::Memory),
            "processing": self.tasks_in(TaskState::Processing),
            "released": self.tasks_in(TaskState::Released),
            "saturated": self.workers.iter().filter(|w| w.saturated).count(),
            "tasks": self.tasks.iter().sum::<usize>(),
            "unrunnable": self.tasks_in(TaskState::NoWorker),
            "waiting": self.tasks_in(TaskState::Waiting),
            "waiting_data": self.tasks_in(TaskState::Waiting),
            "workers": self.workers.len(),
            "desired_workers": self.desired_workers,
        })
    }
}

/// `distributed.adaptive.target-duration`.
const DESIRED_TARGET_SECONDS: f64 = 5.0;
