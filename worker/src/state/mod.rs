//! The worker's decisions, without IO: [`Event`]s in, [`Action`]s out.
//!
//! Read [`State::handle`] first, then [`TaskState`].
//!
//! ```text
//!  compute-task                                          input of a task, acquire-replicas
//!       |                                                          |
//!    waiting --> ready or constrained --> executing              fetch <--> missing
//!       ^                                  |  |                    |
//!       |  (input lost)                    |  long-running       flight
//!       +----------------------------------|--- - |                |
//!                                          v      v                v
//!                                     error or memory <-------- memory
//! ```
//!
//! Anything released goes to `released` and, when nothing depends on it, is forgotten; but an execution or a transfer
//! cannot be taken back. Its task is `cancelled` until the outcome comes, and `resumed` when it is wanted in the
//! other way meanwhile (a running task as an input of another, a fetched one as a computation).

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod action;
mod ahead;
mod check;
mod compute;
mod config;
mod event;
mod gather;
mod memory;
mod peers;
mod queries;
mod story;
mod stream;
mod task;
#[cfg(test)]
mod tests;
mod timeout;
mod transition;

pub use action::{Action, Actions};
pub use config::{Config, INTERRUPT_GRACE_DEFAULT, STORY_ROWS_MAX_DEFAULT};
pub use event::*;
pub use queries::TransferStats;
pub use story::{StoryRow, What};
pub use task::{Previous, TaskState};

use std::collections::BTreeSet;
use std::sync::Arc;

use dask_protocol::Key;
use dask_protocol::message::{Priority, RunId, StimulusId, WorkerStatus};
use indexmap::IndexMap;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rustc_hash::FxBuildHasher;

use ahead::Kinds;
use compute::Execution;
use peers::Peers;
use story::Story;
use task::{ResultInfo, STATE_NAMES, Task, TaskId, TaskIds, Tasks};
use transition::Cx;

/// Everything a worker knows about its tasks and its peers.
///
/// It starts as running: the shell registers, tells the scheduler `running`, and then feeds events.
#[derive(Debug)]
pub struct State {
    config: Config,
    /// The time of the latest event.
    now: Seconds,
    status: WorkerStatus,
    /// Whether memory is over the pause fraction, also while another status hides it.
    memory_full: bool,
    tasks: Tasks,
    /// The latest result, which the next one may be like.
    last_result: Arc<ResultInfo>,
    /// How many tasks are in each state, by [`TaskState::index`].
    counts: [usize; STATE_NAMES],
    /// Last element of the priority of the next task: later tasks go first among equals.
    generation: f64,
    ready: BTreeSet<(Priority, TaskId)>,
    constrained: BTreeSet<(Priority, TaskId)>,
    /// Outstanding executions; some may belong to no task any more.
    running: IndexMap<(Key, RunId), Execution, FxBuildHasher>,
    /// Executions that have not seceded.
    slots_used: u32,
    /// Those of them behind which no other task waits at its executor.
    slow_slots: u32,
    kinds: Kinds,
    resources_used: IndexMap<String, f64, FxBuildHasher>,
    executed_count: u64,
    peers: Peers,
    missing: TaskIds,
    find_missing_at: Option<Seconds>,
    transfer_incoming_bytes: u128,
    transfer_incoming_count: usize,
    transfer_incoming_count_total: u64,
    nbytes_in_memory: u128,
    story: Story,
    rng: SmallRng,
}

impl State {
    /// A running worker without any tasks.
    pub fn new(config: Config, now: Seconds) -> State {
        State {
            now,
            status: WorkerStatus::Running,
            memory_full: false,
            tasks: Tasks::default(),
            last_result: Arc::default(),
            counts: [0; STATE_NAMES],
            generation: 0.0,
            ready: BTreeSet::new(),
            constrained: BTreeSet::new(),
            running: IndexMap::default(),
            slots_used: 0,
            slow_slots: 0,
            kinds: Kinds::default(),
            resources_used: IndexMap::default(),
            executed_count: 0,
            peers: IndexMap::default(),
            missing: TaskIds::default(),
            find_missing_at: None,
            transfer_incoming_bytes: 0,
            transfer_incoming_count: 0,
            transfer_incoming_count_total: 0,
            nbytes_in_memory: 0,
            story: Story::new(config.story_rows_max),
            rng: SmallRng::seed_from_u64(config.seed),
            config,
        }
    }

