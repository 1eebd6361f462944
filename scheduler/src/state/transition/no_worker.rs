//! From no-worker: ready, but no worker may run it.

use super::super::State;
use super::super::ids::TaskId;
use super::super::task::TaskState;
use super::Direct;

impl State {
    pub(super) fn transition_no_worker(&mut self, id: TaskId, finish: TaskState) -> Direct {
        match finish {
            TaskState::Processing => {
                if let Some(worker) = self.decide_worker_non_rootish(id) {
                    self.unrunnable.swap_remove(&id);
                    self.add_to_processing(id, worker);
                }
            }
            TaskState::Released => {
                self.unrunnable.swap_remove(&id);
                self.propagate_released(id);
            }
            TaskState::Erred => {
                self.unrunnable.swap_remove(&id);
                self.propagate_erred(id, None);
            }
            TaskState::Waiting | TaskState::NoWorker | TaskState::Queued | TaskState::Memory | TaskState::Forgotten => {
                return Direct::None;
            }
        }
        Direct::Done
    }
}
