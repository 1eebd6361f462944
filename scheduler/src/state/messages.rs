//! What workers say on their streams, and how run ids keep races safe.

use dask_protocol::Address;
use dask_protocol::message::{ErrorInfo, LongRunning, RunId, TaskErred, TaskFinished, WorkerToScheduler};
use dask_protocol::native::TOLD_BYTES_MAX;
use dask_protocol::{Key, Value};

use super::State;
use super::action::Action;
use super::explain::Incident;
use super::ids::{TaskId, WorkerId};
use super::task::{Task, TaskState};
use super::transition::Finished;

impl State {
    /// Takes one message of a worker's stream. Messages of workers that have left are passed over.
    pub(super) fn worker_message(&mut self, address: &Address, message: WorkerToScheduler) {
        let Some(worker) = self.workers.id(address) else {
            return;
        };
        match message {
            WorkerToScheduler::TaskFinished(message) => {
                self.stimulus_id = message.stimulus_id.clone();
                self.task_finished(worker, address, message);
                self.transitions();
                self.queue_slots_maybe_opened();
            }
            WorkerToScheduler::TaskErred(message) => {
                self.stimulus_id = message.stimulus_id.clone();
                self.task_erred(worker, address, message);
                self.transitions();
                self.queue_slots_maybe_opened();
            }
            WorkerToScheduler::ReleaseWorkerData(message) => {
                self.stimulus_id = message.stimulus_id;
                self.release_worker_data(worker, &message.key);
                self.queue_slots_maybe_opened();
            }
            WorkerToScheduler::AddKeys(message) => {
                self.stimulus_id = message.stimulus_id;
                self.add_keys(address, &message.keys);
            }
            WorkerToScheduler::LongRunning(message) => {
                self.stimulus_id = message.stimulus_id.clone();
                self.task_long_running(worker, &message);
                self.queue_slots_maybe_opened();
            }
            WorkerToScheduler::Reschedule(message) => {
                self.stimulus_id = message.stimulus_id;
                self.reschedule(worker, &message.key);
                self.queue_slots_maybe_opened();
            }
            WorkerToScheduler::RequestRefreshWhoHas(message) => {
                self.stimulus_id = message.stimulus_id;
                self.refresh_who_has(worker, message.keys.0);
            }
            WorkerToScheduler::StealResponse(message) => {
                self.stimulus_id = message.stimulus_id;
                self.steal_response(worker, &message.key, message.state.as_deref());
                self.queue_slots_maybe_opened();
            }
            WorkerToScheduler::WorkerStatusChange(message) => {
                self.stimulus_id = message.stimulus_id;
                self.worker_status_change(address, message.status);
            }
            WorkerToScheduler::LogEvent(message) => self.worker_log_event(address, message.topic, message.msg),
            WorkerToScheduler::KeepAlive(_) | WorkerToScheduler::CloseStream(_) => {}
        }
    }

    fn task_finished(&mut self, worker: WorkerId, address: &Address, message: TaskFinished) {
        let sent = self.sent.find(&self.tasks, &message.key, message.run_id);
        let Some(id) = sent.or_else(|| self.tasks.id(&message.key)) else {
            return self.free_keys(worker, message.key);
        };
        let task = &mut self.tasks[id];
        match task.state {
            TaskState::Released | TaskState::Queued | TaskState::NoWorker | TaskState::Erred => {
                self.free_keys(worker, message.key);
            }
            TaskState::Waiting | TaskState::Processing | TaskState::Memory if task.run_id != message.run_id => {
                self.stale_run(id, worker, message.run_id);
            }
            TaskState::Memory => self.add_keys(address, &[message.key]),
            // The release that brought it here has been sent; see `transition_waiting`.
            TaskState::Waiting => {}
            TaskState::Processing if task.processing_on != Some(worker) => self.free_keys(worker, message.key),
            TaskState::Processing => {
                merge_metadata(task, message.metadata);
                let TaskFinished { nbytes, type_pickle, typename, startstops, value, .. } = message;
                let value = value.filter(|value| value.len() <= TOLD_BYTES_MAX);
                self.transition_processing_memory(id, Finished { nbytes, type_pickle, typename, startstops, value });
            }
            TaskState::Forgotten => {}
        }
    }

