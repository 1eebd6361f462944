//! From waiting: to be computed once its dependencies are in memory.

use super::super::State;
use super::super::config::Policy;
use super::super::ids::TaskId;
use super::super::task::TaskState;
use super::Direct;

impl State {
    pub(super) fn transition_waiting(&mut self, id: TaskId, finish: TaskState) -> Direct {
        match finish {
            TaskState::Released => self.transition_waiting_released(id),
            TaskState::Processing => self.transition_waiting_processing(id),
            TaskState::NoWorker => self.transition_waiting_no_worker(id),
            TaskState::Queued => {
                self.set_state(id, TaskState::Queued);
                self.enqueue(id);
            }
            // The scheduler believed a dependency lost while a worker that had a copy finished the task. The worker is
            // about to be told to drop the result.
            TaskState::Memory => {}
            TaskState::Waiting | TaskState::Erred | TaskState::Forgotten => return Direct::None,
        }
        Direct::Done
    }

    /// The dispatch of ready tasks.
    fn transition_waiting_processing(&mut self, id: TaskId) {
        let task = &self.tasks[id];
        let rootish = self.is_rootish(task);
        let queued = rootish && self.queuing() && task.queueable;
        let worker = if queued && self.config.policy == Policy::Native {
            // The queue knows what is used together; it is served before the event is over.
            None
        } else if queued {
            self.decide_worker_rootish_queuing_enabled(task.runtime)
        } else if rootish {
            self.decide_worker_rootish_queuing_disabled(id)
        } else {
            self.decide_worker_non_rootish(id)
        };
        match worker {
            Some(worker) => self.add_to_processing(id, worker),
            None if queued => self.recommend(id, TaskState::Queued),
            None => self.recommend(id, TaskState::NoWorker),
        }
    }

    fn transition_waiting_no_worker(&mut self, id: TaskId) {
        self.set_state(id, TaskState::NoWorker);
        self.tasks[id].queue_number = self.now.to_bits();
        self.unrunnable.insert(id);
        self.refresh_no_workers_since();
        self.warn_if_hopeless(id);
    }

    fn transition_waiting_released(&mut self, id: TaskId) {
        for position in 0..self.tasks[id].dependencies.len() {
            let dep = self.tasks[id].dependencies.at(position);
            if self.tasks[dep].waiters.contains(id) {
                self.stop_waiting_for(id, dep);
            }
        }
        self.tasks[id].waiting_on.clear();
        self.set_state(id, TaskState::Released);
        let task = &mut self.tasks[id];
        if task.has_lost_dependencies {
            self.recommend(id, TaskState::Forgotten);
        } else if task.failure.is_none() && !task.is_unneeded() {
            self.recommend(id, TaskState::Waiting);
        } else {
            task.waiters.clear();
        }
    }
}