    /// Takes in one thing that happened and appends what is to be done about it.
    ///
    /// A clock that goes back is taken to stand still. After each event the slots are filled and requests to peers are sent, so that any event
    /// can get things going again.
    pub fn handle(&mut self, now: Seconds, event: Event, actions: &mut Actions) {
        self.now = self.now.max(now);
        let now = self.now;
        let mut cx = Cx::new(now, stimulus_of(now, &event), actions);
        self.dispatch(&mut cx, event);
        self.transitions(&mut cx);
        self.ensure_computing(&mut cx);
        self.ensure_communicating(&mut cx);
        if self.config.validate {
            self.check();
        }
    }

    fn dispatch(&mut self, cx: &mut Cx<'_>, event: Event) {
        match event {
            Event::Scheduler(message) => self.handle_scheduler(cx, message),
            Event::GatherDone { worker, keys: _, received, outcome, start, stop, stimulus_id: _ } => {
                self.handle_gather_done(cx, &worker, (&received, outcome), (start, stop));
            }
            Event::ExecuteDone { key, run_id, outcome, stimulus_id: _ } => {
                self.handle_execute_done(cx, key, run_id, outcome);
            }
            Event::Seceded { key, compute_duration, stimulus_id: _ } => self.handle_seceded(cx, key, compute_duration),
            Event::DataStored { data, report, stimulus_id: _ } => self.handle_data_stored(cx, data, report),
            Event::FreeKeys { keys, stimulus_id: _ } => self.handle_free_keys(cx, &keys),
            Event::DataLost { keys, stimulus_id: _ } => self.handle_data_lost(cx, &keys),
            Event::SetResources { resources, stimulus_id: _ } => self.handle_set_resources(resources),
            Event::Pause { stimulus_id: _ } => self.handle_memory_full(cx, true),
            Event::Unpause { stimulus_id: _ } => self.handle_memory_full(cx, false),
            Event::Close { stimulus_id: _ } => self.handle_close(cx),
            Event::Timeout => {
                self.handle_timeout(cx);
                self.stop_overdue(cx);
            }
        }
    }

    /// When to call back with [`Event::Timeout`], and why; `None` while nothing is due.
    pub fn next_timeout(&self) -> Option<(Seconds, &'static str)> {
        let busy = self.peers.values().filter_map(|peer| peer.busy_until).map(|at| (at, "retry-busy-worker"));
        let missing = self.find_missing_at.map(|at| (at, "find-missing"));
        let limit = self.next_limit().map(|at| (at, "task-timeout"));
        busy.chain(missing).chain(limit).min_by(|a, b| a.0.total_cmp(&b.0))
    }

    fn find(&self, key: &Key) -> Option<TaskId> {
        self.tasks.id(key)
    }

    fn task(&self, id: TaskId) -> &Task {
        &self.tasks[id]
    }

    fn task_mut(&mut self, id: TaskId) -> &mut Task {
        &mut self.tasks[id]
    }

    fn count(&self, state: TaskState) -> usize {
        self.counts[state.index()]
    }
}

/// What set an event off, as it was told or named after dask's habit.
fn stimulus_of(now: Seconds, event: &Event) -> StimulusId {
    use dask_protocol::message::SchedulerToWorker as M;
    match event {
        Event::Scheduler(message) => match message {
            M::ComputeTask(m) => m.stimulus_id.clone(),
            M::FreeKeys(m) => m.stimulus_id.clone(),
            M::CancelCompute(m) => m.stimulus_id.clone(),
            M::AcquireReplicas(m) => m.stimulus_id.clone(),
            M::RemoveReplicas(m) => m.stimulus_id.clone(),
            M::StealRequest(m) => m.stimulus_id.clone(),
            M::RefreshWhoHas(m) => m.stimulus_id.clone(),
            M::WorkerStatusChange(m) => m.stimulus_id.clone(),
            M::RemoveWorker(m) => m.stimulus_id.clone(),
            M::CloseWorker(_) | M::ShuffleFail(_) | M::CloseStream(_) => format!("close-{now}").into(),
        },
        Event::GatherDone { stimulus_id, .. }
        | Event::ExecuteDone { stimulus_id, .. }
        | Event::Seceded { stimulus_id, .. }
        | Event::DataStored { stimulus_id, .. }
        | Event::FreeKeys { stimulus_id, .. }
        | Event::DataLost { stimulus_id, .. }
        | Event::SetResources { stimulus_id, .. }
        | Event::Pause { stimulus_id }
        | Event::Unpause { stimulus_id }
        | Event::Close { stimulus_id } => stimulus_id.clone(),
        Event::Timeout => format!("timeout-{now}").into(),
    }
}
