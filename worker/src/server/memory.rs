//! Watching resident memory: values are sent to disk when there is too much, and the state is told to pause over the pause
//! fraction, and to go on below it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use dask_protocol::frame::keep_unused_at_most;
use dask_protocol::memory_watch::look_away;
use tokio::sync::Notify;
use tracing::warn;

use super::monitor::resident_bytes;
use super::shared::{Shared, stimulus};
use crate::state::Event;

/// Values of this share of the limit lead to a measurement at once: some tasks fill a worker faster than it is looked at.
const GROWTH_SHARE: i64 = 64;
/// A paused worker goes on below this share of the fraction at which it pauses, so that it does not do so ten times a second.
const RESUME_SHARE: f64 = 0.98;

/// Memory for frames to come takes this part of what is free, and of the limit at most and at least these.
const UNUSED_OF_FREE: u64 = 2;
const UNUSED_SHARE_MAX: u64 = 8;
const UNUSED_SHARE_MIN: u64 = 64;

/// How long a worker stays paused that cannot become smaller by itself: the first time, and after that.
const STUCK_PATIENCE: Duration = Duration::from_secs(5);
const STUCK_PATIENCE_LATER: Duration = Duration::from_millis(500);

/// What was stored since memory was last measured.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    limit: i64,
    nbytes: AtomicI64,
    much: Notify,
}

impl Growth {
    pub(crate) fn new(limit: Option<u64>) -> Growth {
        let limit = limit.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
        Growth { limit, ..Growth::default() }
    }

    /// To be called with the size of each value that is stored.
    pub(crate) fn stored(&self, nbytes: i64) {
        let before = self.nbytes.fetch_add(nbytes, Ordering::Relaxed);
        if before.saturating_add(nbytes) >= self.limit / GROWTH_SHARE {
            self.much.notify_one();
        }
    }

    async fn is_much(&self) {
        self.much.notified().await;
    }

    fn measured(&self) {
        self.nbytes.store(0, Ordering::Relaxed);
    }
}

/// Watches until the worker stops.
pub(crate) async fn run(shared: Arc<Shared>, limit: u64, pause: Option<f64>, spill: Option<f64>) {
    let [pause_fraction, spill_fraction] = [pause, spill].map(|fraction| fraction.unwrap_or(f64::INFINITY));
    let mut paused = false;
    let mut stuck = Stuck::default();
    let mut headroom = 0;
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(look_away(headroom)) => {}
            () = shared.growth.is_much() => {}
        }
        shared.growth.measured();
        let resident = resident_bytes(&shared.python_pids());
        if let Some(spilling) = &shared.spilling {
            spilling.measured(resident);
        }
        let fraction = fraction_of(resident, limit);
        headroom = below(limit, pause_fraction.min(spill_fraction), resident);
        keep_unused_at_most(usize::try_from(unused_bytes(limit, headroom)).unwrap_or(usize::MAX));
        if !paused && fraction > pause_fraction {
            paused = true;
            warn!(target: "distributed.worker.memory", "Worker is at {:.0}% memory usage. Pausing worker.  Process memory: {} -- Worker memory limit: {}",
                  fraction * 100.0, format_bytes(resident), format_bytes(limit));
            shared.notify(Event::Pause { stimulus_id: stimulus("worker-memory-pause") });
        } else if paused && fraction <= pause_fraction * RESUME_SHARE {
            paused = false;
            warn!(target: "distributed.worker.memory", "Worker is at {:.0}% memory usage. Resuming worker. Process memory: {} -- Worker memory limit: {}",
                  fraction * 100.0, format_bytes(resident), format_bytes(limit));
            stuck = Stuck::default();
            shared.notify(Event::Unpause { stimulus_id: stimulus("worker-memory-unpause") });
        } else if paused && stuck.is_over(&shared) {
            paused = false;
            warn!(target: "distributed.worker.memory", "Worker is at {:.0}% memory usage, and neither does anything run that could free memory, nor does the disk take any. \
                  Resuming worker; results without a place will fail.", fraction * 100.0);
            shared.notify(Event::Unpause { stimulus_id: stimulus("worker-memory-stuck") });
        }
    }
}

/// A paused worker on which nothing runs, with a disk that takes nothing, would stay as it is for ever. Those who wait for
/// its tasks had better hear of it: now and then it goes on for a moment, and what it computes then fails.
#[derive(Debug, Default)]
struct Stuck {
    since: Option<Instant>,
    times: u32,
}

impl Stuck {
    fn is_over(&mut self, shared: &Shared) -> bool {
        let blocked = shared.spilling.as_ref().is_some_and(|spilling| spilling.is_blocked());
        if !blocked || shared.runs_in_python_any() {
            self.since = None;
            return false;
        }
        let patience = if self.times == 0 { STUCK_PATIENCE } else { STUCK_PATIENCE_LATER };
        if self.since.get_or_insert_with(Instant::now).elapsed() < patience {
            return false;
        }
        self.since = None;
        self.times += 1;
        true
    }
}

/// Bytes that are missing to a fraction of the limit.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a size that decides when to look again"
)]
fn below(limit: u64, fraction: f64, resident: u64) -> u64 {
    ((limit as f64 * fraction) as u64).saturating_sub(resident)
}

/// How much memory to keep for frames to come. A worker that is short of memory keeps hardly any: values that go to disk pass
/// through such frames, and what they leave behind must not take the room that they make.
fn unused_bytes(limit: u64, headroom: u64) -> u64 {
    (headroom / UNUSED_OF_FREE).clamp(limit / UNUSED_SHARE_MIN, limit / UNUSED_SHARE_MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a fraction needs no more precision")]
pub(crate) fn fraction_of(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// `dask.utils.format_bytes`: the largest unit of which there is at least nine tenths.
#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
pub(crate) fn format_bytes(n: u64) -> String {
    const UNITS: [(&str, u32); 5] = [("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("ki", 10)];
    for (unit, exponent) in UNITS {
        let size = (1_u64 << exponent) as f64;
        if n as f64 >= size * 0.9 {
            return format!("{:.2} {unit}B", n as f64 / size);
        }
    }
    format!("{n} B")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::{Growth, format_bytes, unused_bytes};

    #[test]
    fn sizes_read_as_dask_prints_them() {
        assert_eq!(format_bytes(0), "0 B");
        assert_eq!(format_bytes(1000), "0.98 kiB");
        assert_eq!(format_bytes(25_276_000_000), "23.54 GiB");
    }

    #[test]
    fn who_is_short_of_memory_keeps_little_of_what_is_unused() {
        assert_eq!(unused_bytes(6400, 4480), 800, "an eighth of the limit is enough");
        assert_eq!(unused_bytes(6400, 1000), 500);
        assert_eq!(unused_bytes(6400, 0), 100);
    }

    #[tokio::test]
    async fn a_sixty_fourth_of_the_limit_is_much() {
        let growth = Growth::new(Some(6400));
        let soon = Duration::from_millis(10);
        growth.stored(99);
        assert!(timeout(soon, growth.is_much()).await.is_err());
        growth.stored(1);
        assert!(timeout(soon, growth.is_much()).await.is_ok());
        growth.measured();
        growth.stored(99);
        assert!(timeout(soon, growth.is_much()).await.is_err());
    }
}
