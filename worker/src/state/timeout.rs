//! The annotation `timeout`: a task that runs longer is interrupted, and one that goes on regardless loses its executor.

use dask_protocol::Key;
use dask_protocol::Value;
use dask_protocol::message::RunId;

use super::State;
use super::action::Action;
use super::event::Seconds;
use super::transition::Cx;

/// The annotation's name. The scheduler has made it a number of seconds.
const ANNOTATION: &str = "timeout";

/// How long an execution may go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// What the task was given.
    seconds: Seconds,
    /// When the next step is due.
    due: Seconds,
    step: Step,
}

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Interrupt,
    Replace,
    /// Nothing: all has been done.
    Wait,
}

impl Limit {
    /// The limit of a task that starts now, if it was given one.
    pub(crate) fn of(annotations: &Value, now: Seconds) -> Option<Limit> {
        let seconds = annotations.get(ANNOTATION)?.as_f64().filter(|seconds| seconds.is_finite() && *seconds > 0.0)?;
        Some(Limit { seconds, due: now + seconds, step: Step::Interrupt })
    }

    fn due(&self) -> Option<Seconds> {
        (self.step != Step::Wait).then_some(self.due)
    }
}

impl State {
    /// When the next execution reaches its limit.
    pub(crate) fn next_limit(&self) -> Option<Seconds> {
        let due = self.running.values().filter_map(|execution| execution.limit.as_ref()?.due());
        due.min_by(f64::total_cmp)
    }

    /// Takes the next step against every execution that is over its limit.
    pub(crate) fn stop_overdue(&mut self, cx: &mut Cx<'_>) {
        let grace = self.config.interrupt_grace;
        for ((key, run_id), execution) in &mut self.running {
            let Some(limit) = execution.limit.as_mut().filter(|limit| limit.due().is_some_and(|due| due <= cx.now))
            else {
                continue;
            };
            cx.act(limit.step(key, *run_id, cx.now + grace));
        }
    }
}

impl Limit {
    fn step(&mut self, key: &Key, run_id: RunId, next: Seconds) -> Action {
        let (key, limit) = (key.clone(), self.seconds);
        self.due = next;
        match self.step {
            Step::Interrupt => {
                self.step = Step::Replace;
                Action::InterruptExecution { key, run_id, limit }
            }
            Step::Replace | Step::Wait => {
                self.step = Step::Wait;
                Action::ReplaceExecutor { key, run_id, limit }
            }
        }
    }
}
