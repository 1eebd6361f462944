//! Which worker a ready task goes to (`decide_worker_*`), and the sets of workers that the choice is made from.

use std::collections::BTreeSet;

use super::State;
use super::config::Policy;
use super::event::{Runtime, Seconds};
use super::explain::Rule;
use super::ids::{TaskId, WorkerId};
use super::task::Task;
use super::worker::{Worker, Workers};

/// From this many workers on, a task without dependencies is dealt round robin rather than to the least busy worker.
const ROUND_ROBIN_MIN: usize = 20;
/// A worker is saturated when each waiting task has to wait this many seconds ...
const SATURATED_PENDING: Seconds = 0.4;
/// ... and this many times the average work per thread.
const SATURATED_RATIO: f64 = 1.9;
/// A worker that has less work than this per thread is given more root-ish tasks than it can begin with, up to ...
const AHEAD_SECONDS: Seconds = 0.002;
/// ... so many per thread, unless ...
const AHEAD_TASKS_MAX: usize = 32;
/// ... one like those that it has took this long lately.
const AHEAD_TASK_SECONDS_MAX: Seconds = 0.05;

/// Workers in order of address, as dask's `SortedDict`s. Ranks lie beside them: to look for one reads no other worker.
#[derive(Debug, Default)]
pub(super) struct Ranked(Vec<(u64, WorkerId)>);

impl Ranked {
    pub(super) fn ids(&self) -> impl ExactSizeIterator<Item = WorkerId> + '_ {
        self.0.iter().map(|(_, id)| *id)
    }

    /// All of them, from the one at this place on; then those before it.
    fn ids_from(&self, start: usize) -> impl Iterator<Item = WorkerId> + '_ {
        self.0[start..].iter().chain(&self.0[..start]).map(|(_, id)| *id)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, workers: &Workers, id: WorkerId) -> bool {
        self.position(workers, id).is_ok()
    }

    fn position(&self, workers: &Workers, id: WorkerId) -> Result<usize, usize> {
        self.0.binary_search(&(workers[id].rank, id))
    }

    fn set(&mut self, workers: &Workers, id: WorkerId, member: bool) {
        match (self.position(workers, id), member) {
            (Err(position), true) => self.0.insert(position, (workers[id].rank, id)),
            (Ok(position), false) => {
                self.0.remove(position);
            }
            (Ok(_), true) | (Err(_), false) => {}
        }
    }

    fn rerank(&mut self, workers: &Workers) {
        self.0.iter_mut().for_each(|(rank, id)| *rank = workers[*id].rank);
    }
}

/// The sets that placement chooses from.
#[derive(Debug, Default)]
pub(super) struct IdleWorkers {
    /// Running workers with less to do than they could (`idle`).
    pub(super) idle: Ranked,
    /// All running workers.
    pub(super) running: Ranked,
    /// Running workers with free slots, least busy first, for each runtime they have (`idle_task_count`).
    pub(super) with_slots: [BTreeSet<(u64, WorkerId)>; Runtime::COUNT],
    /// How many running workers have each runtime.
    pub(super) capable: [usize; Runtime::COUNT],
}

impl IdleWorkers {
    /// The workers' ranks have changed; their order has not.
    pub(super) fn rerank(&mut self, workers: &Workers) {
        self.idle.rerank(workers);
        self.running.rerank(workers);
    }
}

impl State {
    /// Adds a running worker to the sets, or takes one that no longer runs out of them.
    pub(super) fn set_running(&mut self, id: WorkerId, running: bool) {
        if std::mem::replace(&mut self.workers[id].runs, running) == running {
            return;
        }
        if running {
            self.running.insert(id);
        } else {
            self.running.shift_remove(&id);
        }
        self.idle.running.set(&self.workers, id, running);
        for runtime in Runtime::ALL {
            if self.workers[id].runtimes[runtime.number()] {
                let capable = &mut self.idle.capable[runtime.number()];
                *capable = if running { *capable + 1 } else { *capable - 1 };
            }
        }
        if !running {
            self.set_idle(id, false);
            self.set_saturated(id, false);
            self.set_slot_ratio(id, None);
            Runtime::ALL.into_iter().for_each(|runtime| self.queue.unkeep(runtime, id));
        }
    }

