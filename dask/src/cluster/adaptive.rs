//! As many workers as the load keeps busy (dask's `Adaptive`).

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::{ClusterError, Crew};

/// How often the scheduler is asked (`distributed.adaptive.interval`).
const INTERVAL: Duration = Duration::from_secs(1);

/// Follows the load until the cluster closes.
pub(super) async fn run(crew: Arc<Crew>, minimum: usize, maximum: usize) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            () = crew.closing.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = adapt(&crew, minimum, maximum).await {
            warn!(target: "distributed.deploy.adaptive", "Adaptive scaling goes on after: {error}");
        }
    }
}

/// The scheduler's advice is one to follow at once: it has waited by itself before it advises fewer workers.
async fn adapt(crew: &Arc<Crew>, minimum: usize, maximum: usize) -> Result<(), ClusterError> {
    let wanted: usize = crew.ask("adaptive_target", &()).await?;
    let (target, present) = (wanted.clamp(minimum, maximum), crew.len().await);
    if target != present {
        info!(target: "distributed.deploy.adaptive", "Adapting from {present} to {target} workers");
        crew.scale(target).await?;
    }
    Ok(())
}
