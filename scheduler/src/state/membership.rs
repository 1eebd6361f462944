//! Workers that come, change, and go.

use dask_protocol::message::{CloseWorker, RemoveWorker, Resources, WorkerStatus};
use dask_protocol::{Address, Key, Value};

use super::State;
use super::action::Action;
use super::errors;
use super::event::{NewWorker, Seconds, WorkerHeartbeat};
use super::explain::Incident;
use super::ids::{TaskId, WorkerId};
use super::task::{Restrictions, TaskState};
use super::worker::Worker;

impl State {
    /// Takes in a worker. The shell has refused names and addresses that are taken; should one come through all the
    /// same, the registration is passed over.
    pub(super) fn add_worker(&mut self, new: NewWorker) {
        if self.workers.id(&new.address).is_some() {
            tracing::warn!(worker = %new.address, "worker registered twice");
            return;
        }
        self.stimulus_id = new.stimulus_id.clone();
        let (address, running) = (new.address.clone(), new.status == WorkerStatus::Running);
        let worker = Worker::new(new, self.now);
        self.total_nthreads += u64::from(worker.nthreads);
        self.total_memory = self.total_memory.saturating_add(worker.memory_limit);
        let (id, reranked) = self.workers.insert(worker);
        if reranked {
            self.idle.rerank(&self.workers);
        }
        self.scaling.joined = Some(self.now);
        self.log_worker_event(&address, &[("action", "add-worker".into())]);
        if running {
            self.worker_runs(id);
        }
    }

    /// A worker takes tasks from now on: first those that waited for one like it.
    fn worker_runs(&mut self, id: WorkerId) {
        self.set_running(id, true);
        self.check_idle_saturated(id, None);
        self.schedule_unrunnable(id);
        self.transitions();
        self.queue_slots_maybe_opened();
        self.refresh_no_workers_since();
    }

    /// Recommends processing for the no-worker tasks this worker can run, best first
    /// (`bulk_schedule_unrunnable_after_adding_worker`).
    fn schedule_unrunnable(&mut self, worker: WorkerId) {
        let valid = |id: &TaskId| self.is_valid_worker(*id, worker) || self.tasks[*id].loose_restrictions;
        let mut runnable: Vec<TaskId> = self.unrunnable.iter().copied().filter(valid).collect();
        runnable.sort_by_key(|id| std::cmp::Reverse(self.tasks[*id].sort_key()));
        for id in runnable {
            self.recommend(id, TaskState::Processing);
        }
    }

    pub(super) fn worker_status_change(&mut self, address: &Address, status: WorkerStatus) {
        let Some(id) = self.workers.id(address) else {
            return;
        };
        // `closed` marks workers that have left; nobody may claim it while registered.
        let status = if status == WorkerStatus::Closed { WorkerStatus::Closing } else { status };
        let before = std::mem::replace(&mut self.workers[id].status, status);
        if before == status {
            return;
        }
        let msg = Value::map([
            ("action", "worker-status-change".into()),
            ("prev-status", before.name().into()),
            ("status", status.name().into()),
            ("stimulus_id", (&*self.stimulus_id).into()),
        ]);
        self.out.push(Action::LogEvent { topic: address.as_str().into(), msg });
        if status == WorkerStatus::Running {
            self.worker_runs(id);
        } else {
            self.set_running(id, false);
            self.refresh_no_workers_since();
        }
    }

