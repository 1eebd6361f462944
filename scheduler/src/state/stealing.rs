//! Work stealing: once a second, tasks that wait on busy workers are asked back for idle ones.
//!
//! Upstream keeps every processing task classified by the ratio of its transfer to its compute time. Here victims' tasks
//! are classified when a round needs them: the figures are fresh, and tasks that are never stolen cost nothing.

use dask_protocol::message::{StealRequest, StimulusId};
use dask_protocol::{Key, Value};

use super::State;
use super::action::Action;
use super::event::Seconds;
use super::explain::decision::{Considered, Score};
use super::explain::{Incident, Rule};
use super::ids::{FastMap, FastSet, TaskId, WorkerId};

/// Seconds a move costs beside the transfer: several trips over the network.
const LATENCY: Seconds = 0.1;
/// Cheap moves first: level 0 has no dependencies, level 1 + i about 2^(i-5) times its compute time to transfer.
const LEVELS: usize = 15;
/// Victims looked for where none is saturated.
const VICTIMS_MAX: usize = 10;
/// From so many victims on they are taken as they come.
const VICTIMS_SORTED_MAX: usize = 20;
/// A victim has more to do than this.
const VICTIM_OCCUPANCY_MIN: Seconds = 0.2;
/// Tasks classified per round: at about 50 ns each, 5 ms a second.
const CANDIDATES_MAX: usize = 100_000;
/// Pairs of task and thief weighed per round: at about 20 ns each, 20 ms a second.
const PAIRS_MAX: usize = 1_000_000;

/// A task asked back from its worker.
#[derive(Debug)]
struct InFlight {
    victim: WorkerId,
    thief: WorkerId,
    victim_duration: Seconds,
    thief_duration: Seconds,
    /// How thief and victim stood when it was asked for.
    scores: [Score; 2],
    stimulus_id: StimulusId,
}

/// Requests under way, and what they will change.
#[derive(Debug, Default)]
pub(super) struct Stealing {
    in_flight: FastMap<TaskId, InFlight>,
    occupancy: FastMap<WorkerId, Seconds>,
    tasks: FastMap<WorkerId, i64>,
    request_counter: u64,
    /// Requests per level, and the seconds of work in them.
    pub(super) requests: [(u64, Seconds); LEVELS],
}

impl Stealing {
    fn add(&mut self, task: TaskId, move_: InFlight) {
        *self.occupancy.entry(move_.victim).or_default() -= move_.victim_duration;
        *self.occupancy.entry(move_.thief).or_default() += move_.thief_duration;
        *self.tasks.entry(move_.victim).or_default() -= 1;
        *self.tasks.entry(move_.thief).or_default() += 1;
        self.in_flight.insert(task, move_);
    }

    fn remove(&mut self, task: TaskId) -> Option<InFlight> {
        let move_ = self.in_flight.swap_remove(&task)?;
        *self.occupancy.entry(move_.victim).or_default() += move_.victim_duration;
        *self.occupancy.entry(move_.thief).or_default() -= move_.thief_duration;
        *self.tasks.entry(move_.victim).or_default() += 1;
        *self.tasks.entry(move_.thief).or_default() -= 1;
        if self.in_flight.is_empty() {
            self.occupancy.clear();
            self.tasks.clear();
        }
        Some(move_)
    }

    /// Tasks asked back.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.in_flight.keys().copied()
    }
}

/// One round: occupancies as they were when it began.
struct Round {
    occupancies: FastMap<WorkerId, Seconds>,
    thieves: FastSet<WorkerId>,
    pairs: usize,
}

/// How a victim answers.
enum Answer {
    /// It has let go of the task.
    Confirm,
    /// It runs the task, or has run it.
    Reject,
    /// It does not know the task.
    Unknown,
}

