//! The last decisions of placement, with the facts they were made on.
//!
//! Run ids are given out one after the other, so a ring of records of fixed size is its own index: to note a decision is
//! one write, and nothing is looked up or allocated for it.

use dask_protocol::message::RunId;

use super::super::event::Seconds;
use super::super::ids::WorkerId;

/// Candidates whose scores are kept: the chosen one and the next best.
pub(in crate::state) const SCORES_MAX: usize = 4;

/// How a worker was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rule {
    /// How it was chosen was not recorded.
    #[default]
    Unrecorded,
    /// No other worker came into question.
    OnlyCandidate,
    /// The task could start there soonest, transfers included (`worker_objective`).
    SoonestStart,
    /// The least busy worker with a free slot for a root-ish task.
    FreeSlot,
    /// The least busy worker with a free slot, or the one that runs what is used together with it.
    Run,
    /// Where its neighbours of the same group went, while queuing is off.
    Neighbours,
    /// Without dependencies: the workers take turns.
    InTurn,
    /// Without dependencies: the worker with the least work.
    LeastBusy,
    /// Taken from a busy worker for an idle one.
    Stolen,
}

impl Rule {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Unrecorded => "unrecorded",
            Rule::OnlyCandidate => "only-candidate",
            Rule::SoonestStart => "soonest-start",
            Rule::FreeSlot => "free-slot",
            Rule::Run => "run",
            Rule::Neighbours => "neighbours",
            Rule::InTurn => "in-turn",
            Rule::LeastBusy => "least-busy",
            Rule::Stolen => "stolen",
        }
    }

    /// The same for people, after "it was sent there because".
    pub fn because(self) -> &'static str {
        match self {
            Rule::Unrecorded => "of a rule that was not recorded",
            Rule::OnlyCandidate => "no other worker came into question",
            Rule::SoonestStart => "it could start there soonest, transfers included",
            Rule::FreeSlot => "it was the least busy worker with a free slot for a root-ish task",
            Rule::Run => "it had a free slot, and runs what is used together with it or was the least busy",
            Rule::Neighbours => "its neighbours of the same group were sent there",
            Rule::InTurn => "it has no dependencies and it was that worker's turn",
            Rule::LeastBusy => "it has no dependencies and that worker had the least work",
            Rule::Stolen => "that worker was idle while the former one had more work than it could do soon",
        }
    }
}

/// What placement compares; smaller is better, the first of equals wins.
pub(in crate::state) type Cost = (usize, Seconds, u128);

/// One candidate at the time of the decision: figures for people, so seven digits are enough.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(in crate::state) struct Score {
    pub(in crate::state) worker: WorkerId,
    pub(in crate::state) nthreads: u32,
    /// Tasks it had been given.
    pub(in crate::state) processing: u32,
    /// Seconds of work it had been given.
    pub(in crate::state) occupancy: f32,
    /// Seconds until the task could start there.
    pub(in crate::state) start: f32,
    /// Bytes of the task's inputs that it did not have.
    pub(in crate::state) missing: f32,
    /// Bytes of results it held.
    pub(in crate::state) stored: f32,
}

/// A decision being made: the best candidates so far. One is used over and over; what lies beyond `len` is stale.
#[derive(Debug, Default)]
pub(in crate::state) struct Considered {
    rule: Rule,
    candidates: u32,
    len: u8,
    costs: [Cost; SCORES_MAX],
    scores: [Score; SCORES_MAX],
}

impl Considered {
    /// Starts over.
    pub(in crate::state) fn begin(&mut self, rule: Rule) {
        (self.rule, self.candidates, self.len) = (rule, 0, 0);
    }

    /// The candidates were ranked elsewhere; the chosen one comes first.
    pub(in crate::state) fn rank(&mut self, rule: Rule, candidates: usize, scores: &[Score]) {
        let len = scores.len().min(SCORES_MAX);
        self.scores[..len].copy_from_slice(&scores[..len]);
        self.rule = rule;
        self.candidates = count(candidates);
        self.len = u8::try_from(len).expect("at most SCORES_MAX");
    }

    /// Weighs one more candidate; `score` is only asked for among the best.
    pub(in crate::state) fn weigh(&mut self, cost: Cost, score: impl FnOnce() -> Score) {
        self.candidates = self.candidates.saturating_add(1);
        let len = usize::from(self.len);
        let worse =
            |other: &Cost| cost.0.cmp(&other.0).then(cost.1.total_cmp(&other.1)).then(cost.2.cmp(&other.2)).is_lt();
        if len == SCORES_MAX && !worse(&self.costs[SCORES_MAX - 1]) {
            return;
        }
        let place = self.costs[..len].iter().position(worse).unwrap_or(len);
        let len = (len + 1).min(SCORES_MAX);
        self.costs[place..len].rotate_right(1);
        self.scores[place..len].rotate_right(1);
        self.costs[place] = cost;
        self.scores[place] = score();
        self.len = u8::try_from(len).expect("at most SCORES_MAX");
    }

    /// The first of the best candidates.
    pub(in crate::state) fn best(&self) -> Option<WorkerId> {
        (self.len > 0).then(|| self.scores[0].worker)
    }
}

