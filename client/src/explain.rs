//! Why a task is where it is: the answer to [`Client::explain`](crate::Client::explain).

use std::fmt;

use dask_protocol::{Address, Key};
use serde::Deserialize;

/// What the scheduler knows of a task. Printed, it is the whole in words, as `dask explain` shows it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The task.
    pub key: Key,
    /// When this was told, in seconds of the scheduler's clock.
    pub now: f64,
    /// The task's state by dask's name; none if the scheduler does not know the task.
    pub state: Option<String>,
    /// When it came into that state, in seconds of the scheduler's clock.
    pub since: Option<f64>,
    /// Why it is in that state.
    pub reason: Reason,
    /// Why another worker did not steal it, in words.
    pub stealing: Option<String>,
    /// How its worker was chosen the last time.
    pub placement: Option<Placement>,
    /// How its workers were chosen before.
    pub earlier: Vec<Placement>,
    /// What went wrong with it on the way.
    pub incidents: Vec<Incident>,
    /// The workers that died while they had it.
    pub deaths: Vec<Death>,
    /// All of this in words.
    pub text: String,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a task is in its state.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Reason {
    /// In words.
    pub text: String,
    /// In detail.
    #[serde(flatten)]
    pub kind: ReasonKind,
}

/// The detail of a [`Reason`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ReasonKind {
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
        missing: u64,
        /// How many inputs it has.
        of: u64,
        /// The first tasks further up that all of this waits for in the end.
        behind: Vec<Blocker>,
    },
    /// It has no inputs to speak of, and all workers have as many such tasks as they take.
    Queued {
        /// Queued tasks before it; at most 100 000 are counted.
        ahead: u64,
        /// Running workers that could run it.
        workers: u64,
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
        workers: u64,
        /// Whether no worker there is could ever run it: paused ones might come back.
        hopeless: bool,
    },
    /// Sent to a worker.
    Processing {
        /// Which.
        worker: Address,
        /// Seconds since it was sent, if that is still known.
        since: Option<f64>,
        /// Tasks that worker was given and has not finished.
        given: u64,
        /// Its threads.
        nthreads: u32,
        /// Seconds a task of this prefix is expected to take.
        expected: f64,
        /// The first inputs it must fetch there.
        to_fetch: Vec<Key>,
        /// Bytes of all inputs it must fetch there.
        bytes_to_fetch: u64,
        /// Whether it left its thread pool.
        long_running: bool,
        /// Seconds since the worker was last heard of.
        silent: f64,
    },
    /// Its result is there.
    InMemory {
        /// Who has it; at most ten are named.
        holders: Vec<Address>,
        /// How many have it.
        copies: u64,
        /// Its size in bytes, once known.
        nbytes: Option<u64>,
    },
    /// It, or something it depends on, raised.
    Erred {
        /// What raised.
        cause: Key,
        /// `repr` of the exception.
        exception: String,
        /// Where.
        on: Vec<Address>,
    },
    /// Something that a newer scheduler says.
    #[serde(other)]
    Other,
}

/// An input that is not in memory.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Blocker {
    /// The input.
    pub key: Key,
    /// Its state by dask's name.
    pub state: String,
    /// Why it is in that state.
    pub reason: Reason,
}

/// Why workers may not run a task.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Refusal {
    /// In words.
    pub why: String,
    /// How many workers this concerns.
    pub workers: u64,
    /// One of them.
    pub example: Address,
}

/// How a worker was chosen.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Placement {
    /// The execution it was chosen for.
    pub run_id: i64,
    /// When, in seconds of the scheduler's clock.
    pub at: f64,
    /// The address of the chosen one.
    pub worker: String,
    /// By which rule.
    pub rule: String,
    /// Among how many.
    pub candidates: u64,
    /// The best of them, as the scheduler saw them.
    pub scores: Vec<Score>,
}

/// A worker as the scheduler saw it when it chose.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Score {
    /// Its address.
    pub worker: String,
    /// Its threads.
    pub nthreads: u32,
    /// Tasks it had.
    pub processing: u32,
    /// Seconds these were expected to take.
    pub occupancy: f64,
    /// Bytes of the task's inputs that it did not have.
    pub missing: u64,
    /// Seconds until it could have begun.
    pub start: f64,
    /// Bytes it stored.
    pub stored: u64,
}

/// Something that went wrong with a task on its way.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Incident {
    /// When, in seconds of the scheduler's clock.
    pub at: f64,
    /// What sort of thing.
    pub kind: String,
    /// In words.
    pub text: String,
}

/// A worker that died while it had a task.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Death {
    /// Its address.
    pub worker: Address,
    /// What is known of it, in words.
    pub text: String,
}
