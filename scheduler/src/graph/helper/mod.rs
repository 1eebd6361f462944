//! The pool of Python processes that materialise the graphs which need Python.
//!
//! Helpers start when first needed; a scheduler that only sees graphs of `submit` and `map` never starts one. A helper
//! serves one request at a time. User code runs in it: if it kills the process, only the request at hand fails and the next
//! one gets a new process. Giving up a request (its client left) kills the helper, because Python cannot be interrupted.

mod frames;
mod messages;
mod process;
mod python;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bytes::Bytes;
use dask_protocol::Value;
use dask_protocol::message::ErrorInfo;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tracing::warn;

use self::messages::{Annotated, StandIn, StartPlugin, Versions, WriteDump};
pub use self::messages::{AnnotationColumn, BarrierFacts, MaterializeRequest, Materialized, PickleFrames};
use self::process::HelperProcess;
pub(crate) use self::process::{LastLines, forward_lines};
pub(crate) use self::python::{Candidate, candidates};

/// Helpers at a time, unless configured: a second one so that a slow graph does not hold up other clients.
pub const HELPERS_MAX: usize = 2;
/// Most scheduler plugins that new helpers are set up with; every `Client.upload_file` is one.
const PLUGINS_MAX: usize = 1_000;

/// How helpers are found and how many there may be.
#[derive(Debug, Clone)]
pub struct HelperOptions {
    /// The Python given on the command line. Otherwise `DASK_PYTHON`, `$VIRTUAL_ENV/bin/python` or `python3`.
    pub python: Option<PathBuf>,
    /// Most helpers at a time; at least one.
    pub helpers_max: usize,
}

impl Default for HelperOptions {
    fn default() -> Self {
        HelperOptions { python: None, helpers_max: HELPERS_MAX }
    }
}

/// Why a helper gave no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HelperError {
    /// Python raised: the exception is for the user as it is.
    #[error("{}", .0.exception_text)]
    Raised(Box<ErrorInfo>),
    /// No Python with dask was found.
    #[error(
        "This graph must be built by Python with dask and distributed, next to the scheduler, but none was found: {0}. \
         Start the scheduler in an environment that has them, or point --python or DASK_PYTHON to it."
    )]
    NoPython(String),
    /// The process died.
    #[error("The process that builds graphs for the scheduler died while it worked on this graph: {0}")]
    Died(String),
    /// The scheduler could not do its part.
    #[error("The scheduler cannot run Python beside it: {0}")]
    Environment(String),
    /// The process answered something that makes no sense.
    #[error("The process that builds graphs for the scheduler gave an answer that cannot be read: {0}")]
    Answer(String),
}

/// The helpers. Cloning gives another handle to the same pool.
#[derive(Debug, Clone)]
pub struct HelperPool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    options: HelperOptions,
    slots: Semaphore,
    idle: Mutex<Vec<Idle>>,
    /// Requests that start the plugins registered so far; every helper handles each of them (twice, if several were
    /// registered at the same time).
    plugins: Mutex<Vec<Vec<Bytes>>>,
    directory: OnceLock<TempDir>,
}

/// A helper that waits, and how many of the plugins it has started.
#[derive(Debug)]
struct Idle {
    process: HelperProcess,
    plugins: usize,
}

impl HelperPool {
    /// A pool without any process yet.
    pub fn new(options: HelperOptions) -> HelperPool {
        let slots = Semaphore::new(options.helpers_max.max(1));
        HelperPool(Arc::new(Pool {
            options,
            slots,
            idle: Mutex::default(),
            plugins: Mutex::default(),
            directory: OnceLock::new(),
        }))
    }

    /// Runs an expression's `__dask_graph__` and everything else that takes Python.
    ///
    /// # Errors
    /// [`HelperError`]: the user's exception, or what is wrong with the helpers.
    pub async fn materialize(&self, request: &MaterializeRequest<'_>) -> Result<Materialized, HelperError> {
        let reply = self.request(&request.materialize_frames()).await?;
        Materialized::read(&reply)
    }

    /// Evaluates annotations that are not plain values for the keys of a graph that itself needed no Python.
    ///
    /// # Errors
    /// [`HelperError`]: the user's exception, or what is wrong with the helpers.
    pub async fn annotate(&self, request: &MaterializeRequest<'_>) -> Result<Vec<AnnotationColumn>, HelperError> {
        let reply = self.request(&request.annotate_frames()).await?;
        Annotated::read(&reply)
    }

    /// The versions of Python and its packages, as the `versions` RPC returns them.
    ///
    /// # Errors
    /// [`HelperError`]: what is wrong with the helpers.
    pub async fn versions(&self, packages: &[String]) -> Result<Value, HelperError> {
        let reply = self.request(&Versions::frames(packages)).await?;
        Versions::read(&reply)
    }

