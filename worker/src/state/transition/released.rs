//! From released: everything begins here.

use super::{Cx, Target};
use crate::state::State;
use crate::state::task::{TaskId, TaskState};

impl State {
    pub(super) fn transition_released(&mut self, cx: &mut Cx<'_>, id: TaskId, target: Target) {
        match target {
            Target::Released => self.enter_released(cx, id),
            Target::Waiting => self.enter_waiting(cx, id),
            Target::Fetch => self.enter_fetch(cx, id),
            Target::Forgotten => self.forget(cx, id),
            Target::Ready | Target::Missing => {}
        }
    }

    fn enter_waiting(&mut self, cx: &mut Cx<'_>, id: TaskId) {
        self.set_state(id, TaskState::Waiting);
        for dependency in self.task(id).dependencies.iter().copied().collect::<Vec<_>>() {
            if self.task(dependency).state != TaskState::Memory {
                self.wait_for(id, dependency);
                cx.recommend(dependency, Target::Fetch);
            }
        }
        if self.task(id).waiting_for_data.is_empty() {
            cx.recommend(id, Target::Ready);
        }
    }

    /// Notes that a task needs a dependency that is not in memory.
    pub(super) fn wait_for(&mut self, id: TaskId, dependency: TaskId) {
        if self.task_mut(id).waiting_for_data.insert(dependency) {
            self.task_mut(dependency).waiters += 1;
        }
    }

    /// Drops a task from the books unless something depends on it.
    fn forget(&mut self, cx: &mut Cx<'_>, id: TaskId) {
        if !self.task(id).dependents.is_empty() {
            return;
        }
        self.clear_holders(id);
        self.clear_dependencies(cx, id);
        let task = self.tasks.remove(id);
        self.counts[task.state.index()] -= 1;
    }

    /// Unlinks a task from its dependencies, forgetting those that were known only for it.
    pub(crate) fn clear_dependencies(&mut self, cx: &mut Cx<'_>, id: TaskId) {
        for dependency in std::mem::take(&mut self.task_mut(id).dependencies) {
            let task = self.task_mut(dependency);
            task.dependents.swap_remove(&id);
            if task.dependents.is_empty() && task.state == TaskState::Released {
                cx.recommend(dependency, Target::Forgotten);
            }
        }
    }
}
