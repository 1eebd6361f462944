//! What the shell may ask: for heartbeats, `get_data`, `get_story` and diagnostics.

use dask_protocol::message::{RunId, WorkerStatus};
use dask_protocol::{Address, Key, Value};

use super::State;
use super::event::Seconds;
use super::story::StoryRow;
use super::task::{STATE_NAMES, TaskState};

/// Transfers to us, for the heartbeat's `metrics.transfer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransferStats {
    /// Bytes expected by outstanding requests.
    pub incoming_bytes: u64,
    /// Outstanding requests.
    pub incoming_count: usize,
    /// Requests so far.
    pub incoming_count_total: u64,
}

impl State {
    /// Where a task stands; `None` when it is not known.
    pub fn task_state(&self, key: &Key) -> Option<TaskState> {
        self.find(key).map(|id| self.task(id).state)
    }

    /// Number of tasks per state name, without empty states (`task_counts` of the heartbeat).
    pub fn task_counts(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let named = (0..STATE_NAMES).map(|index| (TaskState::from_index(index), self.counts[index]));
        named.filter(|(_, count)| *count > 0)
    }

    /// Number of tasks known.
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// Every task and its state, in no particular but a reproducible order.
    pub fn tasks(&self) -> impl Iterator<Item = (&Key, TaskState)> {
        self.tasks.iter().map(|(_, task)| (&task.key, task.state))
    }

    /// Outstanding executions: task, run and start time.
    pub fn executing(&self) -> impl Iterator<Item = (&Key, RunId, Seconds)> {
        self.running.iter().map(|((key, run_id), execution)| (key, *run_id, execution.start))
    }

    /// Tasks that the scheduler gave to this worker and of whose outcome it was not told.
    pub fn unreported(&self) -> impl Iterator<Item = &Key> {
        self.tasks().filter(|(_, state)| state.is_unreported()).map(|(key, _)| key)
    }

    /// Executions that occupy a slot (dask's `executing_count`), without those that wait at their executor.
    pub fn executing_count(&self) -> u32 {
        self.slots_used.min(self.config.nthreads)
    }

    /// Executions ended so far, whatever their outcome.
    pub fn executed_count(&self) -> u64 {
        self.executed_count
    }

    /// Values that are here, and their sizes in bytes.
    pub fn in_memory(&self) -> impl Iterator<Item = (&Key, u64)> {
        let tasks = self.tasks.iter().map(|(_, task)| (&task.key, task));
        tasks.filter(|(_, task)| task.state == TaskState::Memory).map(|(key, task)| (key, task.nbytes.unwrap_or(0)))
    }

    /// Bytes of all values that are here.
    pub fn nbytes_in_memory(&self) -> u64 {
        u64::try_from(self.nbytes_in_memory).unwrap_or(u64::MAX)
    }

    /// The name of the class of a value computed here.
    pub fn typename(&self, key: &Key) -> Option<&str> {
        self.task(self.find(key)?).result.as_deref().map(|result| result.typename.as_str())
    }

    /// Whether the task of this name makes an actor.
    pub fn is_actor(&self, key: &Key) -> bool {
        self.find(key).and_then(|id| self.task(id).computation.as_ref()).is_some_and(|c| c.actor)
    }

    /// The annotations a task came with.
    pub fn annotations(&self, key: &Key) -> Option<&Value> {
        self.task(self.find(key)?).computation.as_ref().map(|c| &c.annotations)
    }

    /// Its status.
    pub fn status(&self) -> WorkerStatus {
        self.status
    }

    /// Its contact address.
    pub fn address(&self) -> &Address {
        &self.config.address
    }

    /// How many tasks it runs at once.
    pub fn nthreads(&self) -> u32 {
        self.config.nthreads
    }

    /// Its resources in all, by name.
    pub fn resources_total(&self) -> impl Iterator<Item = (&str, f64)> {
        self.config.resources.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Transfers to us.
    pub fn transfer_stats(&self) -> TransferStats {
        TransferStats {
            incoming_bytes: u64::try_from(self.transfer_incoming_bytes).unwrap_or(u64::MAX),
            incoming_count: self.transfer_incoming_count,
            incoming_count_total: self.transfer_incoming_count_total,
        }
    }

    /// The rows of the log that name one of these keys or stimuli; all rows when both are empty.
    pub fn story<'a>(&'a self, keys: &'a [Key], stimuli: &'a [String]) -> impl Iterator<Item = &'a StoryRow> {
        let all = keys.is_empty() && stimuli.is_empty();
        self.story
            .rows()
            .filter(move |row| all || keys.contains(&row.key) || stimuli.iter().any(|s| **s == *row.stimulus_id))
    }
}
