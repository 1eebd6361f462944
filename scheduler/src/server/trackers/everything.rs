//! Progress of all tasks by prefix (`distributed.diagnostics.progress.AllProgress`).

use dask_protocol::{Key, Value};
use indexmap::IndexMap;

use super::Transition;
use crate::state::{State, StateCounts, TaskState};

/// Bytes in memory by prefix; the counts of tasks are the state's own.
pub(crate) struct Everything {
    sizes: IndexMap<Key, i64>,
    nbytes: IndexMap<String, i64>,
}

/// What is told, by the names upstream gives it.
const TOLD: [TaskState; 5] =
    [TaskState::Memory, TaskState::Erred, TaskState::Released, TaskState::Processing, TaskState::Queued];

impl Everything {
    pub(crate) fn new(state: &State) -> Everything {
        let mut everything = Everything { sizes: IndexMap::new(), nbytes: IndexMap::new() };
        for task in state.tasks().filter(|task| task.state == TaskState::Memory) {
            everything.add(task.key, task.nbytes);
        }
        everything
    }

    fn add(&mut self, key: &Key, nbytes: i64) {
        if nbytes >= 0 && self.sizes.insert(key.clone(), nbytes).is_none() {
            *self.nbytes.entry(key.prefix().into_owned()).or_default() += nbytes;
        }
    }

    pub(super) fn transition(&mut self, transition: &Transition, state: &State) {
        if transition.start == TaskState::Memory
            && let Some(nbytes) = self.sizes.swap_remove(&transition.key)
        {
            *self.nbytes.entry(transition.key.prefix().into_owned()).or_default() -= nbytes;
        }
        if transition.finish == TaskState::Memory
            && let Some(task) = state.task(&transition.key)
            && task.state == TaskState::Memory
        {
            self.add(&transition.key, task.nbytes);
        }
    }

    pub(super) fn restart(&mut self) {
        self.sizes.clear();
        self.nbytes.clear();
    }

    /// Counts by prefix: `all`, `nbytes`, and one per state.
    pub(super) fn report(&mut self, state: &State) -> Value {
        let used: Vec<(&str, &StateCounts)> = state
            .prefixes()
            .filter(|prefix| prefix.states.alive() > 0)
            .map(|prefix| (prefix.name, prefix.states))
            .collect();
        self.nbytes.retain(|prefix, _| used.iter().any(|(name, _)| name == prefix));
        let counts = |count: &dyn Fn(&StateCounts) -> usize| {
            let rows = used.iter().map(|(name, states)| (Value::from(*name), Value::from(count(states))));
            Value::Map(rows.filter(|(_, count)| *count != Value::Int(0)).collect())
        };
        let nbytes = self.nbytes.iter().map(|(prefix, bytes)| (prefix.as_str().into(), (*bytes).into())).collect();
        let mut told = vec![("all", counts(&StateCounts::alive)), ("nbytes", Value::Map(nbytes))];
        told.extend(TOLD.iter().map(|&state| (state.name(), counts(&|states: &StateCounts| states.get(state)))));
        Value::map(told)
    }
}
