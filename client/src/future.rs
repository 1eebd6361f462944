//! Futures: a task's result, wherever it is.

use std::future::{IntoFuture, poll_fn};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};

use bytes::Bytes;
use dask_protocol::Key;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, Stream};
use futures::{FutureExt, StreamExt};
use serde::de::DeserializeOwned;

use crate::call::TaskCall;
use crate::client::Client;
use crate::error::TaskError;
use crate::session::Session;

/// Where a task stands, as far as the scheduler has told.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// Not finished yet.
    Pending,
    /// Its result is in a worker's memory, or was told to this client.
    Finished,
    /// It failed, was cancelled, or cannot be reached.
    Error(TaskError),
}

/// A share in a key: while one lives, the scheduler keeps the result.
#[derive(Clone)]
pub(crate) struct Handle(Arc<Held>);

/// There is one for each key of a client, and there may be millions: small.
pub(crate) struct Held {
    key: Key,
    progress: Mutex<Progress>,
    session: Weak<Session>,
}

#[derive(Default)]
struct Progress {
    standing: Standing,
    /// Who waits for it to be settled.
    waiting: Vec<Waker>,
}

/// A [`Status`] in less memory.
#[derive(Default)]
enum Standing {
    #[default]
    Pending,
    /// With the result packed, if that was told too. In a box: few have one.
    Finished(Option<Box<Bytes>>),
    Error(Box<TaskError>),
}

impl Standing {
    fn status(&self) -> Status {
        match self {
            Standing::Pending => Status::Pending,
            Standing::Finished(_) => Status::Finished,
            Standing::Error(error) => Status::Error((**error).clone()),
        }
    }
}

impl From<Status> for Standing {
    fn from(status: Status) -> Standing {
        match status {
            Status::Pending => Standing::Pending,
            Status::Finished => Standing::Finished(None),
            Status::Error(error) => Standing::Error(Box::new(error)),
        }
    }
}

impl Handle {
    pub(crate) fn new(key: Key, status: Status, session: &Arc<Session>) -> Handle {
        Handle(Arc::new(Held { key, progress: Mutex::new(status.into()), session: Arc::downgrade(session) }))
    }

    /// A handle of a task that no client can submit any more.
    fn closed(key: Key) -> Handle {
        let failed = Progress::from(Status::Error(TaskError::closed(&key)));
        Handle(Arc::new(Held { key, progress: Mutex::new(failed), session: Weak::new() }))
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

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, status: Status) {
        self.stand(status.into());
    }

    /// There is a result, and this is it if it was told.
    pub(crate) fn finish(&self, told: Option<Bytes>) {
        self.stand(Standing::Finished(told.map(Box::new)));
    }

    /// The result, packed, if it was told.
    pub(crate) fn told(&self) -> Option<Bytes> {
        match &self.progress().standing {
            Standing::Finished(told) => told.as_deref().cloned(),
            Standing::Pending | Standing::Error(_) => None,
        }
    }