impl Answer {
    fn parse(state: Option<&str>) -> Answer {
        match state {
            Some("ready" | "constrained" | "waiting") => Answer::Confirm,
            Some("released") | None => Answer::Unknown,
            Some("memory" | "executing" | "long-running" | "cancelled" | "resumed") => Answer::Reject,
            Some(other) => {
                tracing::warn!(state = other, "unexpected state in a steal response");
                Answer::Reject
            }
        }
    }
}

impl State {
    /// A task left processing.
    pub(super) fn stealing_remove_in_flight(&mut self, id: TaskId) {
        if !self.stealing.in_flight.is_empty() {
            self.stealing.remove(id);
        }
    }

    /// One round of stealing.
    pub(super) fn balance(&mut self) {
        let thieves: FastSet<WorkerId> = self.idle.idle.ids().iter().copied().collect();
        if thieves.is_empty() || thieves.len() == self.workers.len() {
            return;
        }
        let occupancies = self.workers.iter().map(|(id, worker)| (id, self.occupancy(worker))).collect();
        let mut round = Round { occupancies, thieves, pairs: 0 };
        let victims = self.victims(&round);
        if victims.is_empty() {
            return;
        }
        let share = CANDIDATES_MAX / victims.len();
        let classified: Vec<[Vec<TaskId>; LEVELS]> =
            victims.iter().map(|victim| self.stealable(*victim, share)).collect();
        for level in 0..LEVELS {
            for (victim, stealable) in victims.iter().zip(&classified) {
                for &task in &stealable[level] {
                    if round.thieves.is_empty() || round.pairs > PAIRS_MAX {
                        return;
                    }
                    self.steal(level, task, *victim, &mut round);
                }
                if !stealable[level].is_empty() {
                    let occupancy = self.combined_occupancy(*victim, &round);
                    self.check_idle_saturated(*victim, Some(occupancy));
                }
            }
        }
    }

    /// Saturated workers, or else the busiest, the busiest first.
    fn victims(&self, round: &Round) -> Vec<WorkerId> {
        let busiest_first = |ids: &mut Vec<WorkerId>| {
            ids.sort_by(|a, b| self.combined_occupancy(*b, round).total_cmp(&self.combined_occupancy(*a, round)));
        };
        let mut victims: Vec<WorkerId> = self.saturated.iter().copied().collect();
        if victims.is_empty() {
            victims = self.workers.ids().collect();
            busiest_first(&mut victims);
            victims.truncate(VICTIMS_MAX);
            victims.retain(|id| {
                self.combined_occupancy(*id, round) > VICTIM_OCCUPANCY_MIN
                    && self.combined_processing(*id) > i64::from(self.workers[*id].nthreads)
                    && !round.thieves.contains(id)
            });
        }
        if victims.len() < VICTIMS_SORTED_MAX {
            busiest_first(&mut victims);
        }
        victims
    }

    /// A victim's tasks that could be moved, by level; at most `limit`, those sent last first.
    fn stealable(&self, victim: WorkerId, limit: usize) -> [Vec<TaskId>; LEVELS] {
        let mut levels: [Vec<TaskId>; LEVELS] = Default::default();
        for &id in self.workers[victim].processing.iter().rev().take(limit) {
            if let Some(level) = self.steal_level(id) {
                levels[level].push(id);
            }
        }
        levels
    }

