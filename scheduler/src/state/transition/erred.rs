//! Into and out of erred: the task, or something it depends on, raised.

use std::sync::Arc;

use dask_protocol::Address;
use dask_protocol::message::{ClientTaskErred, ErrorInfo, TaskRetried};

use super::super::State;
use super::super::ids::TaskId;
use super::super::queries::ErredTask;
use super::super::task::{Failure, TaskState};
use super::Direct;

/// Erred tasks kept for display.
const ERRED_TASKS_MAX: usize = 100;

impl State {
    pub(super) fn transition_erred(&mut self, id: TaskId, finish: TaskState) -> Direct {
        match finish {
            TaskState::Released => self.transition_erred_released(id),
            TaskState::Waiting
            | TaskState::NoWorker
            | TaskState::Queued
            | TaskState::Processing
            | TaskState::Memory
            | TaskState::Erred
            | TaskState::Forgotten => return Direct::None,
        }
        Direct::Done
    }

    fn transition_erred_released(&mut self, id: TaskId) {
        self.tasks[id].failure = None;
        for position in 0..self.tasks[id].dependents.len() {
            let dependent = self.tasks[id].dependents.at(position);
            if self.tasks[dependent].state == TaskState::Erred {
                self.recommend(dependent, TaskState::Waiting);
            }
        }
        for address in self.tasks[id].take_erred_on() {
            self.send_free_key_to(&address, id);
        }
        let key = self.tasks[id].key.clone();
        self.tell_wanters(id, || TaskRetried { key: key.clone() }.into());
        self.set_state(id, TaskState::Released);
        let task = &self.tasks[id];
        if task.has_lost_dependencies {
            self.recommend(id, TaskState::Forgotten);
        } else if !task.waiters.is_empty() {
            self.recommend(id, TaskState::Waiting);
        }
    }

    /// Says that a task itself is to blame for `error`.
    pub(in crate::state) fn blame(&mut self, id: TaskId, error: ErrorInfo) {
        let cause = self.tasks[id].key.clone();
        self.tasks[id].failure = Some(Arc::new(Failure { cause, error }));
    }

    /// The rest of every transition to erred whose task was ready (`_propagate_erred`); `failure` is set.
    pub(in crate::state) fn propagate_erred(&mut self, id: TaskId, worker: Option<Address>) {
        self.set_state(id, TaskState::Erred);
        let failure = self.tasks[id].failure.clone().expect("a task is erred because of a failure");
        self.tasks[id].add_erred_on(worker);
        self.log_erred_task(id, &failure);
        self.fail_waiters(id);
        for position in 0..self.tasks[id].dependencies.len() {
            let dep = self.tasks[id].dependencies.at(position);
            self.stop_waiting_for(id, dep);
        }
        self.tell_wanters_erred(id, &failure);
        self.fire_and_forget_is_done(id);
    }

    /// What waits for an erred task errs for the same reason.
    pub(super) fn fail_waiters(&mut self, id: TaskId) {
        let failure = self.tasks[id].failure.clone();
        let waiters = std::mem::take(&mut self.tasks[id].waiters);
        for waiter in waiters.iter() {
            self.tasks[waiter].failure.clone_from(&failure);
            self.recommend(waiter, TaskState::Erred);
        }
    }

    pub(in crate::state) fn tell_wanters_erred(&mut self, id: TaskId, failure: &Failure) {
        let key = self.tasks[id].key.clone();
        self.tell_wanters(id, || task_erred(&key, failure).into());
    }

    fn log_erred_task(&mut self, id: TaskId, failure: &Failure) {
        let task = &self.tasks[id];
        if task.key != failure.cause {
            return;
        }
        self.erred_tasks.truncate(ERRED_TASKS_MAX - 1);
        self.erred_tasks.push_front(ErredTask {
            key: task.key.clone(),
            timestamp: self.now,
            erred_on: task.erred_on().to_vec(),
            exception_text: failure.error.exception_text.clone(),
            traceback_text: failure.error.traceback_text.clone(),
        });
    }
}

/// What a client is told of an erred task: the exception of the task that raised.
pub(in crate::state) fn task_erred(key: &dask_protocol::Key, failure: &Failure) -> ClientTaskErred {
    ClientTaskErred {
        key: key.clone(),
        exception: failure.error.exception.clone(),
        traceback: failure.error.traceback.clone(),
    }
}
