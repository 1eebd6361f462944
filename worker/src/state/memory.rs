//! Values that arrive, are stored by RPC, are freed, or are lost.

use bytes::Bytes;
use dask_protocol::message::{AddKeys, Keys, RunId, TaskFinished};
use dask_protocol::{Key, Value};

use super::State;
use super::action::Action;
use super::ahead::is_plain;
use super::story::{StoryRow, What};
use super::task::{Previous, TaskId, TaskState, known_size};
use super::transition::{Cx, Target};

/// How the scheduler hears of a value.
#[derive(Debug)]
pub(crate) enum Report {
    /// As the result of a run.
    TaskFinished {
        /// Which.
        run_id: RunId,
        /// The thread that ran it, or nil.
        thread: Value,
        /// The result itself, if it is to be told.
        value: Option<Bytes>,
    },
    /// As a copy of a value it knows.
    AddKeys,
    /// Not from us (scatter: its caller tells).
    Silent,
}

impl State {
    /// The shell has stored a task's value: dependents that waited for it may run.
    pub(crate) fn enter_memory(&mut self, cx: &mut Cx<'_>, id: TaskId, nbytes: i64, report: Report) {
        self.set_state(id, TaskState::Memory);
        let task = self.task_mut(id);
        let size = known_size(nbytes).or(task.nbytes).unwrap_or(0);
        task.nbytes = Some(size);
        if task.computation.as_deref().is_some_and(is_plain) {
            // Nobody asks about it any more, and who wants it computed again sends it again.
            task.computation = None;
        }
        self.nbytes_in_memory += u128::from(size);
        self.stop_waiting(cx, id);
        for dependent in self.task(id).dependents.iter().copied().collect::<Vec<_>>() {
            self.supply(cx, dependent, id);
        }
        match report {
            Report::TaskFinished { run_id, thread, value } => self.send_task_finished(cx, id, run_id, thread, value),
            Report::AddKeys => {
                let keys = Keys(vec![self.task(id).key.clone()]);
                cx.send(AddKeys { keys, stimulus_id: cx.stimulus_id.clone() });
            }
            Report::Silent => {}
        }
    }

    fn supply(&mut self, cx: &mut Cx<'_>, dependent: TaskId, id: TaskId) {
        let task = self.task_mut(dependent);
        if !task.waiting_for_data.swap_remove(&id) {
            return;
        }
        if task.waiting_for_data.is_empty() {
            cx.recommend(dependent, Target::Ready);
        }
        self.task_mut(id).waiters -= 1;
    }

    /// What took time is told once.
    pub(crate) fn send_task_finished(
        &mut self,
        cx: &mut Cx<'_>,
        id: TaskId,
        run_id: RunId,
        thread: Value,
        value: Option<Bytes>,
    ) {
        let task = self.task_mut(id);
        let startstops = std::mem::take(&mut task.startstops);
        let result = task.result.as_deref();
        let nbytes = i64::try_from(task.nbytes.unwrap_or(0)).unwrap_or(i64::MAX);
        cx.send(TaskFinished {
            key: task.key.clone(),
            run_id,
            nbytes,
            type_pickle: result.and_then(|it| it.type_pickle.clone()),
            typename: result.map(|it| it.typename.clone()).unwrap_or_default(),
            metadata: result.map(|it| it.metadata.clone()).unwrap_or_default(),
            thread,
            startstops,
            value,
            status: "OK".into(),
            stimulus_id: cx.stimulus_id.clone(),
        });
    }

    /// `update_data`: a value was put here from outside, whatever the task was doing.
    ///
    /// An execution or transfer of it that is still outstanding goes on by itself; its outcome changes nothing any more.
    pub(crate) fn handle_data_stored(&mut self, cx: &mut Cx<'_>, data: Vec<(Key, i64)>, report: bool) {
        for (key, nbytes) in data {
            let id = self.ensure_task(cx, &key, &replica_priority());
            self.log_event(cx, id, "receive-from-scatter");
            self.store_from_outside(cx, id, nbytes, report);
            self.transitions(cx);
        }
    }

