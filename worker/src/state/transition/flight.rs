//! From flight: a transfer is outstanding, and only its outcome ends it.

use dask_protocol::Value;
use dask_protocol::message::ErrorInfo;

use super::{Cx, Target};
use crate::state::State;
use crate::state::memory::Report;
use crate::state::task::{Previous, TaskId, TaskState};

impl State {
    pub(super) fn transition_flight(&mut self, id: TaskId, target: Target) {
        match target {
            Target::Released => self.set_state(id, TaskState::Cancelled(Previous::Flight)),
            Target::Waiting => self.set_state(id, TaskState::Resumed(Previous::Flight)),
            Target::Ready | Target::Fetch | Target::Missing | Target::Forgotten => {}
        }
    }

    /// The value of a task in flight arrived. A computation wanted meanwhile counts as done.
    pub(crate) fn settle_arrived(&mut self, cx: &mut Cx<'_>, id: TaskId, nbytes: i64) {
        let task = self.task_mut(id);
        let start = task.state;
        task.coming_from = None;
        let run_id = task.run_id;
        match start {
            TaskState::Flight => self.enter_memory(cx, id, nbytes, Report::AddKeys),
            TaskState::Resumed(_) => {
                self.enter_memory(cx, id, nbytes, Report::TaskFinished { run_id, thread: Value::Nil, value: None })
            }
            _ => self.drop_unwanted(cx, id, true),
        }
        self.log_settled(cx, id, start, "memory");
    }

    /// The transfer ended without this task's value: try elsewhere, or compute it if that is wanted by now.
    pub(crate) fn settle_not_arrived(&mut self, cx: &mut Cx<'_>, id: TaskId) {
        let task = self.task_mut(id);
        let start = task.state;
        task.coming_from = None;
        match start {
            TaskState::Flight => {
                self.set_state(id, TaskState::Released);
                cx.recommend(id, Target::Fetch);
            }
            TaskState::Resumed(_) => {
                self.set_state(id, TaskState::Released);
                self.clear_holders(id);
                cx.recommend(id, Target::Waiting);
            }
            _ => self.drop_unwanted(cx, id, false),
        }
        self.log_settled(cx, id, start, "fetch");
    }

    /// The value arrived and cannot be used here: the tasks that wait for it fail with that error.
    ///
    /// Upstream marks the dependency as erred instead, which the scheduler ignores because it is in memory elsewhere,
    /// so that the dependents hang.
    pub(crate) fn settle_unusable(&mut self, cx: &mut Cx<'_>, id: TaskId, error: &ErrorInfo) {
        if self.task(id).state != TaskState::Flight {
            self.settle_not_arrived(cx, id);
            return;
        }
        self.task_mut(id).coming_from = None;
        self.set_state(id, TaskState::Released);
        for waiter in self.task(id).dependents.iter().copied().collect::<Vec<_>>() {
            if self.task(waiter).waiting_for_data.contains(&id) {
                self.stop_waiting(cx, waiter);
                let run_id = self.task(waiter).run_id;
                self.enter_error(cx, waiter, run_id, error.clone(), Value::Nil);
                self.log_settled(cx, waiter, TaskState::Waiting, "error");
            }
        }
        self.enter_released(cx, id);
        self.log_settled(cx, id, TaskState::Flight, "error");
    }
}
