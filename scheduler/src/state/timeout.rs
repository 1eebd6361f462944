//! What happens by itself: rounds of stealing and of memory management, and tasks that wait too long for a worker.

use dask_protocol::Value;

use super::State;
use super::action::Action;
use super::config::Config;
use super::errors;
use super::event::Seconds;
use super::ids::TaskId;
use super::task::TaskState;

/// Seconds between two checks of `no-workers-timeout`.
const NO_WORKERS_INTERVAL: Seconds = 0.25;

/// Why [`State::next_timeout`] wants to be called back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeoutReason {
    /// Busy workers may have something for idle ones.
    WorkStealing,
    /// Replicas may be dropped or moved.
    ActiveMemoryManager,
    /// Retiring workers may be done.
    Retirement,
    /// Tasks may have waited too long for a worker.
    NoWorkers,
}

/// When each of these is due. While there is nothing for it to do, its time moves on with the events, so that an idle
/// scheduler is not woken.
#[derive(Debug)]
pub(super) struct Timers {
    stealing: Seconds,
    pub(super) amm: Seconds,
    no_workers: Seconds,
    /// Whether the active memory manager runs periodically.
    pub(super) amm_running: bool,
}

impl Timers {
    pub(super) fn new(config: &Config, now: Seconds) -> Timers {
        Timers {
            stealing: now + config.work_stealing_interval,
            amm: now + config.amm_interval,
            no_workers: now + NO_WORKERS_INTERVAL,
            amm_running: config.amm_start,
        }
    }
}

impl State {
    /// The next time at which [`super::Event::Timeout`] is due, and why; none while only events can change anything.
    pub fn next_timeout(&self) -> Option<(Seconds, TimeoutReason)> {
        let due = [
            (self.stealing_is_due().then_some(self.timers.stealing), TimeoutReason::WorkStealing),
            (self.amm_is_due().then_some(self.timers.amm), TimeoutReason::ActiveMemoryManager),
            (self.next_retirement_check(), TimeoutReason::Retirement),
            (self.no_workers_is_due().then_some(self.timers.no_workers), TimeoutReason::NoWorkers),
        ];
        let due = due.into_iter().filter_map(|(time, reason)| Some((time?, reason)));
        due.min_by(|(a, _), (b, _)| a.total_cmp(b))
    }

    fn stealing_is_due(&self) -> bool {
        self.config.work_stealing && self.total_processing > 0 && self.workers.len() > 1
    }

    fn amm_is_due(&self) -> bool {
        let something_to_do = !self.replicated_tasks.is_empty()
            // Only they know what they look for.
            || (!self.memory_policies.is_empty() && !self.tasks.is_empty());
        (self.timers.amm_running && something_to_do) || !self.retirements.is_empty()
    }

    fn no_workers_is_due(&self) -> bool {
        self.config.no_workers_timeout.is_some() && !(self.queue.is_empty() && self.unrunnable.is_empty())
    }

    /// Moves times on for which there is nothing to do.
    pub(super) fn update_timers(&mut self) {
        if !self.stealing_is_due() {
            self.timers.stealing = self.now + self.config.work_stealing_interval;
        }
        if !self.amm_is_due() {
            self.timers.amm = self.now + self.config.amm_interval;
        }
        if !self.no_workers_is_due() {
            self.timers.no_workers = self.now + NO_WORKERS_INTERVAL;
        }
    }

    pub(super) fn handle_timeout(&mut self) {
        if self.stealing_is_due() && self.timers.stealing <= self.now {
            self.timers.stealing = self.now + self.config.work_stealing_interval;
            self.balance();
        }
        if self.amm_is_due() && self.timers.amm <= self.now {
            self.timers.amm = self.now + self.config.amm_interval;
            if self.timers.amm_running {
                self.run_active_memory_manager();
            } else {
                self.run_retirement_policies();
            }
        }
        self.check_retirements();
        if self.no_workers_is_due() && self.timers.no_workers <= self.now {
            self.timers.no_workers = self.now + NO_WORKERS_INTERVAL;
            self.check_no_workers();
        }
    }

    /// Since when tasks wait while nobody runs (`_refresh_no_workers_since`).
    pub(super) fn refresh_no_workers_since(&mut self) {
        if !self.running.is_empty() || (self.queue.is_empty() && self.unrunnable.is_empty()) {
            self.no_workers_since = None;
        } else if self.no_workers_since.is_none() {
            self.no_workers_since = Some(self.now);
        }
    }

    /// Errs tasks that waited longer than `no-workers-timeout`.
    fn check_no_workers(&mut self) {
        let Some(timeout) = self.config.no_workers_timeout else {
            return;
        };
        self.refresh_no_workers_since();
        self.stimulus_id = self.stimulus("check-no-workers-timeout");
        let since = self.no_workers_since;
        let mut failed: Vec<(TaskId, bool)> = Vec::new();
        for &id in &self.unrunnable {
            let unrunnable_since = f64::from_bits(self.tasks[id].queue_number);
            if self.now > unrunnable_since + timeout {
                // Somebody ran after it became unrunnable, or runs now: then workers are not what is missing.
                failed.push((id, since.is_none_or(|since| since > unrunnable_since)));
            }
        }
        if since.is_some_and(|since| self.now > since + timeout) {
            failed.extend(self.queue.iter().map(|id| (id, false)));
        }
        let mut keys = Vec::with_capacity(failed.len());
        for (id, unsatisfied) in failed {
            // An earlier one may have taken it along.
            if !matches!(self.tasks.get(id).map(|task| task.state), Some(TaskState::NoWorker | TaskState::Queued)) {
                continue;
            }
            keys.push(Value::from(&self.tasks[id].key));
            self.fail_without_worker(id, unsatisfied, timeout);
        }
        if !keys.is_empty() {
            let action = ("action", Value::from("no-workers-timeout-exceeded"));
            let msg = Value::map([action, ("keys", Value::Set(keys))]);
            self.out.push(Action::LogEvent { topic: "scheduler".into(), msg });
        }
        self.queue_slots_maybe_opened();
    }

    fn fail_without_worker(&mut self, id: TaskId, unsatisfied: bool, timeout: Seconds) {
        let task = &self.tasks[id];
        let (error, waited) = if unsatisfied {
            (errors::no_valid_worker(task, timeout), "for its restrictions to become satisfied")
        } else {
            (errors::no_worker(&task.key, timeout), "without any running workers")
        };
        tracing::error!(
            target: "distributed.scheduler",
            "Task {} marked as failed because it timed out waiting {waited}.", task.key
        );
        self.blame(id, error);
        self.recommend(id, TaskState::Erred);
        self.transitions();
    }
}
