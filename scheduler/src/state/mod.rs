//! The scheduler's decisions, without IO: [`Event`]s in, [`Action`]s out. Read [`State`] first.
//!
//! A task moves through these states ([`TaskState`]); everything not drawn goes through `released`:
//!
//! ```text
//!                      .--> queued ----.
//! released --> waiting +---------------+--> processing --> memory --> released
//!                      '--> no-worker -'        |
//!                                               '--> erred --> released --> forgotten
//! ```
//!
//! `transition/` has one file per start state. Each transition may recommend others; the engine takes them last in,
//! first out, until none is left. One file per policy beside it: placement, queuing, stealing, the active memory
//! manager, retirement.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod action;
mod advice;
mod amm;
mod cancel;
mod check;
mod client;
mod config;
mod deaths;
mod errors;
mod event;
mod explain;
mod group;
mod ids;
mod interest;
mod membership;
mod messages;
mod native;
mod occupancy;
mod overview;
mod placement;
mod queries;
mod queuing;
mod replicas;
mod restart;
mod retire;
mod retry;
mod runs;
mod scaling;
mod sent;
mod spans;
mod stealing;
mod story;
mod task;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod timeout;
mod transition;
mod update_graph;
mod usage;
mod worker;

use std::sync::Arc;

use dask_protocol::message::{RunId, SchedulerToClient, SchedulerToWorker, StimulusId, stimulus_at};
use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

pub use action::{Action, Actions};
pub use advice::{ScalingAdvice, ScalingReason};
pub use amm::{MemoryManager, MemoryPolicy};
pub use client::FIRE_AND_FORGET;
pub use config::{Config, MemoryMeasure, Policy};
pub use deaths::{PostMortem, TOPIC as POST_MORTEM_TOPIC};
pub use event::*;
pub use explain::{Blocker, Explanation, Incident, Placement, Reason, Refusal, Rule, ScoreRow};
pub use group::StateCounts;
pub use overview::{GroupView, TaskNode};
pub use queries::{ErredTask, PrefixView, TaskView, WorkerView};
pub use scaling::WorkersToClose;
pub use stealing::Declined;
pub use story::{ObservedTransition, StoryRow};
pub use task::TaskState;
pub use timeout::TimeoutReason;
pub use usage::Usage;
pub use worker::MemoryState;

use client::Clients;
use deaths::Deaths;
use explain::decision::{Considered, Decisions};
use explain::incident::Incidents;
use group::Groups;
use ids::{ClientSlot, FastSet, TaskId, WorkerId};
use placement::IdleWorkers;
use queuing::Queue;
use retire::Retirement;
use stealing::Stealing;
use story::Story;
use task::Tasks;
use timeout::Timers;
use usage::Usages;
use worker::Workers;

/// The scheduler's whole state. [`State::handle`] is the only way in; given the same events at the same times it always
/// decides the same.
#[derive(Debug)]
pub struct State {
    config: Config,
    now: Seconds,
    tasks: Tasks,
    groups: Groups,
    workers: Workers,
    clients: Clients,
    fire_and_forget: ClientSlot,
    usages: Usages,

    /// Registered workers that are running, in the order in which they became so.
    running: FastSet<WorkerId>,
    idle: IdleWorkers,
    saturated: FastSet<WorkerId>,
    total_nthreads: u64,
    total_memory: u64,
    bandwidth: f64,
    /// Nanoseconds all processing tasks are expected to take: kept exactly, so whole numbers.
    total_compute_ns: u128,
    total_network_occupancy: u128,
    total_processing: usize,

    queue: Queue,
    /// Tasks in no-worker.
    unrunnable: FastSet<TaskId>,
    no_workers_since: Option<Seconds>,
    /// Tasks with at least two replicas.
    replicated_tasks: FastSet<TaskId>,
    stealing: Stealing,
    retirements: Vec<Retirement>,
    memory_policies: Vec<Box<dyn MemoryPolicy>>,
    scaling: advice::ScalingHistory,
    timers: Timers,

