//! The engine: recommendations, taken last-in first-out, each a transition that may recommend more.
//!
//! One file per start state. Outcomes of executions and transfers are not recommendations: they are settled at once
//! (`executing`, `flight`), so that nothing can come between an outcome and its effect.

mod cancelled;
mod error;
mod executing;
mod fetch;
mod flight;
mod memory;
mod missing;
mod ready;
mod released;
mod resumed;
mod waiting;

use dask_protocol::message::StimulusId;
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

pub(crate) use missing::FIND_MISSING_INTERVAL;

use super::State;
use super::action::{Action, Actions};
use super::event::Seconds;
use super::story::{StoryRow, What};
use super::task::{Previous, TaskId, TaskState};

/// Where a task should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Not wanted any more.
    Released,
    /// To be computed here.
    Waiting,
    /// To be run when a slot is free (ready or constrained).
    Ready,
    /// To be fetched from a peer.
    Fetch,
    /// To be fetched, and nobody holds it.
    Missing,
    /// To be dropped from the books.
    Forgotten,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Target::Released => "released",
            Target::Waiting => "waiting",
            Target::Ready => "ready",
            Target::Fetch => "fetch",
            Target::Missing => "missing",
            Target::Forgotten => "forgotten",
        }
    }
}

/// What one event needs while it is handled.
pub(crate) struct Cx<'a> {
    pub now: Seconds,
    pub stimulus_id: StimulusId,
    pub actions: &'a mut Actions,
    recommendations: IndexMap<TaskId, Target, FxBuildHasher>,
}

impl<'a> Cx<'a> {
    pub fn new(now: Seconds, stimulus_id: StimulusId, actions: &'a mut Actions) -> Cx<'a> {
        Cx { now, stimulus_id, actions, recommendations: IndexMap::default() }
    }

    /// Recommends a transition; a later recommendation for the same task replaces an earlier one in its place.
    pub fn recommend(&mut self, id: TaskId, target: Target) {
        self.recommendations.insert(id, target);
    }

    pub fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub fn send(&mut self, message: impl Into<dask_protocol::message::WorkerToScheduler>) {
        self.actions.push(Action::Send(message.into()));
    }
}

impl State {
    /// Follows recommendations until none is left.
    pub(crate) fn transitions(&mut self, cx: &mut Cx<'_>) {
        while let Some((id, target)) = cx.recommendations.pop() {
            if self.tasks.get(id).is_some() {
                self.transition(cx, id, target);
            }
        }
    }

    fn transition(&mut self, cx: &mut Cx<'_>, id: TaskId, target: Target) {
        let start = self.task(id).state;
        let key = self.task(id).key.clone();
        match start {
            TaskState::Released => self.transition_released(cx, id, target),
            TaskState::Waiting => self.transition_waiting(cx, id, target),
            TaskState::Ready | TaskState::Constrained => self.transition_ready(cx, id, target),
            TaskState::Executing => self.transition_executing(cx, id, target, Previous::Executing),
            TaskState::LongRunning => self.transition_executing(cx, id, target, Previous::LongRunning),
            TaskState::Memory => self.transition_memory(cx, id, target),
            TaskState::Error => self.transition_error(cx, id, target),
            TaskState::Fetch => self.transition_fetch(cx, id, target),
            TaskState::Flight => self.transition_flight(id, target),
            TaskState::Missing => self.transition_missing(cx, id, target),
            TaskState::Cancelled(previous) => self.transition_cancelled(cx, id, target, previous),
            TaskState::Resumed(previous) => self.transition_resumed(cx, id, target, previous),
        }
        let end = self.tasks.get(id).map(|task| task.state);
        if end != Some(start) {
            let end = end.map_or("forgotten", TaskState::name);
            let what = What::Transition { start: start.name(), finish: target.name(), end };
            self.story.push(StoryRow { key, what, stimulus_id: cx.stimulus_id.clone(), time: cx.now });
        }
    }

    /// The one place where a task's state changes.
    pub(crate) fn set_state(&mut self, id: TaskId, state: TaskState) {
        let task = &mut self.tasks[id];
        self.counts[task.state.index()] -= 1;
        self.counts[state.index()] += 1;
        task.state = state;
    }

    /// Logs a change that no recommendation caused: an outcome, or a start.
    pub(crate) fn log_settled(&mut self, cx: &Cx<'_>, id: TaskId, start: TaskState, finish: &'static str) {
        let task = self.task(id);
        let what = What::Transition { start: start.name(), finish, end: task.state.name() };
        let row = StoryRow { key: task.key.clone(), what, stimulus_id: cx.stimulus_id.clone(), time: cx.now };
        self.story.push(row);
    }

    /// Makes a task released that has left the collections of its state, and recommends what follows.
    ///
    /// A released task that somebody here waits for goes back to fetch: so an input of a waiting task is always under way.
    pub(crate) fn enter_released(&mut self, cx: &mut Cx<'_>, id: TaskId) {
        self.set_state(id, TaskState::Released);
        self.clear_holders(id);
        self.stop_waiting(cx, id);
        let task = self.task_mut(id);
        task.nbytes = None;
        task.error = None;
        task.result = None;
        task.startstops.clear();
        if task.waiters > 0 {
            cx.recommend(id, Target::Fetch);
        } else if task.dependents.is_empty() {
            cx.recommend(id, Target::Forgotten);
        }
    }

    /// A task waits for nothing any more; inputs that were only fetched for it are released.
    pub(crate) fn stop_waiting(&mut self, cx: &mut Cx<'_>, id: TaskId) {
        for dependency in std::mem::take(&mut self.task_mut(id).waiting_for_data) {
            let task = self.task_mut(dependency);
            task.waiters -= 1;
            if task.waiters == 0 && only_an_input(task.state) {
                cx.recommend(dependency, Target::Released);
            }
        }
    }
}

/// Whether a task in this state is here only as an input of others.
fn only_an_input(state: TaskState) -> bool {
    match state {
        TaskState::Fetch
        | TaskState::Flight
        | TaskState::Missing
        | TaskState::Resumed(Previous::Executing | Previous::LongRunning) => true,
        TaskState::Released
        | TaskState::Waiting
        | TaskState::Ready
        | TaskState::Constrained
        | TaskState::Executing
        | TaskState::LongRunning
        | TaskState::Memory
        | TaskState::Error
        | TaskState::Cancelled(_)
        | TaskState::Resumed(Previous::Flight) => false,
    }
}
