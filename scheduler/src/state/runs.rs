//! Runs: queued root-ish tasks that are used together, kept for one worker (policy `native`).
//!
//! Upstream either assigns neighbours to one worker at once, which fills memory with inputs, or queues root-ish tasks and
//! hands each to whichever worker has a free slot, which scatters what is used together. Here they wait in the queue, and a
//! worker that takes the first of them has its next neighbours kept for it.
//!
//! A run is made when a worker takes the task at the head of the queue. The tasks after it, in order of priority, belong to
//! the run as long as each is read by something that also reads one of the run, if not directly then at the end of a chain.

use std::collections::BTreeSet;

use smallvec::SmallVec;

use super::State;
use super::event::Runtime;
use super::ids::{FastSet, IdMap, TaskId, WorkerId};
use super::queuing::Place;
use super::task::TaskState;

/// Tasks of a run per thread of its worker: as many as run at once, so that a run makes no more inputs than upstream does.
const ROUNDS: usize = 1;
/// What reads more than this brings nobody together: it needs most of the cluster's results anyway.
const FAN_IN_MAX: usize = 32;
/// Nor does what reads more than a worker computes in so many rounds: the first results would be held until the last of
/// them, on every worker at once.
const FAN_IN_ROUNDS: usize = 4;
/// What meets again after it has met once counts too, if no more than this meet.
const SECOND_FAN_IN_MAX: usize = 4;
/// Tasks at the head of the queue among which a worker finds what goes with its results: priority is violated by as much.
const LOOK_AHEAD: usize = 16;
/// A task is kept for a busy worker until this many tasks per thread of the cluster were sent out meanwhile.
const PATIENCE: u64 = 4;
/// Dependents of a task, and inputs of these, that are looked at.
const USERS_MAX: usize = 8;
/// Longest chain followed from a task to something that reads more than it.
const CHAIN_MAX: usize = 8;
/// Tasks passed over in search of the next of a run: other graphs may lie between.
const SKIPPED_MAX: usize = 4;
/// Workers with free slots that are looked at for one with tasks kept for it.
const KEEPERS_MAX: usize = 8;

/// Queued tasks that are kept for a worker.
#[derive(Debug, Default)]
pub(super) struct Kept {
    by_worker: [BTreeSet<(WorkerId, Place)>; Runtime::COUNT],
    by_place: [BTreeSet<(Place, WorkerId)>; Runtime::COUNT],
    /// For whom each is kept, and how many tasks had been sent out when that began.
    keepers: IdMap<TaskId, (WorkerId, u64)>,
}

impl Kept {
    pub(super) fn len(&self) -> usize {
        self.keepers.len()
    }

    /// Kept tasks, the next one first (per runtime).
    pub(super) fn iter(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.by_place.iter().flatten().map(|(place, _)| place.task)
    }

    /// The worker a task is kept for.
    pub(super) fn keeper(&self, task: TaskId) -> Option<WorkerId> {
        self.keepers.get(&task).map(|(worker, _)| *worker)
    }

    /// Keeps a task for a worker; `sent` tasks were sent out so far.
    pub(super) fn insert(&mut self, runtime: Runtime, worker: WorkerId, place: Place, sent: u64) {
        self.by_worker[runtime.number()].insert((worker, place));
        self.by_place[runtime.number()].insert((place, worker));
        self.keepers.insert(place.task, (worker, sent));
    }

    /// Takes a task out; false if it was not kept.
    pub(super) fn remove(&mut self, runtime: Runtime, place: Place) -> bool {
        let Some((worker, _)) = self.keepers.swap_remove(&place.task) else {
            return false;
        };
        self.by_worker[runtime.number()].remove(&(worker, place));
        self.by_place[runtime.number()].remove(&(place, worker));
        true
    }

    /// Asserts that the tables say the same.
    pub(super) fn check(&self) {
        for (by_worker, by_place) in self.by_worker.iter().zip(&self.by_place) {
            assert_eq!(by_worker.len(), by_place.len(), "kept tasks are known by worker and by place");
            for (worker, place) in by_worker {
                assert!(by_place.contains(&(*place, *worker)), "what is kept for a worker has a place");
                assert_eq!(self.keeper(place.task), Some(*worker), "a task is kept for the worker it is listed under");
            }
        }
        let listed: usize = self.by_place.iter().map(BTreeSet::len).sum();
        assert_eq!(self.keepers.len(), listed, "what has a keeper is listed");
    }

    /// The best task kept for a worker.
    pub(super) fn first(&self, runtime: Runtime, worker: WorkerId) -> Option<Place> {
        let from = (worker, Place::MIN);
        let first = self.by_worker[runtime.number()].range(from..).next();
        first.filter(|(keeper, _)| *keeper == worker).map(|(_, place)| *place)
    }

    /// The best task of all that are kept, and how many tasks had been sent out when that began.
    fn first_of_all(&self, runtime: Runtime) -> Option<(Place, u64)> {
        let place = self.by_place[runtime.number()].first().map(|(place, _)| *place)?;
        self.keepers.get(&place.task).map(|(_, sent)| (place, *sent))
    }

    /// The task that would be computed last of all that are kept.
    fn last(&self, runtime: Runtime) -> Option<Place> {
        self.by_place[runtime.number()].last().map(|(place, _)| *place)
    }
}