/// One decision.
#[derive(Debug, Clone, Copy)]
pub(in crate::state) struct Decision {
    /// The execution it led to.
    pub(in crate::state) run_id: RunId,
    /// The execution of the same task before this one; negative for none.
    pub(in crate::state) previous: RunId,
    pub(in crate::state) at: Seconds,
    pub(in crate::state) worker: WorkerId,
    pub(in crate::state) rule: Rule,
    /// Workers that were weighed.
    pub(in crate::state) candidates: u32,
    len: u8,
    scores: [Score; SCORES_MAX],
}

impl Decision {
    /// A place in the ring that is not used yet.
    const NONE: Decision = Decision {
        run_id: -1,
        previous: -1,
        at: 0.0,
        worker: WorkerId(0),
        rule: Rule::Unrecorded,
        candidates: 0,
        len: 0,
        scores: [Score {
            worker: WorkerId(0),
            nthreads: 0,
            processing: 0,
            occupancy: 0.0,
            start: 0.0,
            missing: 0.0,
            stored: 0.0,
        }; SCORES_MAX],
    };

    /// The best candidates, the chosen one first.
    pub(in crate::state) fn scores(&self) -> &[Score] {
        &self.scores[..usize::from(self.len)]
    }
}

/// The ring of decisions; see the module.
#[derive(Debug)]
pub(in crate::state) struct Decisions {
    ring: Vec<Decision>,
    length: usize,
}

impl Decisions {
    /// Keeps this many; none for 0.
    pub(in crate::state) fn new(length: usize) -> Decisions {
        Decisions { ring: Vec::new(), length }
    }

    /// Notes why `worker` runs the task from now on. A comparison that did not end with this worker says nothing.
    pub(in crate::state) fn note(
        &mut self,
        run_id: RunId,
        previous: RunId,
        at: Seconds,
        worker: WorkerId,
        considered: &Considered,
    ) {
        let Some(slot) = self.slot(run_id) else {
            return;
        };
        while self.ring.len() <= slot {
            self.ring.push(Decision::NONE);
        }
        let decision = &mut self.ring[slot];
        (decision.run_id, decision.previous, decision.at, decision.worker) = (run_id, previous, at, worker);
        (decision.rule, decision.candidates, decision.len) = (Rule::Unrecorded, 0, 0);
        if considered.best() == Some(worker) {
            (decision.rule, decision.candidates, decision.len) =
                (considered.rule, considered.candidates, considered.len);
            let len = usize::from(considered.len);
            decision.scores[..len].copy_from_slice(&considered.scores[..len]);
        }
    }

    /// The decision that led to an execution, if it is still known.
    pub(in crate::state) fn get(&self, run_id: RunId) -> Option<&Decision> {
        self.ring.get(self.slot(run_id)?).filter(|decision| decision.run_id == run_id)
    }

    fn slot(&self, run_id: RunId) -> Option<usize> {
        usize::try_from(run_id).ok()?.checked_rem(self.length)
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(worker: u32) -> Score {
        Score { worker: WorkerId(worker), ..Score::default() }
    }

    fn workers(scores: &[Score]) -> Vec<u32> {
        scores.iter().map(|score| score.worker.0).collect()
    }

    #[test]
    fn the_best_are_kept_in_order_and_the_first_of_equals_leads() {
        let mut considered = Considered::default();
        considered.begin(Rule::SoonestStart);
        for (worker, start) in [(0, 5.0), (1, 3.0), (2, 3.0), (3, 9.0), (4, 1.0), (5, 4.0), (6, 1.0)] {
            considered.weigh((0, start, 0), || score(worker));
        }
        let mut decisions = Decisions::new(10);
        decisions.note(0, -1, 1.0, WorkerId(4), &considered);
        let decision = decisions.get(0).expect("just noted");
        assert_eq!(workers(decision.scores()), [4, 6, 1, 2]);
        assert_eq!((decision.candidates, decision.rule), (7, Rule::SoonestStart));
    }

    #[test]
    fn old_decisions_make_room_for_new_ones() {
        let mut decisions = Decisions::new(3);
        for run in 0..5 {
            decisions.note(run, run - 1, 0.0, WorkerId(1), &Considered::default());
        }
        assert!(decisions.get(1).is_none());
        assert!(decisions.get(-1).is_none());
        assert_eq!(
            (2..5).map(|run| decisions.get(run).map(|d| d.previous)).collect::<Vec<_>>(),
            [Some(1), Some(2), Some(3)]
        );
    }

    #[test]
    fn a_comparison_with_another_end_is_not_taken_for_the_reason() {
        let mut considered = Considered::default();
        considered.rank(Rule::FreeSlot, 2, &[score(1), score(2)]);
        let mut decisions = Decisions::new(3);
        decisions.note(0, -1, 0.0, WorkerId(2), &considered);
        assert_eq!(decisions.get(0).map(|decision| decision.rule), Some(Rule::Unrecorded));
    }

    #[test]
    fn a_decision_is_small() {
        assert!(size_of::<Decision>() <= 152, "{} bytes", size_of::<Decision>());
    }

    #[test]
    fn nothing_is_kept_when_switched_off() {
        let mut decisions = Decisions::new(0);
        decisions.note(0, -1, 0.0, WorkerId(2), &Considered::default());
        assert!(decisions.get(0).is_none());
    }
}