    /// News of an execution that is no longer the current one. From the assigned worker they mean that it missed
    /// something, and the task starts over; from another one its result is not wanted.
    fn stale_run(&mut self, id: TaskId, worker: WorkerId, run_id: RunId) {
        let task = &self.tasks[id];
        if task.processing_on == Some(worker) {
            self.recommend(id, TaskState::Released);
        } else {
            tracing::debug!(key = %task.key, run_id, current = task.run_id, "stale task run");
            self.send_free_key(worker, id);
        }
    }

    fn task_erred(&mut self, worker: WorkerId, address: &Address, message: TaskErred) {
        let Some(id) = self.tasks.id(&message.key) else {
            return;
        };
        let task = &mut self.tasks[id];
        if task.state != TaskState::Processing || task.processing_on != Some(worker) {
            return;
        }
        if task.run_id != message.run_id {
            return self.recommend(id, TaskState::Released);
        }
        self.charge(id, &message.startstops, None);
        let task = &mut self.tasks[id];
        if task.retries > 0 {
            task.retries -= 1;
            let left = task.retries;
            self.note_incident(id, |_| Incident::Retried { worker: address.clone(), left });
            self.transition(id, TaskState::Waiting);
        } else {
            let error = ErrorInfo {
                exception: message.exception,
                traceback: message.traceback,
                exception_text: message.exception_text.into(),
                traceback_text: message.traceback_text.into(),
            };
            self.blame(id, error);
            self.transition_processing_erred(id, address.clone());
        }
    }

    /// `long-running`: the task left its thread pool; it no longer counts as work and cannot be stolen.
    fn task_long_running(&mut self, worker: WorkerId, message: &LongRunning) {
        let Some(id) = self.tasks.id(&message.key) else {
            return;
        };
        let task = &self.tasks[id];
        let current = task.processing_on == Some(worker) && task.run_id == message.run_id;
        if !current || task.long_running {
            return;
        }
        // Before the average changes: the task was booked with the old one.
        self.book_long_running(id, worker);
        if let Some(duration) = message.compute_duration {
            let prefix = self.tasks[id].prefix;
            self.groups.prefix_mut(prefix).add_compute_time(duration);
            self.refresh_estimate(prefix);
        }
        self.check_idle_saturated(worker, None);
    }

    /// `reschedule`: the worker has let go of the task; it runs elsewhere if it is still needed.
    pub(super) fn reschedule(&mut self, worker: WorkerId, key: &Key) {
        let Some(id) = self.tasks.id(key) else {
            return;
        };
        if self.tasks[id].processing_on == Some(worker) {
            self.note_incident(id, |state| Incident::Rescheduled { worker: state.workers[worker].address.clone() });
            self.recommend(id, TaskState::Released);
            self.transitions();
        }
    }

    /// `log-event`: to one topic or several. Events a worker logs elsewhere carry its address.
    fn worker_log_event(&mut self, address: &Address, topic: Value, msg: Value) {
        let topics = match topic {
            Value::Array(topics) | Value::Set(topics) => topics,
            one => vec![one],
        };
        for topic in topics {
            let mut msg = msg.clone();
            if let Value::Map(entries) = &mut msg
                && topic.as_str() != Some(address.as_str())
            {
                entries.push(("worker".into(), address.as_str().into()));
            }
            self.out.push(Action::LogEvent { topic, msg });
        }
    }
}

/// `task.metadata.update(new)`.
fn merge_metadata(task: &mut Task, new: Value) {
    let Value::Map(new) = new else {
        return;
    };
    if new.is_empty() {
        return;
    }
    if let Value::Map(known) = task.metadata_mut().get_or_insert_with(|| Value::Map(Vec::new())) {
        for (name, value) in new {
            match known.iter_mut().find(|(other, _)| *other == name) {
                Some((_, old)) => *old = value,
                None => known.push((name, value)),
            }
        }
    }
}
