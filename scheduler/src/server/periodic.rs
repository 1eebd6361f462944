//! What happens by the clock rather than by message: idle time, silent workers, stale leases.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dask_protocol::Address;
use dask_protocol::frame::give_back_unused;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::core::heartbeat_interval;
use super::extensions::LEASE_VALIDATION_INTERVAL;
use super::shared::Server;

/// How often to look whether there is nothing to do (upstream: 250 ms).
const IDLE_CHECK: Duration = Duration::from_millis(250);
/// Nothing has happened when so long no task has changed its state.
const QUIET_CHECK: Duration = Duration::from_secs(1);
/// How often to forget events of peers that left long ago: as often as that is, within these.
const CLEANUP_INTERVAL_MIN: Duration = Duration::from_secs(1);
const CLEANUP_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// A worker may miss this many heartbeats whatever its time to live.
const HEARTBEATS_MISSED_MAX: f64 = 10.0;

/// Runs until the scheduler closes.
pub(crate) async fn run(server: Arc<Server>) {
    let mut idle = ticks(IDLE_CHECK);
    let mut leases = ticks(LEASE_VALIDATION_INTERVAL);
    let mut silent = ticks(server.options.worker_ttl.unwrap_or(Duration::from_secs(3600)).max(IDLE_CHECK) / 4);
    let mut cleanup = ticks(server.options.events_cleanup_delay.clamp(CLEANUP_INTERVAL_MIN, CLEANUP_INTERVAL_MAX));
    let mut quiet = ticks(QUIET_CHECK);
    let mut watch = QuietWatch::default();
    loop {
        tokio::select! {
            () = server.closing.cancelled() => return,
            _ = idle.tick() => close_when_idle(&server).await,
            _ = leases.tick() => server.extensions.semaphores.expire(Instant::now()),
            _ = silent.tick() => remove_silent_workers(&server).await,
            _ = quiet.tick() => {
                give_back_unused();
                watch.look(&server).await;
            }
            _ = cleanup.tick() => clean_up(&server).await,
        }
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Finds out when the scheduler has come to rest.
#[derive(Default)]
struct QuietWatch {
    /// Transitions at the last look.
    seen: u64,
    /// Transitions when it was last told that it is quiet.
    told: u64,
}

impl QuietWatch {
    async fn look(&mut self, server: &Server) {
        let Some(when_quiet) = server.options.when_quiet else { return };
        let Ok(transitions) = server.driver.run(|core| core.state.transition_counter()).await else { return };
        if transitions == self.seen && transitions != self.told {
            self.told = transitions;
            when_quiet();
        }
        self.seen = transitions;
    }
}

async fn clean_up(server: &Server) {
    // A scheduler that closes has nothing left to clean.
    let _ = server.driver.run(super::core::Core::clean_up_events).await;
}

async fn close_when_idle(server: &Server) {
    let Some(timeout) = server.options.idle_timeout else { return };
    let Ok(since) = server.driver.run(|core| core.state.idle_since()).await else { return };
    let used = server.jupyter.get().map_or(0.0, |jupyter| jupyter.last_active());
    if since.is_some_and(|since| server.clock.now() - since.max(used) > timeout.as_secs_f64()) {
        info!(
            target: "distributed.scheduler",
            "Scheduler closing after being idle for {}s", timeout.as_secs_f64()
        );
        server.request_close("idle-timeout-exceeded");
    }
}

/// `worker-ttl`: a worker that has not called for so long is taken for dead.
async fn remove_silent_workers(server: &Server) {
    let Some(ttl) = server.options.worker_ttl else { return };
    let removed = server.driver.run(move |core| {
        let now = core.clock.now();
        let patience = ttl.as_secs_f64().max(HEARTBEATS_MISSED_MAX * heartbeat_interval(core.workers.len()));
        let silent = core.workers.iter().filter(|(_, peer)| now - peer.last_seen > patience);
        let silent: Vec<Address> = silent.map(|(address, _)| address.clone()).collect();
        let stimulus_id = core.stimulus("check-worker-ttl");
        for address in &silent {
            core.remove_worker(address, false, true, stimulus_id.clone());
        }
        (silent, patience)
    });
    let Ok((silent, patience)) = removed.await else { return };
    for address in silent {
        warn!(
            target: "distributed.scheduler",
            "Worker failed to heartbeat for {patience:.0}s; removed: {address}"
        );
    }
}
