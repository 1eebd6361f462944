//! Which worker holds which result: replicas that arrive, leave or are scattered.

use dask_protocol::message::{KeyInMemory, Keys, RefreshWhoHas, RemoveReplicas, StimulusId};
use dask_protocol::{Address, Key};

use super::State;
use super::event::ClientId;
use super::explain::Incident;
use super::ids::{TaskId, WorkerId, take_out};
use super::task::{Task, TaskState};

impl State {
    /// A worker holds a result.
    pub(super) fn add_replica(&mut self, id: TaskId, worker: WorkerId) {
        if !self.tasks[id].who_has.insert(worker) {
            return;
        }
        self.clear_need(id, worker);
        let nbytes = self.nbytes(id);
        let holder = &mut self.workers[worker];
        holder.has_what.insert(id);
        holder.nbytes += u128::from(nbytes);
        match self.tasks[id].who_has.len() {
            1 => self.groups.prefix_mut(self.tasks[id].prefix).nbytes += u128::from(nbytes),
            2 => {
                self.replicated_tasks.insert(id);
            }
            _ => {}
        }
    }

    /// A worker no longer holds a result; false if it did not.
    pub(super) fn remove_replica(&mut self, id: TaskId, worker: WorkerId) -> bool {
        if !self.tasks[id].who_has.remove(worker) {
            return false;
        }
        let nbytes = self.nbytes(id);
        let holder = &mut self.workers[worker];
        take_out(&mut holder.has_what, &id);
        holder.actors.swap_remove(&id);
        holder.nbytes -= u128::from(nbytes);
        match self.tasks[id].who_has.len() {
            0 => self.groups.prefix_mut(self.tasks[id].prefix).nbytes -= u128::from(nbytes),
            1 => {
                self.replicated_tasks.swap_remove(&id);
            }
            _ => {}
        }
        true
    }

    pub(super) fn remove_all_replicas(&mut self, id: TaskId) {
        while !self.tasks[id].who_has.is_empty() {
            let worker = self.tasks[id].who_has.at(0);
            self.remove_replica(id, worker);
        }
    }

    /// Learns the size of a result; holders' totals follow.
    pub(super) fn set_nbytes(&mut self, id: TaskId, nbytes: i64) {
        let before = u128::from(self.nbytes(id));
        self.tasks[id].nbytes = nbytes;
        let after = u128::from(self.nbytes(id));
        for position in 0..self.tasks[id].who_has.len() {
            let holder = self.tasks[id].who_has.at(position);
            let worker = &mut self.workers[holder];
            worker.nbytes = worker.nbytes - before + after;
        }
        if !self.tasks[id].who_has.is_empty() {
            let prefix = self.groups.prefix_mut(self.tasks[id].prefix);
            prefix.nbytes = prefix.nbytes - before + after;
        }
    }

    /// `add-keys`: copies arrived at a worker. Those of nothing we know to be in memory are to be dropped again.
    pub(super) fn add_keys(&mut self, address: &Address, keys: &[Key]) {
        let Some(worker) = self.workers.id(address) else {
            return;
        };
        let mut redundant = Vec::new();
        for key in keys {
            match self.tasks.id(key).filter(|id| self.tasks[*id].state == TaskState::Memory) {
                Some(id) => self.add_replica(id, worker),
                None => redundant.push(key.clone()),
            }
        }
        if !redundant.is_empty() {
            let stimulus_id = self.stimulus_id.clone();
            self.send_worker(worker, RemoveReplicas { keys: Keys(redundant), stimulus_id });
        }
    }

    /// `release-worker-data`: a worker dropped a result; with the last one gone it must be made again.
    pub(super) fn release_worker_data(&mut self, worker: WorkerId, key: &Key) {
        let Some(id) = self.tasks.id(key) else {
            return;
        };
        if self.remove_replica(id, worker) && self.tasks[id].who_has.is_empty() {
            self.note_incident(id, |state| Incident::ResultDropped { worker: state.workers[worker].address.clone() });
            self.recommend(id, TaskState::Released);
            self.transitions();
        }
    }

    /// Replicas that the shell freed by RPC.
    pub(super) fn replicas_removed(&mut self, address: &Address, keys: &[Key]) {
        if let Some(worker) = self.workers.id(address) {
            for key in keys {
                self.release_worker_data(worker, key);
            }
            self.queue_slots_maybe_opened();
        }
    }

    /// Replicas that were copied elsewhere and may go, unless the copy is gone again by now.
    pub(super) fn drop_replicas(&mut self, address: &Address, keys: &[Key]) {
        let Some(worker) = self.workers.id(address) else {
            return;
        };
        let mut surplus: Vec<TaskId> = keys.iter().filter_map(|key| self.tasks.id(key)).collect();
        surplus.retain(|id| {
            let task = &self.tasks[*id];
            let elsewhere = |holder: WorkerId| holder != worker && self.running.contains(&holder);
            !task.actor && task.who_has.contains(worker) && task.who_has.iter().any(elsewhere)
        });
        if !surplus.is_empty() {
            let stimulus_id = self.stimulus_id.clone();
            self.request_remove_replicas(worker, &surplus, &stimulus_id);
        }
    }

