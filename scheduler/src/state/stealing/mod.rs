//! Work stealing: once a second, tasks that wait on busy workers are asked back for idle ones.
//!
//! Upstream keeps every processing task classified by the ratio of its transfer to its compute time. Here victims' tasks
//! are classified when a round needs them: the figures are fresh, and tasks that are never stolen cost nothing. The policy
//! `native` moves less: see [`native`].

mod level;
mod log;
mod native;
mod protocol;

use dask_protocol::message::StimulusId;
use dask_protocol::{Address, Key};

use super::State;
use super::event::Seconds;
use super::explain::decision::Score;
use super::ids::{FastSet, IdMap, TaskId, WorkerId};

pub use native::Declined;

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
    in_flight: IdMap<TaskId, InFlight>,
    occupancy: IdMap<WorkerId, Seconds>,
    tasks: IdMap<WorkerId, i64>,
    request_counter: u64,
    /// Requests per level, and the seconds of work in them.
    requests: [(u64, Seconds); LEVELS],
    /// Moves not made, by [`Declined`].
    declined: [u64; Declined::ALL.len()],
}

impl Stealing {
    fn add(&mut self, task: TaskId, move_: InFlight) {
        *self.occupancy.entry(move_.victim).or_default() -= move_.victim_duration;
        *self.occupancy.entry(move_.thief).or_default() += move_.thief_duration;
        *self.tasks.entry(move_.victim).or_default() -= 1;
        *self.tasks.entry(move_.thief).or_default() += 1;
        self.in_flight.insert(task, move_);
    }

    /// Requests per level, and the seconds of work in them.
    pub(super) fn requests(&self) -> &[(u64, Seconds)] {
        &self.requests
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
    occupancies: IdMap<WorkerId, Seconds>,
    thieves: FastSet<WorkerId>,
    pairs: usize,
    log: log::Requests,
}

impl Round {
    fn new(state: &State, thieves: FastSet<WorkerId>) -> Round {
        let occupancies = state.workers.iter().map(|(id, worker)| (id, state.occupancy(worker))).collect();
        Round { occupancies, thieves, pairs: 0, log: log::Requests::default() }
    }

    /// Whether nobody is left to steal, or enough was weighed.
    fn is_over(&self) -> bool {
        self.thieves.is_empty() || self.pairs > PAIRS_MAX
    }
}

/// A move being weighed; seconds.
#[derive(Debug, Clone, Copy)]
struct Move {
    task: TaskId,
    level: usize,
    victim: WorkerId,
    thief: WorkerId,
    /// How long the task is expected to take.
    compute: Seconds,
    /// What it takes to bring its inputs to either.
    victim_transfer: Seconds,
    thief_transfer: Seconds,
    /// Work of either, earlier requests included.
    victim_occupancy: Seconds,
    thief_occupancy: Seconds,
}

impl Move {
    /// Whether the thief would be done with everything sooner than the victim, by half of the task's cost.
    fn pays(&self) -> bool {
        let after = self.thief_occupancy + self.thief_transfer + self.compute;
        after <= self.victim_occupancy - (self.victim_transfer + self.compute) / 2.0
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
        let thieves: FastSet<WorkerId> = self.idle.idle.ids().collect();
        if thieves.is_empty() || thieves.len() == self.workers.len() {
            return;
        }
        let mut round = Round::new(self, thieves);
        let victims = self.victims(&round);
        if victims.is_empty() {
            return;
        }
        let share = CANDIDATES_MAX / victims.len();
        let classified: Vec<[Vec<TaskId>; LEVELS]> =
            victims.iter().map(|victim| self.stealable(*victim, share)).collect();
        for level in 0..LEVELS {
            for (victim, stealable) in victims.iter().zip(&classified) {
                if stealable[level].is_empty() || round.is_over() {
                    continue;
                }
                for &task in &stealable[level] {
                    if round.is_over() {
                        break;
                    }
                    self.steal(level, task, *victim, &mut round);
                }
                let occupancy = self.combined_occupancy(*victim, &round);
                self.check_idle_saturated(*victim, Some(occupancy));
            }
        }
        self.log_requests(round.log);
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
        for id in self.workers[victim].processing.iter().rev().take(limit) {
            if let Some(level) = self.steal_level(id) {
                levels[level].push(id);
            }
        }
        levels
    }

    /// Asks for a task back if a thief would start it sooner by enough.
    fn steal(&mut self, level: usize, id: TaskId, victim: WorkerId, round: &mut Round) {
        round.pairs += round.thieves.len();
        let Some(thief) = self.best_thief(id, round) else {
            return;
        };
        let move_ = self.weigh_move(id, level, victim, thief, round);
        if !move_.pays() || self.declines(&move_) {
            return;
        }
        self.move_task_request(&move_, &mut round.log);
        let occupancy = self.combined_occupancy(thief, round);
        if !self.is_unoccupied(thief, occupancy, self.combined_processing(thief)) {
            round.thieves.swap_remove(&thief);
        }
    }

    fn weigh_move(&self, task: TaskId, level: usize, victim: WorkerId, thief: WorkerId, round: &Round) -> Move {
        Move {
            task,
            level,
            victim,
            thief,
            compute: self.prefix_duration(self.tasks[task].prefix),
            victim_transfer: self.comm_cost(task, victim),
            thief_transfer: self.comm_cost(task, thief),
            victim_occupancy: self.combined_occupancy(victim, round),
            thief_occupancy: self.combined_occupancy(thief, round),
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

    fn combined_occupancy(&self, id: WorkerId, round: &Round) -> Seconds {
        let snapshot = round.occupancies.get(&id).copied().unwrap_or(0.0);
        snapshot + self.stealing.occupancy.get(&id).copied().unwrap_or(0.0)
    }

    fn combined_processing(&self, id: WorkerId) -> i64 {
        let processing = i64::try_from(self.workers[id].processing.len()).unwrap_or(i64::MAX);
        processing + self.stealing.tasks.get(&id).copied().unwrap_or(0)
    }

    /// Moves that the policy `native` did not make though upstream would, and why.
    pub fn stealing_declined(&self) -> [(Declined, u64); Declined::ALL.len()] {
        Declined::ALL.map(|reason| (reason, self.stealing.declined[reason as usize]))
    }

    /// Tasks asked back whose worker has not answered: the task, its worker, and who is to have it, if that one is still
    /// there.
    pub fn stealing_in_flight(&self) -> impl Iterator<Item = (&Key, &Address, Option<&Address>)> {
        self.stealing.in_flight.iter().map(|(task, move_)| {
            let thief = self.workers.get(move_.thief).map(|thief| &thief.address);
            (&self.tasks[*task].key, &self.workers[move_.victim].address, thief)
        })
    }

    /// Per level, how many tasks were asked back and the seconds of work in them.
    pub fn stealing_requests(&self) -> &[(u64, Seconds)] {
        &self.stealing.requests
    }
}
