//! Recomputes every derived fact and compares (`validate_state`). On in all tests, in simulation, and with
//! `distributed.scheduler.validate`.

use super::State;
use super::event::Runtime;
use super::group::{StateCounts, nanoseconds};
use super::ids::{FastMap, FastSet, GroupId, PrefixId, TaskId, WorkerId};
use super::task::{Task, TaskState};

impl State {
    /// Asserts all invariants; the message names the one that broke.
    ///
    /// # Panics
    /// When the state contradicts itself.
    pub fn check(&self) {
        assert!(self.recommendations.is_empty(), "recommendations are followed before an event is done with");
        assert!(self.out.is_empty(), "actions are handed out with the event");
        for (id, task) in self.tasks.iter() {
            self.check_task(id, task);
        }
        for id in self.workers.ids() {
            self.check_worker(id);
        }
        self.check_clients();
        self.check_sets();
        self.check_counts();
        self.check_prefix_bytes();
        self.check_totals();
    }

    fn check_task(&self, id: TaskId, task: &Task) {
        let key = &task.key;
        assert!(task.recommended.is_none(), "{key}: nothing is recommended between events");
        assert_eq!(task.graph_position, 0, "{key}: no graph is being taken in between events");
        for dep in task.dependencies.iter() {
            assert!(self.tasks[dep].dependents.contains(id), "{key}: a dependency knows its dependents");
        }
        for dependent in task.dependents.iter() {
            assert!(self.tasks[dependent].dependencies.contains(id), "{key}: a dependent knows its dependencies");
        }
        for dep in task.waiting_on.iter() {
            assert!(task.dependencies.contains(dep), "{key}: waits only for dependencies");
            assert!(self.tasks[dep].who_has.is_empty(), "{key}: waits only for what is not in memory");
            assert!(self.tasks[dep].waiters.contains(id), "{key}: is a waiter of what it waits for");
        }
        for waiter in task.waiters.iter() {
            assert!(task.dependents.contains(waiter), "{key}: only dependents are waiters");
            let state = self.tasks[waiter].state;
            let active = [TaskState::Waiting, TaskState::Processing, TaskState::Queued, TaskState::NoWorker];
            assert!(active.contains(&state), "{key}: waiter {} is {}", self.tasks[waiter].key, state.name());
        }
        for slot in task.who_wants.iter() {
            let client = self.clients.get(slot).expect("a wanter is a known client");
            assert!(client.wants_what.contains(&id), "{key}: a client that wants a task knows it");
        }
        for holder in task.who_has.iter() {
            assert!(self.workers.is_registered(holder), "{key}: holders are registered");
            assert!(self.workers[holder].has_what.contains(&id), "{key}: a holder knows what it has");
        }
        self.check_task_state(id, task);
    }

    fn check_task_state(&self, id: TaskId, task: &Task) {
        let (key, state) = (&task.key, task.state);
        assert_eq!(task.processing_on.is_some(), state == TaskState::Processing, "{key}: on a worker iff processing");
        assert_eq!(task.who_has.is_empty(), state != TaskState::Memory, "{key}: has holders iff in memory");
        assert_eq!(task.failure.is_some(), state == TaskState::Erred, "{key}: has a failure iff erred");
        assert_eq!(self.unrunnable.contains(&id), state == TaskState::NoWorker, "{key}: unrunnable iff no-worker");
        assert!(task.waiting_on.is_empty() || state == TaskState::Waiting, "{key}: waits for something iff waiting");
        assert!(!task.long_running || state == TaskState::Processing, "{key}: long-running only while processing");
        match state {
            TaskState::Released => assert!(task.waiters.is_empty(), "{key}: nobody waits for what is released"),
            TaskState::Waiting => {
                assert!(!task.waiting_on.is_empty(), "{key}: a waiting task waits for something");
                assert!(!task.is_unneeded(), "{key}: a waiting task is needed");
            }
            TaskState::NoWorker | TaskState::Queued | TaskState::Processing => {
                assert!(task.spec.is_some(), "{key}: what is computed has a spec");
                assert!(!task.is_unneeded(), "{key}: a ready task is needed");
                for dep in task.dependencies.iter() {
                    assert!(!self.tasks[dep].who_has.is_empty(), "{key}: dependencies of a ready task are in memory");
                    assert!(self.tasks[dep].waiters.contains(id), "{key}: is a waiter of its dependencies");
                }
                if let Some(worker) = task.processing_on {
                    assert!(self.workers.is_registered(worker), "{key}: processing on a registered worker");
                    assert!(self.workers[worker].processing.contains(id), "{key}: its worker knows it");
                }
            }
            TaskState::Memory => {
                assert_eq!(
                    self.replicated_tasks.contains(&id),
                    task.who_has.len() > 1,
                    "{key}: replicated iff there are several copies"
                );
            }
            TaskState::Erred => assert!(task.waiters.is_empty(), "{key}: nobody waits for what is erred"),
            TaskState::Forgotten => panic!("{key}: forgotten tasks are gone"),
        }
    }

