//! What diagnostics follow: progress bars, streams of finished tasks, metadata of a block of code.
//!
//! Upstream has a scheduler plugin for each of these. Here they are small tables that the driver feeds with every
//! transition while there are any; a request or a feed reads them.

mod everything;
mod finished;
mod metadata;
mod progress;

use dask_protocol::message::StimulusId;
use dask_protocol::{Key, Value};
use indexmap::IndexMap;

pub(crate) use self::everything::Everything;
pub(crate) use self::finished::FinishedTasks;
pub(crate) use self::metadata::TaskMetadata;
pub(crate) use self::progress::{GroupBy, Progress};
use crate::state::{State, TaskState};

/// Most trackers at a time; a program that opens progress bars and never reads them stops here.
const TRACKERS_MAX: usize = 10_000;

/// One transition, with what the worker told of the task when that set it off.
#[derive(Debug, Clone)]
pub(crate) struct Transition {
    pub(crate) key: Key,
    pub(crate) start: TaskState,
    pub(crate) finish: TaskState,
    pub(crate) stimulus_id: StimulusId,
    /// The record of the task stream, of a task that finished or erred.
    pub(crate) record: Option<Value>,
}

/// Names a tracker.
pub(crate) type TrackerId = u64;

/// One thing that follows transitions.
pub(crate) enum Tracker {
    /// A progress bar.
    Progress(Progress),
    /// Progress of everything (`AllProgress`).
    Everything(Everything),
    /// Tasks as they finish (`EventStream`).
    Finished(FinishedTasks),
    /// Metadata of tasks (`CollectTaskMetaDataPlugin`).
    Metadata(TaskMetadata),
}

/// All of them.
#[derive(Default)]
pub(crate) struct Trackers {
    all: IndexMap<TrackerId, Tracker>,
    last: TrackerId,
}

impl Trackers {
    /// Whether there is nothing to feed.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds one; none when there are too many.
    pub(crate) fn add(&mut self, tracker: Tracker) -> Option<TrackerId> {
        if self.all.len() >= TRACKERS_MAX {
            return None;
        }
        self.last += 1;
        self.all.insert(self.last, tracker);
        Some(self.last)
    }

    /// Takes one out.
    pub(crate) fn remove(&mut self, id: TrackerId) -> Option<Tracker> {
        self.all.swap_remove(&id)
    }

    /// Takes the metadata tracker of this name out.
    pub(crate) fn remove_metadata(&mut self, name: &str) -> Option<TaskMetadata> {
        let is_it = |tracker: &Tracker| matches!(tracker, Tracker::Metadata(metadata) if metadata.name() == name);
        let id = self.all.iter().find(|(_, tracker)| is_it(tracker)).map(|(id, _)| *id)?;
        match self.all.swap_remove(&id) {
            Some(Tracker::Metadata(metadata)) => Some(metadata),
            Some(Tracker::Progress(_) | Tracker::Everything(_) | Tracker::Finished(_)) | None => None,
        }
    }

    /// What a feed tells its reader now, and what it then has no more to tell.
    pub(crate) fn report(&mut self, id: TrackerId, state: &State) -> Option<Value> {
        Some(match self.all.get_mut(&id)? {
            Tracker::Progress(progress) => progress.report(),
            Tracker::Everything(everything) => everything.report(state),
            Tracker::Finished(finished) => finished.take(),
            Tracker::Metadata(_) => Value::Nil,
        })
    }

    /// A client submitted a graph for these keys.
    pub(crate) fn graph(&mut self, keys: &[Key]) {
        for tracker in self.all.values_mut() {
            match tracker {
                Tracker::Metadata(metadata) => metadata.graph(keys),
                Tracker::Progress(_) | Tracker::Everything(_) | Tracker::Finished(_) => {}
            }
        }
    }

    /// These transitions happened; `state` is as it is after all of them.
    pub(crate) fn transitions(&mut self, transitions: &[Transition], state: &State) {
        for tracker in self.all.values_mut() {
            for transition in transitions {
                match tracker {
                    Tracker::Progress(progress) => progress.transition(transition, state),
                    Tracker::Everything(everything) => everything.transition(transition, state),
                    Tracker::Finished(finished) => finished.transition(transition),
                    Tracker::Metadata(metadata) => metadata.transition(transition, state),
                }
            }
        }
    }

    /// `Client.restart`.
    pub(crate) fn restart(&mut self) {
        for tracker in self.all.values_mut() {
            match tracker {
                Tracker::Progress(progress) => progress.restart(),
                Tracker::Everything(everything) => everything.restart(),
                Tracker::Finished(_) | Tracker::Metadata(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
