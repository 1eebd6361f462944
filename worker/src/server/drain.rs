//! Before a worker goes that was told to: values of which it holds the only copy move to others (`close_gracefully`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dask_protocol::message::{Keys, StimulusId};
use dask_protocol::{Address, CommError, Key, Value};
use serde::Serialize;
use tokio::time::timeout;
use tracing::{info, warn};

use super::LOGGER;
use super::reconnect::Link;
use super::shared::{Shared, stimulus};

/// How long the scheduler may take to tell who else holds what, for the log.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Retire {
    workers: Vec<Address>,
    close_workers: bool,
    remove: bool,
    stimulus_id: StimulusId,
}

#[derive(Serialize)]
struct WhoHas {
    keys: Keys,
}

/// Moves what only this worker holds to others, within `grace` if there is one. The scheduler removes the worker when that is
/// done; it is for the caller to close it.
pub(super) async fn drain(shared: &Arc<Shared>, grace: Option<Duration>, reason: &str) {
    tokio::select! {
        () = shared.stop.cancelled() => {}
        _ = shared.close_request() => {}
        () = hand_over(shared, grace, reason) => {}
    }
}

async fn hand_over(shared: &Arc<Shared>, grace: Option<Duration>, reason: &str) {
    let address = &shared.identity.address;
    info!(target: LOGGER, "Closing worker gracefully: {address}. Reason: {reason}");
    let failure = if shared.link.get().is_some_and(Link::is_away) {
        Some("the scheduler cannot be reached".to_owned())
    } else {
        shared.leave();
        match grace {
            None => retire(shared).await,
            Some(grace) => timeout(grace, retire(shared))
                .await
                .unwrap_or_else(|_| Some(format!("not done in {:.0} s", grace.as_secs_f64()))),
        }
    };
    if let Some(failure) = failure {
        let lost = match timeout(QUESTION_TIMEOUT, only_here(shared)).await {
            Ok(Some(0)) => return,
            Ok(Some(lost)) => lost.to_string(),
            Ok(None) | Err(_) => format!("up to {}", shared.store.len()),
        };
        warn!(
            target: LOGGER,
            "Worker {address} closes without having handed over {lost} keys of which nobody else has a copy: {failure}"
        );
    }
}

/// Why not all could be handed over, if it could not.
async fn retire(shared: &Shared) -> Option<String> {
    let address = shared.identity.address.clone();
    let request = Retire {
        workers: vec![address.clone()],
        close_workers: false,
        remove: true,
        stimulus_id: stimulus("worker-close-gracefully"),
    };
    let retired: Result<HashMap<Address, Value>, CommError> =
        shared.pool.call(&shared.identity.scheduler, "retire_workers", &request).await;
    match retired {
        Ok(retired) if retired.is_empty() => Some("no other worker can take it".to_owned()),
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}

/// How many values are nowhere else; `None` when that cannot be told.
async fn only_here(shared: &Arc<Shared>) -> Option<usize> {
    let held: Vec<Key> = shared.ask(|state| state.in_memory().map(|(key, _)| key.clone()).collect()).await?;
    if held.is_empty() {
        return Some(0);
    }
    let request = WhoHas { keys: held.into() };
    let holders: Result<HashMap<Key, Vec<Value>>, CommError> =
        shared.pool.call(&shared.identity.scheduler, "who_has", &request).await;
    Some(holders.ok()?.values().filter(|holders| holders.len() == 1).count())
}
