//! Futures: a task's result, wherever it is.

use std::marker::PhantomData;
use std::sync::{Arc, Weak};

use dask_protocol::Key;
use futures::StreamExt;
use futures::stream::{FuturesUnordered, Stream};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::error::TaskError;
use crate::session::Session;

/// Where a task stands, as far as the scheduler has told.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// Not finished yet.
    Pending,
    /// Its result is in a worker's memory.
    Finished,
    /// It failed, was cancelled, or cannot be reached.
    Error(TaskError),
}

/// A share in a key: while one lives, the scheduler keeps the result.
#[derive(Clone)]
pub(crate) struct Handle(Arc<Held>);

pub(crate) struct Held {
    key: Key,
    status: watch::Sender<Status>,
    session: Weak<Session>,
}

impl Handle {
    pub(crate) fn new(key: Key, status: Status, session: &Arc<Session>) -> Handle {
        Handle(Arc::new(Held { key, status: watch::Sender::new(status), session: Arc::downgrade(session) }))
    }

    pub(crate) fn key(&self) -> &Key {
        &self.0.key
    }

    pub(crate) fn downgrade(&self) -> Weak<Held> {
        Arc::downgrade(&self.0)
    }

    pub(crate) fn upgrade(weak: &Weak<Held>) -> Option<Handle> {
        weak.upgrade().map(Handle)
    }

    pub(crate) fn set(&self, status: Status) {
        self.0.status.send_replace(status);
    }

    pub(crate) fn status(&self) -> Status {
        self.0.status.borrow().clone()
    }

    /// Resolves once the task is finished or has failed.
    pub(crate) async fn settled(&self) -> Result<(), TaskError> {
        let mut changes = self.0.status.subscribe();
        let status = changes.wait_for(|status| *status != Status::Pending).await.expect("the handle owns the sender");
        match &*status {
            Status::Error(error) => Err(error.clone()),
            Status::Finished | Status::Pending => Ok(()),
        }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {:?}", self.0.key, *self.0.status.borrow())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(session) = self.session.upgrade() {
            session.release(self);
        }
    }
}

impl Held {
    pub(crate) fn held_key(&self) -> &Key {
        &self.key
    }
}

/// The result of a task, as a `T`, now or later.
///
/// Clones share one interest in the key; when the last is dropped the scheduler may forget the result.
pub struct Future<T> {
    handle: Handle,
    value: PhantomData<fn() -> T>,
}

impl<T> Future<T> {
    pub(crate) fn new(handle: Handle) -> Future<T> {
        Future { handle, value: PhantomData }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The task's key.
    pub fn key(&self) -> &Key {
        self.handle.key()
    }

    /// Where the task stands, without waiting.
    pub fn status(&self) -> Status {
        self.handle.status()
    }

    /// Waits until the task has a result, without fetching it.
    ///
    /// # Errors
    /// [`TaskError`] when it failed, was cancelled, or the scheduler is gone.
    pub async fn wait(&self) -> Result<(), TaskError> {
        self.handle.settled().await
    }

    /// Cancels the task, unless somebody else wants it too.
    pub fn cancel(&self) {
        if let Some(session) = self.handle.0.session.upgrade() {
            session.cancel(vec![self.key().clone()], false);
        }
    }
}

impl<T: DeserializeOwned> Future<T> {
    /// Waits for the result and fetches it.
    ///
    /// # Errors
    /// [`TaskError`] with the remote cause when there is none.
    pub async fn result(&self) -> Result<T, TaskError> {
        let session = self.handle.0.session.upgrade();
        let Some(session) = session else {
            self.handle.settled().await?;
            return Err(TaskError::Fetch { key: self.key().clone(), reason: "the client is closed".to_owned() });
        };
        let mut values = session.gather(std::slice::from_ref(&self.handle)).await?;
        Ok(values.pop().expect("one value for one key"))
    }
}

impl<T> Clone for Future<T> {
    fn clone(&self) -> Future<T> {
        Future::new(self.handle.clone())
    }
}

impl<T> std::fmt::Debug for Future<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Future({:?})", self.handle)
    }
}

/// The futures in the order in which they finish or fail.
pub fn as_completed<T: 'static>(futures: impl IntoIterator<Item = Future<T>>) -> impl Stream<Item = Future<T>> {
    let waiting: FuturesUnordered<_> = futures
        .into_iter()
        .map(|future| async move {
            // A failed future is complete too; its error shows when the caller asks for the result.
            let (Ok(()) | Err(_)) = future.wait().await;
            future
        })
        .collect();
    waiting.map(|future| future)
}
