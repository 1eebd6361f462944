//! From fetch: wanted from a peer, no request sent yet.

use dask_protocol::Address;

use super::{Cx, Target};
use crate::state::State;
use crate::state::task::{TaskId, TaskState};

impl State {
    pub(super) fn transition_fetch(&mut self, cx: &mut Cx<'_>, id: TaskId, target: Target) {
        match target {
            Target::Released => {
                self.leave_fetch(id);
                self.enter_released(cx, id);
            }
            Target::Waiting => {
                self.leave_fetch(id);
                self.enter_released(cx, id);
                cx.recommend(id, Target::Waiting);
            }
            // What is asked to be fetched again in the event in which its last holder left is missing as well.
            Target::Missing | Target::Fetch if self.task(id).who_has.is_empty() => {
                self.leave_fetch(id);
                self.enter_missing(cx, id);
            }
            Target::Missing | Target::Ready | Target::Fetch | Target::Forgotten => {}
        }
    }

    /// Queues a task at each of its holders; without any it is missing.
    pub(super) fn enter_fetch(&mut self, cx: &mut Cx<'_>, id: TaskId) {
        if self.task(id).who_has.is_empty() {
            self.enter_missing(cx, id);
            return;
        }
        self.set_state(id, TaskState::Fetch);
        let task = self.task(id);
        let entry = (task.priority.clone(), id);
        for worker in task.who_has.clone() {
            self.peers.entry(worker).or_default().needed.insert(entry.clone());
        }
    }

    /// Takes a task out of the queues of its holders.
    pub(crate) fn leave_fetch(&mut self, id: TaskId) {
        let task = self.task(id);
        let entry = (task.priority.clone(), id);
        for worker in task.who_has.clone() {
            let peer = self.peers.get_mut(&worker).expect("a holder is a known peer");
            peer.needed.remove(&entry);
        }
    }

    /// The request was sent. The task has left the queues already.
    pub(crate) fn enter_flight(&mut self, cx: &Cx<'_>, id: TaskId, worker: &Address) {
        self.set_state(id, TaskState::Flight);
        self.task_mut(id).coming_from = Some(worker.clone());
        self.log_settled(cx, id, TaskState::Fetch, "flight");
    }
}
