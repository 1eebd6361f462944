//! Tells clients at once when a task can never run: a restriction or resource that no worker meets.

use dask_protocol::Value;
use dask_protocol::message::{SchedulerToClient, TopicEvent};

use super::super::State;
use super::super::action::Action;
use super::super::event::Runtime;
use super::super::ids::{ClientSlot, FastSet, IdSet, TaskId, WorkerId};

/// Dependents looked at to find the clients that wait for a task.
const DEPENDENTS_MAX: usize = 10_000;

impl State {
    /// A task entered no-worker: if no worker there is could run it, whoever waits for it is warned, once per group.
    /// Outputs of shuffles are restricted to workers that may just have left; their shuffle starts over by itself.
    pub(in crate::state) fn warn_if_hopeless(&mut self, id: TaskId) {
        let task = &self.tasks[id];
        if self.groups.group(task.group).warned || !task.queueable || !self.is_hopeless(id) {
            return;
        }
        let text = format!(
            "Task {} cannot run on any of the {} workers, and waits until one comes that meets its restrictions. {}",
            task.key,
            self.workers.len(),
            self.reason(id, false),
        );
        let group = task.group;
        self.groups.group_mut(group).warned = true;
        self.warn_waiters(id, &text);
        let msg = Value::map([
            ("action", "no-suitable-worker".into()),
            ("key", Value::from(&self.tasks[id].key)),
            ("text", text.into()),
            ("stimulus_id", (&*self.stimulus_id).into()),
        ]);
        self.out.push(Action::LogEvent { topic: "scheduler".into(), msg });
    }

    /// A task goes to a worker. If it has a `timeout` and the worker is upstream's, which knows none, whoever waits for it
    /// is warned, once per group.
    pub(in crate::state) fn warn_if_timeout_is_ignored(&mut self, id: TaskId, worker: WorkerId) {
        let task = &self.tasks[id];
        if task.annotations.timeout.is_none() || self.workers[worker].runtimes[Runtime::Native.number()] {
            return;
        }
        let group = task.group;
        if std::mem::replace(&mut self.groups.group_mut(group).timeout_warned, true) {
            return;
        }
        let text = format!(
            "Task {} has a timeout, but worker {} is one of dask.distributed's, which does not know timeouts: it may run \
             there for any time",
            self.tasks[id].key, self.workers[worker].address,
        );
        self.warn_waiters(id, &text);
    }

    /// Logs a warning, and shows it to the users whose clients wait for a task.
    fn warn_waiters(&mut self, id: TaskId, text: &str) {
        tracing::warn!(target: "distributed.scheduler", "{text}");
        for client in self.who_waits_for(id).iter() {
            // The topic to which Python's clients listen for warnings.
            let event = TopicEvent { topic: "warn".into(), event: (self.now, Value::from(text)) };
            self.send_client(client, SchedulerToClient::from(event));
        }
    }

    /// Clients that want a task, or something built on it.
    fn who_waits_for(&self, id: TaskId) -> IdSet<ClientSlot> {
        let mut clients = IdSet::default();
        let mut seen = FastSet::<TaskId>::default();
        let mut stack = vec![id];
        while let Some(id) = stack.pop().filter(|_| seen.len() < DEPENDENTS_MAX) {
            if seen.insert(id) {
                self.tasks[id].who_wants.iter().for_each(|client| {
                    clients.insert(client);
                });
                stack.extend(self.tasks[id].waiters.iter().take(DEPENDENTS_MAX));
            }
        }
        clients
    }
}
