//! From error: it failed here, and the scheduler has been told.

use dask_protocol::Value;
use dask_protocol::message::{ErrorInfo, RunId, TaskErred};

use super::{Cx, Target};
use crate::state::State;
use crate::state::task::TaskId;

impl State {
    pub(super) fn transition_error(&mut self, cx: &mut Cx<'_>, id: TaskId, target: Target) {
        match target {
            Target::Released => self.enter_released(cx, id),
            Target::Waiting | Target::Fetch => {
                self.enter_released(cx, id);
                cx.recommend(id, target);
            }
            Target::Ready | Target::Missing | Target::Forgotten => {}
        }
    }

    pub(super) fn send_task_erred(
        &mut self,
        cx: &mut Cx<'_>,
        id: TaskId,
        run_id: RunId,
        error: &ErrorInfo,
        thread: Value,
    ) {
        let task = self.task(id);
        cx.send(TaskErred {
            key: task.key.clone(),
            run_id,
            exception: error.exception.clone(),
            traceback: error.traceback.clone(),
            exception_text: error.exception_text.to_string(),
            traceback_text: error.traceback_text.to_string(),
            thread,
            startstops: task.startstops.clone(),
            status: "error".into(),
            stimulus_id: cx.stimulus_id.clone(),
        });
    }
}
