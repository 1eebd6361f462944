//! Invariants: every derived fact is recomputed and compared.

use std::collections::BTreeSet;

use dask_protocol::message::Priority;

use super::State;
use super::task::{Previous, STATE_NAMES, Task, TaskId, TaskState};

impl State {
    /// Recomputes every derived fact.
    ///
    /// # Panics
    /// With the invariant's text and the task's story, when one does not hold: always a fault of ours.
    pub fn check(&self) {
        self.check_tables();
        self.check_queues();
        self.check_peers();
        self.check_running();
        for (id, task) in self.tasks.iter() {
            self.check_task(id, task);
        }
    }

    fn check_tables(&self) {
        let mut counts = [0; STATE_NAMES];
        let mut nbytes = 0;
        for (id, task) in self.tasks.iter() {
            assert_eq!(self.tasks.id(&task.key), Some(id), "a task is found by its name");
            counts[task.state.index()] += 1;
            if task.state == TaskState::Memory {
                nbytes += u128::from(task.nbytes.expect("a value in memory has a size"));
            }
        }
        assert_eq!(counts, self.counts, "states are counted");
        assert_eq!(nbytes, self.nbytes_in_memory, "bytes in memory are counted");
    }

    fn check_queues(&self) {
        for (queue, state) in [(&self.ready, TaskState::Ready), (&self.constrained, TaskState::Constrained)] {
            let expected: BTreeSet<(Priority, TaskId)> = self.entries(state).collect();
            assert_eq!(queue, &expected, "all and only {} tasks are in that queue", state.name());
        }
        let missing: BTreeSet<TaskId> = self.entries(TaskState::Missing).map(|(_, id)| id).collect();
        assert_eq!(self.missing.iter().copied().collect::<BTreeSet<_>>(), missing, "missing tasks are listed");
        assert!(missing.is_empty() || self.find_missing_at.is_some(), "missing tasks are looked for");
        if self.is_running() && self.slots_used < self.config.nthreads {
            assert!(self.ready.is_empty(), "no task is ready while a slot is free");
        }
    }

    fn entries(&self, state: TaskState) -> impl Iterator<Item = (Priority, TaskId)> {
        let tasks = self.tasks.iter().filter(move |(_, task)| task.state == state);
        tasks.map(|(id, task)| (task.priority.clone(), id))
    }

    fn check_peers(&self) {
        let (mut bytes, mut count) = (0, 0);
        for (worker, peer) in &self.peers {
            for id in &peer.has {
                assert!(self.task(*id).who_has.contains(worker), "a held task names its holder");
            }
            for (priority, id) in &peer.needed {
                let task = self.task(*id);
                assert_eq!(task.state, TaskState::Fetch, "only tasks in fetch are needed");
                assert!(task.priority == *priority && task.who_has.contains(worker), "a needed task is held");
            }
            if let Some(transfer) = &peer.transfer {
                assert!(!transfer.keys.is_empty(), "a request asks for something");
                bytes += u128::from(transfer.nbytes);
                count += 1;
            }
        }
        assert_eq!(bytes, self.transfer_incoming_bytes, "bytes in flight are counted");
        assert_eq!(count, self.transfer_incoming_count, "requests are counted");
    }

    fn check_running(&self) {
        let slots = self.running.values().filter(|execution| !execution.seceded).count();
        assert_eq!(slots, self.slots_used as usize, "slots in use are counted");
        let slow = self.running.values().filter(|execution| !execution.seceded && !execution.quick).count();
        assert_eq!(slow, self.slow_slots as usize, "slots behind which nothing waits are counted");
        for (name, used) in &self.resources_used {
            let booked: f64 =
                self.running.values().flat_map(|e| e.resources.iter()).filter(|r| r.0 == *name).map(|r| r.1).sum();
            assert!((booked - used).abs() < 1e-6, "resource {name} is booked");
        }
    }

