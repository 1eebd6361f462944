//! From released: known, but neither computed nor about to be.

use std::sync::Arc;

use dask_protocol::message::{CancelledKeys, Keys};

use super::super::State;
use super::super::ids::{TaskId, take_out};
use super::super::task::{Failure, Task, TaskState};
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
            self.call_off_dependencies(id);
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
                if self.tasks[dep].state == TaskState::Erred {
                    self.hopeful.push(id);
                }
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

    /// Dependencies that were to be computed for a task which nobody wants after all.
    fn call_off_dependencies(&mut self, id: TaskId) {
        for position in 0..self.tasks[id].dependencies.len() {
            let dep = self.tasks[id].dependencies.at(position);
            match self.tasks[dep].state {
                TaskState::Waiting | TaskState::NoWorker | TaskState::Queued | TaskState::Processing => {
                    self.stop_waiting_for(id, dep);
                }
                TaskState::Released | TaskState::Memory | TaskState::Erred | TaskState::Forgotten => {}
            }
        }
    }

    /// Whether anybody wants a released task by now, or is about to. Whoever recommended that it should wait may have
    /// moved on in the same round; upstream computes the task nevertheless.
    fn is_awaited(&self, id: TaskId) -> bool {
        let task = &self.tasks[id];
        let awaits = |dependent: &Task| {
            dependent.state == TaskState::Waiting || dependent.recommended == Some(TaskState::Waiting)
        };
        !task.who_wants.is_empty() || task.dependents.iter().any(|dependent| awaits(&self.tasks[dependent]))
    }

    /// Errs what waits for a task that is erred and, now that everything else is settled, not about to be retried. It
    /// can only be erred too. Upstream lets it wait for ever, when a `retry` names only some of several erred roots or
    /// when a result is lost whose input is erred.
    pub(super) fn give_up_hope(&mut self) {
        for id in std::mem::take(&mut self.hopeful) {
            if let Some(failure) = self.failure_of_a_dependency(id) {
                self.tasks[id].failure = Some(failure);
                self.recommend(id, TaskState::Erred);
            }
        }
    }

    /// The failure of an erred task that `id` waits for.
    fn failure_of_a_dependency(&self, id: TaskId) -> Option<Arc<Failure>> {
        let task = self.tasks.get(id).filter(|task| task.state == TaskState::Waiting)?;
        let mut dependencies = task.dependencies.iter().map(|dep| &self.tasks[dep]);
        dependencies.find(|dep| dep.state == TaskState::Erred)?.failure.clone()
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
            take_out(&mut client.wants_what, &id);
        }
        let task = self.tasks.remove(id);
        self.groups.remove_if_forgotten(task.group);
    }
}
