//! From executing and long-running: an execution is outstanding, and only its outcome ends it.

use std::sync::Arc;

use dask_protocol::Value;
use dask_protocol::message::{ErrorInfo, LongRunning, Reschedule, RunId, StartStop};

use super::{Cx, Target};
use crate::state::State;
use crate::state::action::Action;
use crate::state::event::{ExecuteOutcome, Seconds};
use crate::state::memory::Report;
use crate::state::task::{Previous, ResultInfo, TaskId, TaskState};

impl State {
    pub(super) fn transition_executing(&mut self, cx: &mut Cx<'_>, id: TaskId, target: Target, previous: Previous) {
        match target {
            Target::Released => {
                self.set_state(id, TaskState::Cancelled(previous));
                let task = self.task(id);
                let run_id = task.execution.expect("a running task has an execution");
                cx.act(Action::CancelExecution { key: task.key.clone(), run_id });
            }
            Target::Waiting | Target::Ready | Target::Fetch | Target::Missing | Target::Forgotten => {}
        }
    }

    /// The outstanding execution of a task ended. What the scheduler hears depends on what it wants by now.
    pub(crate) fn settle_execution(&mut self, cx: &mut Cx<'_>, id: TaskId, run_id: RunId, outcome: ExecuteOutcome) {
        let start = self.task(id).state;
        self.task_mut(id).execution = None;
        let finish = outcome_name(&outcome);
        match (start, outcome) {
            (
                TaskState::Executing | TaskState::LongRunning,
                ExecuteOutcome::Success { nbytes, typename, type_pickle, metadata, thread, startstops, value },
            ) => {
                self.store_result(id, ResultInfo { typename, type_pickle, metadata }, startstops);
                self.enter_memory(cx, id, nbytes, Report::TaskFinished { run_id, thread, value });
            }
            (TaskState::Executing | TaskState::LongRunning, ExecuteOutcome::Failure { error, thread, startstops }) => {
                self.task_mut(id).startstops.extend(startstops);
                self.enter_error(cx, id, run_id, error, thread);
            }
            (TaskState::Executing | TaskState::LongRunning, ExecuteOutcome::Reschedule) => {
                let (key, stimulus_id) = (self.task(id).key.clone(), cx.stimulus_id.clone());
                cx.send(Reschedule { key, stimulus_id });
                self.enter_released(cx, id);
            }
            (
                TaskState::Resumed(_),
                ExecuteOutcome::Success { nbytes, typename, type_pickle, metadata, thread: _, startstops: _, value: _ },
            ) => {
                self.store_result(id, ResultInfo { typename, type_pickle, metadata }, Vec::new());
                self.enter_memory(cx, id, nbytes, Report::AddKeys);
            }
            (TaskState::Resumed(_), ExecuteOutcome::Failure { .. } | ExecuteOutcome::Reschedule) => {
                self.set_state(id, TaskState::Released);
                cx.recommend(id, Target::Fetch);
            }
            (_, outcome) => {
                self.drop_unwanted(cx, id, matches!(outcome, ExecuteOutcome::Success { .. }));
            }
        }
        self.log_settled(cx, id, start, finish);
    }

    fn store_result(&mut self, id: TaskId, result: ResultInfo, startstops: Vec<StartStop>) {
        if *self.last_result != result {
            self.last_result = Arc::new(result);
        }
        let result = Arc::clone(&self.last_result);
        let task = self.task_mut(id);
        task.result = Some(result);
        if task.startstops.is_empty() {
            // Extending an empty list would make room for four.
            task.startstops = startstops;
        } else {
            task.startstops.extend(startstops);
        }
    }

    /// A cancelled task's outcome came: drop it, and the task.
    pub(super) fn drop_unwanted(&mut self, cx: &mut Cx<'_>, id: TaskId, has_value: bool) {
        if has_value {
            cx.act(Action::DropData { key: self.task(id).key.clone() });
        }
        self.enter_released(cx, id);
    }

    /// The running task `id` seceded: its slot is free. The scheduler hears of it only if it still wants the task run.
    pub(crate) fn settle_seceded(&mut self, cx: &mut Cx<'_>, id: TaskId, compute_duration: Seconds) {
        let start = self.task(id).state;
        match start {
            TaskState::Executing => {
                self.set_state(id, TaskState::LongRunning);
                self.send_long_running(cx, id, Some(compute_duration));
            }
            TaskState::Cancelled(Previous::Executing) => {
                self.set_state(id, TaskState::Cancelled(Previous::LongRunning));
            }
            TaskState::Resumed(Previous::Executing) => self.set_state(id, TaskState::Resumed(Previous::LongRunning)),
            _ => return,
        }
        self.log_settled(cx, id, start, "long-running");
    }

    pub(super) fn send_long_running(&mut self, cx: &mut Cx<'_>, id: TaskId, compute_duration: Option<Seconds>) {
        let task = self.task(id);
        let (key, run_id, stimulus_id) = (task.key.clone(), task.run_id, cx.stimulus_id.clone());
        cx.send(LongRunning { key, run_id, compute_duration, stimulus_id });
    }

    /// A computation failed: keep that, and tell the scheduler.
    pub(crate) fn enter_error(&mut self, cx: &mut Cx<'_>, id: TaskId, run_id: RunId, error: ErrorInfo, thread: Value) {
        self.set_state(id, TaskState::Error);
        self.send_task_erred(cx, id, run_id, &error, thread);
        let task = self.task_mut(id);
        task.error = Some(Box::new(error));
        if task.waiters > 0 {
            // Somebody here was told to read it from elsewhere.
            cx.recommend(id, Target::Fetch);
        }
    }
}

fn outcome_name(outcome: &ExecuteOutcome) -> &'static str {
    match outcome {
        ExecuteOutcome::Success { .. } => "memory",
        ExecuteOutcome::Failure { .. } => "error",
        ExecuteOutcome::Reschedule => "rescheduled",
    }
}