    /// A worker has left, or is made to.
    pub(super) fn remove_worker(&mut self, address: &Address, expected: bool, close: bool) {
        let Some(id) = self.workers.id(address) else {
            return;
        };
        if close {
            self.send_worker(id, CloseWorker { reason: "scheduler-remove-worker".to_owned() });
        }
        self.set_running(id, false);
        self.workers.unregister(id);
        let worker = &mut self.workers[id];
        worker.status = WorkerStatus::Closed;
        let name = worker.name.clone();
        self.total_nthreads -= u64::from(worker.nthreads);
        self.total_memory = self.total_memory.saturating_sub(worker.memory_limit);
        let no_workers_before = self.no_workers_since.is_none() && self.running.is_empty();
        if !expected {
            self.note_death(id);
        }
        let processing = self.interrupt_processing(id, expected);
        let (recompute, lost) = self.lose_replicas(id);
        self.warn_of_losses(address, &recompute, &lost);
        let keys = |keys: Vec<Key>| Value::Set(keys.iter().map(Value::from).collect());
        self.log_worker_event(
            address,
            &[
                ("action", "remove-worker".into()),
                ("processing-tasks", keys(processing)),
                ("lost-computed-tasks", keys(recompute)),
                ("lost-scattered-tasks", keys(lost)),
                ("stimulus_id", (&*self.stimulus_id).into()),
                ("expected", expected.into()),
            ],
        );
        if no_workers_before {
            // Before tasks enter no-worker because of it, so that a later timeout blames the missing workers.
            self.no_workers_since = Some(self.now);
        }
        self.transitions();
        self.refresh_no_workers_since();
        self.queue_slots_maybe_opened();
        self.forget_worker(id);
        let stimulus_id = self.stimulus_id.clone();
        let last = self.workers.is_empty();
        self.out.push(Action::WorkerRemoved {
            worker: address.clone(),
            name,
            last,
            stimulus_id: stimulus_id.to_string(),
        });
        let others: Vec<WorkerId> = self.workers.ids().collect();
        for other in others {
            let message = RemoveWorker { worker: address.clone(), stimulus_id: stimulus_id.clone() };
            self.send_worker(other, message);
        }
    }

    /// What a leaving worker was processing runs elsewhere; if it died once too often with a task, the task errs.
    fn interrupt_processing(&mut self, id: WorkerId, expected: bool) -> Vec<Key> {
        let processing: Vec<TaskId> = self.workers[id].processing.iter().collect();
        let address = self.workers[id].address.clone();
        for &task in &processing {
            if !expected {
                self.tasks[task].suspicious += 1;
                let prefix = self.tasks[task].prefix;
                self.groups.prefix_mut(prefix).suspicious += 1;
            }
            let suspicious = self.tasks[task].suspicious;
            self.note_incident(task, |_| Incident::WorkerLeft { worker: address.clone(), expected, suspicious });
            if !expected && suspicious > self.config.allowed_failures {
                self.kill(task, &address);
            } else {
                self.recommend(task, TaskState::Released);
            }
        }
        processing.iter().filter_map(|task| Some(self.tasks.get(*task)?.key.clone())).collect()
    }

    fn kill(&mut self, id: TaskId, address: &Address) {
        let task = &self.tasks[id];
        tracing::error!(
            target: "distributed.scheduler",
            "Task {} marked as failed because {} workers died while trying to run it", task.key, task.suspicious
        );
        let notes = self.post_mortems_of(&task.key, address);
        let error = errors::killed_worker(&task.key, address, self.config.allowed_failures, &notes);
        self.blame(id, error);
        self.transition_processing_erred(id, address.clone());
    }

    /// Takes a leaving worker's replicas off the books: computed results that nobody else has, and scattered ones.
    fn lose_replicas(&mut self, id: WorkerId) -> (Vec<Key>, Vec<Key>) {
        let (mut recompute, mut lost) = (Vec::new(), Vec::new());
        let held: Vec<TaskId> = self.workers[id].has_what.iter().copied().collect();
        for task in held {
            let is_actor = self.workers[id].actors.contains(&task);
            self.remove_replica(task, id);
            if is_actor {
                self.recommend(task, TaskState::Erred);
            } else if self.tasks[task].who_has.is_empty() {
                let key = self.tasks[task].key.clone();
                self.note_incident(task, |state| Incident::ResultLost { worker: state.workers[id].address.clone() });
                if self.tasks[task].spec.is_some() {
                    recompute.push(key);
                    self.recommend(task, TaskState::Released);
                } else {
                    lost.push(key);
                    self.recommend(task, TaskState::Forgotten);
                }
            }
        }
        (recompute, lost)
    }

