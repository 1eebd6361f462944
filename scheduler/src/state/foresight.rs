//! Reads ahead what the next events will be about, so that a processor waits for memory once for many tasks.
//!
//! A million tasks lie in memory, not in caches. One event looks at a handful of records, each found through the one before,
//! and each is waited for. What sixteen events look at is as far away, but a processor fetches it all at the same time if
//! nothing hangs on the answers: here they are only added up.

use std::hint::black_box;

use dask_protocol::Key;
use dask_protocol::message::WorkerToScheduler;
use smallvec::SmallVec;

use super::State;
use super::event::Event;
use super::ids::{IdSet, TaskId, WorkerId};
use super::task::Task;
use super::worker::Worker;

/// So many events are looked at together: some more than a processor has misses under way.
pub const EVENTS_FORESEEN: usize = 16;
/// With fewer tasks than these everything is in a cache anyway.
const TASKS_MIN: usize = 16_384;
/// Transitions that an event leads to, more or less.
const TRANSITIONS: usize = 2;
/// Neighbours of a task in its graph that are read ahead.
const NEIGHBOURS_MAX: usize = 4;

type Finished<'a> = SmallVec<[(&'a Key, Option<WorkerId>); EVENTS_FORESEEN]>;
type Ids = SmallVec<[(TaskId, Option<WorkerId>); EVENTS_FORESEEN]>;

impl State {
    /// Reads what events that are about to be handled will be about. Changes nothing. Give it some [`EVENTS_FORESEEN`] at
    /// a time.
    pub fn foresee<'a>(&self, events: impl IntoIterator<Item = &'a Event>) {
        if self.tasks.len() < TASKS_MIN {
            return;
        }
        let finished: Finished<'_> = events.into_iter().filter_map(|event| self.finished(event)).collect();
        let ids: Ids =
            finished.iter().filter_map(|(key, worker)| Some((self.tasks.likely_id(key)?, *worker))).collect();
        let mut read = self.story.read_ahead(EVENTS_FORESEEN * TRANSITIONS);
        for (id, worker) in &ids {
            read += self.read(*id) + worker.and_then(|worker| self.workers.get(worker)).map_or(0, Worker::read);
        }
        for (id, worker) in &ids {
            let Some(task) = self.tasks.get(*id) else {
                continue;
            };
            read += task.key.read();
            for neighbours in [&task.dependents, &task.dependencies] {
                read += neighbours.iter().take(NEIGHBOURS_MAX).map(|id| self.read(id)).sum::<usize>();
            }
            if let Some(worker) = worker.and_then(|worker| self.workers.get(worker)) {
                read += usize::from(worker.has_what.contains(id));
            }
        }
        for (id, _) in &ids {
            let Some(task) = self.tasks.get(*id) else {
                continue;
            };
            for neighbours in [&task.dependents, &task.dependencies] {
                let neighbours = neighbours.iter().take(NEIGHBOURS_MAX).filter_map(|id| self.tasks.get(id));
                read += neighbours.map(|task| task.key.read()).sum::<usize>();
            }
        }
        black_box(read);
    }

    /// What ends with this event, and on which worker.
    fn finished<'a>(&self, event: &'a Event) -> Option<(&'a Key, Option<WorkerId>)> {
        match event {
            Event::WorkerMessage { worker, message: WorkerToScheduler::TaskFinished(message) } => {
                Some((&message.key, self.workers.id(worker)))
            }
            Event::WorkerMessage { worker, message: WorkerToScheduler::AddKeys(message) } => {
                Some((message.keys.0.first()?, self.workers.id(worker)))
            }
            _ => None,
        }
    }

    fn read(&self, id: TaskId) -> usize {
        self.tasks.get(id).map_or(0, Task::read)
    }
}

impl Task {
    /// Reads each of its cache lines.
    fn read(&self) -> usize {
        let sets = [&self.dependencies, &self.dependents, &self.waiting_on, &self.waiters];
        let ids: usize = sets.into_iter().map(IdSet::len).sum();
        ids + self.who_wants.len() + self.who_has.len() + self.state as usize + self.nbytes as usize
    }
}

impl Worker {
    fn read(&self) -> usize {
        self.processing.len() + self.has_what.len() + self.needs_what.len() + self.prefix_count.len() + self.memory as usize
            + self.nbytes as usize + self.rank as usize + self.actors.len() + self.long_running.len()
            + self.used_resources.len() + self.address.as_str().len() + self.held as usize + self.slot_ratio.is_some() as usize
    }
}
