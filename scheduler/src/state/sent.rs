//! Which task each of the last run ids belongs to: what workers finish was sent to them lately.
//!
//! Run ids are given out one after the other, so those of the tasks that run lie side by side here, and are in the processor's
//! caches. To find a task by its key takes a hash of that and a place in a table of all tasks, which is in none.

use dask_protocol::Key;
use dask_protocol::message::RunId;

use super::ids::TaskId;
use super::task::{TaskState, Tasks};

/// Run ids that are remembered, as a power of two: 64 KiB. Of what was sent before, tasks are found by their keys.
const REMEMBERED: usize = 1 << 14;

/// The ring of what was sent.
#[derive(Debug, Default)]
pub(super) struct Sent(Vec<TaskId>);

impl Sent {
    /// A task was sent out.
    pub(super) fn note(&mut self, run_id: RunId, task: TaskId) {
        if let Some(slot) = slot(run_id) {
            if self.0.len() <= slot {
                self.0.resize(slot + 1, TaskId::default());
            }
            self.0[slot] = task;
        }
    }

    /// The task of this key, if it is processed under this run id and was sent out lately.
    pub(super) fn find(&self, tasks: &Tasks, key: &Key, run_id: RunId) -> Option<TaskId> {
        let id = *self.0.get(slot(run_id)?)?;
        let task = tasks.get(id)?;
        (task.run_id == run_id && task.state == TaskState::Processing && task.key == *key).then_some(id)
    }
}

fn slot(run_id: RunId) -> Option<usize> {
    usize::try_from(run_id).ok().map(|run_id| run_id % REMEMBERED)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::ids::{GroupId, PrefixId};
    use super::super::task::Task;
    use super::*;

    #[test]
    fn only_what_a_run_id_stands_for_now_is_found() {
        let (mut tasks, mut sent) = (Tasks::default(), Sent::default());
        let mut add = |key: &Key, run_id| {
            let make = || Task::new(key.clone(), GroupId::default(), PrefixId::default(), Arc::default());
            let (id, _) = tasks.get_or_insert_with(key, make);
            (tasks[id].state, tasks[id].run_id) = (TaskState::Processing, run_id);
            id
        };
        let (x, y) = (Key::from("x"), Key::from("y"));
        let (first, second) = (add(&x, 5), add(&y, 6));
        sent.note(5, first);
        sent.note(6, second);
        assert_eq!(sent.find(&tasks, &x, 5), Some(first));
        assert_eq!(sent.find(&tasks, &y, 5), None, "another task's");
        assert_eq!(sent.find(&tasks, &x, 4), None, "never sent");
        assert_eq!(sent.find(&tasks, &x, -1), None);
        let later = 5 + i64::try_from(REMEMBERED).expect("small");
        sent.note(later, second);
        assert_eq!(sent.find(&tasks, &x, 5), None, "its place is taken");
        tasks[second].run_id = later;
        assert_eq!(sent.find(&tasks, &y, later), Some(second));
        tasks[second].state = TaskState::Released;
        assert_eq!(sent.find(&tasks, &y, later), None, "called off");
        tasks.remove(second);
        assert_eq!(sent.find(&tasks, &y, later), None);
    }
}
