//! Where tasks with dependencies run under the policy `native`.

use super::State;
use super::explain::Rule;
use super::ids::{TaskId, WorkerId};

impl State {
    /// The holder of a dependency where a task can start soonest, as upstream; but what a worker is going to fetch for
    /// another task is not missing there. Tasks that share inputs so come together, and inputs move less often.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn decide_worker_native(&mut self, id: TaskId) -> Option<WorkerId> {
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
            let start = occupancy / f64::from(worker.nthreads) + missing as f64 / self.bandwidth;
            let cost = (0, start, worker.nbytes);
            considered.weigh(cost, || self.score(candidate, occupancy, start, missing));
        }
        self.scratch_workers = candidates;
        let best = considered.best();
        self.considered = considered;
        best
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
