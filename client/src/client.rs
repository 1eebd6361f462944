//! The client itself.

use std::sync::Arc;
use std::time::Duration;

use dask_protocol::comm::CommConfig;
use dask_protocol::message::NativeTask;
use dask_protocol::native::NativeCall;
use dask_protocol::{Address, Key, Value, native};
use futures::StreamExt;
use futures::stream::{self, FuturesUnordered, Stream};
use rustc_hash::FxHashSet;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::call::TaskCall;
use crate::error::{ClientError, TaskError};
use crate::explain::Explanation;
use crate::future::{Future, Handle};
use crate::graph::{GraphBuilder, GraphError, Node};
use crate::session::Session;

/// Port a scheduler listens on where an address names none.
const SCHEDULER_PORT: u16 = 8786;
/// In how many messages the tasks of a stream that are in flight are submitted, at least: so that workers have some while
/// others are sent.
const STREAM_BATCHES: usize = 8;
/// Most tasks of a stream in one message.
const STREAM_BATCH_MAX: usize = 1024;
/// Small results of tasks submitted with no more others than these come with the news that they are there. Of more they are
/// fetched if somebody asks: together, and they take no memory here before.
const TELLING_MAX: usize = 1024;
/// How often `wait_for_workers` looks.
const WORKERS_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A connection to a scheduler. Clones share it; the last one dropped leaves the scheduler.
///
/// ```no_run
/// # use dask_client::{Client, TaskCall, IntoArg};
/// # fn add(a: impl IntoArg<i64>, b: impl IntoArg<i64>) -> TaskCall<i64> { TaskCall::new("add", vec![a.into_arg(), b.into_arg()]) }
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect("127.0.0.1:8786").await?;
/// let three = client.submit(add(1, 2));
/// let five = client.submit(add(&three, 2));
/// assert_eq!(five.result().await?, 5);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Client {
    session: Arc<Session>,
    /// The task that submits, for clients inside tasks.
    within: Option<Key>,
}

/// How to connect.
#[derive(Clone, Default)]
pub struct ClientOptions {
    /// A readable part of the client's id.
    pub name: Option<String>,
    /// Time-outs and TLS.
    pub comm: CommConfig,
}

impl Client {
    /// Connects to the scheduler at `address` (`tcp://host:8786`; scheme and port may be left out).
    ///
    /// # Errors
    /// [`ClientError`] when it cannot be reached or refuses the client.
    pub async fn connect(address: &str) -> Result<Client, ClientError> {
        Client::connect_with(address, ClientOptions::default()).await
    }

    /// Connects with options.
    ///
    /// # Errors
    /// [`ClientError`] when it cannot be reached or refuses the client.
    pub async fn connect_with(address: &str, options: ClientOptions) -> Result<Client, ClientError> {
        let scheduler = Address::normalize(address, Some(SCHEDULER_PORT))
            .map_err(|source| ClientError::Comm { scheduler: Address::from(address), source })?;
        let unique = uuid::Uuid::new_v4();
        let id = options.name.map_or_else(|| format!("Client-{unique}"), |name| format!("Client-{name}-{unique}"));
        let session = Session::open(scheduler, id, &options.comm).await?;
        Ok(Client::of(session))
    }

    pub(crate) fn of(session: Arc<Session>) -> Client {
        Client { session, within: None }
    }