    fn check_worker(&self, id: WorkerId) {
        let worker = &self.workers[id];
        let address = &worker.address;
        assert_eq!(self.running.contains(&id), worker.is_running(), "{address}: in `running` iff running");
        assert_eq!(worker.runs, worker.is_running(), "{address}: knows whether it is in `running`");
        assert_eq!(worker.is_saturated, self.saturated.contains(&id), "{address}: knows whether it is in `saturated`");
        assert_eq!(self.idle.running.contains(&self.workers, id), worker.is_running(), "{address}: ranked iff running");
        let listed = self.idle.idle.contains(&self.workers, id);
        assert_eq!(worker.is_idle, listed, "{address}: knows whether it is listed as idle");
        assert!(
            worker.is_running() || !self.idle.idle.contains(&self.workers, id),
            "{address}: idle only while running"
        );
        assert!(
            !(self.saturated.contains(&id) && self.idle.idle.contains(&self.workers, id)),
            "{address}: not idle and saturated at once"
        );
        let held: u128 = worker.has_what.iter().map(|task| u128::from(self.nbytes(*task))).sum();
        assert_eq!(worker.nbytes, held, "{address}: bytes held are the sum over what it has");
        for task in &worker.has_what {
            assert!(self.tasks[*task].who_has.contains(id), "{address}: holds what says so");
        }
        let mut counts = FastMap::<PrefixId, u32>::default();
        for task in worker.processing.iter() {
            assert_eq!(self.tasks[task].processing_on, Some(id), "{address}: processes what says so");
            let long_running = self.tasks[task].long_running;
            assert_eq!(worker.long_running.contains(&task), long_running, "{address}: knows what seceded");
            if !long_running {
                *counts.entry(self.tasks[task].prefix).or_insert(0) += 1;
            }
        }
        let counted: FastMap<PrefixId, u32> = worker.prefix_count.iter().copied().collect();
        assert_eq!(counted, counts, "{address}: tasks per prefix are counted");
        let needs: u128 = worker.needs_what.values().map(|need| u128::from(need.nbytes)).sum();
        assert_eq!(worker.network_occupancy, needs, "{address}: network occupancy is the sum of needs");
        for actor in &worker.actors {
            assert!(self.tasks[*actor].actor, "{address}: only actors are listed as such");
        }
        let counts = self.queuing() && worker.is_running();
        let free = counts && worker.task_slots(self.config.worker_saturation) > 0;
        let may_be_free = free || counts && self.may_be_ahead(worker);
        assert!(!free || worker.slot_ratio.is_some(), "{address}: indexed if it has free slots");
        assert!(may_be_free || worker.slot_ratio.is_none(), "{address}: not indexed if it has none");
    }

    fn check_clients(&self) {
        for (slot, client) in self.clients.iter() {
            for task in &client.wants_what {
                assert!(self.tasks[*task].who_wants.contains(slot), "{}: is known to what it wants", client.id);
            }
        }
        assert!(self.clients.get(self.fire_and_forget).is_some(), "fire-and-forget always exists");
    }

    fn check_kept(&self) {
        let kept = &self.queue.kept;
        kept.check();
        for id in kept.iter() {
            let (task, keeper) = (&self.tasks[id], kept.keeper(id).expect("what is kept has a keeper"));
            assert!(self.running.contains(&keeper), "{}: kept for a worker that runs", task.key);
            let capable = self.workers[keeper].runtimes[task.runtime.number()];
            assert!(capable, "{}: kept for a worker that can run it", task.key);
        }
    }

    fn check_sets(&self) {
        let queued: FastSet<TaskId> = self.queue.iter().collect();
        assert_eq!(queued.len(), self.queue.len(), "no task is queued twice");
        self.check_kept();
        for (id, task) in self.tasks.iter() {
            assert_eq!(queued.contains(&id), task.state == TaskState::Queued, "{}: in the queue iff queued", task.key);
        }
        for id in self.replicated_tasks.iter().chain(&self.unrunnable) {
            assert!(self.tasks.get(*id).is_some(), "sets hold known tasks only");
        }
        for id in self.stealing.in_flight() {
            assert_eq!(self.tasks[id].state, TaskState::Processing, "only processing tasks are being stolen");
        }
        for runtime in Runtime::ALL {
            let index = &self.idle.with_slots[runtime.number()];
            let free = self.workers.iter().filter(|(_, worker)| worker.runtimes[runtime.number()]);
            let free = free.filter_map(|(id, worker)| Some((worker.slot_ratio?, id)));
            assert!(free.eq(index.iter().copied()) || index.len() == self.indexed(runtime), "slots are indexed");
            let capable = self.running.iter().filter(|id| self.workers[**id].runtimes[runtime.number()]).count();
            assert_eq!(self.idle.capable[runtime.number()], capable, "runtimes of running workers are counted");
        }
    }

