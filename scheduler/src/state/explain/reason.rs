//! Why a task is where it is: looked up when somebody asks.

use std::sync::Arc;

use dask_protocol::message::WorkerStatus;
use dask_protocol::{Address, Key};

use super::super::State;
use super::super::event::{Runtime, Seconds};
use super::super::ids::{FastMap, FastSet, IdSet, TaskId, WorkerId};
use super::super::task::TaskState;

/// Inputs, holders or workers named one by one; the rest are counted.
const NAMED_MAX: usize = 10;
/// Tasks looked at to find what a waiting task waits for in the end.
const ANCESTORS_MAX: usize = 10_000;
/// Queued tasks counted to find a task's place among them.
const QUEUED_COUNTED_MAX: usize = 100_000;

/// Why a task is in its state.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// The scheduler does not know it: never submitted, or forgotten since.
    Unknown,
    /// Nobody needs its result now.
    NotNeeded,
    /// Somebody needs it, and it is about to be computed.
    AboutToWait,
    /// Some of its inputs are not in memory.
    WaitsFor {
        /// The first of the missing inputs, and why each is missing.
        inputs: Vec<Blocker>,
        /// How many are missing.
        missing: usize,
        /// How many inputs it has.
        of: usize,
        /// The first tasks further up that all of this waits for in the end.
        behind: Vec<Blocker>,
    },
    /// Root-ish, and all workers have as many such tasks as they take.
    Queued {
        /// Queued tasks before it; at most 100 000 are counted.
        ahead: usize,
        /// Running workers that could run it.
        workers: usize,
        /// `worker-saturation`.
        saturation: f64,
    },
    /// There is no worker at all.
    NoWorkers,
    /// There are workers, and none may run it.
    NoSuitableWorker {
        /// Why not, the most frequent reason first.
        refusals: Vec<Refusal>,
        /// How many workers there are.
        workers: usize,
        /// Whether no worker there is could ever run it: paused ones might come back.
        hopeless: bool,
    },
    /// Sent to a worker.
    Processing {
        /// Which.
        worker: Address,
        /// Seconds since it was sent, if that is still known.
        since: Option<Seconds>,
        /// Tasks that worker was given and has not finished.
        given: usize,
        /// Its threads.
        nthreads: u32,
        /// Seconds a task of this prefix is expected to take.
        expected: Seconds,
        /// The first inputs it must fetch there.
        to_fetch: Vec<Key>,
        /// Bytes of all inputs it must fetch there.
        bytes_to_fetch: u64,
        /// Whether it left its thread pool.
        long_running: bool,
        /// Seconds since the worker was last heard of.
        silent: Seconds,
    },
    /// Its result is there.
    InMemory {
        /// Who has it; at most ten are named.
        holders: Vec<Address>,
        /// How many have it.
        copies: usize,
        /// Its size in bytes, once known.
        nbytes: Option<u64>,
    },
    /// It, or something it depends on, raised.
    Erred {
        /// What raised.
        cause: Key,
        /// `repr` of the exception.
        exception: Arc<str>,
        /// Where.
        on: Vec<Address>,
    },
}

/// A task that others wait for.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocker {
    /// Which.
    pub key: Key,
    /// Its state.
    pub state: TaskState,
    /// Why it is there; of waiting ones only how many inputs are missing.
    pub reason: Reason,
}

/// Why some workers may not run a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why, such as `offers 1 of the 2 GPU needed`.
    pub why: String,
    /// How many.
    pub workers: usize,
    /// One of them.
    pub example: Address,
}

impl State {
    /// Why a task is in its state; `deep` also looks at what it waits for.
    pub(super) fn reason(&self, id: TaskId, deep: bool) -> Reason {
        let task = &self.tasks[id];
        match task.state {
            TaskState::Released if task.is_unneeded() => Reason::NotNeeded,
            TaskState::Released => Reason::AboutToWait,
            TaskState::Waiting => self.waits_for(id, deep),
            TaskState::Queued => self.queued_because(id),
            TaskState::NoWorker if self.workers.is_empty() => Reason::NoWorkers,
            TaskState::NoWorker => Reason::NoSuitableWorker {
                refusals: self.refusals(id),
                workers: self.workers.len(),
                hopeless: self.is_hopeless(id),
            },
            TaskState::Processing => self.processing_because(id),
            TaskState::Memory => Reason::InMemory {
                holders: task.who_has.iter().take(NAMED_MAX).map(|id| self.workers[id].address.clone()).collect(),
                copies: task.who_has.len(),
                nbytes: u64::try_from(task.nbytes).ok(),
            },
            TaskState::Erred => {
                let failure = task.failure.as_ref().expect("a task is erred because of a failure");
                Reason::Erred {
                    cause: failure.cause.clone(),
                    exception: failure.error.exception_text.clone(),
                    on: task.erred_on().to_vec(),
                }
            }
            TaskState::Forgotten => Reason::Unknown,
        }
    }

    fn waits_for(&self, id: TaskId, deep: bool) -> Reason {
        let task = &self.tasks[id];
        let (missing, of) = (task.waiting_on.len(), task.dependencies.len());
        if !deep {
            return Reason::WaitsFor { inputs: Vec::new(), missing, of, behind: Vec::new() };
        }
        let inputs: Vec<TaskId> = task.waiting_on.iter().take(NAMED_MAX).collect();
        let direct = |id: &TaskId| !task.waiting_on.contains(*id);
        let behind: Vec<TaskId> =
            self.waited_for_in_the_end(&task.waiting_on).into_iter().filter(direct).take(NAMED_MAX).collect();
        Reason::WaitsFor { inputs: self.blockers(&inputs), missing, of, behind: self.blockers(&behind) }
    }

