//! The log of transitions that `get_story` and post-mortems read.

use std::collections::VecDeque;

use dask_protocol::Key;
use dask_protocol::message::StimulusId;

use super::event::Seconds;

/// One line of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct StoryRow {
    /// The task.
    pub key: Key,
    /// What happened to it.
    pub what: What,
    /// What set it off.
    pub stimulus_id: StimulusId,
    /// When.
    pub time: Seconds,
}

/// What a line of the log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A transition.
    Transition {
        /// From.
        start: &'static str,
        /// What was recommended.
        finish: &'static str,
        /// Where it ended.
        end: &'static str,
    },
    /// An event by dask's name (`compute-task`, `free-keys`, ...), and the state it met.
    Event {
        /// The event.
        name: &'static str,
        /// The state before it.
        state: &'static str,
    },
}

#[derive(Debug)]
pub(crate) struct Story {
    rows: VecDeque<StoryRow>,
    rows_max: usize,
}

impl Story {
    pub fn new(rows_max: usize) -> Story {
        Story { rows: VecDeque::new(), rows_max }
    }

    pub fn push(&mut self, row: StoryRow) {
        if self.rows_max == 0 {
            return;
        }
        if self.rows.len() >= self.rows_max {
            self.rows.pop_front();
        }
        self.rows.push_back(row);
    }

    pub fn rows(&self) -> impl Iterator<Item = &StoryRow> {
        self.rows.iter()
    }
}
