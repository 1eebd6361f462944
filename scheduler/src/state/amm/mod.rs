//! The active memory manager: drops superfluous replicas, and moves results off workers that retire.
//!
//! Policies suggest one replica at a time; each suggestion is resolved at once against the memory that workers will have
//! after all earlier ones, and all of them are carried out at the end of the round. [`policy`] is for policies of one's
//! own.

mod policy;

use dask_protocol::message::{AcquireReplicas, StimulusId};

use super::State;
use super::explain::Incident;
use super::ids::{FastSet, IdMap, TaskId, WorkerId};
use super::task::TaskState;

pub use policy::{MemoryManager, MemoryPolicy};

/// Up to so many waiters a replica is kept for each worker that will need it.
const WAITERS_COUNTED_MAX: usize = 20;

/// What a round has decided for one task.
#[derive(Debug, Default)]
struct Pending {
    replicate: FastSet<WorkerId>,
    drop: FastSet<WorkerId>,
}

/// One round.
#[derive(Debug)]
pub(in crate::state) struct Round {
    pending: IdMap<TaskId, Pending>,
    /// Bytes per worker once everything decided so far is done.
    memory: IdMap<WorkerId, u64>,
}

impl Round {
    fn pending(&self, id: TaskId) -> Option<&Pending> {
        self.pending.get(&id)
    }
}

/// What came of the policy that empties one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Emptying {
    /// Results are on their way to other workers.
    UnderWay,
    /// Nothing is left that only this worker holds.
    Done,
    /// There is nobody to take what it holds.
    NoRecipients,
}

impl State {
    /// Runs all policies once. Retirements always run; superfluous replicas go when the manager is on, or was asked.
    pub(super) fn run_active_memory_manager(&mut self) {
        let mut round = self.begin_round();
        if self.config.amm_reduce_replicas {
            self.reduce_replicas(&mut round);
        }
        self.run_memory_policies(&mut round);
        self.run_retirements(&mut round);
        self.enact(&round);
    }

    /// The same without the dropping of superfluous replicas: for retirements while the manager is off.
    pub(super) fn run_retirement_policies(&mut self) {
        let mut round = self.begin_round();
        self.run_retirements(&mut round);
        self.enact(&round);
    }

    fn begin_round(&self) -> Round {
        let measure = self.config.amm_measure;
        let memory = self.workers.iter().map(|(id, worker)| (id, worker.memory_state().measure(measure)));
        Round { pending: IdMap::default(), memory: memory.collect() }
    }

    /// Policy `ReduceReplicas`: no more copies than there are workers that need one, but at least one.
    fn reduce_replicas(&self, round: &mut Round) {
        for &id in &self.replicated_tasks {
            let task = &self.tasks[id];
            let mut needed = task.waiters.len();
            if needed > 1 && needed < WAITERS_COUNTED_MAX {
                needed = self.count_needing(id);
            }
            let (adding, dropping) = round.pending(id).map_or((0, 0), |p| (p.replicate.len(), p.drop.len()));
            let copies = task.who_has.len() + adding;
            for _ in needed.max(1) + dropping..copies {
                self.suggest_drop(id, None, round);
            }
        }
    }

    /// Workers that process something that needs the task, plus waiters that have no worker yet.
    fn count_needing(&self, id: TaskId) -> usize {
        let mut workers = FastSet::default();
        let mut unassigned = 0;
        for waiter in self.tasks[id].waiters.iter() {
            match self.tasks[waiter].processing_on {
                Some(worker) => {
                    workers.insert(worker);
                }
                None => unassigned += 1,
            }
        }
        workers.len() + unassigned
    }

    /// Policy `RetireWorker`: everything that only this worker, or only retiring workers, hold is copied elsewhere.
    pub(super) fn empty_worker(&self, worker: WorkerId, round: &mut Round) -> Emptying {
        let address = &self.workers[worker].address;
        if !self.workers[worker].actors.is_empty() {
            tracing::warn!(
                target: "distributed.active_memory_manager",
                "Tried retiring worker {address}, but it holds actors, which can't be moved. The worker will not be \
                 retired."
            );
            return Emptying::NoRecipients;
        }
        let (mut moving, mut stuck) = (0_usize, 0_usize);
        for &id in &self.workers[worker].has_what {
            let task = &self.tasks[id];
            // Actors themselves were ruled out above: this is a proxy.
            if task.actor {
                continue;
            }
            if task.who_has.len() > 1 {
                let dropped = self.suggest_drop(id, Some(&[worker]), round);
                if dropped.is_some() || task.who_has.iter().any(|holder| self.running.contains(&holder)) {
                    continue;
                }
            }
            moving += 1;
            let under_way = round.pending(id).is_some_and(|pending| !pending.replicate.is_empty());
            if !under_way && self.suggest_replicate(id, None, round).is_none() {
                stuck += 1;
            }
        }
        if stuck > 0 {
            tracing::warn!(
                target: "distributed.active_memory_manager",
                "Tried retiring worker {address}, but {stuck} tasks could not be moved as there are no suitable workers \
                 to receive them. The worker will not be retired."
            );
            return Emptying::NoRecipients;
        }
        if moving > 0 {
            tracing::info!(
                target: "distributed.active_memory_manager",
                "Retiring worker {address}; {moving} keys are being moved away."
            );
            return Emptying::UnderWay;
        }
        tracing::info!(
            target: "distributed.active_memory_manager",
            "Retiring worker {address}; no unique keys need to be moved away."
        );
        Emptying::Done
    }