    /// The same client, for use inside a task: what it submits comes before what is submitted after that task.
    #[must_use]
    pub fn within(&self, task: &Key) -> Client {
        Client { session: Arc::clone(&self.session), within: Some(task.clone()) }
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The client's id, as the scheduler knows it.
    pub fn id(&self) -> &str {
        self.session.id()
    }

    /// The scheduler's address.
    pub fn scheduler(&self) -> &Address {
        self.session.scheduler()
    }

    /// Runs a task on the cluster.
    pub fn submit<T>(&self, call: TaskCall<T>) -> Future<T> {
        self.map([call]).pop().expect("one future for one call")
    }

    /// Runs many tasks, sent in one message.
    pub fn map<T>(&self, calls: impl IntoIterator<Item = TaskCall<T>>) -> Vec<Future<T>> {
        let mut tasks = Vec::new();
        let mut keys = Vec::new();
        // The calls live until their tasks are sent: they hold the futures that they read.
        let calls: Vec<_> = calls.into_iter().collect();
        let tells = calls.len() <= TELLING_MAX;
        let futures = calls.iter().map(|call| Future::new(self.prepare(call, tells, &mut tasks, &mut keys))).collect();
        if !keys.is_empty() {
            self.session.submit(tasks, keys, self.within.clone());
        }
        futures
    }

    /// Runs many tasks with at most `in_flight` of them submitted and not taken out of the stream, which gives the futures in
    /// the order in which they finish or fail. The calls are made as the stream is read, so neither they nor their results
    /// fill memory, however many there are.
    ///
    /// ```
    /// # use dask_client::{Client, IntoArg, TaskCall, TaskError};
    /// # fn square(n: impl IntoArg<u64>) -> TaskCall<u64> { TaskCall::new("square", vec![n.into_arg()]) }
    /// use futures::StreamExt;
    ///
    /// async fn sum_of_squares(client: &Client) -> Result<u64, TaskError> {
    ///     let mut squares = std::pin::pin!(client.stream((0..1_000_000_u64).map(square), 10_000));
    ///     let mut sum = 0;
    ///     while let Some(square) = squares.next().await {
    ///         sum += square.result().await?;
    ///     }
    ///     Ok(sum)
    /// }
    /// ```
    pub fn stream<T: 'static, C: IntoIterator<Item = TaskCall<T>>>(
        &self,
        calls: C,
        in_flight: usize,
    ) -> impl Stream<Item = Future<T>> + use<T, C> {
        let (client, calls) = (self.clone(), calls.into_iter().fuse());
        let batch = (in_flight / STREAM_BATCHES).clamp(1, STREAM_BATCH_MAX);
        stream::unfold((client, calls, FuturesUnordered::new()), move |(client, mut calls, mut waiting)| async move {
            while waiting.is_empty() || waiting.len() + batch <= in_flight {
                let next: Vec<TaskCall<T>> = calls.by_ref().take(batch).collect();
                if next.is_empty() {
                    break;
                }
                waiting.extend(client.map(next).into_iter().map(settled));
            }
            let future = waiting.next().await?;
            Some((future, (client, calls, waiting)))
        })
    }

    fn prepare<T>(
        &self,
        call: &TaskCall<T>,
        tells_result: bool,
        tasks: &mut Vec<NativeTask>,
        keys: &mut Vec<Key>,
    ) -> Handle {
        let key = call.key.clone().unwrap_or_else(|| self.session.next_key(&call.function.name));
        let (run_spec, dependencies) = match call.run_spec(&key, tells_result) {
            Ok(made) => made,
            Err(error) => return self.session.failed(key, error),
        };
        let (handle, _) = self.session.hold(&key);
        tasks.push(NativeTask { key: key.clone(), dependencies, run_spec, annotations: call.annotations() });
        keys.push(key);
        handle
    }

    /// Runs a graph; gives the futures of the nodes asked for. Other results are dropped as soon as nothing needs them.
    ///
    /// # Errors
    /// [`GraphError::Cycle`] when tasks wait for each other in a circle; nothing is sent then.
    pub fn compute<T>(&self, graph: GraphBuilder, wanted: &[Node<T>]) -> Result<Vec<Future<T>>, GraphError> {
        let (mut tasks, _held) = graph.into_tasks()?;
        let keys: Vec<Key> = wanted.iter().map(|node| node.key().clone()).collect();
        if keys.len() <= TELLING_MAX {
            let wanted: FxHashSet<&Key> = keys.iter().collect();
            for task in tasks.iter_mut().filter(|task| wanted.contains(&task.key)) {
                if let Some(call) = task.run_spec.as_call() {
                    task.run_spec = NativeCall { tells_result: true, ..call.clone() }.into_payload();
                }
            }
        }
        let futures = keys.iter().map(|key| Future::new(self.session.hold(key).0)).collect();
        self.session.submit(tasks, keys, self.within.clone());
        Ok(futures)
    }

