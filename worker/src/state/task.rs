//! A task as this worker sees it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use dask_protocol::message::{ErrorInfo, Priority, Resources, RunId, ShortText, StartStop};
use dask_protocol::slots::{Keyed, KeyedSlots, Slot};
use dask_protocol::{Address, Key, Payload, Value};
use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

/// A slot of the task table; valid until the task is forgotten, and never outside this module tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TaskId(u32);

impl Slot for TaskId {
    fn from_index(index: usize) -> TaskId {
        TaskId(u32::try_from(index).expect("fewer than 2^32 slots are ever in use"))
    }

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// All tasks, by slot and by name.
pub(crate) type Tasks = KeyedSlots<TaskId, Task>;

impl Keyed for Task {
    fn key(&self) -> &Key {
        &self.key
    }
}

pub(crate) type TaskIds = IndexSet<TaskId, FxBuildHasher>;

/// A set of tasks that most tasks have empty: one word then. There may be millions of tasks.
#[derive(Debug, Default)]
pub(crate) struct FewTaskIds(Option<Box<TaskIds>>);

static NO_TASK_IDS: TaskIds = TaskIds::with_hasher(FxBuildHasher);

impl FewTaskIds {
    /// Removes an id without keeping the order; false if it was not there.
    pub fn swap_remove(&mut self, id: &TaskId) -> bool {
        self.0.as_mut().is_some_and(|ids| ids.swap_remove(id))
    }
}

impl Deref for FewTaskIds {
    type Target = TaskIds;
    fn deref(&self) -> &TaskIds {
        self.0.as_deref().unwrap_or(&NO_TASK_IDS)
    }
}

impl DerefMut for FewTaskIds {
    fn deref_mut(&mut self) -> &mut TaskIds {
        self.0.get_or_insert_default()
    }
}

impl<'a> IntoIterator for &'a FewTaskIds {
    type Item = &'a TaskId;
    type IntoIter = indexmap::set::Iter<'a, TaskId>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for FewTaskIds {
    type Item = TaskId;
    type IntoIter = indexmap::set::IntoIter<TaskId>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.map(|ids| *ids).unwrap_or_default().into_iter()
    }
}

/// Bytes assumed for a value of unknown size (`distributed.scheduler.default-data-size`).
pub(crate) const UNKNOWN_NBYTES: u64 = 1024;

/// What went on when a task was released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Previous {
    /// It ran in a slot.
    Executing,
    /// It ran outside the slots.
    LongRunning,
    /// It was being fetched.
    Flight,
}

/// Where a task stands, by dask's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Known because a dependent is, or about to move.
    Released,
    /// To be computed here; some inputs are not here yet.
    Waiting,
    /// Runnable.
    Ready,
    /// Runnable once its resources are free.
    Constrained,
    /// Running.
    Executing,
    /// Running, and seceded from its slot.
    LongRunning,
    /// Its value is here.
    Memory,
    /// It failed here.
    Error,
    /// To be fetched.
    Fetch,
    /// Being fetched.
    Flight,
    /// To be fetched, from a holder yet unknown.
    Missing,
    /// Released while that went on; its outcome will be dropped.
    Cancelled(Previous),
    /// Cancelled, then wanted the other way: a running task as an input (next is fetch), a fetched one as a
    /// computation (next is waiting).
    Resumed(Previous),
}

/// How many different names [`TaskState::name`] has.
pub(crate) const STATE_NAMES: usize = 13;

