//! Tasks as they finish or err (`distributed.diagnostics.eventstream.EventStream`).

use std::collections::VecDeque;

use dask_protocol::Value;

use super::Transition;
use crate::state::TaskState;

/// Most records that wait for the reader; of more, the oldest are dropped.
const RECORDS_MAX: usize = 100_000;

/// Records since the last look.
#[derive(Default)]
pub(crate) struct FinishedTasks(VecDeque<Value>);

impl FinishedTasks {
    pub(super) fn transition(&mut self, transition: &Transition) {
        let ended = matches!(transition.finish, TaskState::Memory | TaskState::Erred);
        if transition.start == TaskState::Processing
            && ended
            && let Some(record) = &transition.record
        {
            if self.0.len() >= RECORDS_MAX {
                self.0.pop_front();
            }
            self.0.push_back(record.clone());
        }
    }

    /// The records, which are then told.
    pub(super) fn take(&mut self) -> Value {
        Value::Array(std::mem::take(&mut self.0).into())
    }
}
