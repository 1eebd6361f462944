//! How often a worker and its nanny look at how much memory the worker uses.

use std::time::Duration;

/// `distributed.worker.memory.monitor-interval`: how long to look away where memory may run out.
const LOOK_AWAY_MIN: Duration = Duration::from_millis(100);
/// The longest: how far apart the figures are that go with the report of a worker's death.
const LOOK_AWAY_MAX: Duration = Duration::from_millis(500);
/// No process fills memory faster: new pages cost a core 0.25 s a GiB and more, and few tasks fill any on all cores at once.
const FILLED_BYTES_PER_SECOND: f64 = (8_u64 << 30) as f64;

/// How long a watcher may look away while so many bytes are left to where it has to do something. A worker that is far from
/// its limit costs a fifth of the wake-ups.
///
/// ```
/// use dask_protocol::memory_watch::look_away;
/// assert_eq!(look_away(0).as_millis(), 100);
/// assert_eq!(look_away(2 << 30).as_millis(), 250);
/// assert_eq!(look_away(64 << 30).as_millis(), 500);
/// ```
#[expect(clippy::cast_precision_loss, reason = "a size to within a few bytes")]
pub fn look_away(headroom: u64) -> Duration {
    Duration::from_secs_f64(headroom as f64 / FILLED_BYTES_PER_SECOND).clamp(LOOK_AWAY_MIN, LOOK_AWAY_MAX)
}