    /// How cheap it is to move a task (`steal_time_ratio`); none if it is not to be stolen.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "an estimate; casts saturate")]
    fn steal_level(&self, id: TaskId) -> Option<usize> {
        /// Added to the logarithm, so that level 6 transfers as long as it computes.
        const EVEN_LEVEL: f64 = 6.0;
        let task = &self.tasks[id];
        let movable = self.groups.prefix(task.prefix).stealable
            && !task.long_running
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

    /// Asks for a task back if a thief would start it sooner by enough.
    fn steal(&mut self, level: usize, id: TaskId, victim: WorkerId, round: &mut Round) {
        round.pairs += round.thieves.len();
        let Some(thief) = self.best_thief(id, round) else {
            return;
        };
        let compute = self.prefix_duration(self.tasks[id].prefix);
        let (cost_thief, cost_victim) = (self.comm_cost(id, thief), self.comm_cost(id, victim));
        let (before, after) = (self.combined_occupancy(victim, round), self.combined_occupancy(thief, round));
        if after + cost_thief + compute > before - (cost_victim + compute) / 2.0 {
            return;
        }
        let scores = [(thief, after, cost_thief), (victim, before, cost_victim)].map(|(worker, occupancy, cost)| {
            let start = occupancy / f64::from(self.workers[worker].nthreads) + cost;
            self.score(worker, occupancy, start, self.missing_bytes(id, worker))
        });
        self.move_task_request(id, victim, thief, compute + cost_victim, compute + cost_thief, scores);
        let (count, seconds) = &mut self.stealing.requests[level];
        *count += 1;
        *seconds += compute + cost_victim;
        let occupancy = self.combined_occupancy(thief, round);
        if !self.is_unoccupied(thief, occupancy, self.combined_processing(thief)) {
            round.thieves.swap_remove(&thief);
        }
    }

    /// The thief that could start a task soonest (`_get_thief`).
    fn best_thief(&self, id: TaskId, round: &Round) -> Option<WorkerId> {
        let task = &self.tasks[id];
        let capable = |thief: &WorkerId| self.workers[*thief].runtimes[task.runtime.number()];
        if !task.is_restricted() {
            return self.min_thief(id, round, capable);
        }
        let valid = self.min_thief(id, round, |thief| self.is_valid_worker(id, *thief));
        if valid.is_none() && task.loose_restrictions {
            return self.min_thief(id, round, |thief| self.can_supply(id, *thief));
        }
        valid
    }

    fn min_thief(&self, id: TaskId, round: &Round, allowed: impl Fn(&WorkerId) -> bool) -> Option<WorkerId> {
        let actor = self.tasks[id].actor;
        let mut best: Option<((usize, Seconds, u128), WorkerId)> = None;
        for thief in round.thieves.iter().copied().filter(allowed) {
            let worker = &self.workers[thief];
            let start = self.combined_occupancy(thief, round) / f64::from(worker.nthreads) + self.comm_cost(id, thief);
            let cost = (if actor { worker.actors.len() } else { 0 }, start, worker.nbytes);
            let better = best.as_ref().is_none_or(|(old, _)| {
                cost.0.cmp(&old.0).then(cost.1.total_cmp(&old.1)).then(cost.2.cmp(&old.2)).is_lt()
            });
            if better {
                best = Some((cost, thief));
            }
        }
        best.map(|(_, thief)| thief)
    }

    fn move_task_request(
        &mut self,
        id: TaskId,
        victim: WorkerId,
        thief: WorkerId,
        victim_duration: Seconds,
        thief_duration: Seconds,
        scores: [Score; 2],
    ) {
        let stimulus_id: StimulusId = format!("steal-{}", self.stealing.request_counter).into();
        self.stealing.request_counter += 1;
        let key = self.tasks[id].key.clone();
        self.send_worker(victim, StealRequest { key, stimulus_id: stimulus_id.clone() });
        self.note_incident(id, |state| {
            let [to, from] = scores.map(|score| score.start);
            Incident::StealRequested {
                victim: state.workers[victim].address.clone(),
                thief: state.workers[thief].address.clone(),
                reason: format!("it could start there in {to:.2} s rather than in {from:.2} s"),
            }
        });
        self.stealing.add(id, InFlight { victim, thief, victim_duration, thief_duration, scores, stimulus_id });
    }

    /// The victim's answer (`move_task_confirm`); the event's stimulus id names the request.
    pub(super) fn steal_response(&mut self, worker: WorkerId, key: &Key, state: Option<&str>) {
        let Some(id) = self.tasks.id(key) else {
            return;
        };
        let current = self.stealing.in_flight.get(&id);
        if current.is_none_or(|move_| move_.stimulus_id != self.stimulus_id || move_.victim != worker) {
            let outcome = if current.is_some() { "stale-response" } else { "already-aborted" };
            self.log_stealing(outcome, key, state, &[worker]);
            return;
        }
        let move_ = self.stealing.remove(id).expect("looked up above");
        // A thief that paused or left in the meantime gets nothing.
        let thief_runs = self.running.contains(&move_.thief);
        let workers = [move_.victim, move_.thief];
        match Answer::parse(state) {
            Answer::Confirm if thief_runs => {
                self.log_stealing("confirm", key, state, &workers);
                self.considered = Considered::ranked(Rule::Stolen, 2, move_.scores.into_iter());
                self.hand_over(id, move_.victim, move_.thief);
            }
            Answer::Confirm | Answer::Unknown => {
                self.log_stealing("reschedule", key, state, &workers);
                self.reschedule(worker, key);
            }
            Answer::Reject => {
                self.log_stealing("already-computing", key, state, &workers);
                self.note_incident(id, |told| Incident::StealRefused {
                    victim: told.workers[worker].address.clone(),
                    state: state.unwrap_or_default().to_owned(),
                });
            }
        }
        self.check_idle_saturated(move_.thief, None);
        self.check_idle_saturated(move_.victim, None);
    }

    /// The victim has released the task already: it goes to the thief without any transition.
    fn hand_over(&mut self, id: TaskId, victim: WorkerId, thief: WorkerId) {
        self.unbook_processing(id, victim);
        self.release_resources(id, victim);
        self.tasks[id].processing_on = Some(thief);
        self.book_processing(id, thief);
        self.acquire_resources(id, thief);
        if self.workers[victim].actors.swap_remove(&id) {
            self.workers[thief].actors.insert(id);
        }
        self.send_compute_task(id, thief);
    }

    fn combined_occupancy(&self, id: WorkerId, round: &Round) -> Seconds {
        let snapshot = round.occupancies.get(&id).copied().unwrap_or(0.0);
        snapshot + self.stealing.occupancy.get(&id).copied().unwrap_or(0.0)
    }

    fn combined_processing(&self, id: WorkerId) -> i64 {
        let processing = i64::try_from(self.workers[id].processing.len()).unwrap_or(i64::MAX);
        processing + self.stealing.tasks.get(&id).copied().unwrap_or(0)
    }

    fn log_stealing(&mut self, outcome: &str, key: &Key, state: Option<&str>, workers: &[WorkerId]) {
        let mut row = vec![Value::from(outcome), Value::from(key), Value::from(state)];
        let addresses = workers.iter().filter_map(|id| Some(self.workers.get(*id)?.address.as_str().into()));
        row.extend(addresses);
        row.push((&*self.stimulus_id).into());
        self.out.push(Action::LogEvent { topic: "stealing".into(), msg: Value::Array(row) });
    }

    /// Of a processing task: whether it could be moved.
    pub(super) fn steal_outlook(&self, id: TaskId) -> String {
        let task = &self.tasks[id];
        if let Some(move_) = self.stealing.in_flight.get(&id) {
            return format!("Its worker was asked to give it to {}.", self.workers[move_.thief].address);
        }
        if !self.config.work_stealing {
            return "Work stealing is off.".to_owned();
        }
        if task.annotations.stealable == Some(false) {
            return "It is never stolen: it is annotated with stealable=False.".to_owned();
        }
        match self.steal_level(id) {
            Some(level) => format!("It may be stolen while it has not started (level {level} of {LEVELS})."),
            None if task.long_running => "It is not stolen: it left its thread pool.".to_owned(),
            None => "It is not stolen: to move its inputs takes too long beside its computation.".to_owned(),
        }
    }

    /// Per level, how many tasks were asked back and the seconds of work in them.
    pub fn stealing_requests(&self) -> &[(u64, Seconds)] {
        &self.stealing.requests
    }
}
