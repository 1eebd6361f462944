//! The scheduler's clock: unix time that never jumps.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::state::Seconds;

/// Unix time read once at the start and advanced by the monotonic clock, so that durations in the state are never
/// negative. Workers learn their offset to this clock when they register.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started_unix: Seconds,
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Clock { started_unix: unix.as_secs_f64(), started: Instant::now() }
    }

    /// Seconds since the Unix epoch.
    pub(crate) fn now(&self) -> Seconds {
        self.started_unix + self.started.elapsed().as_secs_f64()
    }

    /// How long until a moment of this clock; zero when it has passed.
    pub(crate) fn until(&self, moment: Seconds) -> Duration {
        Duration::try_from_secs_f64(moment - self.now()).unwrap_or(Duration::ZERO)
    }
}
