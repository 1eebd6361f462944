//! [`Frame`]: what the pages show, copied from the driver in one go. JSON is made of it elsewhere.

use dask_protocol::message::WorkerStatus;
use dask_protocol::{Address, Value};
use serde_json::{Value as Json, json};

use crate::server::peers::{WorkerPeer, name_text};
use crate::server::{Core, Totals, Turns};
use crate::state::{MemoryState, PrefixView, TaskState, Usage, WorkerView};

/// The states that tasks are counted in, as pages list them: all but the last, in which a task is gone.
pub(super) const STATES: [TaskState; TaskState::ALL.len() - 1] =
    *TaskState::ALL.first_chunk().expect("an array has all elements but its last one");
const _: () = assert!(matches!(TaskState::ALL[STATES.len()], TaskState::Forgotten));
/// Most prefixes shown; programs have tens.
const PREFIXES_MAX: usize = 1_000;

/// Everything most pages need: counts, one row per worker and one per prefix.
pub(super) struct Frame {
    pub(super) address: Address,
    pub(super) now: f64,
    pub(super) started: f64,
    pub(super) clients: usize,
    pub(super) workers: Vec<WorkerRow>,
    /// Tasks in each of [`STATES`].
    pub(super) tasks: [usize; STATES.len()],
    pub(super) forgotten: usize,
    pub(super) desired_workers: usize,
    pub(super) occupancy: f64,
    pub(super) bandwidth: f64,
    pub(super) totals: Totals,
    pub(super) turns: Turns,
    pub(super) transitions: u64,
    pub(super) task_groups: usize,
    pub(super) prefix_count: usize,
    /// At most [`PREFIXES_MAX`].
    pub(super) prefixes: Vec<PrefixRow>,
    /// What the tasks of each client cost.
    pub(super) usages: Vec<(String, Usage)>,
    /// Topics, events, and bytes of the event log.
    pub(super) events: (usize, usize, usize),
    /// Per level, requests of work stealing and the seconds of work in them.
    pub(super) steals: Vec<(u64, f64)>,
    /// Seconds from the question to this answer.
    pub(super) answered_in: f64,
}

/// One worker.
pub(super) struct WorkerRow {
    pub(super) address: Address,
    pub(super) name: String,
    pub(super) status: WorkerStatus,
    pub(super) nthreads: u32,
    pub(super) processing: usize,
    pub(super) in_memory: usize,
    pub(super) nbytes: u64,
    pub(super) memory: MemoryState,
    pub(super) memory_limit: u64,
    pub(super) occupancy: f64,
    pub(super) last_seen: f64,
    pub(super) nanny: Option<Address>,
    /// The port of its own pages.
    pub(super) dashboard: Option<i64>,
    pub(super) idle: bool,
    pub(super) saturated: bool,
    pub(super) figures: Figures,
}

/// What a worker's last heartbeat told.
#[derive(Default)]
pub(super) struct Figures {
    /// Percent of one core.
    pub(super) cpu: f64,
    pub(super) open_files: f64,
    /// Bytes per second of its host's network, in and out.
    pub(super) network: (f64, f64),
    /// Bytes per second of its host's disks, read and written.
    pub(super) disk: (f64, f64),
    /// Bytes of transfers under way, in and out.
    pub(super) transfers: (f64, f64),
    /// Bytes per second it sees in transfers.
    pub(super) bandwidth: f64,
    /// Seconds between two ticks of its loop.
    pub(super) tick: f64,
}

/// One prefix.
pub(super) struct PrefixRow {
    pub(super) name: String,
    pub(super) tasks: [usize; STATES.len()],
    /// How often its tasks reached each of [`TaskState::ALL`].
    pub(super) reached: [u64; TaskState::ALL.len()],
    pub(super) nbytes: u64,
    /// Average seconds of computing.
    pub(super) duration: Option<f64>,
    pub(super) suspicious: u64,
    /// Seconds per action.
    pub(super) seconds: Vec<(String, f64)>,
}

