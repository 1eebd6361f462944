//! The engine: recommendations are taken last in, first out, and each transition may recommend more.

mod erred;
mod memory;
mod no_worker;
mod processing;
mod queued;
mod released;
mod waiting;

use dask_protocol::message::{FreeKeys, Keys, SchedulerToClient, SchedulerToWorker};
use dask_protocol::{Address, Key, Value};

use super::State;
use super::action::Action;
use super::ids::{TaskId, WorkerId};
use super::story::ObservedTransition;
use super::task::TaskState;

pub(super) use erred::task_erred;
pub(super) use processing::Finished;

/// Whether a pair of states has a transition of its own.
#[derive(Debug, PartialEq, Eq)]
enum Direct {
    Done,
    /// It goes through released.
    None,
}

impl State {
    /// Recommends a transition. A task that has one already keeps its place with the new target, as in Python's dicts.
    pub(in crate::state) fn recommend(&mut self, id: TaskId, finish: TaskState) {
        if self.tasks[id].recommended.replace(finish).is_none() {
            self.recommendations.push(id);
        }
        self.recommended.push((id, finish));
    }

    /// Follows recommendations until none is left.
    pub(in crate::state) fn transitions(&mut self) {
        loop {
            while let Some(id) = self.recommendations.pop() {
                // A forgotten task may still be on the stack.
                if let Some(finish) = self.tasks.get_mut(id).and_then(|task| task.recommended.take()) {
                    if finish != TaskState::Erred {
                        // It was to err, and something recommended since overrides that.
                        self.drop_stale_failure(id);
                    }
                    self.transition(id, finish);
                    self.drop_stale_failure(id);
                }
            }
            if self.hopeful.is_empty() {
                return;
            }
            self.give_up_hope();
        }
    }

    /// A task that was to err, but was let go of before it came to that, has no failure. Upstream keeps the blame on
    /// such tasks, and errs what is built on them later for a reason that may be long gone.
    fn drop_stale_failure(&mut self, id: TaskId) {
        if let Some(task) = self.tasks.get_mut(id)
            && task.failure.is_some()
            && task.state != TaskState::Erred
            && task.recommended != Some(TaskState::Erred)
        {
            task.failure = None;
        }
    }

    /// Moves a task to `finish`, through released where there is no direct way.
    pub(in crate::state) fn transition(&mut self, id: TaskId, finish: TaskState) {
        let start = self.tasks[id].state;
        if start == finish {
            if finish == TaskState::Erred {
                // It was about to be retried, and something had begun to wait for it.
                self.fail_waiters(id);
            }
            return;
        }
        let key = self.tasks[id].key.clone();
        self.begin_transition();
        if self.transition_directly(id, finish) == Direct::Done {
            self.end_transition(key, id, start);
            return;
        }
        if start != TaskState::Released && finish != TaskState::Released {
            let released = self.transition_directly(id, TaskState::Released);
            debug_assert_eq!(released, Direct::Done, "every state but forgotten leads to released");
            // What the release itself recommends for the task goes first.
            let next = self.tasks[id].recommended.unwrap_or(finish);
            if next == TaskState::Released || self.transition_directly(id, next) == Direct::Done {
                self.end_transition(key, id, start);
                return;
            }
        }
        self.impossible_transition(&key, start, finish);
    }

    fn impossible_transition(&self, key: &Key, start: TaskState, finish: TaskState) {
        let story = self.story(&[Value::from(key)]);
        tracing::error!(%key, start = start.name(), finish = finish.name(), ?story, "impossible transition");
        debug_assert!(false, "impossible transition of {key} from {} to {}", start.name(), finish.name());
    }

    /// Starts collecting what one transition recommends.
    pub(in crate::state) fn begin_transition(&mut self) {
        self.transition_counter += 1;
        self.recommended.clear();
    }

    /// Logs a transition, and forgets the group with its last task.
    pub(in crate::state) fn end_transition(&mut self, key: Key, id: TaskId, start: TaskState) {
        let finish = self.tasks.get(id).map_or(TaskState::Forgotten, |task| task.state);
        if let Some(observed) = &mut self.observed {
            let stimulus_id = self.stimulus_id.clone();
            observed.push(ObservedTransition { key: key.clone(), start, finish, stimulus_id });
        }
        let recommended = std::mem::take(&mut self.recommended);
        let keyed = recommended.iter().filter_map(|(id, finish)| Some((self.tasks.get(*id)?.key.clone(), *finish)));
        self.story.push(key, start, finish, keyed, self.stimulus_id.clone(), self.now);
        self.recommended = recommended;
    }

