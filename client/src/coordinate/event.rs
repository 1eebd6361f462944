//! `Event`: a flag that many wait for.

use std::time::Duration;

use dask_protocol::{Key, Value};
use serde::Serialize;

use super::{CoordinateError, Named, seconds};

/// A flag that all clients of a cluster see; not set at first.
#[derive(Debug, Clone)]
pub struct Event(Named);

#[derive(Serialize)]
struct Args<'a> {
    name: &'a Key,
    timeout: Option<f64>,
}

impl Event {
    pub(super) fn new(named: Named) -> Event {
        Event(named)
    }

    /// Its name.
    pub fn name(&self) -> &Key {
        &self.0.name
    }

    async fn call<R: serde::de::DeserializeOwned>(
        &self,
        op: &str,
        timeout: Option<Duration>,
    ) -> Result<R, CoordinateError> {
        self.0.call(op, &Args { name: &self.0.name, timeout: seconds(timeout) }).await
    }

    /// Sets it, and lets all go on that wait for it.
    ///
    /// # Errors
    /// [`CoordinateError::Comm`] when the scheduler cannot be asked.
    pub async fn set(&self) -> Result<(), CoordinateError> {
        self.call::<Value>("event_set", None).await.map(drop)
    }

    /// Clears it.
    ///
    /// # Errors
    /// [`CoordinateError::Comm`] when the scheduler cannot be asked.
    pub async fn clear(&self) -> Result<(), CoordinateError> {
        self.call::<Value>("event_clear", None).await.map(drop)
    }

    /// Whether it is set.
    ///
    /// # Errors
    /// [`CoordinateError::Comm`] when the scheduler cannot be asked.
    pub async fn is_set(&self) -> Result<bool, CoordinateError> {
        self.call("event_is_set", None).await
    }

    /// Waits until it is set; false when the time is over first.
    ///
    /// # Errors
    /// [`CoordinateError::Comm`] when the scheduler cannot be asked.
    pub async fn wait(&self, timeout: Option<Duration>) -> Result<bool, CoordinateError> {
        self.call("event_wait", timeout).await
    }
}