    /// One more replica, on the running worker (of `only`, if given) with the least memory in use (`_find_recipient`).
    fn suggest_replicate(&self, id: TaskId, only: Option<&[WorkerId]>, round: &mut Round) -> Option<WorkerId> {
        let task = &self.tasks[id];
        if task.state != TaskState::Memory || task.actor {
            return None;
        }
        let pending = round.pending.entry(id).or_default();
        let free = |worker: &WorkerId| {
            only.is_none_or(|only| only.contains(worker))
                && !task.who_has.contains(*worker)
                && !pending.replicate.contains(worker)
        };
        let candidates = self.running.iter().copied().filter(free);
        let choice = candidates.min_by_key(|worker| round.memory.get(worker).copied().unwrap_or(0))?;
        pending.replicate.insert(choice);
        let memory = round.memory.entry(choice).or_default();
        *memory = memory.saturating_add(self.nbytes(id));
        Some(choice)
    }

    /// One replica less, of those on `only` or on any worker: never the last one, none that a task there is about to
    /// use; workers that pause or leave first, then those with most memory in use (`_find_dropper`).
    fn suggest_drop(&self, id: TaskId, only: Option<&[WorkerId]>, round: &mut Round) -> Option<WorkerId> {
        let task = &self.tasks[id];
        let pending = round.pending.entry(id).or_default();
        if task.who_has.len() < pending.drop.len() + 2 || task.actor {
            return None;
        }
        let wanted =
            |worker: &WorkerId| only.is_none_or(|only| only.contains(worker)) && !pending.drop.contains(worker);
        let candidates: Vec<WorkerId> = task.who_has.iter().filter(wanted).collect();
        let in_use: FastSet<WorkerId> =
            task.waiters.iter().filter_map(|waiter| self.tasks[waiter].processing_on).collect();
        let (busy, free): (Vec<WorkerId>, Vec<WorkerId>) =
            candidates.into_iter().partition(|worker| in_use.contains(worker));
        let key = |worker: &WorkerId| (!self.running.contains(worker), round.memory.get(worker).copied().unwrap_or(0));
        let choice = free.iter().copied().max_by_key(key)?;
        // The only copy that is not about to leave stays: else this would drop what a retirement has just copied, and
        // the retirement would copy it again.
        let last_running = free.len() == 1
            && self.running.contains(&choice)
            && !busy.is_empty()
            && busy.iter().all(|worker| !self.running.contains(worker));
        if last_running {
            return None;
        }
        pending.drop.insert(choice);
        let memory = round.memory.entry(choice).or_default();
        *memory = memory.saturating_sub(self.nbytes(id));
        Some(choice)
    }

    fn enact(&mut self, round: &Round) {
        let mut replicate = IdMap::<WorkerId, Vec<TaskId>>::default();
        let mut drop = IdMap::<WorkerId, Vec<TaskId>>::default();
        for (&id, pending) in &round.pending {
            for &worker in &pending.replicate {
                replicate.entry(worker).or_default().push(id);
            }
            for &worker in &pending.drop {
                drop.entry(worker).or_default().push(id);
            }
        }
        let stimulus_id = self.stimulus("active_memory_manager");
        for (worker, tasks) in replicate {
            for &id in &tasks {
                self.note_incident(id, |state| Incident::CopyRequested {
                    worker: state.workers[worker].address.clone(),
                });
            }
            self.request_acquire_replicas(worker, &tasks, &stimulus_id);
        }
        for (worker, tasks) in drop {
            for &id in &tasks {
                self.note_incident(id, |state| Incident::CopyDropped { worker: state.workers[worker].address.clone() });
            }
            self.request_remove_replicas(worker, &tasks, &stimulus_id);
        }
    }

    fn request_acquire_replicas(&mut self, worker: WorkerId, tasks: &[TaskId], stimulus_id: &StimulusId) {
        let holders = |id: &TaskId| {
            let key = self.tasks[*id].key.clone();
            let holders = self.who_has(&key);
            (key, holders)
        };
        let who_has = tasks.iter().map(holders).collect();
        let nbytes = tasks.iter().map(|id| (self.tasks[*id].key.clone(), self.tasks[*id].nbytes)).collect();
        self.send_worker(worker, AcquireReplicas { who_has, nbytes, stimulus_id: stimulus_id.clone() });
    }
}
