//! Why a task waits, why it is on its worker, and why it was moved, computed again or lost: [`State::explain`].
//!
//! What is so now is looked up when somebody asks ([`reason`]). What was decided is kept with the facts of its time, in
//! two rings of bounded length: [`decision`] for every execution, [`incident`] for what went other than planned.

pub(super) mod decision;
pub(super) mod incident;
mod reason;
mod text;
mod value;
mod warning;

use dask_protocol::message::RunId;
use dask_protocol::{Address, Key};

use super::State;
use super::deaths::PostMortem;
use super::event::Seconds;
use super::ids::{TaskId, WorkerId};
use super::task::TaskState;
use super::worker::Worker;

pub use decision::Rule;
pub use incident::Incident;
pub use reason::{Blocker, Reason, Refusal};

use decision::{Decision, Score};

/// Earlier executions shown.
const EARLIER_MAX: usize = 10;

/// What is known about one key.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The key.
    pub key: Key,
    /// When this was asked.
    pub now: Seconds,
    /// Its state; none if it is unknown.
    pub state: Option<TaskState>,
    /// Since when it is in that state, if that is still known.
    pub since: Option<Seconds>,
    /// Why it is in that state.
    pub reason: Reason,
    /// Whether stealing may move it, and why not; none unless it is processing.
    pub stealing: Option<String>,
    /// Why it was sent to the worker it was sent to last.
    pub placement: Option<Placement>,
    /// The same for executions before that, newest first; at most ten.
    pub earlier: Vec<Placement>,
    /// What went other than planned, oldest first.
    pub incidents: Vec<(Seconds, Incident)>,
    /// The workers that died with it, and what is known of that.
    pub deaths: Vec<(Address, PostMortem)>,
}

/// Why a task was sent to a worker, with the facts as they were then.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// The execution.
    pub run_id: RunId,
    /// When.
    pub at: Seconds,
    /// To whom.
    pub worker: String,
    /// By which rule.
    pub rule: Rule,
    /// How many workers were weighed.
    pub candidates: usize,
    /// The best of them, the chosen one first.
    pub scores: Vec<ScoreRow>,
}

/// A worker as placement saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRow {
    /// Its address.
    pub worker: String,
    /// Its threads.
    pub nthreads: u32,
    /// Tasks it had been given and not finished.
    pub processing: u32,
    /// Seconds of work it had been given.
    pub occupancy: Seconds,
    /// Bytes of the task's inputs that it did not have.
    pub missing: u64,
    /// Seconds until the task could start there.
    pub start: Seconds,
    /// Bytes of results it held.
    pub stored: u64,
}

impl State {
    fn known_deaths(&self, key: &Key) -> Vec<(Address, PostMortem)> {
        let known = |worker: Address| self.post_mortem(&worker).cloned().map(|death| (worker, death));
        self.died_with(key).into_iter().filter_map(known).collect()
    }

    /// Everything known about why a key is where it is. Costs nothing until somebody asks; then as much as a scan of the
    /// rings and of the queue.
    pub fn explain(&self, key: &Key) -> Explanation {
        let id = self.tasks.id(key);
        let state = id.map(|id| self.tasks[id].state);
        let mut placements = id.map_or_else(Vec::new, |id| self.placements(self.tasks[id].run_id));
        let earlier = if placements.is_empty() { Vec::new() } else { placements.split_off(1) };
        Explanation {
            key: key.clone(),
            now: self.now,
            state,
            since: state.and_then(|state| self.story.since(key, state)),
            reason: id.map_or(Reason::Unknown, |id| self.reason(id, true)),
            stealing: id.and_then(|id| self.stealing_outlook(id)),
            placement: placements.pop(),
            earlier,
            incidents: self.incidents.about(key),
            deaths: self.known_deaths(key),
        }
    }

    /// An execution and those of the same task before it, newest first.
    fn placements(&self, last: RunId) -> Vec<Placement> {
        let decisions = std::iter::successors(self.decisions.get(last), |d| self.decisions.get(d.previous));
        decisions.take(1 + EARLIER_MAX).map(|decision| self.placement(decision)).collect()
    }

    fn placement(&self, decision: &Decision) -> Placement {
        Placement {
            run_id: decision.run_id,
            at: decision.at,
            worker: self.worker_text(decision.worker),
            rule: decision.rule,
            candidates: decision.candidates as usize,
            scores: decision.scores().iter().map(|score| self.score_row(score)).collect(),
        }
    }

    fn score_row(&self, score: &Score) -> ScoreRow {
        ScoreRow {
            worker: self.worker_text(score.worker),
            nthreads: score.nthreads,
            processing: score.processing,
            occupancy: f64::from(score.occupancy),
            missing: whole(score.missing),
            start: f64::from(score.start),
            stored: whole(score.stored),
        }
    }

    fn worker_text(&self, id: WorkerId) -> String {
        let address = self.workers.get(id).map(|worker| &worker.address).or_else(|| self.incidents.departed(id));
        address.map_or_else(|| "a worker that left long ago".to_owned(), ToString::to_string)
    }

    /// A worker as placement sees it now, for the record.
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "shown with two digits")]
    pub(super) fn score(&self, id: WorkerId, occupancy: Seconds, start: Seconds, missing: u128) -> Score {
        let worker: &Worker = &self.workers[id];
        Score {
            worker: id,
            nthreads: worker.nthreads,
            processing: u32::try_from(worker.processing.len()).unwrap_or(u32::MAX),
            occupancy: occupancy as f32,
            start: start as f32,
            missing: missing as f32,
            stored: worker.nbytes as f32,
        }
    }

    /// The same where inputs do not count.
    pub(super) fn score_of_busy(&self, id: WorkerId) -> Score {
        let worker = &self.workers[id];
        let occupancy = self.occupancy(worker);
        self.score(id, occupancy, occupancy / f64::from(worker.nthreads), 0)
    }

    /// Notes why `worker` runs the task under this run id.
    pub(super) fn note_decision(&mut self, run_id: RunId, previous: RunId, worker: WorkerId) {
        self.decisions.note(run_id, previous, self.now, worker, &self.considered);
        self.considered.begin(Rule::Unrecorded);
    }

    /// What the next decision is noted with, for a choice of one worker out of several.
    pub(super) fn note_choice(&mut self, rule: Rule, worker: WorkerId, candidates: usize) {
        let score = self.score_of_busy(worker);
        self.considered.rank(rule, candidates, &[score]);
    }

    /// Of a processing task: whether stealing may move it, and why not.
    fn stealing_outlook(&self, id: TaskId) -> Option<String> {
        let task = &self.tasks[id];
        (task.state == TaskState::Processing).then(|| self.steal_outlook(id))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes, rounded to seven digits")]
fn whole(bytes: f32) -> u64 {
    bytes as u64
}
