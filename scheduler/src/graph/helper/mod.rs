//! The pool of Python processes that materialise the graphs which need Python.
//!
//! Helpers start when first needed; a scheduler that only sees graphs of `submit` and `map` never starts one. A helper
//! serves one request at a time. User code runs in it: if it kills the process, only the request at hand fails and the next
//! one gets a new process. Giving up a request (its client left) kills the helper, because Python cannot be interrupted.

mod frames;
mod messages;
mod process;
mod python;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dask_protocol::Value;
use dask_protocol::message::ErrorInfo;
use tokio::sync::Semaphore;

use self::messages::{Annotated, Versions};
pub use self::messages::{AnnotationColumn, BarrierFacts, MaterializeRequest, Materialized, PickleFrames};
use self::process::HelperProcess;

/// Helpers at a time, unless configured: a second one so that a slow graph does not hold up other clients.
pub const HELPERS_MAX: usize = 2;

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
    idle: Mutex<Vec<HelperProcess>>,
}

impl HelperPool {
    /// A pool without any process yet.
    pub fn new(options: HelperOptions) -> HelperPool {
        let slots = Semaphore::new(options.helpers_max.max(1));
        HelperPool(Arc::new(Pool { options, slots, idle: Mutex::new(Vec::new()) }))
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
        let reply = helper.request(frames).await.map_err(HelperError::Died)?;
        self.put_back(helper);
        Ok(reply)
    }

    async fn take(&self) -> Result<HelperProcess, HelperError> {
        while let Some(mut helper) = self.idle().pop() {
            if helper.is_alive() {
                return Ok(helper);
            }
        }
        let mut tried = Vec::new();
        for candidate in python::candidates(self.0.options.python.as_deref(), |name| std::env::var_os(name)) {
            match HelperProcess::start(&candidate).await {
                Ok(helper) => return Ok(helper),
                Err(why) => tried.push(format!("{} (from {}): {why}", candidate.program.display(), candidate.origin)),
            }
        }
        Err(HelperError::NoPython(tried.join("; ")))
    }

    fn put_back(&self, helper: HelperProcess) {
        self.idle().push(helper);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<HelperProcess>> {
        self.0.idle.lock().expect("no panic while the idle helpers are held")
    }
}

#[cfg(test)]
mod tests;
