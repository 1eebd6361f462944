//! What the scheduler knows of one task, and where tasks are kept.

use std::sync::Arc;

use dask_protocol::message::{ErrorInfo, Priority, RunId};
use dask_protocol::slots::{Keyed, KeyedSlots};
use dask_protocol::{Address, Key, Value};

use super::event::{Annotations, Runtime, TaskSpec};
use super::ids::{ClientSlot, GroupId, IdSet, PrefixId, TaskId, WorkerId};

/// The states of a task, by dask's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Known, but neither computed nor about to be.
    Released,
    /// To be computed once its dependencies are in memory.
    Waiting,
    /// Ready, but no worker may run it.
    NoWorker,
    /// Ready, held back until a worker has a free slot.
    Queued,
    /// Sent to a worker.
    Processing,
    /// Its result is on at least one worker.
    Memory,
    /// It, or something it depends on, raised.
    Erred,
    /// Not known any more.
    Forgotten,
}

impl TaskState {
    /// All states, in declaration order.
    pub const ALL: [TaskState; 8] = [
        TaskState::Released,
        TaskState::Waiting,
        TaskState::NoWorker,
        TaskState::Queued,
        TaskState::Processing,
        TaskState::Memory,
        TaskState::Erred,
        TaskState::Forgotten,
    ];

    /// Its name on the wire and in logs.
    pub fn name(self) -> &'static str {
        match self {
            TaskState::Released => "released",
            TaskState::Waiting => "waiting",
            TaskState::NoWorker => "no-worker",
            TaskState::Queued => "queued",
            TaskState::Processing => "processing",
            TaskState::Memory => "memory",
            TaskState::Erred => "erred",
            TaskState::Forgotten => "forgotten",
        }
    }
}

/// Why a task is erred: the task that raised, and what it raised. Shared with everything that depends on it, so it
/// outlives the task that raised.
#[derive(Debug)]
pub(super) struct Failure {
    /// The task that raised (`exception_blame`).
    pub(super) cause: Key,
    /// What it raised.
    pub(super) error: ErrorInfo,
}

/// Where a task may run, as far as it is not told by its annotations alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Restrictions {
    /// `worker_restrictions`: addresses.
    pub(super) workers: Vec<Address>,
    /// `host_restrictions`: host names or worker names, resolved when a worker is chosen.
    pub(super) hosts: Vec<String>,
}

impl Restrictions {
    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty() && self.hosts.is_empty()
    }
}

/// What few tasks have.
#[derive(Debug, Default)]
struct Rare {
    restrictions: Restrictions,
    metadata: Option<Value>,
    erred_on: Vec<Address>,
}

/// The priority of a task, or none: it has no spec then. In less memory than an option of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct TaskPriority([f64; 3]);

impl TaskPriority {
    /// A first part that no priority has.
    const NONE: TaskPriority = TaskPriority([f64::NAN, 0.0, 0.0]);

    /// From the user's part, the generation, and the place in the graph. A user's part that is no number counts as 0.
    pub(super) fn new([user, generation, order]: [f64; 3]) -> TaskPriority {
        TaskPriority([if user.is_nan() { 0.0 } else { user }, generation, order])
    }

    pub(super) fn get(self) -> Option<[f64; 3]> {
        (!self.0[0].is_nan()).then_some(self.0)
    }
}

/// One task. Fields that dask has are named as there.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) key: Key,
    pub(super) state: TaskState,
    pub(super) runtime: Runtime,
    pub(super) actor: bool,
    pub(super) data_producer: bool,
    /// Whether it is a P2P barrier, whose dependents are not queued.
    pub(super) is_barrier: bool,
    pub(super) queueable: bool,
    pub(super) loose_restrictions: bool,
    pub(super) has_lost_dependencies: bool,
    /// Whether somebody seceded it from its worker's thread pool; only while processing.
    pub(super) long_running: bool,
    /// Whether its worker was asked for it in vain; only while processing there.
    pub(super) steal_refused: bool,
    /// How often it was stolen since it was last sent out; only while processing.
    pub(super) moves: u8,
    /// The transition recommended next, if the task is on the recommendation stack.
    pub(super) recommended: Option<TaskState>,
    pub(super) group: GroupId,
    pub(super) prefix: PrefixId,
    pub(super) processing_on: Option<WorkerId>,
    pub(super) retries: u32,
    pub(super) suspicious: u32,
    /// Who is charged for it (see `usage.rs`).
    pub(super) submitter: ClientSlot,
    /// Position in the graph being taken in, plus one; 0 otherwise.
    pub(super) graph_position: u32,
    /// The number of its result's type in the table of type names, plus one; 0 for none.
    pub(super) type_number: u32,
    pub(super) run_id: RunId,
    /// Bytes of the result; -1 while unknown.
    pub(super) nbytes: i64,
    /// Arrival in the queue, or the bits of the time of arrival in no-worker; breaks ties.
    pub(super) queue_number: u64,
    pub(super) priority: TaskPriority,
    pub(super) spec: Option<TaskSpec>,
    pub(super) annotations: Arc<Annotations>,
    pub(super) failure: Option<Arc<Failure>>,
    rare: Option<Box<Rare>>,
    pub(super) dependencies: IdSet<TaskId>,
    pub(super) dependents: IdSet<TaskId>,
    pub(super) waiting_on: IdSet<TaskId>,
    pub(super) waiters: IdSet<TaskId>,
    pub(super) who_wants: IdSet<ClientSlot>,
    pub(super) who_has: IdSet<WorkerId>,
}

