//! From memory: the value is here, until it is released or lost.

use dask_protocol::message::ReleaseWorkerData;

use super::{Cx, Target};
use crate::state::State;
use crate::state::action::Action;
use crate::state::task::{TaskId, TaskState};

impl State {
    pub(super) fn transition_memory(&mut self, cx: &mut Cx<'_>, id: TaskId, target: Target) {
        match target {
            Target::Released => {
                cx.act(Action::DropData { key: self.task(id).key.clone() });
                self.leave_memory(cx, id);
            }
            Target::Waiting | Target::Ready | Target::Fetch | Target::Missing | Target::Forgotten => {}
        }
    }

    /// The value is not here any more: tell the scheduler, and let dependents that have not started wait for it again.
    pub(crate) fn leave_memory(&mut self, cx: &mut Cx<'_>, id: TaskId) {
        self.nbytes_in_memory -= u128::from(self.task(id).nbytes.unwrap_or(0));
        let task = self.task(id);
        cx.send(ReleaseWorkerData { key: task.key.clone(), stimulus_id: cx.stimulus_id.clone() });
        for dependent in task.dependents.iter().copied().collect::<Vec<_>>() {
            match self.task(dependent).state {
                TaskState::Waiting => self.wait_for(dependent, id),
                TaskState::Ready | TaskState::Constrained => {
                    self.leave_queue(dependent);
                    self.set_state(dependent, TaskState::Waiting);
                    self.wait_for(dependent, id);
                }
                // Those that run read it already.
                TaskState::Released
                | TaskState::Executing
                | TaskState::LongRunning
                | TaskState::Memory
                | TaskState::Error
                | TaskState::Fetch
                | TaskState::Flight
                | TaskState::Missing
                | TaskState::Cancelled(_)
                | TaskState::Resumed(_) => {}
            }
        }
        self.enter_released(cx, id);
    }
}
