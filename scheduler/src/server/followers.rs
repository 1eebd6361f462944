//! Who follows what happens beside the peers: trackers of diagnostics, and hooks of plugins.

use dask_protocol::message::WorkerToScheduler;
use dask_protocol::{Address, Key, Value};

use super::core::Core;
use super::sidecar::hooks::Hooks;
use super::task_stream;
use super::trackers::{Tracker, TrackerId, Transition};
use crate::state::{State, TaskState};

impl Core {
    /// Whether tasks that end are to be described.
    pub(super) fn records_tasks(&self) -> bool {
        self.task_stream.is_enabled() || self.is_followed()
    }

    /// Whether anything follows transitions.
    pub(super) fn is_followed(&self) -> bool {
        !self.trackers.is_empty() || self.hooks.as_ref().is_some_and(|hooks| hooks.wants("transition"))
    }

    /// What a worker tells of a task that it ends, if the task is being processed there. Goes to the task stream.
    pub(super) fn record_task(&mut self, worker: &Address, message: &WorkerToScheduler) -> Option<(Key, Value)> {
        let record = task_stream::Record::of(worker, message)?;
        if self.state.task(&record.key).is_none_or(|task| task.processing_on != Some(worker)) {
            return None;
        }
        self.task_stream.add(&record);
        Some((record.key, record.fields))
    }

    pub(super) fn tell_followers(&mut self, record: Option<(Key, Value)>) {
        let transition = |seen: crate::state::ObservedTransition| {
            let ended = record.as_ref().filter(|(key, _)| *key == seen.key && seen.start == TaskState::Processing);
            let record = ended.map(|(_, record)| record.clone());
            Transition { key: seen.key, start: seen.start, finish: seen.finish, stimulus_id: seen.stimulus_id, record }
        };
        let transitions: Vec<Transition> = self.state.take_observed().into_iter().map(transition).collect();
        self.trackers.transitions(&transitions, &self.state);
        if let Some(hooks) = &self.hooks {
            transitions.iter().for_each(|transition| hooks.transition(transition, &self.state));
        }
    }

    /// Adds something that follows transitions, made from the present state. None when `make` makes none, or there are
    /// too many.
    pub(crate) fn track(&mut self, make: impl FnOnce(&State) -> Option<Tracker>) -> Option<TrackerId> {
        let id = self.trackers.add(make(&self.state)?);
        self.state.observe_transitions(self.is_followed());
        id
    }

    /// What a tracker has to tell now.
    pub(crate) fn tracker_report(&mut self, id: TrackerId) -> Option<Value> {
        self.trackers.report(id, &self.state)
    }

    /// Ends a tracker.
    pub(crate) fn untrack(&mut self, id: TrackerId) {
        self.trackers.remove(id);
        self.state.observe_transitions(self.is_followed());
    }

    /// Ends the tracker of this name that collects metadata; what it collected.
    pub(crate) fn untrack_metadata(&mut self, name: &str) -> Option<Value> {
        let metadata = self.trackers.remove_metadata(name);
        self.state.observe_transitions(self.is_followed());
        metadata.map(super::trackers::TaskMetadata::into_reply)
    }

    /// `Client.restart` has forgotten all tasks.
    pub(crate) fn restarted(&mut self) {
        self.trackers.restart();
        self.hook("restart", []);
    }

    /// The hooks that plugins have from now on.
    pub(crate) fn set_hooks(&mut self, hooks: Option<Hooks>) {
        self.hooks = hooks;
        self.state.observe_transitions(self.is_followed());
    }

    /// Whether some plugin has this hook.
    pub(crate) fn has_hook(&self, hook: &str) -> bool {
        self.hooks.as_ref().is_some_and(|hooks| hooks.wants(hook))
    }

    pub(super) fn hook<const N: usize>(&self, hook: &'static str, about: [(&'static str, Value); N]) {
        if let Some(hooks) = &self.hooks {
            hooks.tell(hook, about);
        }
    }
}