    /// `request-refresh-who-has`: holders of known keys; unknown ones are to be freed.
    pub(super) fn refresh_who_has(&mut self, worker: WorkerId, keys: Vec<Key>) {
        let (known, unknown): (Vec<Key>, Vec<Key>) = keys.into_iter().partition(|key| self.tasks.id(key).is_some());
        let stimulus_id = self.stimulus_id.clone();
        if !known.is_empty() {
            let holders = |key: Key| {
                let holders = self.who_has(&key);
                (key, holders)
            };
            let who_has = known.into_iter().map(holders).collect();
            self.send_worker(worker, RefreshWhoHas { who_has, stimulus_id: stimulus_id.clone() });
        }
        if !unknown.is_empty() {
            self.send_worker(worker, dask_protocol::message::FreeKeys { keys: Keys(unknown), stimulus_id });
        }
    }

    /// `update_data`: results that somebody scattered. Holders that have left meanwhile are passed over; a key without
    /// any holder left is not taken in.
    pub(super) fn update_data(
        &mut self,
        data: Vec<(Key, Vec<Address>, i64)>,
        client: Option<ClientId>,
        stimulus_id: StimulusId,
    ) {
        self.stimulus_id = stimulus_id;
        let mut keys = Vec::with_capacity(data.len());
        for (key, addresses, nbytes) in data {
            let holders: Vec<WorkerId> = addresses.iter().filter_map(|address| self.workers.id(address)).collect();
            if holders.is_empty() {
                tracing::warn!(%key, "scattered data has no registered holder");
            } else {
                self.take_in_data(&key, &holders, nbytes);
                let message =
                    KeyInMemory { key: key.clone(), type_pickle: None, workers: Some(addresses), value: None };
                let wanters = self.tasks.id(&key).map(|id| self.tasks[id].who_wants.clone()).unwrap_or_default();
                for wanter in wanters.iter() {
                    self.send_client(wanter, message.clone());
                }
            }
            keys.push(key);
        }
        self.transitions();
        if let Some(client) = client {
            if self.clients.slot(&client).is_some() {
                self.client_desires_keys(&client, &keys);
            } else {
                self.release_unneeded(&client, &keys);
            }
        }
        self.queue_slots_maybe_opened();
    }

    /// Lets go of what a client scattered and left before it arrived. Upstream makes the client up again, as one that
    /// never leaves.
    fn release_unneeded(&mut self, client: &ClientId, keys: &[Key]) {
        tracing::info!(%client, keys = keys.len(), "client left before what it scattered arrived");
        for id in keys.iter().filter_map(|key| self.tasks.id(key)).collect::<Vec<_>>() {
            if self.tasks[id].is_unneeded() {
                self.recommend(id, TaskState::Released);
            }
        }
        self.transitions();
    }

    fn take_in_data(&mut self, key: &Key, holders: &[WorkerId], nbytes: i64) {
        let (id, is_new) = self.task_of(key);
        if is_new {
            self.set_state(id, TaskState::Memory);
        } else if self.tasks[id].state != TaskState::Memory {
            self.settle_in_memory(id);
        }
        if nbytes >= 0 {
            self.set_nbytes(id, nbytes);
        }
        for &holder in holders {
            self.add_replica(id, holder);
        }
        self.recommend_ready_dependents(id);
    }

    /// Data came for a task that was to be computed: whatever was going on is called off.
    fn settle_in_memory(&mut self, id: TaskId) {
        if self.tasks[id].state != TaskState::Released {
            self.transition(id, TaskState::Released);
        }
        self.tasks[id].recommended = None;
        self.recommendations.retain(|other| *other != id);
        self.set_state(id, TaskState::Memory);
        for position in 0..self.tasks[id].dependents.len() {
            let dependent = self.tasks[id].dependents.at(position);
            if self.tasks[dependent].state == TaskState::Waiting {
                self.tasks[id].waiters.insert(dependent);
            }
        }
    }

    /// The task under a key, made without a spec if it is unknown; and whether it is new.
    pub(super) fn task_of(&mut self, key: &Key) -> (TaskId, bool) {
        let (groups, config, annotations) = (&mut self.groups, &self.config, &self.default_annotations);
        let (id, is_new) = self.tasks.get_or_insert_with(key, || {
            let (group, prefix) = groups.of_key(key, config);
            Task::new(key.clone(), group, prefix, annotations.clone())
        });
        if is_new {
            self.count_new_task(id);
        }
        (id, is_new)
    }

    /// Enters a new (released) task into its group and prefix.
    pub(super) fn count_new_task(&mut self, id: TaskId) {
        let (group, prefix) = (self.tasks[id].group, self.tasks[id].prefix);
        let group = self.groups.group_mut(group);
        group.size += 1;
        group.states.add(TaskState::Released);
        self.groups.prefix_mut(prefix).states.add(TaskState::Released);
    }

    /// Takes a worker's replicas off the books when the scheduler decides to drop them: the worker is told, and says
    /// `add-keys` if it refuses (`request_remove_replicas`).
    pub(super) fn request_remove_replicas(&mut self, worker: WorkerId, tasks: &[TaskId], stimulus_id: &StimulusId) {
        let keys = tasks.iter().map(|id| self.tasks[*id].key.clone()).collect();
        for &id in tasks {
            self.remove_replica(id, worker);
        }
        let message = RemoveReplicas { keys, stimulus_id: stimulus_id.clone() };
        self.send_worker(worker, message);
    }
}
