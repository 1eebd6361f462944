//! The log of transitions (`get_story`).

use std::collections::VecDeque;

use dask_protocol::message::StimulusId;
use dask_protocol::{Key, Value};
use smallvec::SmallVec;

use super::event::Seconds;
use super::task::TaskState;

/// Recommendations kept per row: a task with a hundred thousand dependents is not to fill the log.
const RECOMMENDATIONS_MAX: usize = 64;

/// One transition.
#[derive(Debug, Clone, PartialEq)]
pub struct StoryRow {
    /// The task.
    pub key: Key,
    /// The state it left.
    pub start: TaskState,
    /// The state it reached.
    pub finish: TaskState,
    /// What was recommended because of it.
    pub recommendations: SmallVec<[(Key, TaskState); 1]>,
    /// What set it off.
    pub stimulus_id: StimulusId,
    /// When.
    pub timestamp: Seconds,
}

impl StoryRow {
    /// Whether it is about this key or stimulus: it concerns the key, or recommends something for it.
    fn is_about(&self, what: &Value) -> bool {
        let is_key = |key: &Key| what.to_key().is_some_and(|what| what == *key);
        is_key(&self.key)
            || what.as_str() == Some(&*self.stimulus_id)
            || self.recommendations.iter().any(|(key, _)| is_key(key))
    }
}

/// One transition, for whoever follows all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedTransition {
    /// The task.
    pub key: Key,
    /// The state it left.
    pub start: TaskState,
    /// The state it reached.
    pub finish: TaskState,
    /// What set it off.
    pub stimulus_id: StimulusId,
}

/// A ring of the latest transitions.
#[derive(Debug)]
pub(super) struct Story {
    rows: VecDeque<StoryRow>,
    length: usize,
}

impl Story {
    pub(super) fn new(length: usize) -> Story {
        Story { rows: VecDeque::new(), length }
    }

    pub(super) fn push(
        &mut self,
        key: Key,
        start: TaskState,
        finish: TaskState,
        recommendations: impl Iterator<Item = (Key, TaskState)>,
        stimulus_id: StimulusId,
        timestamp: Seconds,
    ) {
        if self.length == 0 {
            return;
        }
        if self.rows.len() >= self.length {
            self.rows.pop_front();
        }
        let recommendations = recommendations.take(RECOMMENDATIONS_MAX).collect();
        self.rows.push_back(StoryRow { key, start, finish, recommendations, stimulus_id, timestamp });
    }

    /// When a task last reached this state.
    pub(super) fn since(&self, key: &Key, state: TaskState) -> Option<Seconds> {
        let last = self.rows.iter().rev().find(|row| row.key == *key)?;
        (last.finish == state).then_some(last.timestamp)
    }

    pub(super) fn rows(&self) -> impl DoubleEndedIterator<Item = &StoryRow> {
        self.rows.iter()
    }

    pub(super) fn about(&self, keys_or_stimuli: &[Value]) -> Vec<StoryRow> {
        let rows = self.rows.iter().filter(|row| keys_or_stimuli.iter().any(|what| row.is_about(what)));
        rows.cloned().collect()
    }
}
