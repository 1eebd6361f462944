//! A whole cluster inside this process.

use std::time::Duration;

use dask_client::{Client, ClientError, ClientOptions};
use dask_protocol::{Address, Value};
use dask_scheduler::{Scheduler, SchedulerOptions};
use dask_worker::{PythonChoice, Worker, WorkerOptions};

/// How long `start` waits for its workers to register.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Why a [`LocalCluster`] did not start.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The scheduler did not start.
    #[error("scheduler: {0}")]
    Scheduler(String),
    /// A worker did not start.
    #[error("worker {name}: {reason}")]
    Worker {
        /// Its name.
        name: i64,
        /// Why.
        reason: String,
    },
    /// The cluster could not be reached, or its workers did not register in time.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// A scheduler and workers on threads of this process, listening on the loopback interface.
///
/// The workers have every `#[dask::task]` of this binary. Dropping the cluster aborts it; [`LocalCluster::close`] ends
/// it in order.
///
/// ```
/// #[dask::task]
/// fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cluster = dask::LocalCluster::builder().workers(2).start().await?;
/// let client = cluster.client().await?;
/// let three = client.submit(add(1, 2));
/// let thirteen = client.submit(add(&three, 10));
/// assert_eq!(thirteen.result().await?, 13);
/// client.close().await;
/// cluster.close().await;
/// # Ok(()) }
/// ```
pub struct LocalCluster {
    scheduler: Scheduler,
    workers: Vec<Worker>,
    settings: LocalClusterBuilder,
}

/// What a [`LocalCluster`] should be like.
#[derive(Debug, Clone)]
pub struct LocalClusterBuilder {
    workers: usize,
    threads_per_worker: u32,
    python: PythonChoice,
    dashboard_address: Option<String>,
}

impl LocalClusterBuilder {
    /// How many workers (default 1: threads of one process gain nothing from more).
    #[must_use]
    pub fn workers(mut self, n: usize) -> LocalClusterBuilder {
        self.workers = n;
        self
    }

    /// How many tasks a worker runs at once (default: the machine's cores, divided among the workers).
    #[must_use]
    pub fn threads_per_worker(mut self, n: u32) -> LocalClusterBuilder {
        self.threads_per_worker = n;
        self
    }

    /// Which Python the workers use for Python tasks (default none: native tasks only).
    #[must_use]
    pub fn python(mut self, python: PythonChoice) -> LocalClusterBuilder {
        self.python = python;
        self
    }

    /// `host:port` of the scheduler's HTTP pages (default none).
    #[must_use]
    pub fn dashboard_address(mut self, address: impl Into<String>) -> LocalClusterBuilder {
        self.dashboard_address = Some(address.into());
        self
    }

    /// Starts the scheduler and the workers, and waits until all have registered.
    ///
    /// # Errors
    /// [`ClusterError`] saying which part did not start and why; what had started is stopped again.
    pub async fn start(self) -> Result<LocalCluster, ClusterError> {
        let options = SchedulerOptions {
            listen: vec![Address::from_parts("tcp", "127.0.0.1", 0)],
            dashboard_address: self.dashboard_address.clone(),
            ..SchedulerOptions::default()
        };
        let scheduler = Scheduler::start(options).await.map_err(|e| ClusterError::Scheduler(e.to_string()))?;
        let n = self.workers;
        let mut cluster = LocalCluster { scheduler, workers: Vec::new(), settings: self };
        cluster.grow(n).await?;
        Ok(cluster)
    }

    fn threads(&self) -> u32 {
        if self.threads_per_worker > 0 {
            return self.threads_per_worker;
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        u32::try_from(cores / self.workers.max(1)).unwrap_or(u32::MAX).max(1)
    }
}

impl LocalCluster {
    /// Says what the cluster should be like.
    pub fn builder() -> LocalClusterBuilder {
        LocalClusterBuilder { workers: 1, threads_per_worker: 0, python: PythonChoice::Off, dashboard_address: None }
    }

    /// The scheduler's address, for clients of any language on this machine.
    pub fn address(&self) -> &Address {
        self.scheduler.address()
    }

    /// The workers' addresses.
    pub fn worker_addresses(&self) -> Vec<Address> {
        self.workers.iter().map(|worker| worker.address().clone()).collect()
    }

    /// A client of this cluster.
    ///
    /// # Errors
    /// [`ClientError`] when the scheduler does not answer.
    pub async fn client(&self) -> Result<Client, ClientError> {
        Client::connect_with(self.address().as_str(), ClientOptions::default()).await
    }

    /// Adds `n` workers and waits until they have registered.
    ///
    /// # Errors
    /// [`ClusterError`] when one does not start.
    pub async fn grow(&mut self, n: usize) -> Result<(), ClusterError> {
        for _ in 0..n {
            let name = i64::try_from(self.workers.len()).expect("fewer workers than memory");
            let failed = |reason: String| ClusterError::Worker { name, reason };
            let mut options = WorkerOptions::new(self.address().clone()).map_err(|e| failed(e.to_string()))?;
            options.name = Value::Int(name);
            options.nthreads = self.settings.threads();
            options.listen_address = Address::from_parts("tcp", "127.0.0.1", 0);
            options.dashboard_address = None;
            options.python = self.settings.python.clone();
            let worker = Worker::start(options).await.map_err(|e| failed(e.to_string()))?;
            self.workers.push(worker);
        }
        let client = self.client().await?;
        let ready = client.wait_for_workers(self.workers.len(), START_DEADLINE).await;
        client.close().await;
        Ok(ready?)
    }

    /// Ends the workers, then the scheduler, each in order.
    pub async fn close(self) {
        for worker in &self.workers {
            worker.close("local-cluster-close").await;
        }
        self.scheduler.close("local-cluster-close").await;
    }
}

impl std::fmt::Debug for LocalCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalCluster({:?}, {} workers)", self.address(), self.workers.len())
    }
}
