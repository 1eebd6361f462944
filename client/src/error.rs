//! What a client's user has to handle.

use dask_protocol::{Address, CommError, Key};

/// A client that cannot reach its scheduler.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The connection could not be made, or broke.
    #[error("scheduler at {scheduler}: {source}")]
    Comm {
        /// Which scheduler.
        scheduler: Address,
        /// What happened.
        source: CommError,
    },
    /// The scheduler refused the client.
    #[error("scheduler at {scheduler} refused the client: {reason}")]
    Refused {
        /// Which scheduler.
        scheduler: Address,
        /// What it said.
        reason: String,
    },
    /// Not enough workers in time.
    #[error("{found} of {wanted} workers after {seconds:.0} s")]
    Workers {
        /// How many were waited for.
        wanted: usize,
        /// How many there are.
        found: usize,
        /// The time allowed.
        seconds: f64,
    },
}

/// Why a future has no value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The task failed.
    #[error("task {key} failed: {exception}")]
    Failed {
        /// The task asked for.
        key: Key,
        /// The remote exception: its class and message.
        exception: String,
        /// The calls that led there, innermost first, when a native task panicked.
        backtrace: Option<String>,
    },
    /// The workers it ran on died, one after the other (dask's `KilledWorker`).
    #[error("task {key} lost its workers: {reason}")]
    WorkersLost {
        /// The task asked for.
        key: Key,
        /// Which died last, and how often that was tried.
        reason: String,
    },
    /// The task was cancelled.
    #[error("task {key} was cancelled{}", reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default())]
    Cancelled {
        /// The task.
        key: Key,
        /// Why, if anybody said.
        reason: Option<String>,
    },
    /// An argument could not be packed; nothing was sent.
    #[error("argument {index} of {function}: {reason}")]
    Argument {
        /// The task's function.
        function: String,
        /// Which argument, from 0.
        index: usize,
        /// What its `Serialize` said.
        reason: String,
    },
    /// The value is not of the future's type.
    #[error("result of task {key} is not a {expected}: {reason}")]
    Type {
        /// The task.
        key: Key,
        /// The future's type.
        expected: &'static str,
        /// What was found.
        reason: String,
    },
    /// The connection to the scheduler broke.
    #[error("task {key}: connection to the scheduler at {scheduler} lost")]
    ConnectionLost {
        /// The task.
        key: Key,
        /// The scheduler.
        scheduler: Address,
    },
    /// The result could not be fetched.
    #[error("task {key}: fetching the result failed: {reason}")]
    Fetch {
        /// The task.
        key: Key,
        /// What happened.
        reason: String,
    },
}

impl TaskError {
    pub(crate) fn closed(key: &Key) -> TaskError {
        TaskError::Fetch { key: key.clone(), reason: "the client is closed".to_owned() }
    }
}