    /// Writes a dump of the cluster to a URL of `fsspec`'s, in dask's `format`.
    ///
    /// # Errors
    /// [`HelperError`]: what the storage raised, or what is wrong with the helpers.
    pub async fn write_dump(&self, url: &str, format: Value, options: Value, state: Value) -> Result<(), HelperError> {
        let reply = self.request(&WriteDump::frames(url, format, options, state)?).await?;
        WriteDump::read(&reply)
    }

    /// Starts a pickled scheduler plugin in this and every later helper: the modules that it brings are importable from
    /// then on.
    ///
    /// # Errors
    /// [`HelperError`]: the plugin's exception, or what is wrong with the helpers.
    pub async fn start_plugin(&self, plugin: Bytes, facts: &Value) -> Result<(), HelperError> {
        let frames = StartPlugin::frames(plugin, &StandIn { facts, directory: self.directory()? })?;
        if self.plugins().len() >= PLUGINS_MAX {
            return Err(HelperError::Environment(format!("more than {PLUGINS_MAX} scheduler plugins")));
        }
        let _slot = self.0.slots.acquire().await.expect("the pool's semaphore is never closed");
        let mut helper = self.take().await?;
        let reply = helper.process.request(&frames).await.map_err(HelperError::Died)?;
        let started = StartPlugin::read(&reply);
        if started.is_ok() {
            let mut plugins = self.plugins();
            plugins.push(frames);
            if helper.plugins + 1 == plugins.len() {
                helper.plugins += 1;
            }
        }
        self.put_back(helper);
        started
    }

    /// Starts a helper if there is none, so that the first graph does not wait for Python's imports.
    ///
    /// # Errors
    /// [`HelperError::NoPython`].
    pub async fn warm_up(&self) -> Result<(), HelperError> {
        let _slot = self.0.slots.acquire().await.expect("the pool's semaphore is never closed");
        let helper = self.take().await?;
        self.put_back(helper);
        Ok(())
    }

    async fn request(&self, frames: &[Bytes]) -> Result<Vec<Bytes>, HelperError> {
        let _slot = self.0.slots.acquire().await.expect("the pool's semaphore is never closed");
        let mut helper = self.take().await?;
        let reply = helper.process.request(frames).await.map_err(HelperError::Died)?;
        self.put_back(helper);
        Ok(reply)
    }

    /// A helper that has started every plugin.
    async fn take(&self) -> Result<Idle, HelperError> {
        let mut helper = match self.take_idle() {
            Some(helper) => helper,
            None => Idle { process: self.start().await?, plugins: 0 },
        };
        loop {
            let Some(frames) = self.plugins().get(helper.plugins).cloned() else { return Ok(helper) };
            let reply = helper.process.request(&frames).await.map_err(HelperError::Died)?;
            if let Err(error) = StartPlugin::read(&reply) {
                warn!(%error, "a scheduler plugin that started before does not start in a new helper");
            }
            helper.plugins += 1;
        }
    }

    /// A waiting helper that did not die meanwhile.
    fn take_idle(&self) -> Option<Idle> {
        let mut idle = self.idle();
        while let Some(mut helper) = idle.pop() {
            if helper.process.is_alive() {
                return Some(helper);
            }
        }
        None
    }

    async fn start(&self) -> Result<HelperProcess, HelperError> {
        let mut tried = Vec::new();
        for candidate in python::candidates(self.0.options.python.as_deref(), |name| std::env::var_os(name)) {
            match HelperProcess::start(&candidate).await {
                Ok(helper) => return Ok(helper),
                Err(why) => tried.push(format!("{} (from {}): {why}", candidate.program.display(), candidate.origin)),
            }
        }
        Err(HelperError::NoPython(tried.join("; ")))
    }

    fn put_back(&self, helper: Idle) {
        self.idle().push(helper);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.idle.lock().expect("no panic while the idle helpers are held")
    }

    fn plugins(&self) -> MutexGuard<'_, Vec<Vec<Bytes>>> {
        self.0.plugins.lock().expect("no panic while the plugins are held")
    }

    /// A folder that all helpers share, for uploaded files. It goes with the pool.
    ///
    /// # Errors
    /// [`HelperError::Environment`].
    pub(crate) fn directory(&self) -> Result<&Path, HelperError> {
        if let Some(directory) = self.0.directory.get() {
            return Ok(directory.path());
        }
        let fresh = tempfile::Builder::new()
            .prefix("dask-rs-scheduler-")
            .tempdir()
            .map_err(|error| HelperError::Environment(format!("no temporary folder: {error}")))?;
        Ok(self.0.directory.get_or_init(|| fresh).path())
    }
}

#[cfg(test)]
mod tests;
