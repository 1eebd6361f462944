//! What the shell may ask: nothing here changes anything.

use std::sync::Arc;

use dask_protocol::message::{ErrorInfo, WorkerStatus};
use dask_protocol::{Address, Key, Value};

use super::State;
use super::event::{ClientId, Seconds, TaskSpec};
use super::group::StateCounts;
use super::ids::WorkerId;
use super::story::StoryRow;
use super::task::{Task, TaskState};
use super::usage::Usage;
use super::worker::{MemoryState, Worker};

/// A task that raised, for display.
#[derive(Debug, Clone, PartialEq)]
pub struct ErredTask {
    /// The task.
    pub key: Key,
    /// When.
    pub timestamp: Seconds,
    /// Where.
    pub erred_on: Vec<Address>,
    /// `repr` of the exception.
    pub exception_text: Arc<str>,
    /// The traceback as text.
    pub traceback_text: Arc<str>,
}

/// A worker as the state sees it.
#[derive(Debug, Clone)]
pub struct WorkerView<'a> {
    /// Its address.
    pub address: &'a Address,
    /// Its name.
    pub name: &'a Value,
    /// Its status.
    pub status: WorkerStatus,
    /// Threads.
    pub nthreads: u32,
    /// Bytes; 0 for no limit.
    pub memory_limit: u64,
    /// Its nanny.
    pub nanny: Option<&'a Address>,
    /// Tasks it was given.
    pub processing: usize,
    /// ... of which seceded.
    pub long_running: usize,
    /// Results it holds.
    pub in_memory: usize,
    /// Bytes of these.
    pub nbytes: u64,
    /// Seconds of work it was given.
    pub occupancy: Seconds,
    /// Its memory by origin.
    pub memory: MemoryState,
    /// Resources it supplies.
    pub resources: Vec<(&'a str, f64)>,
    /// Resources its tasks have booked.
    pub used_resources: Vec<(&'a str, f64)>,
    /// Whether it counts as idle.
    pub idle: bool,
    /// Whether it counts as saturated.
    pub saturated: bool,
    /// Actors that live there, or will once their task has run.
    pub actors: usize,
    /// When it was last heard of.
    pub last_seen: Seconds,
}

/// A task as the state sees it.
#[derive(Debug, Clone)]
pub struct TaskView<'a> {
    /// Its name.
    pub key: &'a Key,
    /// Its state.
    pub state: TaskState,
    /// Its group.
    pub group: &'a Key,
    /// Its prefix.
    pub prefix: &'a str,
    /// The worker it was sent to.
    pub processing_on: Option<&'a Address>,
    /// Who holds its result.
    pub who_has: Vec<&'a Address>,
    /// Who wants it.
    pub who_wants: Vec<&'a str>,
    /// What it reads.
    pub dependencies: Vec<&'a Key>,
    /// What reads it.
    pub dependents: Vec<&'a Key>,
    /// What it waits for.
    pub waiting_on: Vec<&'a Key>,
    /// What waits for it.
    pub waiters: Vec<&'a Key>,
    /// `[-user priority, generation, order]`.
    pub priority: Option<[f64; 3]>,
    /// Retries left.
    pub retries: u32,
    /// Workers that died while it ran.
    pub suspicious: u32,
    /// Bytes of its result; -1 while unknown.
    pub nbytes: i64,
    /// The type of its result, once known.
    pub type_name: Option<&'a str>,
    /// Whether its result is an actor.
    pub actor: bool,
    /// What workers attached to it.
    pub metadata: Option<&'a Value>,
    /// What the user annotated; a map.
    pub annotations: &'a Value,
    /// The task whose exception it carries (`exception_blame`).
    pub exception_blame: Option<&'a Key>,
    /// Where it raised.
    pub erred_on: &'a [Address],
    /// Whether something it reads was forgotten, so that it can never run again.
    pub has_lost_dependencies: bool,
    /// Whether it left its worker's thread pool.
    pub long_running: bool,
}