    generation: i64,
    /// When the generation was last raised.
    generation_time: Seconds,
    next_run_id: RunId,
    /// Tasks ever assigned to a worker; turns the round robin.
    n_tasks: u64,
    sent: sent::Sent,
    transition_counter: u64,
    /// Events so far.
    events: u64,
    idle_since: Option<Seconds>,
    story: Story,
    decisions: Decisions,
    incidents: Incidents,
    deaths: Deaths,
    /// Transitions since the shell last took them, while it wants them.
    observed: Option<Vec<ObservedTransition>>,
    erred_tasks: std::collections::VecDeque<ErredTask>,
    type_names: IndexSet<Arc<str>, FxBuildHasher>,

    /// What set off the event being handled.
    stimulus_id: StimulusId,
    /// The stimulus id of `compute-task` at `now`.
    compute_stimulus: Option<StimulusId>,
    /// Tasks with a recommended transition, taken from the end.
    recommendations: Vec<TaskId>,
    /// Tasks that began to wait for an erred one: it may be about to be retried.
    hopeful: Vec<TaskId>,
    /// What the running transition recommends, for the story.
    recommended: Vec<(TaskId, TaskState)>,
    /// Distinguishes rounds of placement in the workers' scratch fields.
    mark: u64,
    out: Actions,
    /// What the last choice of a worker was made from, until it is noted.
    considered: Considered,
    /// Reused buffers.
    scratch_tasks: Vec<TaskId>,
    scratch_workers: Vec<WorkerId>,
    default_annotations: Arc<Annotations>,
}

impl State {
    /// An empty scheduler at the time `now`.
    pub fn new(config: Config, now: Seconds) -> State {
        let mut clients = Clients::default();
        let fire_and_forget = clients.get_or_insert(&FIRE_AND_FORGET.into());
        State {
            now,
            tasks: Tasks::default(),
            groups: Groups::default(),
            workers: Workers::default(),
            clients,
            fire_and_forget,
            usages: Usages::default(),
            running: FastSet::default(),
            idle: IdleWorkers::default(),
            saturated: FastSet::default(),
            total_nthreads: 0,
            total_memory: 0,
            bandwidth: config.bandwidth,
            total_compute_ns: 0,
            total_network_occupancy: 0,
            total_processing: 0,
            queue: Queue::default(),
            unrunnable: FastSet::default(),
            no_workers_since: None,
            replicated_tasks: FastSet::default(),
            stealing: Stealing::default(),
            retirements: Vec::new(),
            memory_policies: Vec::new(),
            scaling: advice::ScalingHistory::default(),
            timers: Timers::new(&config, now),
            generation: 0,
            generation_time: 0.0,
            next_run_id: 0,
            n_tasks: 0,
            sent: sent::Sent::default(),
            transition_counter: 0,
            events: 0,
            idle_since: Some(now),
            story: Story::new(config.transition_log_length),
            decisions: Decisions::new(config.decision_log_length),
            incidents: Incidents::new(config.decision_log_length),
            deaths: Deaths::default(),
            observed: None,
            erred_tasks: std::collections::VecDeque::new(),
            type_names: IndexSet::default(),
            stimulus_id: "".into(),
            compute_stimulus: None,
            recommendations: Vec::new(),
            hopeful: Vec::new(),
            recommended: Vec::new(),
            mark: 0,
            out: Vec::new(),
            considered: Considered::default(),
            scratch_tasks: Vec::new(),
            scratch_workers: Vec::new(),
            default_annotations: Arc::default(),
            config,
        }
    }

