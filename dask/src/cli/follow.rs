//! Processes that end with the one that started them, even when that is killed.

use std::env;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// Names the process to end with. Children of that child inherit it, to whom it is nobody's parent.
pub(super) const VARIABLE: &str = "DASK_RS_FOLLOW";

/// Asks for SIGTERM when this process's parent ends, if the variable names that parent.
pub(super) fn follow_parent() {
    let named = env::var(VARIABLE).ok().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
    let is_parent = || named.is_some() && getppid() == named;
    if !is_parent() {
        return;
    }
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        tracing::debug!(target: "distributed", %error, "not told of the end of the process that started this one");
    }
    if !is_parent() {
        // It ended before it could be followed.
        std::process::exit(0);
    }
}
