//! What tasks spent their time with lately, for the pages: a ring that costs the driver a few words per task.

use std::collections::VecDeque;

use dask_protocol::message::WorkerToScheduler;
use dask_protocol::{Address, Key};

use crate::state::Seconds;

/// A timed part of a task's life, as its worker told it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    pub(crate) key: Key,
    pub(crate) worker: Address,
    /// The thread that ran it; 0 where the worker does not tell.
    pub(crate) thread: i64,
    pub(crate) action: Activity,
    /// Whether the task went well.
    pub(crate) ok: bool,
    pub(crate) start: Seconds,
    pub(crate) stop: Seconds,
    /// The worker that a transfer came from.
    pub(crate) source: Option<Address>,
}

/// What a part of a task's life was spent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// The task's own work.
    Compute,
    /// Fetching what it reads.
    Transfer,
    /// Writing values to disk, or reading them.
    Disk,
    /// Anything else, such as deserializing.
    Other,
}

impl Activity {
    fn named(action: &str) -> Activity {
        match action {
            "compute" => Activity::Compute,
            "transfer" => Activity::Transfer,
            "disk-read" | "disk-write" => Activity::Disk,
            _ => Activity::Other,
        }
    }

    /// Its name in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Activity::Compute => "compute",
            Activity::Transfer => "transfer",
            Activity::Disk => "disk",
            Activity::Other => "other",
        }
    }
}

/// The ring.
#[derive(Debug)]
pub(crate) struct RecentParts {
    /// Parts kept until the pages take them.
    length: usize,
    parts: VecDeque<Part>,
    /// Parts that left it unread.
    missed: u64,
}

impl RecentParts {
    /// Keeps so many.
    pub(crate) fn new(length: usize) -> RecentParts {
        RecentParts { length, parts: VecDeque::new(), missed: 0 }
    }

    /// Notes what a worker's message tells of a task that it ends; other messages tell nothing.
    pub(crate) fn note(&mut self, worker: &Address, message: &WorkerToScheduler) {
        let (key, thread, startstops, ok) = match message {
            WorkerToScheduler::TaskFinished(done) => (&done.key, &done.thread, &done.startstops, true),
            WorkerToScheduler::TaskErred(erred) => (&erred.key, &erred.thread, &erred.startstops, false),
            _ => return,
        };
        let thread = thread.as_i64().unwrap_or_default();
        for part in startstops {
            self.push(Part {
                key: key.clone(),
                worker: worker.clone(),
                thread,
                action: Activity::named(&part.action),
                ok,
                start: part.start,
                stop: part.stop,
                source: part.source.clone(),
            });
        }
    }

    fn push(&mut self, part: Part) {
        if self.parts.len() >= self.length {
            self.missed += 1;
            if self.parts.pop_front().is_none() {
                return;
            }
        }
        self.parts.push_back(part);
    }

    /// Takes all out, oldest first, and how many were lost before.
    pub(crate) fn take(&mut self) -> (VecDeque<Part>, u64) {
        (std::mem::take(&mut self.parts), std::mem::take(&mut self.missed))
    }
}

#[cfg(test)]
mod tests {
    use dask_protocol::Value;
    use dask_protocol::message::{StartStop, TaskFinished};

    use super::*;

    const LENGTH: usize = 100;

    fn finished(i: usize) -> WorkerToScheduler {
        let part = |action: &str| StartStop { action: action.into(), start: 1.0, stop: 2.0, source: None };
        WorkerToScheduler::TaskFinished(TaskFinished {
            key: format!("inc-{i}").into(),
            run_id: 0,
            nbytes: 1,
            type_pickle: None,
            typename: "int".into(),
            metadata: Value::Nil,
            thread: Value::Int(7),
            startstops: vec![part("transfer"), part("compute")],
            value: None,
            status: "OK".into(),
            stimulus_id: "s".into(),
        })
    }

    #[test]
    fn every_part_of_a_task_is_taken_once() {
        let mut recent = RecentParts::new(LENGTH);
        recent.note(&"tcp://h:1".into(), &finished(0));
        let (parts, missed) = recent.take();
        let told: Vec<_> = parts.iter().map(|part| (part.action.name(), part.thread, part.ok)).collect();
        assert_eq!(told, [("transfer", 7, true), ("compute", 7, true)]);
        assert_eq!((missed, recent.take().0.len()), (0, 0));
    }

    #[test]
    fn what_nobody_takes_makes_room_and_is_counted() {
        let mut recent = RecentParts::new(LENGTH);
        (0..LENGTH).for_each(|i| recent.note(&"tcp://h:1".into(), &finished(i)));
        let (parts, missed) = recent.take();
        assert_eq!((parts.len(), missed), (LENGTH, LENGTH as u64));
        assert_eq!(parts.back().map(|part| part.key.to_string()), Some(format!("inc-{}", LENGTH - 1)));
    }
}