    /// The settings it decides by.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes in one event and appends what should be done about it. `now` must not run backwards; if it does, the
    /// latest time seen counts.
    pub fn handle(&mut self, now: Seconds, event: Event, actions: &mut Actions) {
        if now > self.now {
            self.now = now;
            self.compute_stimulus = None;
        }
        self.events += 1;
        std::mem::swap(&mut self.out, actions);
        let transitions_before = self.transition_counter;
        self.dispatch(event);
        if self.config.policy == Policy::Native {
            // Ready tasks pass through the queue even where slots are free.
            self.queue_slots_maybe_opened();
        }
        self.update_idle_since(transitions_before);
        self.update_timers();
        std::mem::swap(&mut self.out, actions);
        if self.config.validate {
            self.check();
        }
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::AddClient { client } => self.add_client(&client),
            Event::RemoveClient { client } => self.remove_client(&client),
            Event::UpdateGraph(graph) => self.update_graph(*graph),
            Event::UpdateGraphFailed { client, keys, error } => self.update_graph_failed(&client, keys, &error),
            Event::ClientReleasesKeys { client, keys } => self.client_releases_keys(&client, &keys),
            Event::ClientDesiresKeys { client, keys } => self.client_desires_keys(&client, &keys),
            Event::CancelKeys { client, keys, force, reason, msg } => {
                self.cancel_keys(&client, &keys, force, reason, msg);
            }
            Event::ReportKey { client, key } => self.report_key(&client, &key),
            Event::UpdateData { data, client, stimulus_id } => self.update_data(data, client, stimulus_id),
            Event::Retry { keys, stimulus_id } => self.retry(&keys, stimulus_id),
            Event::Restart { stimulus_id } => self.restart(stimulus_id),
            Event::AddWorker(worker) => self.add_worker(*worker),
            Event::PostMortem { worker, report } => self.take_post_mortem(&worker, &report),
            Event::RemoveWorker { worker, expected, close, stimulus_id } => {
                self.stimulus_id = stimulus_id;
                self.remove_worker(&worker, expected, close);
            }
            Event::Heartbeat(heartbeat) => self.heartbeat_worker(&heartbeat),
            Event::WorkerMessage { worker, message } => self.worker_message(&worker, message),
            Event::SetResources { worker, resources } => self.set_resources(&worker, resources),
            Event::SetWorkerStatus { worker, status, stimulus_id } => {
                self.stimulus_id = stimulus_id;
                self.worker_status_change(&worker, status);
            }
            Event::RetireWorkers { workers, remove, close, token, stimulus_id } => {
                self.stimulus_id = stimulus_id;
                self.retire_workers(&workers, remove, close, token);
            }
            Event::ReplicasAdded { worker, keys, stimulus_id } => {
                self.stimulus_id = stimulus_id;
                self.add_keys(&worker, &keys);
            }
            Event::ReplicasRemoved { worker, keys, stimulus_id } => {
                self.stimulus_id = stimulus_id;
                self.replicas_removed(&worker, &keys);
            }
            Event::DropReplicas { worker, keys, stimulus_id } => {
                self.stimulus_id = stimulus_id;
                self.drop_replicas(&worker, &keys);
            }
            Event::SetRestrictions { restrictions } => self.set_restrictions(restrictions),
            Event::RestartShuffle { barrier, stimulus_id } => {
                self.stimulus_id = stimulus_id;
                self.restart_shuffle(&barrier);
            }
            Event::ShuffleStarted { barrier } => self.shuffle_started(&barrier),
            Event::SetActiveMemoryManager { running } => self.timers.amm_running = running,
            Event::RunActiveMemoryManager => self.run_active_memory_manager(),
            Event::Timeout => self.handle_timeout(),
        }
    }

    /// A stimulus id such as `cancel-key-1700000000.25`, for stimuli that begin here.
    fn stimulus(&self, what: &str) -> StimulusId {
        stimulus_at(what, self.now)
    }

    fn send_worker(&mut self, id: WorkerId, message: impl Into<SchedulerToWorker>) {
        let worker = &mut self.workers[id];
        worker.freeing = None;
        self.out.push(Action::ToWorker { worker: worker.address.clone(), message: message.into() });
    }

    fn send_client(&mut self, slot: ClientSlot, message: impl Into<SchedulerToClient>) {
        if let Some(client) = self.clients.get(slot).filter(|client| client.connected) {
            let client = client.id.clone();
            self.out.push(Action::ToClient { client, message: message.into() });
        }
    }

    fn update_idle_since(&mut self, transitions_before: u64) {
        let busy = self.total_processing > 0 || !self.queue.is_empty() || !self.unrunnable.is_empty();
        if busy {
            self.idle_since = None;
        } else if self.idle_since.is_none() || transitions_before != self.transition_counter {
            self.idle_since = Some(self.now);
        }
    }
}
