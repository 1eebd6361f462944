//! Root-ish tasks wait here until a worker has a free slot, so that results are used before more are made.

use std::collections::BTreeSet;

use super::State;
use super::event::Runtime;
use super::ids::TaskId;
use super::task::TaskState;

/// A queued task's place: by priority, first come first served among equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    priority: [i64; 3],
    number: u64,
    task: TaskId,
}

/// The queue, one per runtime so that a task nobody can run yet does not hold up others.
#[derive(Debug, Default)]
pub(super) struct Queue {
    queues: [BTreeSet<Place>; Runtime::COUNT],
    last_number: u64,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.queues.iter().map(BTreeSet::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(BTreeSet::is_empty)
    }

    fn first(&self, runtime: Runtime) -> Option<TaskId> {
        self.queues[runtime.number()].first().map(|place| place.task)
    }

    /// Queued tasks, the next one first (per runtime).
    pub(super) fn iter(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.queues.iter().flatten().map(|place| place.task)
    }
}

impl State {
    pub(super) fn enqueue(&mut self, id: TaskId) {
        self.queue.last_number += 1;
        self.tasks[id].queue_number = self.queue.last_number;
        let place = self.place(id);
        self.queue.queues[self.tasks[id].runtime.number()].insert(place);
    }

    pub(super) fn dequeue(&mut self, id: TaskId) {
        let place = self.place(id);
        let was_there = self.queue.queues[self.tasks[id].runtime.number()].remove(&place);
        assert!(was_there, "a queued task is in the queue");
    }

    fn place(&self, id: TaskId) -> Place {
        let task = &self.tasks[id];
        Place { priority: task.sort_key(), number: task.queue_number, task: id }
    }

    /// Sends as many queued tasks as there are free slots (`stimulus_queue_slots_maybe_opened`). Everything else the
    /// event led to must be settled first: results are to be used before more are made.
    pub(super) fn queue_slots_maybe_opened(&mut self) {
        for runtime in Runtime::ALL {
            if self.queue.queues[runtime.number()].is_empty() {
                continue;
            }
            let saturation = self.config.worker_saturation;
            let open = self.idle.with_slots[runtime.number()].iter();
            let slots: usize = open.map(|(_, id)| self.workers[*id].task_slots(saturation)).sum();
            for _ in 0..slots {
                let Some(id) = self.queue.first(runtime) else {
                    break;
                };
                self.recommend(id, TaskState::Processing);
                self.transitions();
                if self.queue.first(runtime) == Some(id) {
                    break;
                }
            }
        }
    }
}
