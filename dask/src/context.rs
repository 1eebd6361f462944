//! What a running task can ask for, the cluster included.

use std::ops::Deref;
use std::sync::Arc;

use dask_client::{Client, ClientError};
use dask_worker::native;
use tokio::sync::OnceCell;

/// One running task, as it sees itself: an argument of type `&TaskContext` of a `#[dask::task]` function.
///
/// It is no part of the call. Everything of [`dask_worker::native::TaskContext`] is there: the task's key and worker,
/// whether it is cancelled, leaving the worker's threads, events, what all tasks of a worker share.
///
/// ```
/// use dask::TaskContext;
///
/// #[dask::task]
/// fn where_am_i(context: &TaskContext, greeting: &str) -> String {
///     format!("{greeting} from {} on {}", context.key(), context.worker())
/// }
///
/// /// Tasks submit tasks, and leave their thread to others while they wait for them.
/// #[dask::task]
/// async fn both(context: &TaskContext) -> Result<String, dask::BoxError> {
///     let client = context.client().await?;
///     let one = client.submit(where_am_i("one"));
///     context.secede()?;
///     Ok(one.result().await?)
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cluster = dask::LocalCluster::builder().threads_per_worker(1).start().await?;
/// let client = cluster.client().await?;
/// assert!(client.submit(both()).result().await?.starts_with("one from where_am_i"));
/// # client.close().await;
/// # cluster.close().await;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct TaskContext(native::TaskContext);

/// The client of all tasks of one worker.
#[derive(Default)]
struct WorkerClient(OnceCell<Client>);

/// Why a task has no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// The scheduler cannot be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The worker closed.
    #[error(transparent)]
    Worker(#[from] native::NativeError),
}

impl TaskContext {
    /// A client of the task's own cluster, to submit more tasks (dask's `get_client`). All tasks of a worker share its
    /// connection.
    ///
    /// A task that waits for others should [`secede`](native::TaskContext::secede) first: else it keeps the thread that
    /// they may need.
    ///
    /// # Errors
    /// [`ContextError`] when the scheduler cannot be reached, or the worker closed.
    pub async fn client(&self) -> Result<Client, ContextError> {
        let shared: Arc<WorkerClient> = self.worker_state(WorkerClient::default)?;
        let client = shared.0.get_or_try_init(|| Client::connect(self.scheduler().as_str())).await?;
        Ok(client.within(self.key()))
    }
}

impl From<native::TaskContext> for TaskContext {
    fn from(context: native::TaskContext) -> TaskContext {
        TaskContext(context)
    }
}

impl Deref for TaskContext {
    type Target = native::TaskContext;
    fn deref(&self) -> &native::TaskContext {
        &self.0
    }
}
