//! Which peers hold what we need, and what we are fetching from them.

use std::collections::BTreeSet;

use dask_protocol::message::{Priority, WhoHas};
use dask_protocol::{Address, Key};
use indexmap::{IndexMap, IndexSet};
use rustc_hash::FxBuildHasher;

use super::State;
use super::event::Seconds;
use super::task::{TaskId, TaskIds, TaskState};
use super::transition::{Cx, Target};

/// A peer worker, as long as there is anything to know about it.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// Tasks that name it as a holder.
    pub has: TaskIds,
    /// Of these, all and only the tasks in fetch, best first.
    pub needed: BTreeSet<(Priority, TaskId)>,
    /// The outstanding request.
    pub transfer: Option<Transfer>,
    /// Not to be asked before this time, because it said it was busy.
    pub busy_until: Option<Seconds>,
}

/// An outstanding request.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub keys: Vec<Key>,
    pub nbytes: u64,
}

pub(crate) type Peers = IndexMap<Address, Peer, FxBuildHasher>;

impl Peer {
    fn is_idle(&self) -> bool {
        self.has.is_empty() && self.needed.is_empty() && self.transfer.is_none() && self.busy_until.is_none()
    }
}

impl State {
    /// Forgets a peer about which there is nothing left to know.
    pub(crate) fn drop_idle_peer(&mut self, worker: &Address) {
        if self.peers.get(worker).is_some_and(Peer::is_idle) {
            self.peers.swap_remove(worker);
        }
    }

    /// Takes over the scheduler's view of who holds what (dask's `_update_who_has`), and recommends fetch or missing
    /// where that changes what can be done.
    pub(crate) fn update_who_has(&mut self, cx: &mut Cx<'_>, who_has: &WhoHas) {
        for (key, workers) in who_has.iter() {
            if let Some(id) = self.find(key) {
                self.set_holders(cx, id, workers);
            }
        }
    }

    fn set_holders(&mut self, cx: &mut Cx<'_>, id: TaskId, workers: &[Address]) {
        let own = self.config.address.clone();
        let holders: IndexSet<&Address, FxBuildHasher> = workers.iter().filter(|w| **w != own).collect();
        let gone: Vec<Address> = self.task(id).who_has.iter().filter(|w| !holders.contains(w)).cloned().collect();
        for worker in &gone {
            self.remove_holder(id, worker);
        }
        for worker in holders {
            self.add_holder(id, worker);
        }
        let task = self.task(id);
        match (task.state, task.who_has.is_empty()) {
            (TaskState::Fetch, true) => cx.recommend(id, Target::Missing),
            (TaskState::Missing, false) => cx.recommend(id, Target::Fetch),
            _ => {}
        }
    }

    fn add_holder(&mut self, id: TaskId, worker: &Address) {
        let task = self.task_mut(id);
        if task.who_has.contains(worker) {
            return;
        }
        task.who_has.push(worker.clone());
        let entry = (task.state == TaskState::Fetch).then(|| (task.priority.clone(), id));
        let peer = self.peers.entry(worker.clone()).or_default();
        peer.has.insert(id);
        peer.needed.extend(entry);
    }

    /// Forgets that `worker` holds a task, without deciding what follows.
    pub(crate) fn remove_holder(&mut self, id: TaskId, worker: &Address) {
        let task = self.task_mut(id);
        task.who_has.retain(|w| w != worker);
        let entry = (task.state == TaskState::Fetch).then(|| (task.priority.clone(), id));
        if let Some(peer) = self.peers.get_mut(worker) {
            peer.has.swap_remove(&id);
            if let Some(entry) = entry {
                peer.needed.remove(&entry);
            }
        }
        self.drop_idle_peer(worker);
    }

    /// Forgets every holder of a task.
    pub(crate) fn clear_holders(&mut self, id: TaskId) {
        for worker in self.task(id).who_has.clone() {
            self.remove_holder(id, &worker);
        }
    }

    /// A peer is gone: nothing can be fetched from it any more.
    pub(crate) fn forget_peer_holdings(&mut self, cx: &mut Cx<'_>, worker: &Address) {
        let Some(peer) = self.peers.get_mut(worker) else { return };
        let held = std::mem::take(&mut peer.has);
        peer.needed.clear();
        peer.busy_until = None;
        for id in held {
            let task = self.task_mut(id);
            task.who_has.retain(|w| w != worker);
            if task.state == TaskState::Fetch && task.who_has.is_empty() {
                cx.recommend(id, Target::Missing);
            }
        }
        self.drop_idle_peer(worker);
    }
}
