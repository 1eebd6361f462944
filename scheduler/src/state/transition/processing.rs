//! Into and out of processing: sent to a worker.

use std::sync::Arc;

use bytes::Bytes;
use dask_protocol::message::{ComputeTask, KeyInMemory, Nbytes, RunId, ShortText, StartStop, WhoHas, stimulus_at};
use dask_protocol::{Address, Value};

use super::super::State;
use super::super::errors;
use super::super::ids::{TaskId, WorkerId};
use super::super::task::TaskState;
use super::Direct;

/// Largest result a peer may claim, in bytes (64 TiB), so that sums of sizes stay meaningful.
const NBYTES_MAX: i64 = 1 << 46;

/// What a worker says of a result.
#[derive(Debug)]
pub(in crate::state) struct Finished {
    pub(in crate::state) nbytes: i64,
    pub(in crate::state) type_pickle: Option<Bytes>,
    pub(in crate::state) typename: ShortText,
    pub(in crate::state) startstops: Vec<StartStop>,
    /// The result itself, for who wants it.
    pub(in crate::state) value: Option<Bytes>,
}

impl State {
    pub(super) fn transition_processing(&mut self, id: TaskId, finish: TaskState) -> Direct {
        match finish {
            TaskState::Released => self.transition_processing_released(id),
            // Not by its own fault: an actor it reads was lost. Its worker would wait for that for ever.
            TaskState::Erred => {
                if let Some(worker) = self.exit_processing(id) {
                    self.send_free_key(worker, id);
                }
                self.propagate_erred(id, None);
            }
            // Only a worker's word brings a task from here to memory: see `transition_processing_memory`.
            TaskState::Memory
            | TaskState::Waiting
            | TaskState::NoWorker
            | TaskState::Queued
            | TaskState::Processing
            | TaskState::Forgotten => return Direct::None,
        }
        Direct::Done
    }

    /// Sends a ready task to a worker (`_add_to_processing`).
    pub(in crate::state) fn add_to_processing(&mut self, id: TaskId, worker: WorkerId) {
        self.book_processing(id, worker);
        self.tasks[id].processing_on = Some(worker);
        self.set_state(id, TaskState::Processing);
        self.acquire_resources(id, worker);
        self.check_idle_saturated(worker, None);
        self.n_tasks += 1;
        if self.tasks[id].actor {
            self.workers[worker].actors.insert(id);
        }
        if let Some(error) = self.inputs_too_large(id, worker) {
            self.blame(id, error);
            self.exit_processing(id);
            let address = self.workers[worker].address.clone();
            self.propagate_erred(id, Some(address));
            return;
        }
        self.send_compute_task(id, worker);
    }

    /// A crude safety net against orders of magnitude, as upstream's.
    fn inputs_too_large(&self, id: TaskId, worker: WorkerId) -> Option<dask_protocol::message::ErrorInfo> {
        let (task, worker) = (&self.tasks[id], &self.workers[worker]);
        if worker.memory_limit == 0 || !self.config.memory_terminate {
            return None;
        }
        let known = task.dependencies.iter().map(|dep| u128::try_from(self.tasks[dep].nbytes).unwrap_or(0));
        let needed: u128 = known.sum();
        (needed > u128::from(worker.memory_limit)).then(|| {
            let error = errors::inputs_too_large(
                &task.key,
                needed,
                &worker.address,
                worker.memory_limit,
                task.dependents.is_empty(),
            );
            tracing::error!(target: "distributed.scheduler", "{}", error.exception_text);
            error
        })
    }

    /// Sends `compute-task` under a fresh run id (`_task_to_msg`).
    pub(in crate::state) fn send_compute_task(&mut self, id: TaskId, worker: WorkerId) {
        let run_id: RunId = self.next_run_id;
        self.next_run_id += 1;
        let previous = std::mem::replace(&mut self.tasks[id].run_id, run_id);
        self.sent.note(run_id, id);
        self.note_decision(run_id, previous, worker);
        let stimulus_id = match &self.compute_stimulus {
            Some(stimulus) => stimulus.clone(),
            None => self.compute_stimulus.insert(stimulus_at("compute-task", self.now)).clone(),
        };
        let task = &self.tasks[id];
        let holders = |dep: TaskId| {
            let holders = self.tasks[dep].who_has.iter();
            (self.tasks[dep].key.clone(), holders.map(|id| self.workers[id].address.clone()).collect())
        };
        let nbytes = |dep: TaskId| (self.tasks[dep].key.clone(), self.tasks[dep].nbytes);
        let resources = &task.annotations.resources;
        let message = ComputeTask {
            key: task.key.clone(),
            run_id,
            priority: task.wire_priority(),
            stimulus_id,
            who_has: task.dependencies.iter().map(holders).collect::<WhoHas>(),
            nbytes: task.dependencies.iter().map(nbytes).collect::<Nbytes>(),
            run_spec: task.spec.as_ref().expect("only tasks with a spec are computed").to_payload(),
            resource_restrictions: (!resources.is_empty()).then(|| resources.iter().cloned().collect()),
            actor: task.actor,
            annotations: match &task.annotations.echoed {
                Value::Nil => Value::Map(Vec::new()),
                echoed => echoed.clone(),
            },
            span_id: self.groups.group(task.group).span_id.clone(),
        };
        self.send_worker(worker, message);
        self.warn_if_timeout_is_ignored(id, worker);
    }