    /// Waits for all results and fetches them in one request, in order.
    ///
    /// # Errors
    /// The first [`TaskError`] among them.
    pub async fn gather<T: DeserializeOwned>(&self, futures: &[Future<T>]) -> Result<Vec<T>, TaskError> {
        let handles: Vec<Handle> = futures.iter().map(|f| f.handle().clone()).collect();
        self.session.gather(&handles).await
    }

    /// Waits until all have a result, without fetching any.
    ///
    /// # Errors
    /// The first [`TaskError`] among them.
    pub async fn wait<T>(&self, futures: &[Future<T>]) -> Result<(), TaskError> {
        for future in futures {
            future.wait().await?;
        }
        Ok(())
    }

    /// Sends a value to a worker, or with `broadcast` to all, and gives its future.
    ///
    /// # Errors
    /// [`TaskError`] when it cannot be packed or no worker takes it.
    pub async fn scatter<T: Serialize>(&self, value: &T, broadcast: bool) -> Result<Future<T>, TaskError> {
        let key = self.session.next_key("scatter");
        let payload = native::pack_value(value).map_err(|e| TaskError::Argument {
            function: "scatter".to_owned(),
            index: 0,
            reason: e.to_string(),
        })?;
        let (handle, _) = self.session.hold(&key);
        self.session.scatter(key, payload, broadcast).await?;
        Ok(Future::new(handle))
    }

    /// The future of a key that exists on the cluster already (made by another client, say).
    pub fn future<T>(&self, key: impl Into<Key>) -> Future<T> {
        let key = key.into();
        let (handle, new) = self.session.hold(&key);
        if new {
            self.session.desire(vec![key]);
        }
        Future::new(handle)
    }

    /// Cancels tasks; with `force` even those that other clients want.
    pub fn cancel<T>(&self, futures: &[Future<T>], force: bool) {
        self.session.cancel(futures.iter().map(|f| f.key().clone()).collect(), force);
    }

    /// What the scheduler says of itself and its workers (dask's `identity`).
    ///
    /// # Errors
    /// [`ClientError::Comm`] when it cannot be asked.
    pub async fn scheduler_info(&self) -> Result<Value, ClientError> {
        #[derive(Serialize)]
        struct Identity {
            n_workers: i64,
        }
        let reply = self.session.pool().call(self.scheduler(), "identity", &Identity { n_workers: -1 }).await;
        reply.map_err(|source| ClientError::Comm { scheduler: self.scheduler().clone(), source })
    }

    /// Why a task is where it is: what it waits for, why it is on its worker, what happened to it. Printed, the answer is
    /// what `dask explain` shows.
    ///
    /// # Errors
    /// [`ClientError::Comm`] when the scheduler cannot be asked; schedulers of `dask.distributed` do not know the question.
    pub async fn explain(&self, key: &Key) -> Result<Explanation, ClientError> {
        #[derive(Serialize)]
        struct About<'a> {
            key: &'a Key,
        }
        let reply = self.session.pool().call(self.scheduler(), "explain", &About { key }).await;
        reply.map_err(|source| ClientError::Comm { scheduler: self.scheduler().clone(), source })
    }

    /// Waits until at least `n` workers run.
    ///
    /// # Errors
    /// [`ClientError::Workers`] when there are fewer after `timeout`.
    pub async fn wait_for_workers(&self, n: usize, timeout: Duration) -> Result<(), ClientError> {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let info = self.scheduler_info().await?;
            let found = running_workers(&info);
            if found >= n {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(ClientError::Workers { wanted: n, found, seconds: timeout.as_secs_f64() });
            }
            tokio::time::sleep(WORKERS_POLL_INTERVAL).await;
        }
    }

    /// Leaves the scheduler: waits until everything submitted has been sent, then disconnects.
    pub async fn close(self) {
        self.session.close().await;
    }
}

/// A future once its task has a result or has failed; its error shows when the caller asks for the result.
async fn settled<T>(future: Future<T>) -> Future<T> {
    let (Ok(()) | Err(_)) = future.wait().await;
    future
}

fn running_workers(identity: &Value) -> usize {
    let Some(Value::Map(workers)) = identity.get("workers") else { return 0 };
    workers.iter().filter(|(_, w)| w.get("status").and_then(Value::as_str) == Some("running")).count()
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<Client: {:?} of {:?}>", self.id(), self.scheduler())
    }
}
