//! `Variable`: one value or future under a name.

use std::marker::PhantomData;
use std::time::Duration;

use dask_protocol::message::{VariableDelete, VariableFutureReceived};
use dask_protocol::{Key, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CoordinateError, Item, Named, Put, Record, seconds};
use crate::future::Future;

/// One value or future under a name, which all clients of a cluster see.
///
/// ```no_run
/// # async fn example(client: dask_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let best = client.variable::<f64>("best");
/// best.set(&0.5).await?;
/// assert_eq!(best.get(None).await?.value().await?, 0.5); // in Python: Variable("best").get()
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Variable<T> {
    named: Named,
    value: PhantomData<fn() -> T>,
}

impl<T> Variable<T> {
    pub(super) fn new(named: Named) -> Variable<T> {
        Variable { named, value: PhantomData }
    }

    /// Its name.
    pub fn name(&self) -> &Key {
        &self.named.name
    }

    /// Makes it a task's result. It keeps the result alive.
    ///
    /// # Errors
    /// [`CoordinateError::Comm`] when the scheduler cannot be asked.
    pub async fn set_future(&self, future: &Future<T>) -> Result<(), CoordinateError> {
        self.put(Some(future.key()), Value::Nil).await
    }

    async fn put(&self, key: Option<&Key>, data: Value) -> Result<(), CoordinateError> {
        let put = Put { name: &self.named.name, key, data, timeout: None };
        self.named.call("variable_set", &put).await.map(|_nil: Value| ())
    }

    /// Deletes it. Whoever asks for it waits until it is set again.
    pub fn delete(&self) {
        self.named.client.session().send(VariableDelete { name: Value::from(&self.named.name) });
    }
}

impl<T: Serialize> Variable<T> {
    /// Sets it to a plain value.
    ///
    /// # Errors
    /// [`CoordinateError::Value`] when it cannot be packed, [`CoordinateError::Comm`] when the scheduler cannot be asked.
    pub async fn set(&self, value: &T) -> Result<(), CoordinateError> {
        let data = self.named.plain(value)?;
        self.put(None, data).await
    }
}

impl<T: DeserializeOwned> Variable<T> {
    /// What it holds; waits until it is set.
    ///
    /// # Errors
    /// [`CoordinateError::Timeout`] when it is not set in time, [`CoordinateError::Value`] when it holds another type.
    pub async fn get(&self, timeout: Option<Duration>) -> Result<Item<T>, CoordinateError> {
        #[derive(Serialize)]
        struct Get<'a> {
            name: &'a Key,
            timeout: Option<f64>,
        }
        let get = Get { name: &self.named.name, timeout: seconds(timeout) };
        let record: Record = self.named.call_within("variable_get", &get, timeout).await?;
        self.named.item(&record, |key| {
            let name = Value::from(&self.named.name);
            self.named.client.session().send(VariableFutureReceived { name, key, token: record.token.clone() });
        })
    }
}