impl TaskState {
    /// Dask's name.
    pub fn name(self) -> &'static str {
        match self {
            TaskState::Released => "released",
            TaskState::Waiting => "waiting",
            TaskState::Ready => "ready",
            TaskState::Constrained => "constrained",
            TaskState::Executing => "executing",
            TaskState::LongRunning => "long-running",
            TaskState::Memory => "memory",
            TaskState::Error => "error",
            TaskState::Fetch => "fetch",
            TaskState::Flight => "flight",
            TaskState::Missing => "missing",
            TaskState::Cancelled(_) => "cancelled",
            TaskState::Resumed(_) => "resumed",
        }
    }

    /// Whether it is to be computed here, and the scheduler waits for the outcome.
    pub(crate) fn is_unreported(self) -> bool {
        match self {
            TaskState::Waiting
            | TaskState::Ready
            | TaskState::Constrained
            | TaskState::Executing
            | TaskState::LongRunning
            | TaskState::Resumed(Previous::Flight) => true,
            TaskState::Released
            | TaskState::Memory
            | TaskState::Error
            | TaskState::Fetch
            | TaskState::Flight
            | TaskState::Missing
            | TaskState::Cancelled(_)
            | TaskState::Resumed(Previous::Executing | Previous::LongRunning) => false,
        }
    }

    pub(crate) fn index(self) -> usize {
        match self {
            TaskState::Released => 0,
            TaskState::Waiting => 1,
            TaskState::Ready => 2,
            TaskState::Constrained => 3,
            TaskState::Executing => 4,
            TaskState::LongRunning => 5,
            TaskState::Memory => 6,
            TaskState::Error => 7,
            TaskState::Fetch => 8,
            TaskState::Flight => 9,
            TaskState::Missing => 10,
            TaskState::Cancelled(_) => 11,
            TaskState::Resumed(_) => 12,
        }
    }

    pub(crate) fn from_index(index: usize) -> &'static str {
        const NAMES: [&str; STATE_NAMES] = [
            "released",
            "waiting",
            "ready",
            "constrained",
            "executing",
            "long-running",
            "memory",
            "error",
            "fetch",
            "flight",
            "missing",
            "cancelled",
            "resumed",
        ];
        NAMES[index]
    }

    /// Whether an execution of it is outstanding.
    pub(crate) fn is_running(self) -> bool {
        match self {
            TaskState::Executing | TaskState::LongRunning => true,
            TaskState::Cancelled(previous) | TaskState::Resumed(previous) => previous != Previous::Flight,
            TaskState::Released
            | TaskState::Waiting
            | TaskState::Ready
            | TaskState::Constrained
            | TaskState::Memory
            | TaskState::Error
            | TaskState::Fetch
            | TaskState::Flight
            | TaskState::Missing => false,
        }
    }

    /// Whether a transfer of it is outstanding.
    pub(crate) fn is_in_flight(self) -> bool {
        matches!(
            self,
            TaskState::Flight | TaskState::Cancelled(Previous::Flight) | TaskState::Resumed(Previous::Flight)
        )
    }
}

/// What `task-finished` tells of a result, kept in case it has to be told again; one for all results in a row that are
/// alike.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ResultInfo {
    pub typename: ShortText,
    pub type_pickle: Option<Bytes>,
    pub metadata: Value,
}

/// What to run, from `compute-task`.
#[derive(Debug, Clone)]
pub(crate) struct Computation {
    pub spec: Payload,
    pub annotations: Value,
    pub span_id: Option<String>,
    pub actor: bool,
    pub resources: Resources,
}

#[derive(Debug)]
pub(crate) struct Task {
    pub key: Key,
    pub state: TaskState,
    /// The latest `compute-task`'s.
    pub run_id: RunId,
    /// The outstanding execution's; set exactly while [`TaskState::is_running`].
    pub execution: Option<RunId>,
    pub computation: Option<Arc<Computation>>,
    pub priority: Priority,
    pub dependencies: FewTaskIds,
    pub dependents: FewTaskIds,
    /// The dependencies not in memory, while waiting.
    pub waiting_for_data: FewTaskIds,
    /// How many tasks have this one in `waiting_for_data`.
    pub waiters: u32,
    /// Known holders of the value, never ourselves.
    pub who_has: SmallVec<[Address; 2]>,
    /// Size of the value, where known.
    pub nbytes: Option<u64>,
    /// The peer of the outstanding transfer; set exactly while [`TaskState::is_in_flight`].
    pub coming_from: Option<Address>,
    pub error: Option<Box<ErrorInfo>>,
    pub result: Option<Arc<ResultInfo>>,
    /// Until the scheduler is told.
    pub startstops: Vec<StartStop>,
}

impl Task {
    pub fn new(key: Key, priority: Priority) -> Task {
        Task {
            key,
            state: TaskState::Released,
            run_id: 0,
            execution: None,
            computation: None,
            priority,
            dependencies: FewTaskIds::default(),
            dependents: FewTaskIds::default(),
            waiting_for_data: FewTaskIds::default(),
            waiters: 0,
            who_has: SmallVec::new(),
            nbytes: None,
            coming_from: None,
            error: None,
            result: None,
            startstops: Vec::new(),
        }
    }

    /// The size to reckon with.
    pub fn size(&self) -> u64 {
        self.nbytes.unwrap_or(UNKNOWN_NBYTES)
    }
}

/// A peer's size field: negative means unknown.
pub(crate) fn known_size(nbytes: i64) -> Option<u64> {
    u64::try_from(nbytes).ok()
}
