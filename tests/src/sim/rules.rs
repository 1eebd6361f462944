//! What must hold once everything has settled, and once nobody wants anything any more.

use dask_protocol::Key;
use dask_protocol::message::WorkerStatus;
use dask_scheduler::state::TaskState;

use super::client::Future;
use super::scenario::Scenario;
use super::step::Link;
use super::world::World;

impl World {
    /// Whether the scheduler has nothing left to decide: each task rests.
    pub fn is_settled(&self) -> bool {
        self.is_quiet() && self.resting().is_ok() && self.promises_kept().is_ok()
    }

    /// The first rule for a settled cluster that does not hold.
    ///
    /// # Errors
    /// The rule and the key or worker that breaks it.
    pub fn check_settled(&self) -> Result<(), String> {
        if !self.is_quiet() {
            return Err("messages or executions never end".to_owned());
        }
        self.resting()?;
        self.promises_kept()?;
        self.books_agree()
    }

    /// No task is on its way to anywhere, except those that no worker may run.
    fn resting(&self) -> Result<(), String> {
        for task in self.scheduler.tasks() {
            let key = task.key;
            match task.state {
                TaskState::Memory | TaskState::Erred | TaskState::Released => {}
                TaskState::NoWorker => {
                    let able = self.workers.values().find(|w| {
                        w.state.status() == WorkerStatus::Running && self.scheduler.can_run_on(key, &w.address)
                    });
                    if let Some(worker) = able {
                        return Err(format!("{key:?} is in no-worker although {} can run it", worker.address));
                    }
                }
                TaskState::Waiting => {
                    let blocked = task.waiting_on.iter().any(|dep| {
                        matches!(self.scheduler.task_state(dep), Some(TaskState::NoWorker | TaskState::Waiting))
                    });
                    if !blocked {
                        return Err(format!("{key:?} waits for {:?} forever", task.waiting_on));
                    }
                }
                TaskState::Queued | TaskState::Processing | TaskState::Forgotten => {
                    return Err(format!("{key:?} stays {} on {:?}", task.state.name(), task.processing_on));
                }
            }
        }
        Ok(())
    }

    /// What clients want is in memory, has erred with a cause, cannot run, or they were told that it is gone.
    fn promises_kept(&self) -> Result<(), String> {
        for client in self.clients.iter().filter(|c| c.connected) {
            for (key, future) in &client.futures {
                let state = self.scheduler.task_state(key);
                // News of a key's former life may come after its new one began, and stand until there are others.
                let unable = matches!(state, Some(TaskState::NoWorker | TaskState::Waiting));
                let kept = match future {
                    Future::Cancelled => true,
                    Future::Finished => unable || state == Some(TaskState::Memory),
                    Future::Erred => unable || self.scheduler.error(key).is_some() && state == Some(TaskState::Erred),
                    Future::Pending => unable,
                };
                if !kept {
                    let state = state.map(TaskState::name);
                    return Err(format!("{} believes {key:?} is {future:?}, and it is {state:?}", client.id));
                }
            }
        }
        Ok(())
    }

    /// What must hold at the end of a script, beside the rules for every settled cluster.
    ///
    /// # Errors
    /// The rule and what breaks it.
    pub fn check_scenario(&self) -> Result<(), String> {
        let Some(scenario) = self.case.scenario else {
            return Ok(());
        };
        for client in &self.clients {
            if let Some((key, future)) = client.futures.iter().find(|(_, future)| **future != Future::Finished) {
                return Err(format!("{} never got {key:?}: it is {future:?}", client.id));
            }
        }
        match scenario {
            Scenario::ScaleOut => match self.ledger.idle()[..] {
                [] => Ok(()),
                [first, ..] => Err(format!("worker {first} joined and never worked")),
            },
            Scenario::Rolling => match self.workers.keys().find(|no| (**no as usize) < self.case.slots.len()) {
                None => Ok(()),
                Some(old) => Err(format!("worker {old} was to be replaced and is still there")),
            },
        }
    }

    /// While no message is on its way to or from a worker, it and the scheduler mean the same tasks and the same values: what
    /// the two compare after a cut. Scattered values of which the scheduler was not told are spared.
    pub(super) fn digests_agree(&self) -> Result<(), String> {
        for (no, worker) in &self.workers {
            let address = &worker.address;
            let silent = self.queued(Link::ToWorker(*no)) + self.queued(Link::FromWorker(*no)) == 0;
            if !silent || !self.is_registered(address) {
                continue;
            }
            let mut booked = self.scheduler.has_what(address);
            let known = |key: &Key| self.scheduler.task_state(key).is_some();
            let mut held: Vec<Key> = worker.state.in_memory().map(|(key, _)| key.clone()).filter(known).collect();
            let mut processing = self.scheduler.processing(address);
            let mut unreported: Vec<Key> = worker.state.unreported().cloned().collect();
            for keys in [&mut booked, &mut held, &mut processing, &mut unreported] {
                keys.sort();
            }
            if booked != held {
                return Err(format!("{address} holds {held:?} and is booked with {booked:?}, with nothing on the way"));
            }
            if processing != unreported {
                return Err(format!(
                    "{address} has {unreported:?} to do, booked are {processing:?}, with nothing on the way"
                ));
            }
        }
        Ok(())
    }

    /// The scheduler and the workers agree on who holds and who computes what.
    fn books_agree(&self) -> Result<(), String> {
        for worker in self.workers.values() {
            let address = &worker.address;
            let mut booked = self.scheduler.has_what(address);
            let mut held: Vec<_> = worker.store.keys().cloned().collect();
            booked.sort();
            held.sort();
            if booked != held {
                return Err(format!("{address} holds {held:?} and is booked with {booked:?}"));
            }
            for (key, state) in worker.state.tasks() {
                if !matches!(state.name(), "memory" | "released" | "error") {
                    return Err(format!("{address} still has {key:?} {}", state.name()));
                }
            }
        }
        Ok(())
    }

    /// Nothing is left once nobody wants anything.
    ///
    /// # Errors
    /// What is left, and where.
    pub fn check_empty(&self) -> Result<(), String> {
        if let Some(task) = self.scheduler.tasks().next() {
            return Err(format!("the scheduler still knows {:?}, {}", task.key, task.state.name()));
        }
        for worker in self.workers.values() {
            if let Some((key, state)) = worker.state.tasks().next() {
                return Err(format!("{} still knows {key:?}, {}", worker.address, state.name()));
            }
            if let Some((key, _)) = worker.store.first() {
                return Err(format!("{} still holds {key:?}", worker.address));
            }
        }
        Ok(())
    }
}
