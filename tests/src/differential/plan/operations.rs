//! What operators and the scheduler itself do: workers are retired, everything is restarted, tasks are stolen, copies
//! are dropped; and what workers make of it.

use std::io;

use dask_protocol::message::WorkerStatus;
use dask_protocol::{Address, Key};
use dask_scheduler::state::Event;
use indexmap::IndexSet;
use rand::Rng;
use rand::rngs::SmallRng;

use super::super::messages;
use super::super::record::MEMORY;
use super::{Model, Move, Plan, Run};

/// Seconds that pass before a look at who retires: longer than both sides' longest pause between two of them.
const LOOK_AFTER: f64 = 0.6;

/// The weights of each.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Operations {
    retirements: u32,
    restarts: u32,
    stealing: u32,
    memory_manager: u32,
}

/// One of them, or a worker's part in it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operation {
    /// `retire_workers`.
    Retire,
    /// `restart`: all workers leave then.
    Restart,
    /// Work stealing, and a look at who retires.
    Timeout,
    /// A round of the active memory manager.
    ManageMemory,
    /// A worker says whether it gives a task back.
    Answer,
    /// A worker has fetched what it was told to.
    Acquire,
    /// A worker changes its status as it was told to.
    Obey,
    /// A worker that was told to close is gone.
    Close,
}

impl Operations {
    pub(super) fn draw(rng: &mut SmallRng) -> Operations {
        let some = |rng: &mut SmallRng, chance: f64, weight: u32| if rng.random_bool(chance) { weight } else { 0 };
        Operations {
            retirements: some(rng, 0.5, 2),
            restarts: some(rng, 0.25, 1),
            stealing: some(rng, 0.6, 8),
            memory_manager: some(rng, 0.5, 5),
        }
    }

    /// Whether there are rounds of stealing.
    pub(super) fn stealing(self) -> bool {
        self.stealing > 0
    }

    fn any(self) -> bool {
        self.retirements + self.restarts + self.stealing + self.memory_manager > 0
    }

    pub(super) fn weighted(self) -> [(Operation, u32); 8] {
        let reply = if self.any() { 6 } else { 0 };
        [
            (Operation::Retire, self.retirements),
            (Operation::Restart, self.restarts),
            (Operation::Timeout, self.stealing.max(2 * self.retirements)),
            (Operation::ManageMemory, self.memory_manager.max(2 * self.retirements)),
            (Operation::Answer, reply),
            (Operation::Acquire, reply),
            (Operation::Obey, reply),
            (Operation::Close, reply / 3),
        ]
    }
}

/// What a worker does about a task that it is asked to give back; the state that it will say the task is in.
pub(super) fn give_back(
    rng: &mut SmallRng,
    model: &Model,
    runs: &mut Vec<Run>,
    worker: &Address,
    key: &Key,
) -> Option<&'static str> {
    let position = runs.iter().position(|run| !run.freed && run.worker == *worker && run.key == *key);
    let Some(position) = position else {
        return if model.held.contains(key) { Some("memory") } else { None };
    };
    if runs[position].seceded {
        return Some("long-running");
    }
    match rng.random_range(0..12u32) {
        0..=2 => Some("executing"),
        drawn => {
            runs.remove(position);
            [Some("ready"), Some("waiting"), Some("constrained"), Some("ready"), Some("released"), None]
                [drawn as usize % 6]
        }
    }
}

