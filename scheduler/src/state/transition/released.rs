//! From released: known, but neither computed nor about to be.

use dask_protocol::message::{CancelledKeys, Keys};

use super::super::State;
use super::super::ids::TaskId;
use super::super::task::TaskState;
use super::Direct;

impl State {
    pub(super) fn transition_released(&mut self, id: TaskId, finish: TaskState) -> Direct {
        match finish {
            TaskState::Waiting => self.transition_released_waiting(id),
            TaskState::Erred => self.transition_released_erred(id),
            TaskState::Forgotten => self.transition_released_forgotten(id),
            TaskState::Released
            | TaskState::NoWorker
            | TaskState::Queued
            | TaskState::Processing
            | TaskState::Memory => return Direct::None,
        }
        Direct::Done
    }

    fn transition_released_waiting(&mut self, id: TaskId) {
        if self.tasks[id].has_lost_dependencies || self.tasks[id].spec.is_none() {
            self.recommend(id, TaskState::Forgotten);
            return;
        }
        if !self.is_awaited(id) {
            self.tasks[id].waiters.clear();
            return;
        }
        if self.blame_erred_dependency(id) {
            return;
        }
        self.set_state(id, TaskState::Waiting);
        for position in 0..self.tasks[id].dependencies.len() {
            let dep = self.tasks[id].dependencies.at(position);
            if self.tasks[dep].who_has.is_empty() {
                self.tasks[id].waiting_on.insert(dep);
            }
            if self.tasks[dep].state == TaskState::Released {
                self.recommend(dep, TaskState::Waiting);
            } else {
                self.tasks[dep].waiters.insert(id);
            }
        }
        self.tasks[id].waiters.clear();
        for position in 0..self.tasks[id].dependents.len() {
            let dependent = self.tasks[id].dependents.at(position);
            if self.tasks[dependent].state == TaskState::Waiting {
                self.tasks[id].waiters.insert(dependent);
            }
        }
        if self.tasks[id].waiting_on.is_empty() {
            self.recommend(id, TaskState::Processing);
        }
    }

    /// Whether anybody wants a released task by now. Whoever recommended that it should wait may have moved on in the
    /// same round; upstream computes the task nevertheless.
    fn is_awaited(&self, id: TaskId) -> bool {
        let task = &self.tasks[id];
        !task.who_wants.is_empty() || task.dependents.iter().any(|d| self.tasks[d].state == TaskState::Waiting)
    }

    /// A task whose dependency is erred, and not about to be retried, can only be erred too. Upstream would let it wait
    /// for ever when a `retry` names only some of several erred roots.
    fn blame_erred_dependency(&mut self, id: TaskId) -> bool {
        let Some(dep) = self.tasks[id].dependencies.iter().find(|dep| self.stays_erred(*dep)) else {
            return false;
        };
        self.tasks[id].failure = self.tasks[dep].failure.clone();
        self.recommend(id, TaskState::Erred);
        true
    }

    /// Whether a task is erred and neither it nor the task that raised is being retried.
    fn stays_erred(&self, id: TaskId) -> bool {
        let task = &self.tasks[id];
        if task.state != TaskState::Erred || task.recommended.is_some() {
            return false;
        }
        let cause = task.failure.as_ref().and_then(|failure| self.tasks.id(&failure.cause));
        // A cause that has succeeded since will not take its dependents along any more.
        let retried = |cause: TaskId| match self.tasks[cause].state {
            TaskState::Erred | TaskState::Released => self.tasks[cause].recommended.is_some(),
            TaskState::Waiting | TaskState::NoWorker | TaskState::Queued | TaskState::Processing => true,
            TaskState::Memory | TaskState::Forgotten => false,
        };
        task.has_lost_dependencies || !cause.is_some_and(retried)
    }

    fn transition_released_erred(&mut self, id: TaskId) {
        let failure = self.tasks[id].failure.clone().expect("a task is erred because of a failure");
        for position in 0..self.tasks[id].dependents.len() {
            let dependent = self.tasks[id].dependents.at(position);
            if self.tasks[dependent].who_has.is_empty() {
                self.tasks[dependent].failure = Some(failure.clone());
                self.recommend(dependent, TaskState::Erred);
            }
        }
        self.set_state(id, TaskState::Erred);
        // It may come from processing, about to wait again.
        for position in 0..self.tasks[id].dependencies.len() {
            let dep = self.tasks[id].dependencies.at(position);
            if self.tasks[dep].waiters.contains(id) {
                self.stop_waiting_for(id, dep);
            }
        }
        self.tasks[id].waiters.clear();
        self.tell_wanters_erred(id, &failure);
    }

    fn transition_released_forgotten(&mut self, id: TaskId) {
        self.propagate_forgotten(id);
        self.remove_task(id);
    }

    /// Cuts a task out of the graph (`_propagate_forgotten`): dependents can never run again, dependencies that only it
    /// kept are forgotten too.
    pub(in crate::state) fn propagate_forgotten(&mut self, id: TaskId) {
        self.set_state(id, TaskState::Forgotten);
        let dependents = std::mem::take(&mut self.tasks[id].dependents);
        for dependent in dependents.iter() {
            let task = &mut self.tasks[dependent];
            task.has_lost_dependencies = true;
            task.dependencies.remove(id);
            task.waiting_on.remove(id);
            if !matches!(task.state, TaskState::Memory | TaskState::Erred) {
                self.recommend(dependent, TaskState::Forgotten);
            }
        }
        let dependencies = std::mem::take(&mut self.tasks[id].dependencies);
        for dep in dependencies.iter() {
            let dependency = &mut self.tasks[dep];
            dependency.dependents.remove(id);
            dependency.waiters.remove(id);
            if dependency.dependents.is_empty() && dependency.who_wants.is_empty() {
                self.recommend(dep, TaskState::Forgotten);
            }
        }
        self.send_free_key_to_holders(id);
        self.remove_all_replicas(id);
    }

    /// Ends a forgotten task (`_remove_key`); clients that still want it learn that it is gone.
    pub(in crate::state) fn remove_task(&mut self, id: TaskId) {
        let key = self.tasks[id].key.clone();
        self.tell_wanters(id, || {
            let reason = Some("already forgotten".to_owned());
            CancelledKeys { keys: Keys(vec![key.clone()]), reason, msg: None }.into()
        });
        for position in 0..self.tasks[id].who_wants.len() {
            let client = self.tasks[id].who_wants.at(position);
            let client = self.clients.get_mut(client).expect("a wanter is a known client");
            client.wants_what.swap_remove(&id);
        }
        let task = self.tasks.remove(id);
        self.groups.remove_if_forgotten(task.group);
    }
}
