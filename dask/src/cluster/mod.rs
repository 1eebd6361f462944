//! A whole cluster on this machine: on threads of this process, or with workers as processes of their own.

mod adaptive;
mod crew;
mod member;

use std::sync::Arc;

use dask_client::{Client, ClientError, ClientOptions};
use dask_protocol::comm::CommConfig;
use dask_protocol::{Address, CommError};
use dask_scheduler::{Scheduler, SchedulerOptions};
use dask_worker::PythonChoice;
use tokio::task::JoinHandle;

use crew::Crew;
use member::WorkerProgram;

/// Why a [`LocalCluster`] did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    /// The scheduler could not be asked.
    #[error("scheduler: {0}")]
    Comm(#[from] CommError),
}

/// A scheduler in this process and workers on this machine, listening on the loopback interface.
///
/// The workers have every `#[dask::task]` of this binary. They are threads of this process, or with
/// [`LocalClusterBuilder::processes`] processes under nannies. Their number can change: [`LocalCluster::scale`],
/// [`LocalCluster::adapt`]. [`LocalCluster::close`] ends the cluster in order; dropping it does the same without waiting.
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
    crew: Arc<Crew>,
    adapting: Option<JoinHandle<()>>,
}

/// What a [`LocalCluster`] should be like.
#[derive(Debug, Clone)]
pub struct LocalClusterBuilder {
    workers: usize,
    threads_per_worker: u32,
    memory_limit: Option<u64>,
    resources: Vec<(String, f64)>,
    worker_saturation: Option<f64>,
    python: PythonChoice,
    dashboard_address: Option<String>,
    program: Option<WorkerProgram>,
    in_process: bool,
    apart: bool,
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

    /// Bytes of memory for each worker (default no limit). Workers in this process all look at the memory of the whole
    /// process.
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> LocalClusterBuilder {
        self.memory_limit = Some(bytes);
        self
    }

    /// An abstract resource of each worker, which tasks may ask for.
    #[must_use]
    pub fn resource(mut self, name: impl Into<String>, amount: f64) -> LocalClusterBuilder {
        self.resources.push((name.into(), amount));
        self
    }

    /// How many tasks without inputs are sent ahead to each thread (dask's `worker-saturation`, default 1.1). With more, or
    /// infinitely many, a worker need not wait for the scheduler between tasks that take microseconds; but it may start more
    /// than memory holds where such tasks make large results.
    #[must_use]
    pub fn worker_saturation(mut self, tasks_per_thread: f64) -> LocalClusterBuilder {
        self.worker_saturation = Some(tasks_per_thread);
        self
    }

    /// Workers are processes of their own, under nannies that start another one when one dies. They run this program with
    /// `arguments`, and a worker's arguments after them; the program has to make itself a worker then.
    ///
    /// ```no_run
    /// # use std::process::ExitCode;
    /// fn main() -> ExitCode {
    ///     if std::env::args().nth(1).as_deref() == Some("worker") {
    ///         return dask::worker::main_from(std::env::args_os().skip(1));
    ///     }
    ///     let cluster = dask::LocalCluster::builder().workers(2).processes(["worker"]);
    ///     // ... start it and use it
    ///     ExitCode::SUCCESS
    /// }
    /// ```
    #[must_use]
    pub fn processes<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> LocalClusterBuilder {
        // Without a path of our own the start fails with the system's reason.
        let program = std::env::current_exe().unwrap_or_default();
        self.program = Some(WorkerProgram { program, arguments: arguments.into_iter().map(Into::into).collect() });
        self
    }

    /// Has the parts of the cluster that are in this process talk over the loopback interface too, as others do with them.
    /// By default they hand messages over in memory.
    #[must_use]
    pub fn over_loopback(mut self) -> LocalClusterBuilder {
        self.in_process = false;
        self
    }

    /// Has each worker in this process decide on a thread of its own, instead of on those of the runtime in which the cluster is
    /// started. With a runtime of one thread (`current_thread`) for the scheduler and the client, both have a core each and never
    /// change it: what many tasks of microseconds take least with.
    #[must_use]
    pub fn workers_apart(mut self) -> LocalClusterBuilder {
        self.apart = true;
        self
    }

    /// Which Python the workers use for Python tasks, and the scheduler for collections (default none: native tasks only).
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
        let mut options = SchedulerOptions {
            listen: vec![Address::from_parts("tcp", "127.0.0.1", 0)],
            dashboard_address: self.dashboard_address.clone(),
            python: match &self.python {
                PythonChoice::Path(path) => Some(path.clone()),
                PythonChoice::Auto | PythonChoice::Off => None,
            },
            comm: self.comm(),
            ..SchedulerOptions::default()
        };
        if let Some(saturation) = self.worker_saturation {
            options.state.worker_saturation = saturation;
        }
        let scheduler = Scheduler::start(options).await.map_err(|e| ClusterError::Scheduler(e.to_string()))?;
        let n = self.workers;
        let cluster = LocalCluster { crew: Arc::new(Crew::new(scheduler, self)), adapting: None };
        cluster.crew.scale(n).await?;
        Ok(cluster)
    }

    fn comm(&self) -> CommConfig {
        CommConfig { in_process: self.in_process, ..CommConfig::default() }
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
        LocalClusterBuilder {
            workers: 1,
            threads_per_worker: 0,
            memory_limit: None,
            resources: Vec::new(),
            worker_saturation: None,
            python: PythonChoice::Off,
            dashboard_address: None,
            program: None,
            in_process: true,
            apart: false,
        }
    }

    /// The scheduler's address, for clients of any language on this machine.
    pub fn address(&self) -> &Address {
        self.crew.scheduler.address()
    }

    /// The workers' addresses.
    pub async fn worker_addresses(&self) -> Vec<Address> {
        self.crew.addresses().await
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
    pub async fn grow(&self, n: usize) -> Result<(), ClusterError> {
        self.crew.scale(self.crew.len().await + n).await
    }

    /// Makes it `n` workers. Those added have registered when this returns; those that go have handed over what only they
    /// held.
    ///
    /// # Errors
    /// [`ClusterError`] when one does not start, or the scheduler cannot be asked.
    pub async fn scale(&self, n: usize) -> Result<(), ClusterError> {
        self.crew.scale(n).await
    }

    /// From now on keeps as many workers as the load keeps busy, at least `minimum` and at most `maximum`. A second call
    /// changes the bounds.
    pub fn adapt(&mut self, minimum: usize, maximum: usize) {
        let adapting = tokio::spawn(adaptive::run(Arc::clone(&self.crew), minimum, maximum.max(minimum)));
        if let Some(before) = self.adapting.replace(adapting) {
            before.abort();
        }
    }

    /// Ends the workers, then the scheduler, each in order.
    pub async fn close(self) {
        self.crew.close().await;
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        let crew = Arc::clone(&self.crew);
        if !crew.closing.is_cancelled() {
            self.crew.runtime.spawn(async move { crew.close().await });
        }
    }
}

impl std::fmt::Debug for LocalCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalCluster({:?})", self.address())
    }
}