impl Frame {
    pub(super) fn of(core: &mut Core, address: Address, started: f64) -> Frame {
        let turns = core.turns;
        core.turns.longest = 0.0;
        let now = core.clock.now();
        let desired_workers = core.state.scaling_advice(now).workers;
        let state = &core.state;
        let row = |(address, peer): (&Address, &WorkerPeer)| Some(WorkerRow::of(&state.worker(address)?, peer));
        let counts = state.state_counts();
        Frame {
            address,
            now,
            started,
            clients: core.clients.len(),
            workers: core.workers.iter().filter_map(row).collect(),
            tasks: STATES.map(|state| counts.get(state)),
            forgotten: counts.get(TaskState::Forgotten),
            desired_workers,
            occupancy: state.total_occupancy(),
            bandwidth: state.bandwidth(),
            totals: core.totals,
            turns,
            transitions: state.transition_counter(),
            task_groups: state.group_count(),
            prefix_count: state.prefix_count(),
            prefixes: state.prefixes().take(PREFIXES_MAX).map(|prefix| PrefixRow::of(&prefix)).collect(),
            usages: state.usages().map(|(client, usage)| (client.to_owned(), *usage)).collect(),
            events: core.events.size(),
            steals: state.steal_requests().to_vec(),
            answered_in: 0.0,
        }
    }

    fn tasks_in(&self, state: TaskState) -> usize {
        STATES.iter().position(|&known| known == state).map_or(0, |at| self.tasks[at])
    }

    /// Threads of all workers.
    pub(super) fn threads(&self) -> u64 {
        self.workers.iter().map(|worker| u64::from(worker.nthreads)).sum()
    }

    /// `/json/counts.json`.
    pub(super) fn counts(&self) -> Json {
        let hosts: std::collections::BTreeSet<&str> = self.workers.iter().map(|w| w.address.host()).collect();
        json!({
            "bytes": self.workers.iter().map(|w| w.nbytes).sum::<u64>(),
            "clients": self.clients,
            "cores": self.threads(),
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

impl WorkerRow {
    fn of(view: &WorkerView<'_>, peer: &WorkerPeer) -> WorkerRow {
        WorkerRow {
            address: view.address.clone(),
            name: name_text(&peer.info.name),
            status: view.status,
            nthreads: view.nthreads,
            processing: view.processing,
            in_memory: view.in_memory,
            nbytes: view.nbytes,
            memory: view.memory,
            memory_limit: view.memory_limit,
            occupancy: view.occupancy,
            last_seen: peer.last_seen,
            nanny: peer.info.nanny.clone(),
            dashboard: peer.info.services.get("dashboard").and_then(Value::as_i64),
            idle: view.idle,
            saturated: view.saturated,
            figures: Figures::of(&peer.metrics),
        }
    }
}

impl Figures {
    fn of(metrics: &Value) -> Figures {
        let number = |value: Option<&Value>| value.and_then(Value::as_f64).filter(|n| n.is_finite()).unwrap_or(0.0);
        let pair = |name: &str, one: &str, other: &str| {
            let both = metrics.get(name);
            (number(both.and_then(|both| both.get(one))), number(both.and_then(|both| both.get(other))))
        };
        Figures {
            cpu: number(metrics.get("cpu")),
            open_files: number(metrics.get("num_fds")),
            network: pair("host_net_io", "read_bps", "write_bps"),
            disk: pair("host_disk_io", "read_bps", "write_bps"),
            transfers: pair("transfer", "incoming_bytes", "outgoing_bytes"),
            bandwidth: number(metrics.get("bandwidth").and_then(|bandwidth| bandwidth.get("total"))),
            tick: number(metrics.get("event_loop_interval")),
        }
    }
}

impl PrefixRow {
    fn of(view: &PrefixView<'_>) -> PrefixRow {
        PrefixRow {
            name: view.name.to_owned(),
            tasks: STATES.map(|state| view.states.get(state)),
            reached: *view.reached,
            nbytes: view.nbytes,
            duration: view.duration_average,
            suspicious: view.suspicious,
            seconds: view.all_durations.iter().map(|(action, seconds)| (action.to_string(), *seconds)).collect(),
        }
    }
}
