//! The worker's clock: unix seconds, and the scheduler's clock as far as heartbeats told it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Unix seconds by this machine's clock.
pub(crate) fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// How far the scheduler's clock is ahead of ours, in seconds (`scheduler_delay`).
#[derive(Debug, Default)]
pub(crate) struct SchedulerClock(AtomicU64);

impl SchedulerClock {
    /// Sets it from a reply stamped `scheduler_time` to a request sent at `sent` and answered at `answered`.
    pub(crate) fn observe(&self, scheduler_time: f64, sent: f64, answered: f64) {
        self.0.store((scheduler_time - f64::midpoint(sent, answered)).to_bits(), Ordering::Relaxed);
    }

    /// Seconds to add to our clock.
    pub(crate) fn delay(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// Now, by the scheduler's clock.
    pub(crate) fn now(&self) -> f64 {
        unix_now() + self.delay()
    }
}