    /// Whether every running worker has this runtime, so that it restricts nothing.
    pub(super) fn is_universal(&self, runtime: Runtime) -> bool {
        self.idle.capable[runtime.number()] == self.running.len()
    }

    /// Re-evaluates whether a worker is idle or saturated (`check_idle_saturated`); `occupancy` where it is known.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn check_idle_saturated(&mut self, id: WorkerId, occupancy: Option<Seconds>) {
        let Some(worker) = self.workers.get(id).filter(|worker| worker.runs) else {
            return;
        };
        let (processing, nthreads) = (worker.processing.len(), worker.nthreads as usize);
        let mut idle = processing < nthreads;
        let mut saturated = false;
        let mut done_soon = false;
        if !idle {
            let occupancy = occupancy.unwrap_or_else(|| self.occupancy(worker));
            done_soon = occupancy < nthreads as f64 * AHEAD_SECONDS && self.has_only_short_tasks(worker);
            let average = self.average_occupancy();
            idle = occupancy < nthreads as f64 * average / 2.0;
            let waiting = (processing - nthreads) as f64;
            let pending = occupancy * waiting / (processing as f64 * nthreads as f64);
            saturated = !idle && pending > SATURATED_PENDING && pending > SATURATED_RATIO * average;
        }
        self.set_idle(id, idle);
        self.set_saturated(id, saturated);
        self.update_slots(id, done_soon);
    }

    fn set_saturated(&mut self, id: WorkerId, saturated: bool) {
        if std::mem::replace(&mut self.workers[id].is_saturated, saturated) == saturated {
            return;
        }
        if saturated {
            self.saturated.insert(id);
        } else {
            self.saturated.swap_remove(&id);
        }
    }

    fn set_idle(&mut self, id: WorkerId, idle: bool) {
        if std::mem::replace(&mut self.workers[id].is_idle, idle) != idle {
            self.idle.idle.set(&self.workers, id, idle);
        }
    }

    /// Whether a worker has less to do than it could (`is_unoccupied`).
    pub(super) fn is_unoccupied(&self, id: WorkerId, occupancy: Seconds, processing: i64) -> bool {
        let nthreads = self.workers[id].nthreads;
        processing < i64::from(nthreads) || occupancy < f64::from(nthreads) * self.average_occupancy() / 2.0
    }

    /// `done_soon`: what a worker has is done in next to no time, so that it had better have more by then.
    #[expect(clippy::cast_precision_loss, reason = "task counts are small")]
    fn update_slots(&mut self, id: WorkerId, done_soon: bool) {
        if !self.queuing() {
            return;
        }
        let worker = &self.workers[id];
        let free = worker.task_slots(self.config.worker_saturation) > 0 || done_soon && self.may_be_ahead(worker);
        let ratio = (worker.processing.len() as f64 / f64::from(worker.nthreads)).to_bits();
        self.set_slot_ratio(id, free.then_some(ratio));
    }

    /// Whether no task like those that a worker has took long lately: one that does makes all behind it wait.
    fn has_only_short_tasks(&self, worker: &Worker) -> bool {
        let mut prefixes = worker.prefix_count.iter().map(|(prefix, _)| self.groups.prefix(*prefix));
        prefixes.all(|prefix| prefix.longest_lately < AHEAD_TASK_SECONDS_MAX)
    }

    /// Whether a worker may be given more root-ish tasks than `worker-saturation` allows if they are short: under the policy
    /// `native`. Upstream sends a task for each that ends, which costs more than such a task does.
    pub(super) fn may_be_ahead(&self, worker: &Worker) -> bool {
        let ahead_max = AHEAD_TASKS_MAX * worker.nthreads as usize;
        self.config.policy == Policy::Native && worker.processing.len() - worker.long_running.len() < ahead_max
    }

    fn set_slot_ratio(&mut self, id: WorkerId, ratio: Option<u64>) {
        let worker = &mut self.workers[id];
        if worker.slot_ratio == ratio {
            return;
        }
        let old = std::mem::replace(&mut worker.slot_ratio, ratio);
        for runtime in Runtime::ALL {
            if !worker.runtimes[runtime.number()] {
                continue;
            }
            let index = &mut self.idle.with_slots[runtime.number()];
            if let Some(old) = old {
                index.remove(&(old, id));
            }
            if let Some(ratio) = ratio {
                index.insert((ratio, id));
            }
        }
    }

    /// Whether root-ish tasks are queued on the scheduler.
    pub(super) fn queuing(&self) -> bool {
        self.config.worker_saturation.is_finite()
    }

    /// Whether a task is a root or like one: one of many that need little (`is_rootish`).
    pub(super) fn is_rootish(&self, task: &Task) -> bool {
        if task.is_restricted() {
            return false;
        }
        if task.data_producer {
            return true;
        }
        let group = self.groups.group(task.group);
        let (past_groups, past_tasks) = group.past_dependencies;
        let dependencies = group.dependencies.len() + past_groups;
        if group.size as u64 <= self.total_nthreads * 2 || dependencies >= self.config.rootish_taskgroup {
            return false;
        }
        let tasks: usize = group.dependencies.iter().map(|dep| self.groups.group(dep).size).sum();
        tasks + past_tasks < self.config.rootish_taskgroup_dependencies
    }

    /// The least busy worker with a free slot; none: the task is queued (`decide_worker_rootish_queuing_enabled`).
    pub(super) fn decide_worker_rootish_queuing_enabled(&mut self, runtime: Runtime) -> Option<WorkerId> {
        let open = &self.idle.with_slots[runtime.number()];
        let (candidates, best) = (open.len(), open.first().map(|(_, id)| *id)?);
        self.note_choice(Rule::FreeSlot, best, candidates);
        Some(best)
    }

    /// The worker that a queued task is kept for, if it has a free slot, else as upstream.
    pub(super) fn decide_worker_queued(&mut self, id: TaskId) -> Option<WorkerId> {
        let keeper = self.queue.kept.keeper(id).filter(|keeper| self.workers[*keeper].slot_ratio.is_some());
        let Some(keeper) = keeper else {
            return self.decide_worker_rootish_queuing_enabled(self.tasks[id].runtime);
        };
        self.note_choice(Rule::Run, keeper, 1);
        Some(keeper)
    }

    /// Neighbours in a group go to one worker, a batch at a time (`decide_worker_rootish_queuing_disabled`).
    pub(super) fn decide_worker_rootish_queuing_disabled(&mut self, id: TaskId) -> Option<WorkerId> {
        let (group_id, runtime) = (self.tasks[id].group, self.tasks[id].runtime);
        let group = self.groups.group(group_id);
        let last = group.last_worker.filter(|last| {
            group.last_worker_tasks_left > 0
                && self.running.contains(last)
                && self.workers[*last].runtimes[runtime.number()]
        });
        let worker = match last {
            Some(last) => {
                self.note_choice(Rule::Neighbours, last, 1);
                last
            }
            None => {
                let worker = self.best_root_worker(id, runtime)?;
                let nthreads = u64::from(self.workers[worker].nthreads);
                let group = self.groups.group_mut(group_id);
                group.last_worker_tasks_left = group.size as u64 * nthreads / self.total_nthreads.max(1);
                worker
            }
        };
        let group = self.groups.group_mut(group_id);
        let left = group.states.get(super::TaskState::Released) + group.states.get(super::TaskState::Waiting);
        group.last_worker = (left > 1).then_some(worker);
        group.last_worker_tasks_left = group.last_worker_tasks_left.saturating_sub(1);
        Some(worker)
    }

    fn best_root_worker(&mut self, id: TaskId, runtime: Runtime) -> Option<WorkerId> {
        let mut pool = std::mem::take(&mut self.scratch_workers);
        let capable = |id: &WorkerId| self.workers[*id].runtimes[runtime.number()];
        pool.clear();
        pool.extend(self.idle.idle.ids().filter(capable));
        if pool.is_empty() {
            pool.extend(self.idle.running.ids().filter(capable));
        }
        let best = self.best_of(id, &pool);
        self.scratch_workers = pool;
        best
    }

    /// The worker that can start a task soonest, given its dependencies and restrictions; none: it becomes no-worker
    /// (`decide_worker_non_rootish`).
    pub(super) fn decide_worker_non_rootish(&mut self, id: TaskId) -> Option<WorkerId> {
        if self.running.is_empty() {
            return None;
        }
        let task = &self.tasks[id];
        let restricted = task.is_restricted() || !self.is_universal(task.runtime);
        // Upstream leaves the quick way as soon as one worker is paused, and then weighs all running workers for each
        // task. Round robin over those that run costs the same for a thousand workers as for twenty.
        let quick = self.running.len() == self.workers.len() || self.running.len() >= ROUND_ROBIN_MIN;
        if !restricted && task.dependencies.is_empty() && quick {
            return Some(self.any_running_worker());
        }
        if self.config.policy == Policy::Native && !restricted && !self.tasks[id].actor {
            return self.decide_worker_native(id);
        }
        self.decide_worker(id, restricted)
    }

    /// For tasks without dependencies or restrictions.
    fn any_running_worker(&mut self) -> WorkerId {
        let (rule, worker, candidates) = self.next_running_worker();
        self.note_choice(rule, worker, candidates);
        worker
    }

    /// The worker, why, and out of how many.
    #[expect(clippy::cast_possible_truncation, reason = "only its remainder counts")]
    fn next_running_worker(&self) -> (Rule, WorkerId, usize) {
        let pool = if self.idle.idle.is_empty() { &self.idle.running } else { &self.idle.idle };
        let size = pool.ids().len();
        let mut from_start = pool.ids_from(self.n_tasks as usize % size).peekable();
        let first = *from_start.peek().expect("some worker runs");
        if size >= ROUND_ROBIN_MIN {
            return (Rule::InTurn, first, size);
        }
        let mut best = (Seconds::INFINITY, first);
        for id in from_start {
            let occupancy = self.occupancy(&self.workers[id]);
            if occupancy <= 0.0 {
                return (Rule::LeastBusy, id, size);
            }
            // Ties at a positive occupancy go to the first by address, as upstream's `min` has it.
            let rank = self.workers[id].rank;
            if occupancy < best.0 || (occupancy == best.0 && rank < self.workers[best.1].rank) {
                best = (occupancy, id);
            }
        }
        (Rule::LeastBusy, best.1, size)
    }

    /// Holders of dependencies first, then whoever is allowed (`decide_worker`).
    fn decide_worker(&mut self, id: TaskId, restricted: bool) -> Option<WorkerId> {
        self.mark_holders(id);
        let mut candidates = std::mem::take(&mut self.scratch_workers);
        if self.tasks[id].actor {
            candidates.clear();
            candidates.extend(self.idle.running.ids());
        }
        candidates.retain(|worker| self.workers[*worker].runs);
        if restricted {
            let holders = candidates.len();
            candidates.retain(|worker| self.is_valid_worker(id, *worker));
            let dropped_holders = candidates.len() < holders;
            if candidates.is_empty() {
                self.extend_with_valid_workers(id, &mut candidates);
            }
            if candidates.is_empty() && self.tasks[id].loose_restrictions {
                self.loose_candidates(id, dropped_holders, &mut candidates);
            }
        } else if candidates.is_empty() {
            candidates.extend(self.idle.running.ids());
        }
        let best = self.best_of_marked(id, &candidates);
        self.scratch_workers = candidates;
        best
    }

    /// As if no workers or hosts were named.
    fn loose_candidates(&self, id: TaskId, holders: bool, candidates: &mut Vec<WorkerId>) {
        let running = || self.idle.running.ids().filter(|worker| self.can_supply(id, *worker));
        // An actor goes to whoever has fewest, wherever its inputs are.
        if holders && !self.tasks[id].actor {
            candidates.extend(running().filter(|worker| self.workers[*worker].mark == self.mark));
        }
        if candidates.is_empty() {
            candidates.extend(running());
        }
    }

    /// Notes on every holder of a dependency how many bytes of the dependencies it has, and lists the holders.
    pub(super) fn mark_holders(&mut self, id: TaskId) {
        self.mark += 1;
        self.scratch_workers.clear();
        for dep in self.tasks[id].dependencies.iter() {
            let nbytes = u128::from(self.nbytes(dep));
            for holder in self.tasks[dep].who_has.iter() {
                let worker = &mut self.workers[holder];
                if worker.mark != self.mark {
                    worker.mark = self.mark;
                    worker.held = 0;
                    self.scratch_workers.push(holder);
                }
                worker.held += nbytes;
            }
        }
    }

    fn best_of(&mut self, id: TaskId, candidates: &[WorkerId]) -> Option<WorkerId> {
        let unused = std::mem::take(&mut self.scratch_workers);
        self.mark_holders(id);
        self.scratch_workers = unused;
        self.best_of_marked(id, candidates)
    }

    /// The candidate with the smallest objective, the first of equals (`worker_objective`). The holders of the task's
    /// dependencies must be marked.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn best_of_marked(&mut self, id: TaskId, candidates: &[WorkerId]) -> Option<WorkerId> {
        let rule = if candidates.len() == 1 { Rule::OnlyCandidate } else { Rule::SoonestStart };
        let mut considered = std::mem::take(&mut self.considered);
        considered.begin(rule);
        let task = &self.tasks[id];
        let total: u128 = task.dependencies.iter().map(|dep| u128::from(self.nbytes(dep))).sum();
        for &id in candidates {
            let worker = &self.workers[id];
            let held = if worker.mark == self.mark { worker.held } else { 0 };
            let (occupancy, missing) = (self.occupancy(worker), total - held);
            let start = occupancy / f64::from(worker.nthreads) + missing as f64 / self.bandwidth;
            let cost = (if task.actor { worker.actors.len() } else { 0 }, start, worker.nbytes);
            considered.weigh(cost, || self.score(id, occupancy, start, missing));
        }
        let best = considered.best();
        self.considered = considered;
        best
    }

    /// Whether the restrictions of a task let it run on a worker (`valid_workers`, one at a time).
    pub(super) fn is_valid_worker(&self, task: TaskId, worker: WorkerId) -> bool {
        let can_supply = self.can_supply(task, worker);
        let (task, worker) = (&self.tasks[task], &self.workers[worker]);
        let place = task.restrictions().is_none_or(|restrictions| {
            restrictions.workers.contains(&worker.address)
                || restrictions.hosts.iter().any(|host| self.coerce_hostname(host) == worker.address.host())
        });
        can_supply && place
    }

    /// Whether a worker has what a task needs to run at all: its runtime and its resources. Loose restrictions do not
    /// loosen that; upstream's do, and its worker dies of a resource that it does not have.
    pub(super) fn can_supply(&self, task: TaskId, worker: WorkerId) -> bool {
        let (task, worker) = (&self.tasks[task], &self.workers[worker]);
        let supplied = |(name, needed): &(String, f64)| worker.resources.get(name).is_some_and(|has| has >= needed);
        worker.runtimes[task.runtime.number()] && task.annotations.resources.iter().all(supplied)
    }

    /// The running workers a restricted task may use.
    fn extend_with_valid_workers(&self, id: TaskId, candidates: &mut Vec<WorkerId>) {
        let named = self.tasks[id].restrictions().filter(|restrictions| restrictions.hosts.is_empty());
        let valid = |worker: &WorkerId| self.running.contains(worker) && self.is_valid_worker(id, *worker);
        match named {
            Some(restrictions) => {
                let ids = restrictions.workers.iter().filter_map(|address| self.workers.id(address));
                candidates.extend(ids.filter(valid));
            }
            None => candidates.extend(self.idle.running.ids().filter(valid)),
        }
    }

    /// A host restriction may also be a worker's name: then that worker's host is meant.
    fn coerce_hostname<'a>(&'a self, host: &'a str) -> &'a str {
        self.workers.by_name(host).map_or(host, |id| self.workers[id].address.host())
    }
}