    fn stand(&self, standing: Standing) {
        let waiting = {
            let mut progress = self.progress();
            progress.standing = standing;
            match progress.standing {
                Standing::Pending => Vec::new(),
                Standing::Finished(_) | Standing::Error(_) => std::mem::take(&mut progress.waiting),
            }
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn status(&self) -> Status {
        self.progress().standing.status()
    }

    /// Resolves once the task is finished or has failed.
    pub(crate) async fn settled(&self) -> Result<(), TaskError> {
        poll_fn(|cx| {
            let mut progress = self.progress();
            match &progress.standing {
                Standing::Finished(_) => return Poll::Ready(Ok(())),
                Standing::Error(error) => return Poll::Ready(Err((**error).clone())),
                Standing::Pending => {}
            }
            if !progress.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                progress.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

impl From<Status> for Progress {
    fn from(status: Status) -> Progress {
        Progress { standing: status.into(), waiting: Vec::new() }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {:?}", self.0.key, self.status())
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

    /// Whether it has a result, has failed or was cancelled.
    pub fn is_done(&self) -> bool {
        self.status() != Status::Pending
    }

    /// Submits a task that reads this one's result.
    ///
    /// ```
    /// # use dask_client::{Future, IntoArg, TaskCall};
    /// # fn add(a: impl IntoArg<i64>, b: impl IntoArg<i64>) -> TaskCall<i64> { TaskCall::new("add", vec![a.into_arg(), b.into_arg()]) }
    /// fn plus_ten(three: &Future<i64>) -> Future<i64> {
    ///     three.then(|three| add(three, 10))
    /// }
    /// ```
    pub fn then<U>(&self, call: impl FnOnce(&Future<T>) -> TaskCall<U>) -> Future<U> {
        let call = call(self);
        match self.handle.0.session.upgrade() {
            Some(session) => Client::of(session).submit(call),
            None => {
                let key = call.key.unwrap_or_else(|| Key::from(call.function.name.as_ref()));
                Future::new(Handle::closed(key))
            }
        }
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
            return Err(TaskError::closed(self.key()));
        };
        session.result(&self.handle).await
    }
}

impl<T: DeserializeOwned> Future<T> {
    /// The result if the task has one by now; `None` while it has not.
    ///
    /// # Errors
    /// [`TaskError`] when it failed or was cancelled, or the result could not be fetched.
    pub async fn try_result(&self) -> Result<Option<T>, TaskError> {
        match self.status() {
            Status::Pending => Ok(None),
            Status::Finished => self.result().await.map(Some),
            Status::Error(error) => Err(error),
        }
    }

    /// Waits for the result and fetches it, for code that is not asynchronous.
    ///
    /// # Errors
    /// As [`Future::result`].
    ///
    /// # Panics
    /// Inside an asynchronous runtime, whose thread it would block.
    pub fn blocking_result(&self) -> Result<T, TaskError> {
        match self.handle.0.session.upgrade() {
            Some(session) => session.runtime().block_on(self.result()),
            None => Err(TaskError::closed(self.key())),
        }
    }
}

impl Future<Bytes> {
    /// As [`Future::result`], without copying the bytes once they have arrived. Within one process they are those that the
    /// task returned. An Arrow buffer passes as `Bytes::from_owner(buffer)`, and is one again with `Buffer::from(bytes)`.
    ///
    /// # Errors
    /// As [`Future::result`].
    pub async fn bytes(&self) -> Result<Bytes, TaskError> {
        match self.handle.0.session.upgrade() {
            Some(session) => session.gather_bytes(&self.handle).await,
            None => Err(TaskError::closed(self.key())),
        }
    }
}

/// Awaiting a future is awaiting its result.
impl<T: DeserializeOwned + 'static> IntoFuture for Future<T> {
    type Output = Result<T, TaskError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;
    fn into_future(self) -> Self::IntoFuture {
        async move { self.result().await }.boxed()
    }
}

impl<'a, T: DeserializeOwned> IntoFuture for &'a Future<T> {
    type Output = Result<T, TaskError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;
    fn into_future(self) -> Self::IntoFuture {
        self.result().boxed()
    }
}

/// Futures of several types, whose results are waited for together with [`join`].
pub trait Join {
    /// The results.
    type Values;
    /// Waits for all and fetches them.
    ///
    /// # Errors
    /// The first [`TaskError`] among them.
    fn join(self) -> impl std::future::Future<Output = Result<Self::Values, TaskError>> + Send;
}

macro_rules! join {
    ($($name:ident: $ty:ident),+) => {
        impl<$($ty: DeserializeOwned + Send),+> Join for ($(&Future<$ty>,)+) {
            type Values = ($($ty,)+);
            async fn join(self) -> Result<Self::Values, TaskError> {
                let ($($name,)+) = self;
                futures::try_join!($($name.result()),+)
            }
        }
    };
}
join!(a: A, b: B);
join!(a: A, b: B, c: C);
join!(a: A, b: B, c: C, d: D);

/// Waits for futures of several types: `join((&count, &name)).await?` gives a tuple of their results.
///
/// # Errors
/// The first [`TaskError`] among them.
pub async fn join<J: Join>(futures: J) -> Result<J::Values, TaskError> {
    futures.join().await
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
