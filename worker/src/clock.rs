//! The worker's clock: unix seconds, and the scheduler's clock as far as heartbeats told it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Unix seconds by this machine's clock.
pub(crate) fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The scheduler's clock, as far as it is known, and one that goes its own way.
#[derive(Debug)]
pub(crate) struct SchedulerClock {
    /// How far the scheduler's is ahead of ours, in seconds (`scheduler_delay`).
    delay: AtomicU64,
    started: Instant,
    /// Unix seconds at the start.
    origin: f64,
}

impl Default for SchedulerClock {
    fn default() -> SchedulerClock {
        SchedulerClock { delay: AtomicU64::default(), started: Instant::now(), origin: unix_now() }
    }
}

impl SchedulerClock {
    /// Seconds that pass evenly, whatever is done to the clocks of this machine and the scheduler's: for what is due, and how long
    /// something took.
    pub(crate) fn steady(&self) -> f64 {
        self.origin + self.started.elapsed().as_secs_f64()
    }

    /// When a moment of [`SchedulerClock::steady`] was by the scheduler's clock.
    pub(crate) fn moment(&self, steady: f64) -> f64 {
        self.now() - (self.steady() - steady)
    }

    /// Sets it from a reply stamped `scheduler_time` to a request sent at `sent` and answered at `answered`.
    pub(crate) fn observe(&self, scheduler_time: f64, sent: f64, answered: f64) {
        self.delay.store((scheduler_time - f64::midpoint(sent, answered)).to_bits(), Ordering::Relaxed);
    }

    /// Seconds to add to our clock.
    pub(crate) fn delay(&self) -> f64 {
        f64::from_bits(self.delay.load(Ordering::Relaxed))
    }

    /// Now, by the scheduler's clock.
    pub(crate) fn now(&self) -> f64 {
        unix_now() + self.delay()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_seconds_stay_when_the_schedulers_clock_is_found_to_be_wrong() {
        let clock = SchedulerClock::default();
        let before = clock.steady();
        clock.observe(0.0, unix_now(), unix_now());
        assert!(clock.now() < 60.0, "the scheduler lives in 1970");
        let after = clock.steady();
        assert!(before <= after && after < before + 60.0);
        assert!(clock.moment(before) < 60.0);
    }
}
