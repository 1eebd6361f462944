//! Metadata and final state of the tasks submitted within a block (`get_task_metadata`).

use dask_protocol::{Key, Value};
use indexmap::{IndexMap, IndexSet};

use super::Transition;
use crate::state::{State, TaskState};

/// The tasks of one block.
pub(crate) struct TaskMetadata {
    name: String,
    /// Keys asked for since it began, which have not ended yet.
    waiting: IndexSet<Key>,
    ended: IndexMap<Key, (Value, TaskState)>,
}

impl TaskMetadata {
    pub(crate) fn new(name: String) -> TaskMetadata {
        TaskMetadata { name, waiting: IndexSet::new(), ended: IndexMap::new() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn graph(&mut self, keys: &[Key]) {
        self.waiting.extend(keys.iter().cloned());
    }

    pub(super) fn transition(&mut self, transition: &Transition, state: &State) {
        if matches!(transition.finish, TaskState::Memory | TaskState::Erred)
            && self.waiting.swap_remove(&transition.key)
        {
            let metadata = state.task(&transition.key).and_then(|task| task.metadata.cloned()).unwrap_or_default();
            self.ended.insert(transition.key.clone(), (metadata, transition.finish));
        }
    }

    /// `metadata` and `state` by key.
    pub(crate) fn into_reply(self) -> Value {
        let (mut metadata, mut states) = (Vec::new(), Vec::new());
        for (key, (value, state)) in self.ended {
            metadata.push((Value::from(&key), value));
            states.push((Value::from(&key), state.name().into()));
        }
        Value::map([("metadata", Value::Map(metadata)), ("state", Value::Map(states))])
    }
}
