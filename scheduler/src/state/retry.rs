//! Running erred tasks again, and starting shuffles over.

use dask_protocol::Key;
use dask_protocol::message::StimulusId;

use super::State;
use super::ids::{FastSet, TaskId};
use super::task::TaskState;

impl State {
    /// `retry`: walks from the keys to the erred tasks they go back to, and runs these again; the rest follows.
    pub(super) fn retry(&mut self, keys: &[Key], stimulus_id: StimulusId) {
        self.stimulus_id = stimulus_id;
        let (_, roots) = self.erred_ancestry(keys);
        for root in roots {
            // A retry of something that is not erred must not disturb it.
            if self.tasks[root].state == TaskState::Erred {
                self.recommend(root, TaskState::Waiting);
            }
        }
        self.transitions();
        self.queue_slots_maybe_opened();
    }

    /// The keys that `retry` of these keys concerns: what the RPC answers. To be asked before the event is handled.
    pub fn retried_keys(&self, keys: &[Key]) -> Vec<Key> {
        self.erred_ancestry(keys).0.into_iter().map(|id| self.tasks[id].key.clone()).collect()
    }

    /// The tasks on the way from `keys` back over erred dependencies, and those that have none.
    fn erred_ancestry(&self, keys: &[Key]) -> (FastSet<TaskId>, Vec<TaskId>) {
        let mut stack: Vec<TaskId> = keys.iter().filter_map(|key| self.tasks.id(key)).collect();
        let mut seen = FastSet::default();
        let mut roots = Vec::new();
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            let before = stack.len();
            let dependencies = self.tasks[id].dependencies.iter();
            stack.extend(dependencies.filter(|dep| self.tasks[*dep].state == TaskState::Erred));
            if stack.len() == before {
                roots.push(id);
            }
        }
        (seen, roots)
    }

    /// Outputs of a shuffle first set their own restriction, so they must all be sent out at once.
    pub(super) fn shuffle_started(&mut self, barrier: &Key) {
        if let Some(id) = self.tasks.id(barrier) {
            for position in 0..self.tasks[id].dependents.len() {
                let dependent = self.tasks[id].dependents.at(position);
                self.tasks[dependent].queueable = false;
            }
        }
    }

    /// A shuffle starts over: outputs, barrier and inputs are released and, where needed, run again. If an output is
    /// erred there is nothing to save.
    pub(super) fn restart_shuffle(&mut self, barrier: &Key) {
        let Some(id) = self.tasks.id(barrier) else {
            return;
        };
        let task = &self.tasks[id];
        let outputs: Vec<TaskId> = task.dependents.iter().collect();
        let inputs: Vec<TaskId> = task.dependencies.iter().collect();
        let all: Vec<TaskId> = outputs.into_iter().chain([id]).chain(inputs).collect();
        if all.iter().any(|id| self.tasks[*id].state == TaskState::Erred) {
            return;
        }
        for id in all {
            self.recommend(id, TaskState::Released);
        }
        self.transitions();
        self.queue_slots_maybe_opened();
    }
}