    fn warn_of_losses(&self, address: &Address, recompute: &[Key], lost: &[Key]) {
        /// Keys named in a warning; the rest are counted.
        const KEYS_SHOWN: usize = 10;
        let shown = |keys: &[Key]| {
            let more = keys.len().saturating_sub(KEYS_SHOWN);
            let list = format!("{:?}", &keys[..keys.len() - more]);
            if more == 0 { list } else { format!("{list} and {more} more") }
        };
        if !recompute.is_empty() {
            tracing::warn!(
                target: "distributed.scheduler",
                "Removing worker '{address}' caused the cluster to lose already computed task(s), which will be \
                 recomputed elsewhere: {} (stimulus_id='{}')", shown(recompute), self.stimulus_id
            );
        }
        if !lost.is_empty() {
            tracing::error!(
                target: "distributed.scheduler",
                "Removing worker '{address}' caused the cluster to lose scattered data, which can't be recovered: {} \
                 (stimulus_id='{}')", shown(lost), self.stimulus_id
            );
        }
    }

    /// Nothing refers to a removed worker any more once its tasks have moved on.
    fn forget_worker(&mut self, id: WorkerId) {
        let worker = &self.workers[id];
        assert!(worker.processing.is_empty(), "every task of a removed worker has left processing");
        let needs: Vec<TaskId> = worker.needs_what.keys().copied().collect();
        for need in needs {
            self.clear_need(need, id);
        }
        self.incidents.worker_left(id, self.workers[id].address.clone());
        self.workers.drop_unregistered(id);
        self.retirement_worker_left(id);
    }

    /// `heartbeat_worker`.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn heartbeat_worker(&mut self, heartbeat: &WorkerHeartbeat) {
        let Some(id) = self.workers.id(&heartbeat.worker) else {
            return;
        };
        if let Some(measured) = heartbeat.bandwidth.filter(|bandwidth| bandwidth.is_finite() && *bandwidth > 0.0) {
            /// Slowest network believed, in bytes per second: costs are divided by it.
            const BANDWIDTH_MIN: f64 = 1.0;
            let share = 1.0 / self.workers.len() as f64;
            self.bandwidth = (self.bandwidth * (1.0 - share) + measured * share).max(BANDWIDTH_MIN);
        }
        for (key, duration) in &heartbeat.executing {
            self.task_executing(key, *duration);
        }
        let recent = self.config.memory_recent_to_old_time;
        self.workers[id].observe_memory(heartbeat, self.now, recent);
    }

    fn task_executing(&mut self, key: &Key, duration: Seconds) {
        if let Some(task) = self.tasks.id(key) {
            let prefix = self.tasks[task].prefix;
            self.groups.prefix_mut(prefix).add_exec_time(duration);
            self.refresh_estimate(prefix);
        }
    }

    /// `set_resources`: supplies named are replaced, others stay.
    pub(super) fn set_resources(&mut self, address: &Address, resources: Resources) {
        if let Some(id) = self.workers.id(address) {
            self.workers[id].resources.extend(resources);
            if self.running.contains(&id) {
                self.stimulus_id = self.stimulus("set-resources");
                self.schedule_unrunnable(id);
                self.transitions();
            }
        }
    }

    /// Books resources as used; informational, as upstream's.
    pub(super) fn acquire_resources(&mut self, task: TaskId, worker: WorkerId) {
        let used = &mut self.workers[worker].used_resources;
        for (name, amount) in &self.tasks[task].annotations.resources {
            *used.entry(name.clone()).or_insert(0.0) += amount;
        }
    }

    pub(super) fn release_resources(&mut self, task: TaskId, worker: WorkerId) {
        let used = &mut self.workers[worker].used_resources;
        for (name, amount) in &self.tasks[task].annotations.resources {
            if let Some(used) = used.get_mut(name) {
                *used -= amount;
            }
        }
    }

    /// `set_restrictions`: where tasks may run from now on.
    pub(super) fn set_restrictions(&mut self, restrictions: Vec<(Key, Vec<Address>)>) {
        for (key, workers) in restrictions {
            if let Some(id) = self.tasks.id(&key) {
                let restrictions = Restrictions { workers, hosts: Vec::new() };
                self.tasks[id].set_restrictions(restrictions);
            }
        }
    }

    /// Logs an event under the worker's topic and, with its address, under `all`.
    fn log_worker_event(&mut self, address: &Address, entries: &[(&str, Value)]) {
        let entries = entries.iter().cloned();
        let msg = Value::map(entries.clone());
        let all = Value::map(entries.chain([("worker", address.as_str().into())]));
        self.out.push(Action::LogEvent { topic: address.as_str().into(), msg });
        self.out.push(Action::LogEvent { topic: "all".into(), msg: all });
    }
}
