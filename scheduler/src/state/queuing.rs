//! Root-ish tasks wait here until a worker has a free slot, so that results are used before more are made.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::State;
use super::config::Policy;
use super::event::Runtime;
use super::ids::{TaskId, WorkerId};
use super::runs::Kept;
use super::task::TaskState;

/// A queued task's place: by priority, first come first served among equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) priority: [i64; 3],
    number: u64,
    pub(super) task: TaskId,
}

impl Place {
    /// Before all others.
    pub(super) const MIN: Place = Place { priority: [i64::MIN; 3], number: 0, task: TaskId(0) };
}

/// The queue, one per runtime so that a task nobody can run yet does not hold up others.
#[derive(Debug, Default)]
pub(super) struct Queue {
    queues: [BTreeSet<Place>; Runtime::COUNT],
    /// Those of the queued tasks that wait for a certain worker; only under the policy `native`.
    pub(super) kept: Kept,
    last_number: u64,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.queues.iter().map(BTreeSet::len).sum::<usize>() + self.kept.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first of the tasks that wait for any worker.
    pub(super) fn head(&self, runtime: Runtime) -> Option<Place> {
        self.queues[runtime.number()].first().copied()
    }

    /// What comes after a task that waits for any worker.
    pub(super) fn after(&self, runtime: Runtime, place: Place) -> impl Iterator<Item = Place> + '_ {
        self.queues[runtime.number()].range((Bound::Excluded(place), Bound::Unbounded)).copied()
    }

    /// How many wait for any worker.
    pub(super) fn waiting(&self, runtime: Runtime) -> usize {
        self.queues[runtime.number()].len()
    }

    /// A task that waited for any worker waits for this one; `sent` tasks were sent out so far.
    pub(super) fn keep(&mut self, runtime: Runtime, place: Place, worker: WorkerId, sent: u64) {
        let was_there = self.queues[runtime.number()].remove(&place);
        assert!(was_there, "a task of a run waits for any worker");
        self.kept.insert(runtime, worker, place, sent);
    }

    /// What waited for a worker that no longer runs waits for any.
    pub(super) fn unkeep(&mut self, runtime: Runtime, worker: WorkerId) {
        while let Some(place) = self.kept.first(runtime, worker) {
            self.kept.remove(runtime, place);
            self.queues[runtime.number()].insert(place);
        }
    }

    /// Queued tasks, the next one first (per runtime; those that wait for a certain worker after all others).
    pub(super) fn iter(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.queues.iter().flatten().map(|place| place.task).chain(self.kept.iter())
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
        let (place, runtime) = (self.place(id), self.tasks[id].runtime);
        let was_there = self.queue.queues[runtime.number()].remove(&place) || self.queue.kept.remove(runtime, place);
        assert!(was_there, "a queued task is in the queue");
    }

    fn place(&self, id: TaskId) -> Place {
        let task = &self.tasks[id];
        Place { priority: task.sort_key(), number: task.queue_number, task: id }
    }

    /// Sends as many queued tasks as there are free slots (`stimulus_queue_slots_maybe_opened`). Everything else the
    /// event led to must be settled first: results are to be used before more are made. Upstream counts the slots before;
    /// here a slot that is free again at once, because the task's inputs do not fit into any memory, goes to the next.
    pub(super) fn queue_slots_maybe_opened(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        for runtime in Runtime::ALL {
            while !self.idle.with_slots[runtime.number()].is_empty() {
                let Some(id) = self.next_queued(runtime) else {
                    break;
                };
                self.recommend(id, TaskState::Processing);
                self.transitions();
                if self.tasks.get(id).is_some_and(|task| task.state == TaskState::Queued) {
                    break;
                }
            }
        }
    }

    fn next_queued(&mut self, runtime: Runtime) -> Option<TaskId> {
        match self.config.policy {
            Policy::Upstream => self.queue.head(runtime).map(|place| place.task),
            Policy::Native => self.next_of_runs(runtime),
        }
    }
}
