//! From ready and constrained: runnable, in one of the two queues.

use super::{Cx, Target};
use crate::state::State;
use crate::state::task::{TaskId, TaskState};

impl State {
    pub(super) fn transition_ready(&mut self, cx: &mut Cx<'_>, id: TaskId, target: Target) {
        match target {
            Target::Released => {
                self.leave_queue(id);
                self.enter_released(cx, id);
            }
            Target::Waiting | Target::Ready | Target::Fetch | Target::Missing | Target::Forgotten => {}
        }
    }

    /// Takes a runnable task out of its queue.
    pub(crate) fn leave_queue(&mut self, id: TaskId) {
        let task = self.task(id);
        let entry = (task.priority.clone(), id);
        let left = match task.state {
            TaskState::Constrained => self.constrained.remove(&entry),
            _ => self.ready.remove(&entry),
        };
        assert!(left, "a runnable task is in its queue");
    }
}
