//! The books about the Python process, which outlive any one process: how to start it, what it runs, its plugins.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use dask_protocol::message::RunId;
use dask_protocol::{Key, Value};
use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

use super::shared::Shared;
use crate::executor::python::message::Introduction;
use crate::executor::python::{Interpreter, Python, PythonError, PythonReader};
use crate::options::PythonChoice;

/// What it takes to start another process like the first.
#[derive(Debug, Clone)]
pub(crate) struct PythonStart {
    /// The interpreter.
    pub path: PathBuf,
    /// Where its program is written.
    pub directory: PathBuf,
    /// Whom it works for.
    pub introduction: Introduction,
}

impl Shared {
    /// Starts another process; the one in use is not touched.
    ///
    /// # Errors
    /// [`PythonError`] when the interpreter that served before does not any more.
    pub(crate) async fn start_python(&self) -> Result<(Python, PythonReader), PythonError> {
        let start = self.python_start.get().ok_or(PythonError::Gone)?;
        let mut introduction = start.introduction.clone();
        introduction.scheduler_delay = self.clock.delay();
        let interpreter = Interpreter::start(&PythonChoice::Path(start.path.clone()), &start.directory).await?;
        let interpreter = interpreter.ok_or(PythonError::Gone)?;
        interpreter.introduce(introduction).await
    }

    /// Makes this process the one that runs tasks.
    pub(crate) fn set_python(&self, python: Arc<Python>) {
        *self.python.write().unwrap_or_else(PoisonError::into_inner) = Some(python);
    }

    /// A task is about to be sent there.
    pub(crate) fn begin_python_run(&self, key: &Key, run_id: RunId) {
        self.python_runs().insert((key.clone(), run_id));
    }

    /// Its outcome came, or is not waited for any more; false when that was so before.
    pub(crate) fn end_python_run(&self, key: &Key, run_id: RunId) -> bool {
        self.python_runs().swap_remove(&(key.clone(), run_id))
    }

    /// Whether its outcome is still to come from there.
    pub(crate) fn runs_in_python(&self, key: &Key, run_id: RunId) -> bool {
        self.python_runs().contains(&(key.clone(), run_id))
    }

    /// Whether anything runs there.
    pub(crate) fn runs_in_python_any(&self) -> bool {
        !self.python_runs().is_empty()
    }

    /// Takes all that still run there off the books.
    pub(crate) fn take_python_runs(&self) -> IndexSet<(Key, RunId), FxBuildHasher> {
        std::mem::take(&mut *self.python_runs())
    }

    /// Whether a task for which the process is being replaced is still running; the others are forgotten.
    pub(crate) fn overdue_still_runs(&self) -> bool {
        let mut overdue = self.overdue.lock().unwrap_or_else(PoisonError::into_inner);
        overdue.retain(|it| self.runs_in_python(&it.key, it.run_id));
        !overdue.is_empty()
    }

    /// Stops taking in what the process says, which ends it when the reader is dropped. `None` when it is gone already.
    pub(crate) async fn stop_reading_python(&self) -> Option<PythonReader> {
        let reading = self.python_reading.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        reading.stop.cancel();
        reading.task.await.ok().flatten()
    }

    /// Notes a request that adds or removes a plugin, so that it can be repeated in another process.
    pub(crate) fn note_plugin_request(&self, request: &Value) {
        let name = request.get("name").and_then(Value::as_str);
        let mut known = self.plugin_requests.lock().unwrap_or_else(PoisonError::into_inner);
        match (request.get("op").and_then(Value::as_str), name) {
            (Some("plugin-add"), Some(name)) => drop(known.insert(name.to_owned(), request.clone())),
            (Some("plugin-remove"), Some(name)) => drop(known.shift_remove(name)),
            _ => {}
        }
    }

    /// The requests that set up what is set up now, in their order.
    pub(crate) fn plugin_requests(&self) -> Vec<(String, Value)> {
        let known = self.plugin_requests.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(name, request)| (name.clone(), request.clone())).collect()
    }

    /// The process has something now that can be in no other.
    pub(crate) fn bind_python(&self) {
        self.python_bound.store(true, Ordering::Relaxed);
    }

    /// Whether that may be so.
    pub(crate) fn python_is_bound(&self) -> bool {
        self.python_bound.load(Ordering::Relaxed)
    }

    fn python_runs(&self) -> MutexGuard<'_, IndexSet<(Key, RunId), FxBuildHasher>> {
        self.python_runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
