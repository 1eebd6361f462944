//! What a simulated run cost.

use super::workload::TaskNo;

/// One execution, for the timeline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// On which worker.
    pub worker: u32,
    /// On which of its threads.
    pub thread: u32,
    /// What.
    pub task: TaskNo,
    /// From when, in seconds after the start.
    pub start: f64,
    /// Until when.
    pub stop: f64,
}

/// What a run cost.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Tasks computed.
    pub tasks: u64,
    /// Seconds from the first submission until the last wanted result was known to the client.
    pub makespan: f64,
    /// Bytes moved between workers.
    pub bytes_moved: u64,
    /// Transfers between workers.
    pub transfers: u64,
    /// Most bytes of results held by all workers together at any time, copies counted.
    pub peak_memory: u64,
    /// Most bytes held by any one worker at any time.
    pub peak_worker_memory: u64,
    /// Seconds that threads computed, over seconds of all threads within the makespan.
    pub utilisation: f64,
    /// Tasks moved by work stealing: requests sent.
    pub steal_requests: u64,
    /// Events that the scheduler's state handled.
    pub events: u64,
    /// Seconds of CPU that the scheduler's state used.
    pub scheduler_cpu: f64,
    /// Every execution, if asked for.
    pub spans: Vec<Span>,
    /// Bytes held by all workers, each time it changed much, if spans were asked for.
    pub memory: Vec<(f64, u64)>,
}

impl Outcome {
    /// Microseconds of scheduler CPU per task.
    #[expect(clippy::cast_precision_loss, reason = "counts of tasks stay below 2^53")]
    pub fn scheduler_micros_per_task(&self) -> f64 {
        self.scheduler_cpu * 1e6 / self.tasks.max(1) as f64
    }
}
