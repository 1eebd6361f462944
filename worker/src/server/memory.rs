//! Watching resident memory: over the pause fraction the state is told to pause, below it to go on.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::monitor::resident_bytes;
use super::shared::{Shared, stimulus};
use crate::state::Event;

/// As `distributed.worker.memory.monitor-interval`.
const INTERVAL: Duration = Duration::from_millis(100);

/// Watches until the worker stops.
pub(crate) async fn run(shared: Arc<Shared>, limit: u64, pause_fraction: f64) {
    let mut paused = false;
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let resident = resident_bytes(shared.python().map(|python| python.pid()));
        let fraction = fraction_of(resident, limit);
        if !paused && fraction > pause_fraction {
            paused = true;
            warn!(target: "distributed.worker.memory", "Worker is at {:.0}% memory usage. Pausing worker.  Process memory: {} -- Worker memory limit: {}",
                  fraction * 100.0, format_bytes(resident), format_bytes(limit));
            shared.notify(Event::Pause { stimulus_id: stimulus("worker-memory-pause") });
        } else if paused && fraction <= pause_fraction {
            paused = false;
            warn!(target: "distributed.worker.memory", "Worker is at {:.0}% memory usage. Resuming worker. Process memory: {} -- Worker memory limit: {}",
                  fraction * 100.0, format_bytes(resident), format_bytes(limit));
            shared.notify(Event::Unpause { stimulus_id: stimulus("worker-memory-unpause") });
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a fraction needs no more precision")]
fn fraction_of(part: u64, whole: u64) -> f64 {
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
    use super::format_bytes;

    #[test]
    fn sizes_read_as_dask_prints_them() {
        assert_eq!(format_bytes(0), "0 B");
        assert_eq!(format_bytes(1000), "0.98 kiB");
        assert_eq!(format_bytes(25_276_000_000), "23.54 GiB");
    }
}
