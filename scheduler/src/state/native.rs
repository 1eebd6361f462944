//! Where tasks with dependencies run under the policy `native`.
//!
//! Upstream adds what a worker still has to fetch to what it has to compute, and divides both by its threads. But a worker
//! has one link however many threads it has, and what is fetched also occupies the link of whoever sends it. Where many
//! tasks exchange inputs at once, as in a shuffle, links are what everything waits for, most of all those of large workers.

use super::State;
use super::explain::Rule;
use super::ids::{TaskId, WorkerId};

/// How much a worker's own wait counts where a sender's is longer: it decides between equals. With 0.3, exchanges take
/// longer in the simulator; without it, their results gather on a few workers.
const OWN_WEIGHT: f64 = 0.1;

/// How much what is to be moved counts beside waiting for links: a transfer also holds up whatever else passes them, which no
/// estimate of one task's start knows. With 1, overlapping windows moved 6 % more than under the policy `upstream` in the
/// simulator; with 1.2 a quarter less, and nothing takes longer. Beyond 1.5 shuffles take longer.
const MOVE_WEIGHT: f64 = 1.2;

/// The two workers with most to send of those that hold a task's dependencies.
#[derive(Debug, Clone, Copy, Default)]
struct Senders {
    longest: [Option<(WorkerId, u128)>; 2],
}

impl Senders {
    fn add(&mut self, worker: WorkerId, outgoing: u128) {
        let known = |other: &Option<(WorkerId, u128)>| other.is_some_and(|(id, _)| id == worker);
        if self.longest.iter().any(known) {
            return;
        }
        let shorter = |other: &Option<(WorkerId, u128)>| other.is_none_or(|(_, bytes)| bytes < outgoing);
        if let Some(place) = self.longest.iter().position(shorter) {
            self.longest[place..].rotate_right(1);
            self.longest[place] = Some((worker, outgoing));
        }
    }

    fn is_empty(&self) -> bool {
        self.longest[0].is_none()
    }

    /// Bytes that the busiest of them has to send before it serves a receiver, which does not send to itself.
    fn queue(&self, receiver: WorkerId) -> u128 {
        let others = self.longest.iter().flatten().filter(|(id, _)| *id != receiver);
        others.map(|(_, outgoing)| *outgoing).max().unwrap_or(0)
    }
}

impl State {
    /// The holder of a dependency where a task can start soonest. Its inputs begin to move when the links that they pass
    /// are free: the one into the worker, and those out of the others that hold them; meanwhile the worker's threads do
    /// what was sent there before. What a worker is going to fetch for another task is not missing there: tasks that
    /// share inputs so come together, and inputs move less often.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn decide_worker_native(&mut self, id: TaskId) -> Option<WorkerId> {
        let senders = self.senders(id);
        self.mark_holders(id);
        let mut candidates = std::mem::take(&mut self.scratch_workers);
        candidates.retain(|worker| self.workers[*worker].runs);
        if candidates.is_empty() {
            candidates.extend(self.idle.running.ids());
        }
        let rule = if candidates.len() == 1 { Rule::OnlyCandidate } else { Rule::SoonestStart };
        let mut considered = std::mem::take(&mut self.considered);
        considered.begin(rule);
        let dependencies = self.tasks[id].dependencies.iter();
        let total: u128 = dependencies.map(|dep| u128::from(self.nbytes(dep))).sum();
        for &candidate in &candidates {
            let worker = &self.workers[candidate];
            let held = if worker.mark == self.mark { worker.held } else { 0 };
            let missing = (total - held).saturating_sub(self.fetching(id, candidate));
            let occupancy = self.occupancy(worker);
            let mut start = occupancy / f64::from(worker.nthreads);
            if missing > 0 && !senders.is_empty() {
                // Where all wait for the same sender, the one with less to do comes first.
                let own = start.max(worker.network_occupancy as f64 / self.bandwidth);
                let links = own.max(senders.queue(candidate) as f64 / self.bandwidth);
                start = links + MOVE_WEIGHT * missing as f64 / self.bandwidth + OWN_WEIGHT * own;
            } else {
                start += missing as f64 / self.bandwidth;
            }
            let cost = (0, start, worker.nbytes);
            considered.weigh(cost, || self.score(candidate, occupancy, start, missing));
        }
        self.scratch_workers = candidates;
        let best = considered.best();
        self.considered = considered;
        best
    }

    /// Who would send a task's dependencies.
    fn senders(&self, id: TaskId) -> Senders {
        let mut senders = Senders::default();
        for dep in self.tasks[id].dependencies.iter() {
            if let Some(sender) = self.likely_sender(dep) {
                senders.add(sender, self.workers[sender].outgoing);
            }
        }
        senders
    }

    /// Bytes of a task's dependencies that a worker is to fetch for other tasks.
    fn fetching(&self, id: TaskId, worker: WorkerId) -> u128 {
        let needs = &self.workers[worker].needs_what;
        if needs.is_empty() {
            return 0;
        }
        let dependencies = self.tasks[id].dependencies.iter();
        dependencies.filter_map(|dep| needs.get(&dep)).map(|need| u128::from(need.nbytes)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_sender_but_the_receiver_counts() {
        let mut senders = Senders::default();
        assert_eq!(senders.queue(WorkerId(0)), 0);
        for (worker, outgoing) in [(0, 5), (1, 7), (0, 5), (2, 6), (1, 7), (3, 0)] {
            senders.add(WorkerId(worker), outgoing);
        }
        let queues: Vec<u128> = (0..4).map(|worker| senders.queue(WorkerId(worker))).collect();
        assert_eq!(queues, [7, 6, 7, 7]);
    }
}
