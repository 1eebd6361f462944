//! Fetching inputs from peers (dask's `_ensure_communicating`), and how transfers end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use dask_protocol::message::{Priority, RequestRefreshWhoHas, StartStop};
use dask_protocol::{Address, Key};
use rand::Rng;

use super::State;
use super::action::Action;
use super::event::{GatherOutcome, Seconds};
use super::peers::Transfer;
use super::task::{TaskId, TaskState};
use super::transition::{Cx, FIND_MISSING_INTERVAL};

/// How long a peer that said it is busy is left alone.
pub(crate) const BUSY_PAUSE: f64 = 0.15;

/// A peer that could be asked now. The greatest is asked first: the best task, on our own host, with the most to fetch.
type Candidate = Reverse<(Priority, bool, Reverse<usize>, u64, Address)>;

impl State {
    /// Sends requests until nothing more can be fetched, or enough is on its way.
    pub(crate) fn ensure_communicating(&mut self, cx: &mut Cx<'_>) {
        if !self.is_running() || self.count(TaskState::Fetch) == 0 || self.is_throttled() {
            return;
        }
        let mut candidates = self.gather_candidates();
        while let Some(Reverse((_, remote, Reverse(len), tie, worker))) = candidates.pop() {
            let Some(peer) = self.peers.get(&worker) else { continue };
            let Some((best, _)) = peer.needed.first() else { continue };
            if peer.needed.len() != len {
                candidates.push(Reverse((best.clone(), remote, Reverse(peer.needed.len()), tie, worker)));
                continue;
            }
            let (ids, nbytes) = self.select_for_gather(&worker);
            if ids.is_empty() {
                break;
            }
            self.start_transfer(cx, &worker, &ids, nbytes);
            if self.is_throttled() {
                break;
            }
        }
    }

    fn gather_candidates(&mut self) -> BinaryHeap<Candidate> {
        let own_host = self.config.address.host();
        let (peers, rng) = (&self.peers, &mut self.rng);
        let askable = peers.iter().filter(|(_, p)| p.transfer.is_none() && p.busy_until.is_none());
        askable
            .filter_map(|(worker, peer)| {
                let (best, _) = peer.needed.first()?;
                let remote = worker.host() != own_host;
                Some(Reverse((best.clone(), remote, Reverse(peer.needed.len()), rng.random(), worker.clone())))
            })
            .collect()
    }

    /// Takes the best tasks a peer holds out of all queues, up to the limits.
    fn select_for_gather(&mut self, worker: &Address) -> (Vec<TaskId>, u64) {
        let (mut ids, mut nbytes) = (Vec::new(), 0_u64);
        while let Some(id) = self.peers.get(worker).and_then(|p| p.needed.first()).map(|(_, id)| *id) {
            let size = self.task(id).size();
            if self.exceeds_limits(size, nbytes) {
                break;
            }
            self.leave_fetch(id);
            ids.push(id);
            nbytes = nbytes.saturating_add(size);
        }
        (ids, nbytes)
    }

    /// Whether a task is too much for a request that asks for `message_nbytes` already. With nothing in flight at all
    /// the first one is always asked for, so that there is progress.
    fn exceeds_limits(&self, size: u64, message_nbytes: u64) -> bool {
        if self.transfer_incoming_bytes == 0 && message_nbytes == 0 {
            return false;
        }
        let incoming = u128::from(self.config.transfer_incoming_bytes_max.unwrap_or(u64::MAX));
        let incoming = incoming.saturating_sub(self.transfer_incoming_bytes);
        let allowed = if message_nbytes == 0 {
            incoming
        } else {
            let message = incoming.min(u128::from(self.config.transfer_message_bytes_max));
            message.saturating_sub(u128::from(message_nbytes))
        };
        u128::from(size) > allowed
    }

    fn is_throttled(&self) -> bool {
        let bytes = self.transfer_incoming_bytes;
        let many = self.transfer_incoming_count >= self.config.transfer_incoming_count_max;
        let large = bytes >= u128::from(self.config.transfer_incoming_bytes_throttle_threshold);
        let full = self.config.transfer_incoming_bytes_max.is_some_and(|max| bytes >= u128::from(max));
        many && large || full
    }

    fn start_transfer(&mut self, cx: &mut Cx<'_>, worker: &Address, ids: &[TaskId], nbytes: u64) {
        let keys: Vec<Key> = ids.iter().map(|id| self.task(*id).key.clone()).collect();
        for id in ids {
            self.enter_flight(cx, *id, worker);
        }
        self.transfer_incoming_bytes += u128::from(nbytes);
        self.transfer_incoming_count += 1;
        self.transfer_incoming_count_total += 1;
        self.peers.entry(worker.clone()).or_default().transfer = Some(Transfer { keys: keys.clone(), nbytes });
        cx.act(Action::Gather {
            worker: worker.clone(),
            keys,
            total_nbytes: i64::try_from(nbytes).unwrap_or(i64::MAX),
            stimulus_id: cx.stimulus_id.clone(),
        });
    }

