//! From memory: its result is on at least one worker.

use dask_protocol::message::LostData;

use super::super::State;
use super::super::errors;
use super::super::explain::Incident;
use super::super::ids::TaskId;
use super::super::task::TaskState;
use super::Direct;

impl State {
    pub(super) fn transition_memory(&mut self, id: TaskId, finish: TaskState) -> Direct {
        match finish {
            TaskState::Released => self.transition_memory_released(id),
            TaskState::Erred => self.transition_memory_erred(id),
            TaskState::Forgotten => {
                self.propagate_forgotten(id);
                self.remove_task(id);
            }
            TaskState::Waiting
            | TaskState::NoWorker
            | TaskState::Queued
            | TaskState::Processing
            | TaskState::Memory => return Direct::None,
        }
        Direct::Done
    }

    fn transition_memory_released(&mut self, id: TaskId) {
        let task = &self.tasks[id];
        if task.actor && !task.who_wants.is_empty() {
            // An actor's state cannot be computed again.
            self.recommend(id, TaskState::Erred);
            return;
        }
        self.send_free_key_to_holders(id);
        self.remove_all_replicas(id);
        self.set_state(id, TaskState::Released);
        let key = self.tasks[id].key.clone();
        self.tell_wanters(id, || LostData { key: key.clone() }.into());
        let task = &self.tasks[id];
        if task.spec.is_none() || task.has_lost_dependencies {
            self.recommend(id, TaskState::Forgotten);
        } else if !task.is_unneeded() {
            // With an erred dependency it errs from there. Upstream leaves it released, and who wants it waits for ever.
            self.recommend(id, TaskState::Waiting);
        }
        for position in 0..self.tasks[id].waiters.len() {
            let waiter = self.tasks[id].waiters.at(position);
            match self.tasks[waiter].state {
                TaskState::NoWorker | TaskState::Processing | TaskState::Queued => {
                    self.note_incident(waiter, |state| Incident::InputLost { input: state.tasks[id].key.clone() });
                    self.recommend(waiter, TaskState::Waiting);
                }
                TaskState::Waiting => {
                    self.tasks[waiter].waiting_on.insert(id);
                    // It may have been about to start.
                    if self.tasks[waiter].recommended == Some(TaskState::Processing) {
                        self.recommend(waiter, TaskState::Waiting);
                    }
                }
                TaskState::Released | TaskState::Memory | TaskState::Erred | TaskState::Forgotten => {}
            }
        }
    }

    /// Only actors: their worker was lost.
    fn transition_memory_erred(&mut self, id: TaskId) {
        self.send_free_key_to_holders(id);
        self.remove_all_replicas(id);
        self.blame(id, errors::actor_lost());
        let failure = self.tasks[id].failure.clone();
        for position in 0..self.tasks[id].dependents.len() {
            let dependent = self.tasks[id].dependents.at(position);
            if self.tasks[dependent].who_has.is_empty() {
                self.tasks[dependent].failure.clone_from(&failure);
                self.recommend(dependent, TaskState::Erred);
            }
        }
        self.propagate_erred(id, None);
    }
}