    fn store_from_outside(&mut self, cx: &mut Cx<'_>, id: TaskId, nbytes: i64, report: bool) {
        let task = self.task(id);
        let (start, run_id) = (task.state, task.run_id);
        let told = if report { Report::AddKeys } else { Report::Silent };
        let told = match start {
            TaskState::Memory => {
                let size = known_size(nbytes).or(task.nbytes).unwrap_or(0);
                self.nbytes_in_memory -= u128::from(task.nbytes.unwrap_or(0));
                self.nbytes_in_memory += u128::from(size);
                self.task_mut(id).nbytes = Some(size);
                if report {
                    let (keys, stimulus_id) = (Keys(vec![key_of(self, id)]), cx.stimulus_id.clone());
                    cx.send(AddKeys { keys, stimulus_id });
                }
                return;
            }
            TaskState::Ready | TaskState::Constrained => {
                self.leave_queue(id);
                Report::TaskFinished { run_id, thread: Value::Nil, value: None }
            }
            TaskState::Waiting
            | TaskState::Executing
            | TaskState::LongRunning
            | TaskState::Resumed(Previous::Flight) => Report::TaskFinished { run_id, thread: Value::Nil, value: None },
            TaskState::Resumed(_) | TaskState::Flight => Report::AddKeys,
            TaskState::Fetch => {
                self.leave_fetch(id);
                Report::AddKeys
            }
            TaskState::Missing => {
                self.missing.swap_remove(&id);
                Report::AddKeys
            }
            TaskState::Released | TaskState::Error | TaskState::Cancelled(_) => told,
        };
        let task = self.task_mut(id);
        task.execution = None;
        task.coming_from = None;
        task.error = None;
        self.enter_memory(cx, id, nbytes, told);
        self.log_settled(cx, id, start, "memory");
    }

    /// `free-keys`, from the scheduler or by RPC.
    pub(crate) fn handle_free_keys(&mut self, cx: &mut Cx<'_>, keys: &[Key]) {
        for key in keys {
            if let Some(id) = self.find(key) {
                self.log_event(cx, id, "free-keys");
                cx.recommend(id, Target::Released);
            }
        }
    }

    /// `remove-replicas`: only values are dropped; whatever else a task is doing goes on.
    ///
    /// Executions pin their inputs when they start, so a dependent that runs does not keep the value.
    pub(crate) fn handle_remove_replicas(&mut self, cx: &mut Cx<'_>, keys: &[Key]) {
        for key in keys {
            let Some(id) = self.find(key) else { continue };
            if self.task(id).state == TaskState::Memory {
                self.log_event(cx, id, "remove-replica");
                cx.recommend(id, Target::Released);
            }
        }
    }

    /// Stored values died with the executor that held them.
    pub(crate) fn handle_data_lost(&mut self, cx: &mut Cx<'_>, keys: &[Key]) {
        for key in keys {
            let Some(id) = self.find(key) else { continue };
            if self.task(id).state == TaskState::Memory {
                self.log_event(cx, id, "data-lost");
                self.leave_memory(cx, id);
            }
        }
    }

    /// Tells the shell to drop a value that no task claims.
    pub(crate) fn drop_unclaimed(&self, cx: &mut Cx<'_>, key: &Key) {
        let claimed = self.find(key).is_some_and(|id| self.task(id).state == TaskState::Memory);
        if !claimed {
            cx.act(Action::DropData { key: key.clone() });
        }
    }

    /// Logs an event by dask's name.
    pub(crate) fn log_event(&mut self, cx: &Cx<'_>, id: TaskId, name: &'static str) {
        let task = self.task(id);
        let what = What::Event { name, state: task.state.name() };
        let row = StoryRow { key: task.key.clone(), what, stimulus_id: cx.stimulus_id.clone(), time: cx.now };
        self.story.push(row);
    }
}

fn key_of(state: &State, id: TaskId) -> Key {
    state.task(id).key.clone()
}

/// The priority of copies wanted for their own sake: after the inputs of tasks of ordinary priority.
pub(crate) fn replica_priority() -> dask_protocol::message::Priority {
    dask_protocol::message::Priority([1.0].into_iter().collect())
}
