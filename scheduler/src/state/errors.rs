//! The exceptions the scheduler itself raises in tasks.

use std::collections::BTreeMap;

use dask_protocol::message::ErrorInfo;
use dask_protocol::pickle::{self, PickledException};
use dask_protocol::{Address, Key, Value};

use super::event::Seconds;
use super::task::{Restrictions, Task};

fn error(exception: PickledException) -> ErrorInfo {
    ErrorInfo {
        exception: Value::Bin(exception.pickle),
        traceback: Value::Nil,
        exception_text: exception.text.into(),
        traceback_text: "".into(),
    }
}

/// Too many workers died while they ran the task. `notes` tell how.
pub(super) fn killed_worker(task: &Key, last_worker: &Address, allowed_failures: u32, notes: &[String]) -> ErrorInfo {
    error(pickle::KilledWorker { task, last_worker: last_worker.as_str(), allowed_failures, notes }.pickled())
}

/// The worker that held an actor is gone.
pub(super) fn actor_lost() -> ErrorInfo {
    error(pickle::builtin_exception("RuntimeError", "Worker holding Actor was lost"))
}

/// No worker at all for longer than `no-workers-timeout`.
pub(super) fn no_worker(task: &Key, timeout: Seconds) -> ErrorInfo {
    error(pickle::NoWorkerError { task, timeout }.pickled())
}

/// No worker that meets the restrictions for longer than `no-workers-timeout`.
pub(super) fn no_valid_worker(task: &Task, timeout: Seconds) -> ErrorInfo {
    let none = Restrictions::default();
    let restrictions = task.restrictions().unwrap_or(&none);
    let workers: Vec<String> = restrictions.workers.iter().map(|address| address.as_str().to_owned()).collect();
    let resources: BTreeMap<String, f64> = task.annotations.resources.iter().cloned().collect();
    let exception = pickle::NoValidWorkerError {
        task: &task.key,
        host_restrictions: &restrictions.hosts,
        worker_restrictions: &workers,
        resource_restrictions: &resources,
        timeout,
    };
    error(exception.pickled())
}

/// A task's inputs are larger than the memory of the worker it was sent to.
pub(super) fn inputs_too_large(task: &Key, needed: u128, worker: &Address, limit: u64, is_final: bool) -> ErrorInfo {
    let mut text = format!(
        "Task {task:?} has {} worth of input dependencies, but worker {worker} has memory_limit set to {}.",
        format_bytes(needed),
        format_bytes(u128::from(limit)),
    );
    if is_final {
        text.push_str(
            " It looks as if client.compute() was called on a huge collection. Consider writing to distributed \
             storage, or slicing or reducing it first.",
        );
    }
    error(pickle::builtin_exception("MemoryError", &text))
}

/// Bytes as dask prints them, such as `1.50 GiB`.
#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
pub(super) fn format_bytes(bytes: u128) -> String {
    /// Units are used from 90 % of them on, as in `dask.utils.format_bytes`.
    const FROM: f64 = 0.9;
    let units = [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("kiB", 10)];
    let unit = units.into_iter().find(|(_, power)| bytes as f64 >= FROM * 2f64.powi(*power));
    unit.map_or_else(|| format!("{bytes} B"), |(name, power)| format!("{:.2} {name}", bytes as f64 / 2f64.powi(power)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_print_as_in_dask() {
        assert_eq!(format_bytes(1), "1 B");
        assert_eq!(format_bytes(1234), "1.21 kiB");
        assert_eq!(format_bytes(12_345_678), "11.77 MiB");
        assert_eq!(format_bytes(1_234_567_890_123), "1.12 TiB");
    }
}