    fn check_task(&self, id: TaskId, task: &Task) {
        let story = || self.tell(task);
        assert_eq!(task.execution.is_some(), task.state.is_running(), "{}", story());
        assert_eq!(task.coming_from.is_some(), task.state.is_in_flight(), "{}", story());
        self.check_links(id, task);
        self.check_holders(id, task);
        let needs_nothing = task.waiting_for_data.is_empty();
        match task.state {
            TaskState::Waiting => self.check_waiting(task),
            TaskState::Ready | TaskState::Constrained => {
                assert!(needs_nothing, "{}", story());
                for dependency in &task.dependencies {
                    assert_eq!(self.task(*dependency).state, TaskState::Memory, "{}", story());
                }
            }
            TaskState::Fetch => assert!(!task.who_has.is_empty(), "{}", story()),
            TaskState::Missing => assert!(task.who_has.is_empty() && task.waiters > 0, "{}", story()),
            TaskState::Released => {
                assert!(task.waiters == 0 && !task.dependents.is_empty(), "{}", story());
            }
            TaskState::Error => assert!(task.error.is_some() && task.waiters == 0, "{}", story()),
            TaskState::Memory => assert_eq!(task.waiters, 0, "{}", story()),
            TaskState::Executing
            | TaskState::LongRunning
            | TaskState::Flight
            | TaskState::Cancelled(_)
            | TaskState::Resumed(_) => {}
        }
        if task.state != TaskState::Waiting {
            assert!(needs_nothing, "only waiting tasks wait: {}", story());
        }
        if let Some(run_id) = task.execution {
            let execution = &self.running[&(task.key.clone(), run_id)];
            let seceded = match task.state {
                TaskState::LongRunning => true,
                TaskState::Cancelled(p) | TaskState::Resumed(p) => p == Previous::LongRunning,
                _ => false,
            };
            assert_eq!(execution.seceded, seceded, "{}", story());
        }
        if let Some(worker) = &task.coming_from {
            let transfer = self.peers.get(worker).and_then(|peer| peer.transfer.as_ref());
            assert!(transfer.is_some_and(|t| t.keys.contains(&task.key)), "{}", story());
        }
    }

    fn check_waiting(&self, task: &Task) {
        assert!(!task.waiting_for_data.is_empty(), "{}", self.tell(task));
        for id in &task.dependencies {
            let dependency = self.task(*id);
            let awaited = task.waiting_for_data.contains(id);
            assert_eq!(awaited, dependency.state != TaskState::Memory, "{}", self.tell(dependency));
            let idle = matches!(dependency.state, TaskState::Released | TaskState::Error);
            assert!(!idle, "an input of a waiting task is under way: {}", self.tell(dependency));
        }
    }

    fn check_links(&self, id: TaskId, task: &Task) {
        for dependency in &task.dependencies {
            assert!(self.task(*dependency).dependents.contains(&id), "{}", self.tell(task));
        }
        for dependent in &task.dependents {
            assert!(self.task(*dependent).dependencies.contains(&id), "{}", self.tell(task));
        }
        let waiters = task.dependents.iter().filter(|d| self.task(**d).waiting_for_data.contains(&id)).count();
        assert_eq!(waiters, task.waiters as usize, "{}", self.tell(task));
        let foreign = task.waiting_for_data.iter().any(|d| !task.dependencies.contains(d));
        assert!(!foreign, "a task waits for dependencies only: {}", self.tell(task));
    }

    fn check_holders(&self, id: TaskId, task: &Task) {
        for worker in &task.who_has {
            assert_ne!(*worker, self.config.address, "we are no holder to fetch from: {}", self.tell(task));
            let peer = self.peers.get(worker).expect("a holder is a known peer");
            assert!(peer.has.contains(&id), "{}", self.tell(task));
            let needed = peer.needed.contains(&(task.priority.clone(), id));
            assert_eq!(needed, task.state == TaskState::Fetch, "{}", self.tell(task));
        }
    }

    fn tell(&self, task: &Task) -> String {
        let rows: Vec<String> = self
            .story
            .rows()
            .filter(|row| row.key == task.key)
            .map(|row| format!("  {:?} {} {}", row.what, row.stimulus_id, row.time))
            .collect();
        format!("{task:?}\n{}", rows.join("\n"))
    }
}
