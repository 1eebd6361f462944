//! Policies of one's own for the active memory manager (`ActiveMemoryManagerPolicy`).

use std::fmt::Debug;

use dask_protocol::{Address, Key};

use super::super::State;
use super::super::ids::{TaskId, WorkerId};
use super::Round;

/// Decides which results should have more or fewer copies. Runs in every round of the active memory manager, every
/// `active-memory-manager.interval` seconds, in the scheduler's driver: it has to be quick.
///
/// Suggestions never endanger data: the last copy is never dropped, nor one that a task there is about to use; actors
/// stay where they are; copies go only to running workers. What is suggested is resolved at once, so a policy can see
/// what earlier ones, and it itself, have achieved.
///
/// ```
/// use dask_scheduler::state::{MemoryManager, MemoryPolicy, TaskState};
///
/// /// Keeps a second copy of everything a client wants.
/// #[derive(Debug)]
/// struct KeepTwo;
///
/// impl MemoryPolicy for KeepTwo {
///     fn name(&self) -> &str {
///         "KeepTwo"
///     }
///
///     fn run(&mut self, manager: &mut MemoryManager<'_>) {
///         let tasks = manager.state().tasks();
///         let wanted = tasks.filter(|task| task.state == TaskState::Memory && !task.who_wants.is_empty());
///         let single: Vec<_> = wanted.filter(|task| task.who_has.len() == 1).map(|task| task.key.clone()).collect();
///         for key in single {
///             manager.replicate(&key, None);
///         }
///     }
/// }
/// ```
pub trait MemoryPolicy: Debug + Send {
    /// Its name, for logs.
    fn name(&self) -> &str;

    /// Makes suggestions for one round.
    fn run(&mut self, manager: &mut MemoryManager<'_>);
}

/// One round of the active memory manager, as its policies see it.
#[derive(Debug)]
pub struct MemoryManager<'a> {
    state: &'a State,
    round: &'a mut Round,
}

impl<'a> MemoryManager<'a> {
    pub(super) fn new(state: &'a State, round: &'a mut Round) -> MemoryManager<'a> {
        MemoryManager { state, round }
    }

    /// The scheduler's state, without the suggestions of this round.
    pub fn state(&self) -> &'a State {
        self.state
    }

    /// Results with at least two copies.
    pub fn replicated(&self) -> impl Iterator<Item = &'a Key> {
        self.state.replicated_tasks.iter().map(|id| &self.state.tasks[*id].key)
    }

    /// Bytes that a worker will use once everything suggested so far is done; 0 for an unknown one.
    pub fn memory(&self, worker: &Address) -> u64 {
        self.state.workers.id(worker).and_then(|id| self.round.memory.get(&id)).copied().unwrap_or(0)
    }

    /// Copies of a result once everything suggested so far is done.
    pub fn copies(&self, key: &Key) -> usize {
        let Some(id) = self.state.tasks.id(key) else {
            return 0;
        };
        let (more, fewer) = self.round.pending(id).map_or((0, 0), |p| (p.replicate.len(), p.drop.len()));
        (self.state.tasks[id].who_has.len() + more).saturating_sub(fewer)
    }

    /// Suggests one more copy, on any running worker or one of `candidates`. The worker chosen: the one with least
    /// memory in use; none if there is no fitting one, or nothing to copy.
    pub fn replicate(&mut self, key: &Key, candidates: Option<&[Address]>) -> Option<Address> {
        let (id, only) = self.resolve(key, candidates)?;
        let chosen = self.state.suggest_replicate(id, only.as_deref(), self.round)?;
        Some(self.state.workers[chosen].address.clone())
    }

    /// Suggests one copy less, on any worker or one of `candidates`. The worker chosen: one that pauses or leaves, else
    /// the one with most memory in use; none if every copy is needed.
    pub fn drop_replica(&mut self, key: &Key, candidates: Option<&[Address]>) -> Option<Address> {
        let (id, only) = self.resolve(key, candidates)?;
        let chosen = self.state.suggest_drop(id, only.as_deref(), self.round)?;
        Some(self.state.workers[chosen].address.clone())
    }

    fn resolve(&self, key: &Key, candidates: Option<&[Address]>) -> Option<(TaskId, Option<Vec<WorkerId>>)> {
        let workers = |some: &[Address]| some.iter().filter_map(|address| self.state.workers.id(address)).collect();
        Some((self.state.tasks.id(key)?, candidates.map(workers)))
    }
}

impl State {
    /// Adds a policy, run in every round after those there are (`ActiveMemoryManagerExtension.add_policy`).
    pub fn add_memory_policy(&mut self, policy: Box<dyn MemoryPolicy>) {
        self.memory_policies.push(policy);
    }

    pub(super) fn run_memory_policies(&mut self, round: &mut Round) {
        let mut policies = std::mem::take(&mut self.memory_policies);
        for policy in &mut policies {
            policy.run(&mut MemoryManager::new(self, round));
        }
        self.memory_policies = policies;
    }
}
