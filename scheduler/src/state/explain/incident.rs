//! What went other than planned for a task: moves, losses, retries. Rare beside executions, so a ring of a few thousand
//! reaches far back.

use std::collections::VecDeque;

use dask_protocol::{Address, Key};

use super::super::State;
use super::super::event::Seconds;
use super::super::ids::{TaskId, WorkerId};

/// Workers that left whose addresses are remembered.
const DEPARTED_MAX: usize = 1000;

/// Something that happened to a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Incident {
    /// The last worker with its result left; the result is made again if it is needed.
    ResultLost {
        /// Who left.
        worker: Address,
    },
    /// The last worker with its result dropped it, or found it missing.
    ResultDropped {
        /// Who had it.
        worker: Address,
    },
    /// The worker that was running it left.
    WorkerLeft {
        /// Who.
        worker: Address,
        /// Whether it was meant to leave.
        expected: bool,
        /// Workers that died unexpectedly with the task so far.
        suspicious: u32,
    },
    /// One of its inputs was lost, so it waits again.
    InputLost {
        /// Which.
        input: Key,
    },
    /// It raised and runs again.
    Retried {
        /// Where it raised.
        worker: Address,
        /// Retries left.
        left: u32,
    },
    /// Its worker let go of it so that it runs elsewhere.
    Rescheduled {
        /// Who let go.
        worker: Address,
    },
    /// An idle worker asked for it.
    StealRequested {
        /// Who has it.
        victim: Address,
        /// Who asks.
        thief: Address,
        /// Why it is worth while.
        reason: String,
    },
    /// It stayed where it was: it runs there already, or is done.
    StealRefused {
        /// Who kept it.
        victim: Address,
        /// In which state it is there.
        state: String,
    },
    /// Another worker is to hold a copy of its result.
    CopyRequested {
        /// Who.
        worker: Address,
    },
    /// A worker is to drop its copy of the result; others have one.
    CopyDropped {
        /// Who.
        worker: Address,
    },
}

impl Incident {
    /// Its name in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Incident::ResultLost { .. } => "result-lost",
            Incident::ResultDropped { .. } => "result-dropped",
            Incident::WorkerLeft { .. } => "worker-left",
            Incident::InputLost { .. } => "input-lost",
            Incident::Retried { .. } => "retried",
            Incident::Rescheduled { .. } => "rescheduled",
            Incident::StealRequested { .. } => "steal-requested",
            Incident::StealRefused { .. } => "steal-refused",
            Incident::CopyRequested { .. } => "copy-requested",
            Incident::CopyDropped { .. } => "copy-dropped",
        }
    }
}

impl std::fmt::Display for Incident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Incident::ResultLost { worker } => {
                write!(f, "its result was lost with {worker}, the last worker that had it")
            }
            Incident::ResultDropped { worker } => {
                write!(f, "{worker}, the last worker with its result, no longer has it")
            }
            Incident::WorkerLeft { worker, expected: true, .. } => {
                write!(f, "{worker}, which was to run it, left as planned")
            }
            Incident::WorkerLeft { worker, expected: false, suspicious } => {
                write!(f, "{worker} died with it; {suspicious} worker(s) have died with it so far")
            }
            Incident::InputLost { input } => write!(f, "its input {input} was lost"),
            Incident::Retried { worker, left } => write!(f, "it raised on {worker}; {left} retries are left"),
            Incident::Rescheduled { worker } => write!(f, "{worker} let go of it, so that it runs elsewhere"),
            Incident::StealRequested { victim, thief, reason } => {
                write!(f, "{victim} was asked to give it to {thief}: {reason}")
            }
            Incident::StealRefused { victim, state } => write!(f, "{victim} kept it: it is {state} there"),
            Incident::CopyRequested { worker } => write!(f, "{worker} was asked to hold a copy of its result"),
            Incident::CopyDropped { worker } => write!(f, "{worker} was asked to drop its copy of the result"),
        }
    }
}

/// A ring of incidents, and the addresses of workers that have left.
#[derive(Debug)]
pub(in crate::state) struct Incidents {
    rows: VecDeque<(Key, Seconds, Incident)>,
    length: usize,
    departed: VecDeque<(WorkerId, Address)>,
}

impl Incidents {
    /// Keeps this many; none for 0.
    pub(in crate::state) fn new(length: usize) -> Incidents {
        Incidents { rows: VecDeque::new(), length, departed: VecDeque::new() }
    }

    /// What happened to a key, oldest first.
    pub(in crate::state) fn about(&self, key: &Key) -> Vec<(Seconds, Incident)> {
        let rows = self.rows.iter().filter(|(other, _, _)| other == key);
        rows.map(|(_, at, incident)| (*at, incident.clone())).collect()
    }

    /// Remembers the address of a worker that leaves.
    pub(in crate::state) fn worker_left(&mut self, worker: WorkerId, address: Address) {
        if self.departed.len() >= DEPARTED_MAX {
            self.departed.pop_front();
        }
        self.departed.push_back((worker, address));
    }

    /// The address of a worker that has left.
    pub(in crate::state) fn departed(&self, worker: WorkerId) -> Option<&Address> {
        self.departed.iter().rev().find(|(other, _)| *other == worker).map(|(_, address)| address)
    }
}

impl State {
    /// Notes what happened to a task; `incident` is only asked for when it is kept.
    pub(in crate::state) fn note_incident(&mut self, id: TaskId, incident: impl FnOnce(&State) -> Incident) {
        if self.incidents.length == 0 {
            return;
        }
        let row = (self.tasks[id].key.clone(), self.now, incident(self));
        if self.incidents.rows.len() >= self.incidents.length {
            self.incidents.rows.pop_front();
        }
        self.incidents.rows.push_back(row);
    }
}
