//! What the nanny's [state](crate::state) is told and what it wants done.

use std::fmt;
use std::path::PathBuf;

use dask_protocol::Address;

/// A caller that waits for an answer; the shell knows which connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Waiter(pub u64);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exited with status {code}"),
            Exit::Signal(signal) => write!(f, "was killed by signal {signal}"),
        }
    }
}

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The nanny is listening and registered with the scheduler.
    Start,
    /// The worker process is registered with the scheduler.
    WorkerStarted {
        /// Its contact address.
        address: Address,
        /// Its working directory.
        local_directory: PathBuf,
    },
    /// The worker process, or starting one, failed; the exit follows.
    WorkerFailed {
        /// Why.
        text: String,
    },
    /// The worker leaves for good and says so.
    WorkerClosing {
        /// Why.
        reason: String,
    },
    /// The worker process could not even be started.
    SpawnFailed {
        /// Why.
        text: String,
    },
    /// The worker process is gone, and so is everything it started.
    WorkerExited {
        /// Its process id.
        pid: u32,
        /// How it ended.
        exit: Exit,
    },
    /// The scheduler knows that the worker is gone, or could not be told in time.
    Unregistered,
    /// End the worker process; another one follows unless the nanny closes.
    Kill {
        /// Seconds until it is over at the latest.
        timeout: f64,
        /// Why.
        reason: String,
        /// Answered once the process is gone.
        waiter: Waiter,
    },
    /// End the worker process and start another one.
    Restart {
        /// Seconds for the end of the old one.
        timeout: f64,
        /// Why.
        reason: String,
        /// Answered once the new one is running.
        waiter: Waiter,
    },
    /// Make sure that a worker is running.
    Instantiate {
        /// Answered once it is.
        waiter: Waiter,
    },
    /// Do not replace the worker when it exits.
    CloseGracefully {
        /// Why.
        reason: String,
    },
    /// End the worker process and the nanny.
    Close {
        /// Seconds until the process is killed, and a little more.
        timeout: f64,
        /// Why.
        reason: String,
    },
    /// The memory that the worker process and its children use now.
    Memory {
        /// The worker's process id.
        pid: u32,
        /// Resident bytes, summed.
        rss: u64,
    },
    /// The time of [`State::next_timeout`](crate::state::State::next_timeout) has come.
    Timeout,
}

/// A signal to the worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// What a waiting caller is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Done.
    Ok,
    /// Not done, and why.
    Refused(String),
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Start a worker process.
    Spawn,
    /// Ask the worker process to close.
    AskToStop {
        /// Seconds it has.
        timeout: f64,
        /// Why.
        reason: String,
    },
    /// Send it a signal.
    Signal(Signal),
    /// Tell the scheduler that this worker is gone, then send [`Event::Unregistered`]; at once when there is none.
    Unregister {
        /// The worker.
        address: Option<Address>,
    },
    /// Tell the scheduler not to count on this worker any more; its process is still there.
    Disown {
        /// The worker.
        address: Address,
    },
    /// Tell the scheduler how a worker ended that nobody had asked to.
    ReportDeath {
        /// The worker.
        address: Address,
        /// Its process id.
        pid: u32,
        /// How.
        exit: Exit,
    },
    /// Remove what a worker left behind.
    RemoveDirectory {
        /// Its working directory.
        path: PathBuf,
    },
    /// Log the event `worker-restart-memory` with the scheduler.
    LogMemoryRestart {
        /// The worker.
        worker: Address,
        /// Its process id.
        pid: u32,
        /// What it used, in bytes.
        rss: u64,
    },
    /// Complete the registration: the scheduler waits to hear whether the first worker runs.
    AnnounceStarted {
        /// Whether it does.
        ok: bool,
    },
    /// Answer a waiting caller.
    Answer {
        /// Who.
        waiter: Waiter,
        /// What.
        outcome: Outcome,
    },
    /// The nanny is closed.
    Finish {
        /// Why it is a failure, if it is one.
        failure: Option<String>,
    },
}
