//! As many workers as the load keeps busy (dask's `Adaptive`).

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::{ClusterError, Crew};

/// How often the scheduler is asked (`distributed.adaptive.interval`).
const INTERVAL: Duration = Duration::from_secs(1);
/// How often in a row fewer workers have to be enough before some are closed (`distributed.adaptive.wait-count`).
const WAIT_COUNT: u32 = 3;

/// Follows the load until the cluster closes.
pub(super) async fn run(crew: Arc<Crew>, minimum: usize, maximum: usize) {
    let mut fewer = 0;
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            () = crew.closing.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = adapt(&crew, minimum, maximum, &mut fewer).await {
            warn!(target: "distributed.deploy.adaptive", "Adaptive scaling goes on after: {error}");
        }
    }
}

async fn adapt(crew: &Arc<Crew>, minimum: usize, maximum: usize, fewer: &mut u32) -> Result<(), ClusterError> {
    let wanted: usize = crew.ask("adaptive_target", &()).await?;
    let (target, present) = (wanted.clamp(minimum, maximum), crew.len().await);
    *fewer = if target < present { *fewer + 1 } else { 0 };
    if target > present || *fewer >= WAIT_COUNT {
        *fewer = 0;
        info!(target: "distributed.deploy.adaptive", "Adapting from {present} to {target} workers");
        crew.scale(target).await?;
    }
    Ok(())
}