    /// Keeps every transition from now on for [`State::take_observed`], or no longer.
    pub fn observe_transitions(&mut self, on: bool) {
        self.observed = on.then(|| self.observed.take().unwrap_or_default());
    }

    /// The transitions since the last call.
    pub fn take_observed(&mut self) -> Vec<ObservedTransition> {
        self.observed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn transition_directly(&mut self, id: TaskId, finish: TaskState) -> Direct {
        match self.tasks[id].state {
            TaskState::Released => self.transition_released(id, finish),
            TaskState::Waiting => self.transition_waiting(id, finish),
            TaskState::NoWorker => self.transition_no_worker(id, finish),
            TaskState::Queued => self.transition_queued(id, finish),
            TaskState::Processing => self.transition_processing(id, finish),
            TaskState::Memory => self.transition_memory(id, finish),
            TaskState::Erred => self.transition_erred(id, finish),
            TaskState::Forgotten => Direct::None,
        }
    }

    /// Sets a task's state and keeps the counts of its group and prefix.
    pub(in crate::state) fn set_state(&mut self, id: TaskId, state: TaskState) {
        let task = &mut self.tasks[id];
        let old = std::mem::replace(&mut task.state, state);
        let (group, prefix) = (task.group, task.prefix);
        if task.is_barrier && matches!(state, TaskState::Released | TaskState::Erred | TaskState::Forgotten) {
            self.out.push(Action::ShuffleEnded { barrier: task.key.clone(), state });
        }
        let prefix = &mut self.groups.prefixes[prefix.index()];
        prefix.reached[state as usize] += 1;
        for states in [&mut self.groups.groups[group.index()].states, &mut prefix.states] {
            states.sub(old);
            states.add(state);
        }
    }

    /// Releases a task that was ready (`_propagate_released`): back to waiting if somebody needs it, else its
    /// dependencies are let go of.
    pub(in crate::state) fn propagate_released(&mut self, id: TaskId) {
        self.set_state(id, TaskState::Released);
        let task = &self.tasks[id];
        if task.has_lost_dependencies {
            self.recommend(id, TaskState::Forgotten);
        } else if !task.is_unneeded() {
            self.recommend(id, TaskState::Waiting);
            return;
        }
        for position in 0..self.tasks[id].dependencies.len() {
            let dep = self.tasks[id].dependencies.at(position);
            if self.tasks[dep].state != TaskState::Released {
                self.stop_waiting_for(id, dep);
            }
        }
        self.tasks[id].waiters.clear();
    }

    /// `id` no longer needs `dep`, which is released if nobody else does.
    pub(in crate::state) fn stop_waiting_for(&mut self, id: TaskId, dep: TaskId) {
        let dependency = &mut self.tasks[dep];
        dependency.waiters.remove(id);
        // An erred task stays so until somebody retries it.
        if dependency.is_unneeded() && dependency.state != TaskState::Erred {
            self.recommend(dep, TaskState::Released);
        }
    }

    /// Tells every client that wants a task.
    pub(in crate::state) fn tell_wanters(&mut self, id: TaskId, message: impl Fn() -> SchedulerToClient) {
        for position in 0..self.tasks[id].who_wants.len() {
            let client = self.tasks[id].who_wants.at(position);
            self.send_client(client, message());
        }
    }

    pub(in crate::state) fn send_free_key(&mut self, worker: WorkerId, id: TaskId) {
        self.free_keys(worker, self.tasks[id].key.clone());
    }

    /// Tells a worker to forget a key. Keys that go in a row travel in one message: a client that lets go of a hundred
    /// thousand results frees them with one per worker.
    pub(in crate::state) fn free_keys(&mut self, worker: WorkerId, key: Key) {
        if let Some((event, position)) = self.workers[worker].freeing
            && event == self.events
            && let Some(Action::ToWorker { message: SchedulerToWorker::FreeKeys(message), .. }) =
                self.out.get_mut(position)
            && message.stimulus_id == self.stimulus_id
        {
            message.keys.0.push(key);
            return;
        }
        let position = self.out.len();
        let stimulus_id = self.stimulus_id.clone();
        self.send_worker(worker, FreeKeys { keys: Keys(vec![key]), stimulus_id });
        self.workers[worker].freeing = Some((self.events, position));
    }

    pub(in crate::state) fn send_free_key_to_holders(&mut self, id: TaskId) {
        for position in 0..self.tasks[id].who_has.len() {
            let worker = self.tasks[id].who_has.at(position);
            self.send_free_key(worker, id);
        }
    }

    pub(in crate::state) fn send_free_key_to(&mut self, address: &Address, id: TaskId) {
        if let Some(worker) = self.workers.id(address) {
            self.send_free_key(worker, id);
        }
    }
}