    fn blockers(&self, ids: &[TaskId]) -> Vec<Blocker> {
        let blocker = |id: &TaskId| {
            let task = &self.tasks[*id];
            Blocker { key: task.key.clone(), state: task.state, reason: self.reason(*id, false) }
        };
        ids.iter().map(blocker).collect()
    }

    /// Tasks that wait for nothing themselves, on the way up from `from`, as found.
    fn waited_for_in_the_end(&self, from: &IdSet<TaskId>) -> Vec<TaskId> {
        let mut stack: Vec<TaskId> = from.iter().collect();
        let mut seen = FastSet::<TaskId>::default();
        let mut found = Vec::new();
        while let Some(id) = stack.pop() {
            if seen.len() >= ANCESTORS_MAX || found.len() >= 2 * NAMED_MAX {
                break;
            }
            if !seen.insert(id) {
                continue;
            }
            if self.tasks[id].state == TaskState::Waiting {
                stack.extend(self.tasks[id].waiting_on.iter().take(ANCESTORS_MAX));
            } else {
                found.push(id);
            }
        }
        found
    }

    fn queued_because(&self, id: TaskId) -> Reason {
        let runtime = self.tasks[id].runtime;
        let same_runtime = self.queue.iter().filter(|other| self.tasks[*other].runtime == runtime);
        let ahead = same_runtime.take(QUEUED_COUNTED_MAX).take_while(|other| *other != id).count();
        let workers = self.idle.capable[runtime.number()];
        Reason::Queued { ahead, workers, saturation: self.config.worker_saturation }
    }

    fn processing_because(&self, id: TaskId) -> Reason {
        let task = &self.tasks[id];
        let on = task.processing_on.expect("a processing task has a worker");
        let worker = &self.workers[on];
        let missing = || task.dependencies.iter().filter(|dep| !self.tasks[*dep].who_has.contains(on));
        Reason::Processing {
            worker: worker.address.clone(),
            since: self.decisions.get(task.run_id).map(|decision| self.now - decision.at),
            given: worker.processing.len(),
            nthreads: worker.nthreads,
            expected: self.prefix_duration(task.prefix),
            to_fetch: missing().take(NAMED_MAX).map(|dep| self.tasks[dep].key.clone()).collect(),
            bytes_to_fetch: missing().map(|dep| self.nbytes(dep)).fold(0, u64::saturating_add),
            long_running: task.long_running,
            silent: (self.now - worker.last_seen).max(0.0),
        }
    }

    /// Whether no worker there is may run the task, whatever its status; false while there is none.
    pub(in crate::state) fn is_hopeless(&self, id: TaskId) -> bool {
        let loose = self.tasks[id].loose_restrictions;
        let able = |worker| self.is_valid_worker(id, worker) || (loose && self.can_supply(id, worker));
        !self.workers.is_empty() && !self.workers.ids().any(able)
    }

    /// Why each worker may not run the task, most frequent reason first.
    pub(in crate::state) fn refusals(&self, id: TaskId) -> Vec<Refusal> {
        let mut by_reason = FastMap::<String, Refusal>::default();
        for worker in self.workers.ids() {
            let why = self.refusal(id, worker);
            let example = &self.workers[worker].address;
            let entry = by_reason.entry(why).or_insert_with_key(|why| Refusal {
                why: why.clone(),
                workers: 0,
                example: example.clone(),
            });
            entry.workers += 1;
        }
        let mut refusals: Vec<Refusal> = by_reason.into_values().collect();
        refusals.sort_by_key(|refusal| std::cmp::Reverse(refusal.workers));
        refusals.truncate(NAMED_MAX);
        refusals
    }

    fn refusal(&self, id: TaskId, on: WorkerId) -> String {
        let (task, worker) = (&self.tasks[id], &self.workers[on]);
        if !worker.runtimes[task.runtime.number()] {
            let runtime = match task.runtime {
                Runtime::Python => "Python",
                Runtime::Native => "native",
            };
            return format!("cannot run {runtime} tasks");
        }
        for (name, needed) in &task.annotations.resources {
            let has = worker.resources.get(name).copied().unwrap_or(0.0);
            if has < *needed {
                return format!("offers {has} of the {needed} {name} needed");
            }
        }
        if !task.loose_restrictions && !self.is_valid_worker(id, on) {
            return format!("is not among the workers or hosts it is restricted to ({})", self.places(id));
        }
        if worker.status == WorkerStatus::Running {
            // Between two events this is about to change.
            return "may run it".to_owned();
        }
        format!("is {}", worker.status.name())
    }

    /// Where a task may run, as the user said.
    fn places(&self, id: TaskId) -> String {
        let Some(restrictions) = self.tasks[id].restrictions() else {
            return String::new();
        };
        let workers = restrictions.workers.iter().map(Address::as_str);
        let names: Vec<&str> = workers.chain(restrictions.hosts.iter().map(String::as_str)).collect();
        let more = names.len().saturating_sub(NAMED_MAX);
        let shown = names[..names.len() - more].join(", ");
        if more == 0 { shown } else { format!("{shown} and {more} more") }
    }
}