    /// Takes a task off its worker (`_exit_processing_common`); the worker, if it is still registered.
    pub(in crate::state) fn exit_processing(&mut self, id: TaskId) -> Option<WorkerId> {
        let task = &mut self.tasks[id];
        let worker = task.processing_on.take().expect("a processing task has a worker");
        (task.moves, task.steal_refused) = (0, false);
        self.unbook_processing(id, worker);
        self.stealing_remove_in_flight(id);
        self.workers[worker].actors.swap_remove(&id);
        if !self.workers.is_registered(worker) {
            return None;
        }
        self.check_idle_saturated(worker, None);
        self.release_resources(id, worker);
        Some(worker)
    }

    fn transition_processing_released(&mut self, id: TaskId) {
        if let Some(worker) = self.exit_processing(id) {
            self.send_free_key(worker, id);
        }
        self.propagate_released(id);
    }

    /// The assigned worker has the result.
    pub(in crate::state) fn transition_processing_memory(&mut self, id: TaskId, finished: Finished) {
        let key = self.tasks[id].key.clone();
        self.begin_transition();
        let prefix = self.tasks[id].prefix;
        for part in &finished.startstops {
            self.groups.prefix_mut(prefix).add_duration(&part.action, part.stop - part.start);
        }
        self.refresh_estimate(prefix);
        self.charge(id, &finished.startstops, Some(finished.nbytes));
        self.set_nbytes(id, finished.nbytes.clamp(0, NBYTES_MAX));
        let actor = self.tasks[id].actor;
        let worker = self.exit_processing(id).expect("a task finishes on a registered worker");
        if actor {
            self.workers[worker].actors.insert(id);
        }
        self.tasks[id].type_number = self.type_number(finished.typename);
        self.add_to_memory(id, worker, finished.type_pickle, finished.value);
        self.end_transition(key, id, TaskState::Processing);
    }

    /// Charges the client whose task this is with a run of it.
    pub(in crate::state) fn charge(&mut self, id: TaskId, parts: &[StartStop], nbytes: Option<i64>) {
        let nbytes = nbytes.map(|nbytes| nbytes.clamp(0, NBYTES_MAX).unsigned_abs());
        self.usages.charge(self.tasks[id].submitter, &self.clients, parts, nbytes);
    }

    /// `_add_to_memory`: dependents may be ready now, dependencies may be done with.
    fn add_to_memory(&mut self, id: TaskId, worker: WorkerId, type_pickle: Option<Bytes>, value: Option<Bytes>) {
        self.add_replica(id, worker);
        self.recommend_ready_dependents(id);
        for position in 0..self.tasks[id].dependencies.len() {
            let dep = self.tasks[id].dependencies.at(position);
            self.stop_waiting_for(id, dep);
        }
        if self.tasks[id].is_unneeded() {
            self.recommend(id, TaskState::Released);
        } else {
            let key = self.tasks[id].key.clone();
            self.tell_wanters(id, || {
                let (key, type_pickle, value) = (key.clone(), type_pickle.clone(), value.clone());
                KeyInMemory { key, type_pickle, workers: None, value }.into()
            });
        }
        self.set_state(id, TaskState::Memory);
        self.fire_and_forget_is_done(id);
    }

    /// Dependents that wait for nothing else go on, the best of them first.
    pub(in crate::state) fn recommend_ready_dependents(&mut self, id: TaskId) {
        let mut ready = std::mem::take(&mut self.scratch_tasks);
        ready.clear();
        for position in 0..self.tasks[id].dependents.len() {
            let dependent = self.tasks[id].dependents.at(position);
            let task = &mut self.tasks[dependent];
            if task.waiting_on.remove(id) && task.waiting_on.is_empty() {
                ready.push(dependent);
            }
        }
        // Last in, first out: the best goes last.
        ready.sort_by_key(|dependent| std::cmp::Reverse(self.tasks[*dependent].sort_key()));
        for &dependent in &ready {
            self.recommend(dependent, TaskState::Processing);
        }
        self.scratch_tasks = ready;
    }

    /// The number under which a type's name is kept.
    fn type_number(&mut self, typename: ShortText) -> u32 {
        /// Most type names kept; later ones are not remembered.
        const TYPE_NAMES_MAX: usize = 100_000;
        let number = match self.type_names.get_index_of(typename.as_str()) {
            Some(number) => number,
            None if self.type_names.len() < TYPE_NAMES_MAX => {
                self.type_names.insert_full(Arc::from(typename.as_str())).0
            }
            None => return 0,
        };
        u32::try_from(number + 1).expect("bounded by TYPE_NAMES_MAX")
    }

    /// A task that is being processed, and erred on `worker`.
    pub(in crate::state) fn transition_processing_erred(&mut self, id: TaskId, worker: Address) {
        let key = self.tasks[id].key.clone();
        self.begin_transition();
        self.exit_processing(id);
        self.propagate_erred(id, Some(worker));
        self.end_transition(key, id, TaskState::Processing);
    }
}