/// A prefix as the state sees it.
#[derive(Debug, Clone)]
pub struct PrefixView<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its tasks per state.
    pub states: &'a StateCounts,
    /// How often its tasks reached each state, in the order of [`TaskState::ALL`].
    pub reached: &'a [u64; TaskState::ALL.len()],
    /// Bytes of its results that are on some worker, each counted once.
    pub nbytes: u64,
    /// Average seconds of computing, once known.
    pub duration_average: Option<Seconds>,
    /// Unexpected losses of workers while its tasks ran.
    pub suspicious: u64,
    /// Seconds spent per action (`compute`, `transfer`, ...).
    pub all_durations: &'a [(Box<str>, Seconds)],
}

impl State {
    /// A task's state; none if it is unknown.
    pub fn task_state(&self, key: &Key) -> Option<TaskState> {
        self.tasks.id(key).map(|id| self.tasks[id].state)
    }

    /// Everything about a task.
    pub fn task(&self, key: &Key) -> Option<TaskView<'_>> {
        self.tasks.id(key).map(|id| self.view_task(&self.tasks[id]))
    }

    /// All tasks.
    pub fn tasks(&self) -> impl Iterator<Item = TaskView<'_>> {
        self.tasks.iter().map(|(_, task)| self.view_task(task))
    }

    fn view_task<'a>(&'a self, task: &'a Task) -> TaskView<'a> {
        let keys = |ids: &'a super::ids::IdSet<super::ids::TaskId>| ids.iter().map(|id| &self.tasks[id].key).collect();
        let number = usize::try_from(task.type_number).ok().and_then(|number| number.checked_sub(1));
        TaskView {
            key: &task.key,
            state: task.state,
            group: &self.groups.group(task.group).name,
            prefix: &self.groups.prefix(task.prefix).name,
            processing_on: task.processing_on.map(|id| &self.workers[id].address),
            who_has: task.who_has.iter().map(|id| &self.workers[id].address).collect(),
            who_wants: task.who_wants.iter().filter_map(|slot| Some(&*self.clients.get(slot)?.id)).collect(),
            dependencies: keys(&task.dependencies),
            dependents: keys(&task.dependents),
            waiting_on: keys(&task.waiting_on),
            waiters: keys(&task.waiters),
            priority: task.priority.get(),
            retries: task.retries,
            suspicious: task.suspicious,
            nbytes: task.nbytes,
            type_name: number.and_then(|number| self.type_names.get_index(number)).map(|name| &**name),
            actor: task.actor,
            metadata: task.metadata(),
            annotations: &task.annotations.echoed,
            exception_blame: task.failure.as_ref().map(|failure| &failure.cause),
            erred_on: task.erred_on(),
            has_lost_dependencies: task.has_lost_dependencies,
            long_running: task.long_running,
        }
    }

    /// How many tasks are known.
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// Tasks per state.
    pub fn state_counts(&self) -> StateCounts {
        let mut counts = StateCounts::default();
        for (_, prefix) in &self.groups.prefixes {
            for (total, count) in counts.0.iter_mut().zip(prefix.states.0) {
                *total += count;
            }
        }
        counts
    }

    /// Holders of a key; none if it is unknown or nowhere.
    pub fn who_has(&self, key: &Key) -> Vec<Address> {
        let Some(id) = self.tasks.id(key) else {
            return Vec::new();
        };
        self.tasks[id].who_has.iter().map(|holder| self.workers[holder].address.clone()).collect()
    }

    /// Holders of every key in memory.
    pub fn all_who_has(&self) -> impl Iterator<Item = (&Key, Vec<Address>)> {
        self.tasks.iter().map(|(_, task)| {
            (&task.key, task.who_has.iter().map(|holder| self.workers[holder].address.clone()).collect())
        })
    }

    /// Keys a worker holds; none if it is unknown.
    pub fn has_what(&self, worker: &Address) -> Vec<Key> {
        let Some(id) = self.workers.id(worker) else {
            return Vec::new();
        };
        self.workers[id].has_what.iter().map(|task| self.tasks[*task].key.clone()).collect()
    }

    /// Keys a worker was given to compute; none if it is unknown.
    pub fn processing(&self, worker: &Address) -> Vec<Key> {
        let Some(id) = self.workers.id(worker) else {
            return Vec::new();
        };
        self.workers[id].processing.iter().map(|task| self.tasks[task].key.clone()).collect()
    }

    /// Bytes of a key's result, with the default where they are unknown; none if the key is.
    pub fn nbytes_of(&self, key: &Key) -> Option<u64> {
        self.tasks.id(key).map(|id| self.nbytes(id))
    }

    /// One registered worker.
    pub fn worker(&self, address: &Address) -> Option<WorkerView<'_>> {
        self.workers.id(address).map(|id| self.view_worker(id, &self.workers[id]))
    }

    /// The address of the worker with this name, as text.
    pub fn worker_named(&self, name: &str) -> Option<&Address> {
        self.workers.by_name(name).map(|id| &self.workers[id].address)
    }

    /// Registered workers in order of registration.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView<'_>> {
        self.workers.iter().map(|(id, worker)| self.view_worker(id, worker))
    }

    /// How many workers are registered.
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// Running workers in order of address.
    pub fn running_workers(&self) -> impl Iterator<Item = &Address> {
        self.idle.running.ids().map(|id| &self.workers[id].address)
    }

    fn view_worker<'a>(&'a self, id: WorkerId, worker: &'a Worker) -> WorkerView<'a> {
        let amounts = |resources: &'a super::ids::FastMap<String, f64>| {
            resources.iter().map(|(name, amount)| (name.as_str(), *amount)).collect()
        };
        WorkerView {
            address: &worker.address,
            name: &worker.name,
            status: worker.status,
            nthreads: worker.nthreads,
            memory_limit: worker.memory_limit,
            nanny: worker.nanny.as_ref(),
            processing: worker.processing.len(),
            long_running: worker.long_running.len(),
            in_memory: worker.has_what.len(),
            nbytes: u64::try_from(worker.nbytes).unwrap_or(u64::MAX),
            occupancy: self.occupancy(worker),
            memory: worker.memory_state(),
            resources: amounts(&worker.resources),
            used_resources: amounts(&worker.used_resources),
            idle: self.idle.idle.contains(&self.workers, id),
            saturated: self.saturated.contains(&id),
            actors: worker.actors.len(),
            last_seen: worker.last_seen,
        }
    }

    /// Ids of all clients, pseudo clients too.
    pub fn clients(&self) -> impl Iterator<Item = &ClientId> {
        self.clients.iter().map(|(_, client)| &client.id)
    }

    /// Keys a client wants; none if it is unknown.
    pub fn wants_what(&self, client: &str) -> Vec<Key> {
        let client = self.clients.slot(client).and_then(|slot| self.clients.get(slot));
        client.map_or_else(Vec::new, |client| client.wants_what.iter().map(|id| self.tasks[*id].key.clone()).collect())
    }

    /// Threads of all workers.
    pub fn total_nthreads(&self) -> u64 {
        self.total_nthreads
    }

    /// Memory limits of all workers, in bytes.
    pub fn total_memory(&self) -> u64 {
        self.total_memory
    }

    /// Seconds of work given to all workers.
    pub fn total_occupancy(&self) -> Seconds {
        self.total_occupancy_seconds()
    }

    /// Bytes per second between workers.
    pub fn bandwidth(&self) -> f64 {
        self.bandwidth
    }

    /// Keys that no worker may run, and since when.
    pub fn unrunnable(&self) -> impl Iterator<Item = (&Key, Seconds)> {
        self.unrunnable.iter().map(|id| {
            let task = &self.tasks[*id];
            (&task.key, f64::from_bits(task.queue_number))
        })
    }

    /// How many tasks are queued.
    pub fn queued_count(&self) -> usize {
        self.queue.len()
    }

    /// Since when there has been nothing to do; none while there is.
    pub fn idle_since(&self) -> Option<Seconds> {
        self.idle_since
    }

    /// How many transitions are kept, and how many of other things for developers (`admin.low-level-log-length`).
    pub fn transition_log_length(&self) -> usize {
        self.config.transition_log_length
    }

    /// Transitions so far.
    pub fn transition_counter(&self) -> u64 {
        self.transition_counter
    }

    /// Transitions that touch one of these keys or stimulus ids, of the latest ones kept.
    pub fn story(&self, keys_or_stimuli: &[Value]) -> Vec<StoryRow> {
        self.story.about(keys_or_stimuli)
    }

    /// The latest transitions, oldest first.
    pub fn transition_log(&self) -> impl Iterator<Item = &StoryRow> {
        self.story.rows()
    }

    /// A task's specification.
    pub fn run_spec(&self, key: &Key) -> Option<&TaskSpec> {
        self.tasks.id(key).and_then(|id| self.tasks[id].spec.as_ref())
    }

    /// Why a key is erred: the key that raised, and what.
    pub fn error(&self, key: &Key) -> Option<(&Key, &ErrorInfo)> {
        let failure = self.tasks[self.tasks.id(key)?].failure.as_ref()?;
        Some((&failure.cause, &failure.error))
    }

    /// Of these keys the first that raised itself, or depends on one that did: the key that raised
    /// (`get_error_cause`).
    pub fn error_cause(&self, keys: &[Key]) -> Option<&Key> {
        keys.iter().find_map(|key| Some(self.error(key)?.0))
    }

    /// The latest erred tasks, newest first.
    pub fn erred_tasks(&self) -> impl Iterator<Item = &ErredTask> {
        self.erred_tasks.iter()
    }

    /// All prefixes.
    pub fn prefixes(&self) -> impl Iterator<Item = PrefixView<'_>> {
        self.groups.prefixes.iter().map(|(_, prefix)| PrefixView {
            name: &prefix.name,
            states: &prefix.states,
            reached: &prefix.reached,
            nbytes: u64::try_from(prefix.nbytes).unwrap_or(u64::MAX),
            duration_average: (prefix.duration_average >= 0.0).then_some(prefix.duration_average),
            suspicious: prefix.suspicious,
            all_durations: &prefix.all_durations,
        })
    }

    /// What the tasks of each client cost so far. Clients that are no longer told apart are one, `others`, once there are
    /// any.
    pub fn usages(&self) -> impl Iterator<Item = (&str, &Usage)> {
        let others = Some(("others", self.usages.others())).filter(|(_, usage)| **usage != Usage::default());
        self.usages.iter().map(|(client, usage)| (&**client, usage)).chain(others)
    }

    /// All groups: name, prefix, tasks per state.
    pub fn groups(&self) -> impl Iterator<Item = (&Key, &str, &StateCounts)> {
        self.groups
            .groups
            .iter()
            .map(|(_, group)| (&group.name, self.groups.prefix(group.prefix).name.as_str(), &group.states))
    }

    /// The span of a task: its tags, outermost first, and its id.
    pub fn span_of(&self, key: &Key) -> Option<(Vec<String>, String)> {
        let id = self.groups.group(self.tasks[self.tasks.id(key)?].group).span_id.as_ref()?;
        Some((self.groups.spans.name(id).unwrap_or_default().to_vec(), id.clone()))
    }

    /// Whether the active memory manager runs periodically.
    pub fn active_memory_manager_is_running(&self) -> bool {
        self.timers.amm_running
    }

    /// Whether the restrictions of a task let it run on a worker; also false if either is unknown.
    pub fn can_run_on(&self, key: &Key, worker: &Address) -> bool {
        match (self.tasks.id(key), self.workers.id(worker)) {
            (Some(task), Some(worker)) => self.is_valid_worker(task, worker),
            (None, _) | (_, None) => false,
        }
    }
}
