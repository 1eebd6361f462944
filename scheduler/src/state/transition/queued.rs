//! From queued: ready, held back until a worker has a free slot.

use super::super::State;
use super::super::ids::TaskId;
use super::super::task::TaskState;
use super::Direct;

impl State {
    pub(super) fn transition_queued(&mut self, id: TaskId, finish: TaskState) -> Direct {
        match finish {
            TaskState::Processing => {
                if let Some(worker) = self.decide_worker_queued(id) {
                    self.dequeue(id);
                    self.add_to_processing(id, worker);
                }
            }
            TaskState::Released => {
                self.dequeue(id);
                self.propagate_released(id);
            }
            TaskState::Erred => {
                self.dequeue(id);
                self.propagate_erred(id, None);
            }
            TaskState::Waiting | TaskState::NoWorker | TaskState::Queued | TaskState::Memory | TaskState::Forgotten => {
                return Direct::None;
            }
        }
        Direct::Done
    }
}