impl State {
    /// The next queued task to run, and where: what is kept for a worker with a free slot, else the head of the queue with
    /// a new run, else what is kept for busy workers, from its end.
    pub(super) fn next_of_runs(&mut self, runtime: Runtime) -> Option<TaskId> {
        let open = &self.idle.with_slots[runtime.number()];
        let least_busy = open.first().map(|(_, id)| *id)?;
        let head = self.queue.head(runtime);
        let kept = open.iter().take(KEEPERS_MAX).find_map(|(_, id)| self.queue.kept.first(runtime, *id));
        // A run goes on only while nothing of a better user priority or an older graph waits.
        if let Some(kept) = kept
            && head.is_none_or(|head| kept.priority[..2] <= head.priority[..2])
        {
            return Some(kept.task);
        }
        if let Some(waiting) = self.kept_for_too_long(runtime) {
            return Some(self.take_over(runtime, waiting, least_busy));
        }
        if let Some(head) = head {
            let first = self.close_to(runtime, head, least_busy).unwrap_or(head);
            self.begin_run(runtime, first, least_busy);
            return Some(first.task);
        }
        let last = self.queue.kept.last(runtime)?;
        Some(self.take_over(runtime, last, least_busy))
    }

    /// The best task kept for a busy worker, if that has gone on for too long.
    fn kept_for_too_long(&self, runtime: Runtime) -> Option<Place> {
        let (place, since) = self.queue.kept.first_of_all(runtime)?;
        (self.n_tasks - since > PATIENCE * self.total_nthreads).then_some(place)
    }

    /// What is kept for one worker goes to another.
    fn take_over(&mut self, runtime: Runtime, place: Place, worker: WorkerId) -> TaskId {
        self.queue.kept.remove(runtime, place);
        self.queue.kept.insert(runtime, worker, place, self.n_tasks);
        place.task
    }

    /// Keeps the head of the queue, and what is used with it, for a worker.
    fn begin_run(&mut self, runtime: Runtime, head: Place, worker: WorkerId) {
        let limit = self.run_length_max(runtime, worker);
        let fan_in_max = self.fan_in_max(worker);
        let mut users: FastSet<TaskId> = self.users(head.task, fan_in_max).into_iter().collect();
        let mut run = vec![head];
        let mut skipped = 0;
        for place in self.queue.after(runtime, head) {
            if run.len() >= limit || skipped > SKIPPED_MAX {
                break;
            }
            let its_users = self.users(place.task, fan_in_max);
            if its_users.iter().any(|user| users.contains(user)) {
                users.extend(its_users);
                run.push(place);
            } else {
                skipped += 1;
            }
        }
        for place in run {
            self.queue.keep(runtime, place, worker, self.n_tasks);
        }
    }

    /// Of the tasks next in the queue, the first one that is used together with something a worker has.
    fn close_to(&self, runtime: Runtime, head: Place, worker: WorkerId) -> Option<Place> {
        let fan_in_max = self.fan_in_max(worker);
        let places = std::iter::once(head).chain(self.queue.after(runtime, head)).take(LOOK_AHEAD);
        let mut places = places.filter(|place| place.priority[..2] == head.priority[..2]);
        places.find(|place| {
            self.users(place.task, fan_in_max).iter().any(|user| {
                self.tasks[*user].dependencies.iter().take(USERS_MAX).any(|input| self.is_near(input, worker))
            })
        })
    }

    /// Whether a worker has a task's result, or works on it or on what it is a chain on.
    fn is_near(&self, mut id: TaskId, worker: WorkerId) -> bool {
        for _ in 0..CHAIN_MAX {
            let task = &self.tasks[id];
            if task.processing_on == Some(worker) || task.who_has.contains(worker) {
                return true;
            }
            if task.state != TaskState::Waiting || task.dependencies.len() != 1 {
                return false;
            }
            id = task.dependencies.at(0);
        }
        false
    }

    /// How many tasks may meet for a worker to make them all.
    fn fan_in_max(&self, worker: WorkerId) -> usize {
        FAN_IN_MAX.min(FAN_IN_ROUNDS * self.workers[worker].nthreads as usize)
    }

    /// How many tasks a worker may have kept for it: no more than its share of what is left.
    fn run_length_max(&self, runtime: Runtime, worker: WorkerId) -> usize {
        let nthreads = self.workers[worker].nthreads as usize;
        let total = usize::try_from(self.total_nthreads).unwrap_or(usize::MAX);
        let share = (self.queue.waiting(runtime) * nthreads).div_ceil(total.max(1));
        (ROUNDS * nthreads).min(share).max(1)
    }

    /// Where the result of a task meets others: its dependents, or what is at the end of a chain of them, and where
    /// their results meet others in turn, if those are few. Not where more than `fan_in_max` meet.
    fn users(&self, id: TaskId, fan_in_max: usize) -> SmallVec<[TaskId; 2 * USERS_MAX]> {
        let mut users = SmallVec::new();
        for dependent in self.tasks[id].dependents.iter().take(USERS_MAX) {
            let Some(user) = self.meeting(dependent) else { continue };
            let fan_in = self.tasks[user].dependencies.len();
            if fan_in <= fan_in_max {
                users.push(user);
            }
            if fan_in <= SECOND_FAN_IN_MAX
                && self.tasks[user].dependents.len() == 1
                && let Some(second) = self.meeting(self.tasks[user].dependents.at(0))
                && self.tasks[second].dependencies.len() <= SECOND_FAN_IN_MAX
            {
                users.push(second);
            }
        }
        users
    }

    /// The first task from here on along a chain that reads more than one.
    fn meeting(&self, mut id: TaskId) -> Option<TaskId> {
        for _ in 0..CHAIN_MAX {
            let task = &self.tasks[id];
            if task.dependencies.len() > 1 {
                return Some(id);
            }
            if task.dependents.len() != 1 {
                return None;
            }
            id = task.dependents.at(0);
        }
        None
    }
}