    /// A transfer ended.
    pub(crate) fn handle_gather_done(
        &mut self,
        cx: &mut Cx<'_>,
        worker: &Address,
        (received, outcome): (&[(Key, i64)], GatherOutcome),
        (start, stop): (Seconds, Seconds),
    ) {
        let transfer = self.peers.get_mut(worker).and_then(|peer| peer.transfer.take());
        let keys = transfer.map(|transfer| self.end_transfer(transfer)).unwrap_or_default();
        let in_flight: Vec<TaskId> = keys.iter().filter_map(|key| self.in_flight_from(worker, key)).collect();
        if !received.is_empty() || outcome == GatherOutcome::Answered {
            self.attach_transfer(worker, &in_flight, start, stop);
        }
        let absent = self.settle_received(cx, in_flight, received);
        match outcome {
            GatherOutcome::Answered => {
                for id in absent {
                    self.log_event(cx, id, "missing-dep");
                    self.remove_holder(id, worker);
                    self.settle_not_arrived(cx, id);
                }
            }
            GatherOutcome::Busy => self.handle_busy(cx, worker, &absent),
            GatherOutcome::Unreachable => {
                self.forget_peer_holdings(cx, worker);
                for id in absent {
                    self.settle_not_arrived(cx, id);
                }
            }
            GatherOutcome::Failed { error } => {
                for id in absent {
                    self.settle_unusable(cx, id, &error);
                }
            }
        }
        self.drop_idle_peer(worker);
    }

    fn end_transfer(&mut self, transfer: Transfer) -> Vec<Key> {
        self.transfer_incoming_bytes -= u128::from(transfer.nbytes);
        self.transfer_incoming_count -= 1;
        transfer.keys
    }

    /// The task of a request, unless it is not in flight any more because its value was put here from outside.
    fn in_flight_from(&self, worker: &Address, key: &Key) -> Option<TaskId> {
        self.find(key).filter(|id| self.task(*id).coming_from.as_ref() == Some(worker))
    }

    /// Settles what arrived of the tasks in flight; those that did not.
    fn settle_received(&mut self, cx: &mut Cx<'_>, in_flight: Vec<TaskId>, received: &[(Key, i64)]) -> Vec<TaskId> {
        let mut sizes: indexmap::IndexMap<&Key, i64, rustc_hash::FxBuildHasher> =
            received.iter().map(|(key, nbytes)| (key, *nbytes)).collect();
        let mut absent = Vec::new();
        for id in in_flight {
            match sizes.shift_remove(&self.task(id).key) {
                Some(nbytes) => self.settle_arrived(cx, id, nbytes),
                None => absent.push(id),
            }
        }
        for key in sizes.into_keys() {
            self.drop_unclaimed(cx, key);
        }
        absent
    }

    /// Upstream reports a transfer with one of the tasks it served.
    fn attach_transfer(&mut self, worker: &Address, in_flight: &[TaskId], start: Seconds, stop: Seconds) {
        let waiter = in_flight.iter().find_map(|id| {
            let dependents = &self.task(*id).dependents;
            dependents.iter().copied().find(|d| self.task(*d).state == TaskState::Waiting)
        });
        if let Some(waiter) = waiter {
            let source = Some(worker.clone());
            self.task_mut(waiter).startstops.push(StartStop { action: "transfer".into(), start, stop, source });
        }
    }

    /// The peer is left alone for a while; other holders are asked meanwhile, and the scheduler if there is none.
    fn handle_busy(&mut self, cx: &mut Cx<'_>, worker: &Address, in_flight: &[TaskId]) {
        if let Some(peer) = self.peers.get_mut(worker) {
            peer.busy_until = Some(cx.now + BUSY_PAUSE);
        }
        let mut unavailable = Vec::new();
        for &id in in_flight {
            if self.task(id).who_has.iter().all(|w| self.peers.get(w).is_none_or(|p| p.busy_until.is_some())) {
                unavailable.push(self.task(id).key.clone());
            }
            self.settle_not_arrived(cx, id);
        }
        self.request_refresh(cx, unavailable);
    }

    fn request_refresh(&mut self, cx: &mut Cx<'_>, keys: Vec<Key>) {
        if !keys.is_empty() {
            cx.send(RequestRefreshWhoHas { keys: keys.into(), stimulus_id: cx.stimulus_id.clone() });
        }
    }

    /// Peers whose pause is over can be asked again; the scheduler is asked who holds what is missing.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        let due: Vec<Address> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.busy_until.is_some_and(|until| until <= cx.now))
            .map(|(worker, _)| worker.clone())
            .collect();
        for worker in due {
            self.peers.get_mut(&worker).expect("found above").busy_until = None;
            self.drop_idle_peer(&worker);
        }
        if self.find_missing_at.is_some_and(|at| at <= cx.now) {
            let keys: Vec<Key> = self.missing.iter().map(|id| self.task(*id).key.clone()).collect();
            self.find_missing_at = (!keys.is_empty()).then_some(cx.now + FIND_MISSING_INTERVAL);
            self.request_refresh(cx, keys);
        }
    }
}
