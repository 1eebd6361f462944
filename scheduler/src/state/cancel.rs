//! `cancel-keys`: end the interest of a client, or of all clients, in keys and in everything that depends on them.

use dask_protocol::message::{CancelledKeys, Keys};
use dask_protocol::{Key, Value};

use super::State;
use super::action::Action;
use super::event::ClientId;
use super::ids::{ClientSlot, FastSet, TaskId};

impl State {
    /// Cancels like upstream, dependents first, but skips tasks that nobody wants: upstream trips over an unwanted
    /// dependent and tears the client's connection down. An unwanted one is walked through all the same, so that what
    /// is wanted beyond it is cancelled too.
    pub(super) fn cancel_keys(
        &mut self,
        client: &ClientId,
        keys: &[Key],
        force: bool,
        reason: Option<String>,
        msg: Option<String>,
    ) {
        let Some(slot) = self.clients.slot(client) else {
            return;
        };
        tracing::info!(target: "distributed.scheduler", "Client {client} requests to cancel {} keys", keys.len());
        let entries = [("action", Value::from("cancel")), ("count", keys.len().into()), ("force", force.into())];
        self.out.push(Action::LogEvent { topic: (&**client).into(), msg: Value::map(entries) });
        let roots: Vec<TaskId> = keys.iter().filter_map(|key| self.tasks.id(key)).collect();
        let cancelled = self.keys_to_cancel(slot, &roots, force);
        self.stimulus_id = self.stimulus("cancel-key");
        let names = cancelled.iter().map(|id| self.tasks[*id].key.clone()).collect();
        let mut wanters = FastSet::<ClientSlot>::default();
        if force {
            wanters.extend(cancelled.iter().flat_map(|id| self.tasks[*id].who_wants.iter()));
        } else {
            wanters.insert(slot);
        }
        for wanter in wanters {
            self.release_interest(wanter, &cancelled);
            self.transitions();
        }
        self.queue_slots_maybe_opened();
        let message = CancelledKeys { keys: Keys(names), reason, msg };
        self.out.push(Action::ToAllClients { message: message.into() });
    }

    /// The wanted tasks among `roots` and what depends on them, dependents before dependencies.
    fn keys_to_cancel(&self, slot: ClientSlot, roots: &[TaskId], force: bool) -> Vec<TaskId> {
        let mut seen = FastSet::<TaskId>::default();
        let mut stack: Vec<TaskId> = roots.to_vec();
        while let Some(id) = stack.pop() {
            let task = &self.tasks[id];
            let others_want = task.who_wants.iter().any(|wanter| wanter != slot);
            if (force || !others_want) && seen.insert(id) {
                stack.extend(task.dependents.iter());
            }
        }
        // Roots come first in `seen`; what depends on them must be let go of first.
        seen.into_iter().rev().filter(|id| !self.tasks[*id].who_wants.is_empty()).collect()
    }
}