    fn indexed(&self, runtime: Runtime) -> usize {
        let workers = self.workers.iter();
        workers.filter(|(_, worker)| worker.slot_ratio.is_some() && worker.runtimes[runtime.number()]).count()
    }

    /// Bytes per prefix are those of its tasks that are somewhere.
    fn check_prefix_bytes(&self) {
        let mut held = FastMap::<PrefixId, u128>::default();
        for (id, task) in self.tasks.iter().filter(|(_, task)| !task.who_has.is_empty()) {
            *held.entry(task.prefix).or_insert(0) += u128::from(self.nbytes(id));
        }
        for (index, prefix) in &self.groups.prefixes {
            let held = held.get(&PrefixId::from_index(index)).copied().unwrap_or(0);
            assert_eq!(prefix.nbytes, held, "{}: bytes are those of its results", prefix.name);
        }
    }

    fn check_counts(&self) {
        let mut groups = FastMap::<GroupId, StateCounts>::default();
        for (_, task) in self.tasks.iter() {
            groups.entry(task.group).or_default().add(task.state);
        }
        let mut prefixes = FastMap::<PrefixId, StateCounts>::default();
        for (index, group) in &self.groups.groups {
            let mut expected = groups.swap_remove(&GroupId::from_index(index)).unwrap_or_default();
            expected.0[TaskState::Forgotten as usize] = group.states.get(TaskState::Forgotten) as u32;
            assert_eq!(group.states, expected, "tasks of group {} are counted per state", group.name);
            let total = prefixes.entry(group.prefix).or_default();
            for (sum, count) in total.0.iter_mut().zip(expected.0) {
                *sum += count;
            }
        }
        assert!(groups.is_empty(), "every task belongs to a known group");
        for (index, prefix) in &self.groups.prefixes {
            let expected = prefixes.swap_remove(&PrefixId::from_index(index)).unwrap_or_default();
            assert_eq!(prefix.states, expected, "tasks of prefix {} are counted per state", prefix.name);
        }
    }

    fn check_totals(&self) {
        let mut processing = FastMap::<PrefixId, u64>::default();
        for (_, worker) in self.workers.iter() {
            for (prefix, count) in &worker.prefix_count {
                *processing.entry(*prefix).or_insert(0) += u64::from(*count);
            }
        }
        let mut total: u128 = 0;
        for (index, prefix) in &self.groups.prefixes {
            let count = processing.get(&PrefixId::from_index(index)).copied().unwrap_or(0);
            assert_eq!(prefix.processing, count, "processing tasks of prefix {} are counted", prefix.name);
            let estimate = nanoseconds(prefix.estimate(self.config.unknown_task_duration));
            assert_eq!(prefix.estimate_ns, estimate, "the estimate of prefix {} is current", prefix.name);
            total += u128::from(count) * u128::from(estimate);
        }
        assert_eq!(self.total_compute_ns, total, "total occupancy is the sum over prefixes");
        let mut outgoing = FastMap::<WorkerId, u128>::default();
        for need in self.workers.iter().flat_map(|(_, worker)| worker.needs_what.values()) {
            if let Some(sender) = need.sender {
                *outgoing.entry(sender).or_insert(0) += u128::from(need.nbytes);
            }
        }
        for (id, worker) in self.workers.iter() {
            let fetched = outgoing.get(&id).copied().unwrap_or(0);
            assert_eq!(worker.outgoing, fetched, "{}: sends what others are to fetch from it", worker.address);
        }
        let network: u128 = self.workers.iter().map(|(_, worker)| worker.network_occupancy).sum();
        assert_eq!(self.total_network_occupancy, network, "total network occupancy is the sum over workers");
        let threads: u64 = self.workers.iter().map(|(_, worker)| u64::from(worker.nthreads)).sum();
        assert_eq!(self.total_nthreads, threads, "total threads are the sum over workers");
        let all: usize = self.workers.iter().map(|(_, worker)| worker.processing.len()).sum();
        assert_eq!(self.total_processing, all, "processing tasks are counted");
    }
}
