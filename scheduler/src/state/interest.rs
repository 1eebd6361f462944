//! What clients want: their arrival and departure, interest in keys, and what they are told.

use dask_protocol::message::{CancelledKeys, ErrorInfo, KeyInMemory, Keys, SchedulerToClient};
use dask_protocol::{Key, Value};

use super::State;
use super::action::Action;
use super::event::ClientId;
use super::ids::{ClientSlot, TaskId, take_out};
use super::task::TaskState;
use super::transition::task_erred;

impl State {
    /// A client registers. Under a known id it is a new session: what the old one wanted is let go of.
    pub(super) fn add_client(&mut self, id: &ClientId) {
        if self.clients.slot(id).is_some_and(|slot| self.clients.get(slot).is_some_and(|client| client.connected)) {
            self.remove_client(id);
        }
        let slot = self.clients.get_or_insert(id);
        self.clients.get_mut(slot).expect("just inserted").connected = true;
        self.log_client_event(id, "add-client");
    }

    pub(super) fn remove_client(&mut self, id: &ClientId) {
        let Some(slot) = self.clients.slot(id).filter(|slot| *slot != self.fire_and_forget) else {
            return;
        };
        self.log_client_event(id, "remove-client");
        self.stimulus_id = self.stimulus("remove-client");
        let client = self.clients.get_mut(slot).expect("a listed client exists");
        client.connected = false;
        let wanted: Vec<TaskId> = client.wants_what.iter().copied().collect();
        self.release_interest(slot, &wanted);
        self.transitions();
        self.queue_slots_maybe_opened();
        self.clients.remove(slot);
    }

    fn log_client_event(&mut self, id: &ClientId, action: &str) {
        let msg = Value::map([("action", Value::from(action)), ("client", Value::from(&**id))]);
        for topic in ["all", &**id] {
            self.out.push(Action::LogEvent { topic: topic.into(), msg: msg.clone() });
        }
    }

    /// Interest begins; keys that are in memory or erred are reported at once.
    pub(super) fn client_desires_keys(&mut self, id: &ClientId, keys: &[Key]) {
        let slot = self.clients.get_or_insert(id);
        for key in keys {
            match self.tasks.id(key) {
                Some(task) => self.desire(slot, task),
                None => tracing::warn!(client = %id, %key, "client desires a key that is unknown"),
            }
        }
    }

    pub(super) fn desire(&mut self, slot: ClientSlot, id: TaskId) {
        self.tasks[id].who_wants.insert(slot);
        self.clients.get_mut(slot).expect("interest belongs to a known client").wants_what.insert(id);
        if slot == self.fire_and_forget && matches!(self.tasks[id].state, TaskState::Memory | TaskState::Erred) {
            // Nothing will happen to it that could end this interest later.
            self.stimulus_id = self.stimulus("client-releases-keys");
            self.release_interest(slot, &[id]);
            self.transitions();
            return;
        }
        self.report_to(slot, id);
    }

    pub(super) fn client_releases_keys(&mut self, id: &ClientId, keys: &[Key]) {
        let Some(slot) = self.clients.slot(id) else {
            return;
        };
        self.stimulus_id = self.stimulus("client-releases-keys");
        let mut released = Vec::with_capacity(keys.len());
        released.extend(keys.iter().filter_map(|key| self.tasks.id(key)));
        self.release_interest(slot, &released);
        self.transitions();
        self.queue_slots_maybe_opened();
    }

    /// Ends interest and recommends what follows from it (`_client_releases_keys`).
    pub(super) fn release_interest(&mut self, slot: ClientSlot, tasks: &[TaskId]) {
        for &id in tasks {
            let wants = self.clients.get_mut(slot).is_some_and(|client| take_out(&mut client.wants_what, &id));
            if !wants {
                continue;
            }
            let task = &mut self.tasks[id];
            task.who_wants.remove(slot);
            if !task.who_wants.is_empty() {
                continue;
            }
            if task.dependents.is_empty() {
                self.recommend(id, TaskState::Forgotten);
            } else if task.state != TaskState::Erred && task.waiters.is_empty() {
                self.recommend(id, TaskState::Released);
            }
        }
    }

    /// Fire-and-forget interest ends with the result.
    pub(super) fn fire_and_forget_is_done(&mut self, id: TaskId) {
        if self.tasks[id].who_wants.contains(self.fire_and_forget) {
            self.release_interest(self.fire_and_forget, &[id]);
        }
    }

    /// Tells one client how a task stands, if it is settled (`report_on_key`).
    pub(super) fn report_to(&mut self, slot: ClientSlot, id: TaskId) {
        let task = &self.tasks[id];
        let message: SchedulerToClient = match task.state {
            TaskState::Memory => {
                KeyInMemory { key: task.key.clone(), type_pickle: None, workers: None, value: None }.into()
            }
            TaskState::Erred => {
                let failure = task.failure.as_ref().expect("a task is erred because of a failure");
                task_erred(&task.key, failure).into()
            }
            TaskState::Released
            | TaskState::Waiting
            | TaskState::NoWorker
            | TaskState::Queued
            | TaskState::Processing
            | TaskState::Forgotten => return,
        };
        self.send_client(slot, message);
    }

    pub(super) fn report_key(&mut self, id: &ClientId, key: &Key) {
        let Some(slot) = self.clients.slot(id) else {
            return;
        };
        match self.tasks.id(key) {
            Some(task) => self.report_to(slot, task),
            None => self.send_client(slot, CancelledKeys { keys: Keys(vec![key.clone()]), reason: None, msg: None }),
        }
    }

    /// No graph came of an `update-graph`: every key asked for is erred for this client, and for whoever wants it.
    pub(super) fn update_graph_failed(&mut self, id: &ClientId, keys: Vec<Key>, error: &ErrorInfo) {
        let Some(slot) = self.clients.slot(id) else {
            return;
        };
        for key in keys {
            let wanters = self.tasks.id(&key).map(|task| self.tasks[task].who_wants.clone()).unwrap_or_default();
            let message = dask_protocol::message::ClientTaskErred {
                key,
                exception: error.exception.clone(),
                traceback: error.traceback.clone(),
            };
            for other in wanters.iter().filter(|other| *other != slot) {
                self.send_client(other, message.clone());
            }
            self.send_client(slot, message);
        }
    }
}
