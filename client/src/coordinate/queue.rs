//! `Queue`: values and futures handed from many clients to many.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use dask_protocol::message::{QueueFutureRelease, QueueRelease};
use dask_protocol::{Key, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CoordinateError, Item, Named, Put, Record, seconds};
use crate::future::Future;

/// A queue of values and futures, which all clients of a cluster share. It ends with its last user.
///
/// ```no_run
/// # async fn example(client: dask_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let jobs = client.queue::<String>("jobs", None).await?;
/// jobs.put(&"first".to_owned(), None).await?; // in Python: Queue("jobs").get()
/// assert_eq!(jobs.get(None).await?.value().await?, "first");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Queue<T> {
    user: Arc<User>,
    value: PhantomData<fn() -> T>,
}

/// One user, as the scheduler counts them.
#[derive(Debug)]
struct User(Named);

impl Drop for User {
    fn drop(&mut self) {
        self.0.client.session().send(QueueRelease { name: Value::from(&self.0.name) });
    }
}

#[derive(Serialize)]
struct Get<'a> {
    name: &'a Key,
    timeout: Option<f64>,
    batch: bool,
}

impl<T> Queue<T> {
    pub(super) async fn create(named: Named, entries_max: Option<usize>) -> Result<Queue<T>, CoordinateError> {
        #[derive(Serialize)]
        struct Create<'a> {
            name: &'a Key,
            maxsize: usize,
        }
        let create = Create { name: &named.name, maxsize: entries_max.unwrap_or(0) };
        let _nil: Value = named.call("queue_create", &create).await?;
        Ok(Queue { user: Arc::new(User(named)), value: PhantomData })
    }

    fn named(&self) -> &Named {
        &self.user.0
    }

    /// Its name.
    pub fn name(&self) -> &Key {
        &self.named().name
    }

    /// Puts a task's result behind the others. The queue keeps the result alive.
    ///
    /// # Errors
    /// [`CoordinateError::Timeout`] when it stays full.
    pub async fn put_future(&self, future: &Future<T>, timeout: Option<Duration>) -> Result<(), CoordinateError> {
        self.put_record(Some(future.key()), Value::Nil, timeout).await
    }

    async fn put_record(
        &self,
        key: Option<&Key>,
        data: Value,
        timeout: Option<Duration>,
    ) -> Result<(), CoordinateError> {
        let put = Put { name: self.name(), key, data, timeout: seconds(timeout) };
        let _nil: Value = self.named().call_within("queue_put", &put, timeout).await?;
        Ok(())
    }

    /// How many entries it has.
    ///
    /// # Errors
    /// [`CoordinateError::Comm`] when the scheduler cannot be asked.
    pub async fn len(&self) -> Result<usize, CoordinateError> {
        #[derive(Serialize)]
        struct Size<'a> {
            name: &'a Key,
        }
        self.named().call("queue_qsize", &Size { name: self.name() }).await
    }

    /// Whether it has none.
    ///
    /// # Errors
    /// [`CoordinateError::Comm`] when the scheduler cannot be asked.
    pub async fn is_empty(&self) -> Result<bool, CoordinateError> {
        self.len().await.map(|len| len == 0)
    }
}

impl<T: Serialize> Queue<T> {
    /// Puts a plain value behind the others; waits while the queue is full.
    ///
    /// # Errors
    /// [`CoordinateError::Timeout`] when it stays full, [`CoordinateError::Value`] when the value cannot be packed.
    pub async fn put(&self, value: &T, timeout: Option<Duration>) -> Result<(), CoordinateError> {
        let data = self.named().plain(value)?;
        self.put_record(None, data, timeout).await
    }
}

impl<T: DeserializeOwned> Queue<T> {
    /// Takes the first entry; waits while there is none.
    ///
    /// # Errors
    /// [`CoordinateError::Timeout`] when none comes in time, [`CoordinateError::Value`] when it is of another type.
    pub async fn get(&self, timeout: Option<Duration>) -> Result<Item<T>, CoordinateError> {
        let get = Get { name: self.name(), timeout: seconds(timeout), batch: false };
        let record: Record = self.named().call_within("queue_get", &get, timeout).await?;
        self.item(&record)
    }

    /// Takes all entries there are.
    ///
    /// # Errors
    /// [`CoordinateError::Value`] when one is of another type.
    pub async fn drain(&self) -> Result<Vec<Item<T>>, CoordinateError> {
        let get = Get { name: self.name(), timeout: None, batch: true };
        let records: Vec<Record> = self.named().call("queue_get", &get).await?;
        records.iter().map(|record| self.item(record)).collect()
    }

    fn item(&self, record: &Record) -> Result<Item<T>, CoordinateError> {
        self.named().item(record, |key| {
            self.named().client.session().send(QueueFutureRelease { name: Value::from(self.name()), key });
        })
    }
}