impl Task {
    pub(super) fn new(key: Key, group: GroupId, prefix: PrefixId, annotations: Arc<Annotations>) -> Task {
        Task {
            key,
            state: TaskState::Released,
            runtime: Runtime::Python,
            actor: false,
            data_producer: false,
            is_barrier: false,
            queueable: true,
            loose_restrictions: false,
            has_lost_dependencies: false,
            long_running: false,
            steal_refused: false,
            moves: 0,
            recommended: None,
            group,
            prefix,
            processing_on: None,
            retries: 0,
            suspicious: 0,
            submitter: ClientSlot::default(),
            graph_position: 0,
            type_number: 0,
            run_id: -1,
            nbytes: -1,
            queue_number: 0,
            priority: TaskPriority::NONE,
            spec: None,
            annotations,
            failure: None,
            rare: None,
            dependencies: IdSet::default(),
            dependents: IdSet::default(),
            waiting_on: IdSet::default(),
            waiters: IdSet::default(),
            who_wants: IdSet::default(),
            who_has: IdSet::default(),
        }
    }

    /// Whether nobody asks for its result.
    pub(super) fn is_unneeded(&self) -> bool {
        self.waiters.is_empty() && self.who_wants.is_empty()
    }

    /// Whether it may not run just anywhere.
    pub(super) fn is_restricted(&self) -> bool {
        self.restrictions().is_some() || !self.annotations.resources.is_empty()
    }

    /// Where it may run, if that is restricted.
    pub(super) fn restrictions(&self) -> Option<&Restrictions> {
        self.rare.as_ref().map(|rare| &rare.restrictions).filter(|restrictions| !restrictions.is_empty())
    }

    pub(super) fn set_restrictions(&mut self, restrictions: Restrictions) {
        if self.rare.is_some() || !restrictions.is_empty() {
            self.rare.get_or_insert_default().restrictions = restrictions;
        }
    }

    /// What plugins of workers attached to it.
    pub(super) fn metadata(&self) -> Option<&Value> {
        self.rare.as_ref()?.metadata.as_ref()
    }

    pub(super) fn metadata_mut(&mut self) -> &mut Option<Value> {
        &mut self.rare.get_or_insert_default().metadata
    }

    /// The workers on which it erred.
    pub(super) fn erred_on(&self) -> &[Address] {
        self.rare.as_ref().map_or(&[], |rare| &rare.erred_on)
    }

    pub(super) fn add_erred_on(&mut self, workers: impl IntoIterator<Item = Address>) {
        self.rare.get_or_insert_default().erred_on.extend(workers);
    }

    pub(super) fn take_erred_on(&mut self) -> Vec<Address> {
        self.rare.as_mut().map_or_else(Vec::new, |rare| std::mem::take(&mut rare.erred_on))
    }

    /// The priority as sent; tasks without one (they have no spec) never travel.
    pub(super) fn wire_priority(&self) -> Priority {
        let [user, generation, order] = self.priority.get().unwrap_or_default();
        Priority::new(user, generation, order)
    }

    /// The priority as a sortable key: smaller is earlier, tasks without a priority come last.
    pub(super) fn sort_key(&self) -> [i64; 3] {
        self.priority.get().map_or([i64::MAX; 3], |parts| parts.map(sortable))
    }
}

/// Maps floats to integers in the same (total) order.
pub(super) fn sortable(x: f64) -> i64 {
    let bits = (if x == 0.0 { 0.0 } else { x }).to_bits().cast_signed();
    bits ^ (((bits >> 63).cast_unsigned()) >> 1).cast_signed()
}

/// All tasks, by slot and by key.
pub(super) type Tasks = KeyedSlots<TaskId, Task>;

impl Keyed for Task {
    fn key(&self) -> &Key {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sortable_keeps_the_order_of_floats() {
        let floats = [f64::NEG_INFINITY, -3.5, -1.0, -0.01, 0.0, 1e-9, 2.0, 1e300, f64::INFINITY];
        assert!(floats.windows(2).all(|pair| sortable(pair[0]) < sortable(pair[1])));
        assert_eq!(sortable(-0.0), sortable(0.0));
    }

    #[test]
    fn a_task_fits_its_budget() {
        assert!(size_of::<Task>() <= 296, "{} bytes", size_of::<Task>());
    }
}
