//! From waiting: to be computed here, inputs on their way.

use super::{Cx, Target};
use crate::state::State;
use crate::state::task::{TaskId, TaskState};

impl State {
    pub(super) fn transition_waiting(&mut self, cx: &mut Cx<'_>, id: TaskId, target: Target) {
        match target {
            Target::Released => self.enter_released(cx, id),
            Target::Ready => self.enter_ready(id),
            // As an input it will be here once it is computed.
            Target::Waiting | Target::Fetch | Target::Missing | Target::Forgotten => {}
        }
    }

    fn enter_ready(&mut self, id: TaskId) {
        let task = self.task(id);
        if !task.waiting_for_data.is_empty() {
            return;
        }
        let entry = (task.priority.clone(), id);
        if task.computation.as_ref().is_some_and(|c| !c.resources.is_empty()) {
            self.set_state(id, TaskState::Constrained);
            self.constrained.insert(entry);
        } else {
            self.set_state(id, TaskState::Ready);
            self.ready.insert(entry);
        }
    }
}