impl Plan<'_> {
    pub(super) fn operate(&mut self, operation: Operation) -> io::Result<Option<Event>> {
        Ok(match operation {
            Operation::Retire => self.retire(),
            Operation::Restart => return self.restart().map(|()| None),
            Operation::Timeout => Some(self.look()),
            Operation::ManageMemory => Some(Event::RunActiveMemoryManager),
            Operation::Answer => {
                if let Some(worker) = self.any_with(|model| !model.answers.is_empty()) {
                    self.answer_first(&worker)?;
                }
                None
            }
            Operation::Acquire => self.acquire(),
            Operation::Obey => self.obey(),
            Operation::Close => self.close(),
        })
    }

    /// Lets workers do what they were told to, and retirements end; false if there is nothing left.
    pub(super) fn settle_operations(&mut self) -> io::Result<bool> {
        if !self.profile.operations.any() {
            return Ok(false);
        }
        if let Some(worker) = self.any_with(|model| !model.answers.is_empty()) {
            self.answer_first(&worker)?;
            return Ok(true);
        }
        let mut any = false;
        for operation in [Operation::Acquire, Operation::Obey, Operation::Close] {
            any |= self.take(Move::Operation(operation))?;
        }
        if !any {
            // For once: these change little any more, and must come to an end.
            self.profile.operations = Operations::default();
            self.take(Move::Operation(Operation::ManageMemory))?;
            self.take(Move::Operation(Operation::Timeout))?;
            return Ok(true);
        }
        Ok(any)
    }

    fn any_with(&mut self, fits: impl Fn(&Model) -> bool) -> Option<Address> {
        let fit: Vec<Address> =
            self.workers.iter().filter(|(_, model)| fits(model)).map(|(address, _)| address.clone()).collect();
        self.any(&fit)
    }

    /// What a worker answered arrives before what it says next.
    pub(super) fn answer_first(&mut self, worker: &Address) -> io::Result<()> {
        let Some(model) = self.workers.get_mut(worker) else { return Ok(()) };
        for (key, state, stimulus_id) in std::mem::take(&mut model.answers) {
            self.tell(messages::steal_response(worker, &key, state, stimulus_id))?;
        }
        Ok(())
    }

    /// Resident memory that a worker reports, in bytes.
    pub(super) fn memory(&mut self) -> u64 {
        if self.profile.operations.any() { self.rng.random_range(MEMORY / 2..50 * MEMORY) } else { MEMORY }
    }

    fn look(&mut self) -> Event {
        self.recorder.now += LOOK_AFTER;
        Event::Timeout
    }

    fn retire(&mut self) -> Option<Event> {
        let mut workers: Vec<Address> = Vec::new();
        for _ in 0..if self.rng.random_bool(0.2) { 2 } else { 1 } {
            workers.extend(self.any_worker().filter(|worker| !workers.contains(worker)));
        }
        // The order in which upstream walks a set of these.
        workers.sort_by_key(|worker| self.workers[worker].name.clone());
        self.recorder.now += LOOK_AFTER;
        self.retirements += 1;
        (!workers.is_empty()).then(|| Event::RetireWorkers {
            remove: self.rng.random_bool(0.7),
            close: self.rng.random_bool(0.6),
            workers,
            token: self.retirements,
            stimulus_id: "retire-workers".into(),
        })
    }

    /// Everything is forgotten, and all workers leave; new ones join one by one.
    fn restart(&mut self) -> io::Result<()> {
        self.tell(Event::Restart { stimulus_id: "restart".into() })?;
        for worker in self.workers.keys().cloned().collect::<Vec<_>>() {
            self.workers.shift_remove(&worker);
            self.runs.retain(|run| run.worker != worker);
            let stimulus_id = "restart".into();
            self.tell(Event::RemoveWorker { worker, expected: false, close: true, stimulus_id })?;
        }
        for _ in 0..self.rng.random_range(0..=4) {
            self.take(Move::Join)?;
        }
        Ok(())
    }

    fn acquire(&mut self) -> Option<Event> {
        let worker = self.any_with(|model| !model.acquiring.is_empty())?;
        let fetched: IndexSet<Key> = std::mem::take(&mut self.workers[&worker].acquiring).into_iter().collect();
        let there = |key: &Key| self.state().task(key).is_some_and(|task| !task.who_has.is_empty());
        let (fetched, gone): (Vec<Key>, Vec<Key>) = fetched.into_iter().partition(there);
        self.workers[&worker].held.extend(fetched.iter().cloned());
        match (fetched.is_empty(), gone.is_empty()) {
            (false, _) => Some(messages::add_keys(&worker, fetched)),
            (true, false) => Some(messages::refresh(&worker, gone)),
            (true, true) => None,
        }
    }

    fn obey(&mut self) -> Option<Event> {
        let worker = self.any_with(|model| model.status.is_some())?;
        let status: WorkerStatus = self.workers[&worker].status.take()?;
        Some(messages::status(&worker, status))
    }

    fn close(&mut self) -> Option<Event> {
        let worker = self.any_with(|model| model.closing)?;
        self.workers.shift_remove(&worker);
        self.runs.retain(|run| run.worker != worker);
        let (expected, stimulus_id) = (self.rng.random_bool(0.7), "worker-close".into());
        Some(Event::RemoveWorker { worker, expected, close: false, stimulus_id })
    }
}
