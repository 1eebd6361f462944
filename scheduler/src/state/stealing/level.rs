//! Which tasks may be stolen, and how cheap that is.

use super::super::State;
use super::super::config::Policy;
use super::super::ids::{FastSet, TaskId, WorkerId};
use super::{LATENCY, LEVELS, Move, Round};

impl State {
    /// How cheap it is to move a task (`steal_time_ratio`); none if it is not to be stolen.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "an estimate; casts saturate")]
    pub(super) fn steal_level(&self, id: TaskId) -> Option<usize> {
        /// Added to the logarithm, so that level 6 transfers as long as it computes.
        const EVEN_LEVEL: f64 = 6.0;
        let task = &self.tasks[id];
        let movable = self.groups.prefix(task.prefix).stealable
            && !task.long_running
            && !task.steal_refused
            && task.annotations.stealable != Some(false)
            && !self.stealing.in_flight.contains_key(&id);
        if !movable {
            return None;
        }
        if task.dependencies.is_empty() {
            return Some(0);
        }
        let compute = self.prefix_duration(task.prefix);
        if compute <= 0.0 {
            return None;
        }
        let nbytes: u128 = task.dependencies.iter().map(|dep| u128::from(self.nbytes(dep))).sum();
        let transfer = nbytes as f64 / self.bandwidth + LATENCY;
        let level = ((transfer / compute).log2() + EVEN_LEVEL).round_ties_even().max(1.0) as usize;
        (level < LEVELS).then_some(level)
    }

    /// Of a processing task: whether it could be moved, for people.
    pub(in crate::state) fn steal_outlook(&self, id: TaskId) -> String {
        let task = &self.tasks[id];
        if let Some(move_) = self.stealing.in_flight.get(&id) {
            return format!("Its worker was asked to give it to {}.", self.workers[move_.thief].address);
        }
        let never = [
            (!self.config.work_stealing, "Work stealing is off."),
            (task.annotations.stealable == Some(false), "It is never stolen: it is annotated with stealable=False."),
            (
                !self.groups.prefix(task.prefix).stealable,
                "It is never stolen: tasks of its kind are known to be quick.",
            ),
            (task.long_running, "It is not stolen: it left its thread pool."),
            (task.steal_refused, "It is not stolen: its worker was asked, and runs it already."),
        ];
        if let Some((_, why)) = never.into_iter().find(|(so, _)| *so) {
            return why.to_owned();
        }
        if self.config.policy == Policy::Native && self.was_moved_often(id) {
            return format!("It is not stolen again: it was moved {} times.", task.moves);
        }
        match self.steal_level(id) {
            Some(level) => match task.processing_on.and_then(|victim| self.possible_move(id, level, victim)) {
                Some(move_) => self.verdict(&move_),
                None => "It may be stolen while it has not started; no idle worker could run it now.".to_owned(),
            },
            None => "It is not stolen: to move its inputs takes far longer than to compute it.".to_owned(),
        }
    }

    /// What a round of stealing would weigh now.
    fn possible_move(&self, task: TaskId, level: usize, victim: WorkerId) -> Option<Move> {
        let thieves: FastSet<WorkerId> = self.idle.idle.ids().filter(|thief| *thief != victim).collect();
        let round = Round::new(self, thieves);
        let thief = self.best_thief(task, &round)?;
        Some(self.weigh_move(task, level, victim, thief, &round))
    }

    fn verdict(&self, move_: &Move) -> String {
        let pays = move_.pays() && self.reason_to_decline(move_).is_none_or(|_| self.config.policy == Policy::Upstream);
        let worth = if pays { "it is worth moving" } else { "it is not worth moving" };
        format!("While it has not started, {worth}: {}.", self.reason_to_move(move_))
    }
}
