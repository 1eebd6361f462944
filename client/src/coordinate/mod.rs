//! What programs coordinate through the scheduler: variables, queues, events, semaphores, locks and published datasets.
//!
//! The names are shared with Python clients of the same cluster (`distributed.Variable("x")` and
//! [`Client::variable`]`("x")` are the same thing). What both can read are plain values and futures.

mod event;
mod published;
mod queue;
mod semaphore;
mod variable;

pub use event::Event;
pub use queue::Queue;
pub use semaphore::{Lease, Semaphore};
pub use variable::Variable;

use std::time::Duration;

use dask_protocol::{Address, CommError, Key, Value};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::error::TaskError;
use crate::future::Future;
use crate::session::from_value;

/// Why something shared through the scheduler did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoordinateError {
    /// The time given was over.
    #[error("{what} {name}: nothing came within {seconds:.1} s")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// Its name.
        name: Key,
        /// The time given, in seconds.
        seconds: f64,
    },
    /// Nothing has this name.
    #[error("there is no {what} {name}")]
    Unknown {
        /// What was asked for.
        what: &'static str,
        /// Its name.
        name: Key,
    },
    /// The value found is of another type, or the value given cannot be packed.
    #[error("{what} {name}: {reason}")]
    Value {
        /// Where it is.
        what: &'static str,
        /// Its name.
        name: Key,
        /// What was found.
        reason: String,
    },
    /// The future found has no result.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The scheduler could not be asked, or refused.
    #[error("scheduler at {scheduler}: {source}")]
    Comm {
        /// Which scheduler.
        scheduler: Address,
        /// What happened.
        source: CommError,
    },
}

/// What a variable or queue holds.
#[derive(Debug, Clone)]
pub enum Item<T> {
    /// A plain value.
    Value(T),
    /// The result of a task.
    Future(Future<T>),
}

impl<T: DeserializeOwned> Item<T> {
    /// The value, fetched if it is a task's result.
    ///
    /// # Errors
    /// [`TaskError`] when the task has none.
    pub async fn value(self) -> Result<T, TaskError> {
        match self {
            Item::Value(value) => Ok(value),
            Item::Future(future) => future.result().await,
        }
    }
}

/// A record as the scheduler answers it.
#[derive(Deserialize)]
struct Record {
    #[serde(rename = "type")]
    kind: String,
    value: Value,
    #[serde(default)]
    token: Value,
}

/// What to put into a variable or queue.
#[derive(Serialize)]
struct Put<'a> {
    name: &'a Key,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a Key>,
    data: Value,
    timeout: Option<f64>,
}

/// One thing of a kind, by its name.
#[derive(Debug, Clone)]
struct Named {
    client: Client,
    what: &'static str,
    name: Key,
}

impl Named {
    async fn call<A: Serialize, R: DeserializeOwned>(&self, op: &str, args: &A) -> Result<R, CoordinateError> {
        self.client.rpc(op, args).await
    }

    /// Calls something that waits: the scheduler's `TimeoutError` becomes ours.
    async fn call_within<A: Serialize, R: DeserializeOwned>(
        &self,
        op: &str,
        args: &A,
        timeout: Option<Duration>,
    ) -> Result<R, CoordinateError> {
        self.call(op, args).await.map_err(|error| match (&error, timeout) {
            (CoordinateError::Comm { source: CommError::Remote { text, .. }, .. }, Some(timeout))
                if text.contains("TimeoutError") =>
            {
                CoordinateError::Timeout { what: self.what, name: self.name.clone(), seconds: timeout.as_secs_f64() }
            }
            _ => error,
        })
    }

    fn wrong(&self, reason: String) -> CoordinateError {
        CoordinateError::Value { what: self.what, name: self.name.clone(), reason }
    }

    fn plain<T: Serialize>(&self, value: &T) -> Result<Value, CoordinateError> {
        let packed = rmp_serde::to_vec_named(value).map_err(|error| self.wrong(error.to_string()))?;
        rmp_serde::from_slice(&packed).map_err(|error| self.wrong(error.to_string()))
    }

    /// A record as a value or future; for a future, `held` is called with its key once this client holds it.
    fn item<T: DeserializeOwned>(&self, record: &Record, held: impl FnOnce(Key)) -> Result<Item<T>, CoordinateError> {
        if record.kind != "Future" {
            return from_value(&record.value).map(Item::Value).map_err(|reason| self.wrong(reason));
        }
        let key = record.value.to_key().ok_or_else(|| self.wrong("the scheduler named no key".to_owned()))?;
        let future = self.client.future(key.clone());
        held(key);
        Ok(Item::Future(future))
    }
}

fn seconds(timeout: Option<Duration>) -> Option<f64> {
    timeout.map(|timeout| timeout.as_secs_f64())
}

impl Client {
    pub(crate) async fn rpc<A: Serialize, R: DeserializeOwned>(
        &self,
        op: &str,
        args: &A,
    ) -> Result<R, CoordinateError> {
        let reply = self.session().pool().call(self.scheduler(), op, args).await;
        reply.map_err(|source| CoordinateError::Comm { scheduler: self.scheduler().clone(), source })
    }

    fn named(&self, what: &'static str, name: impl Into<Key>) -> Named {
        Named { client: self.clone(), what, name: name.into() }
    }

    /// The variable of this name (dask's `Variable`).
    pub fn variable<T>(&self, name: impl Into<Key>) -> Variable<T> {
        Variable::new(self.named("variable", name))
    }

    /// The queue of this name (dask's `Queue`); if there is none, one of at most `entries_max` entries is made.
    ///
    /// # Errors
    /// [`CoordinateError::Comm`] when the scheduler cannot be asked.
    pub async fn queue<T>(
        &self,
        name: impl Into<Key>,
        entries_max: Option<usize>,
    ) -> Result<Queue<T>, CoordinateError> {
        Queue::create(self.named("queue", name), entries_max).await
    }

    /// The event of this name (dask's `Event`).
    pub fn event(&self, name: impl Into<Key>) -> Event {
        Event::new(self.named("event", name))
    }

    /// The semaphore of this name (dask's `Semaphore`), of which `leases_max` may be held at a time.
    ///
    /// # Errors
    /// [`CoordinateError::Comm`] when the scheduler cannot be asked, or knows it with another number of leases.
    pub async fn semaphore(&self, name: impl Into<Key>, leases_max: usize) -> Result<Semaphore, CoordinateError> {
        Semaphore::register(self.named("semaphore", name), leases_max).await
    }

    /// The lock of this name (dask's `Lock`): a semaphore of one lease.
    ///
    /// # Errors
    /// As [`Client::semaphore`].
    pub async fn lock(&self, name: impl Into<Key>) -> Result<Semaphore, CoordinateError> {
        Semaphore::register(self.named("lock", name), 1).await
    }
}
