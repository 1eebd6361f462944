//! `scatter` and `update_data`: values that a client puts onto workers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dask_protocol::message::{Pairs, Request, StimulusId, UpdateData, WorkerStatus};
use dask_protocol::{Address, CommError, Key, Value};
use futures::future::join_all;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::super::failure::{Failure, Reply, nil, reply};
use super::super::shared::Server;
use super::queries::named_workers;
use super::replicate;
use crate::graph::intake::parse_timedelta;
use crate::state::Event;

/// How often to look for a running worker.
const WORKERS_POLL: Duration = Duration::from_millis(100);
/// How long to wait for one where the client does not say.
const WORKERS_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the next round of values starts, so that many small scatters spread too.
static ROUND_ROBIN: AtomicUsize = AtomicUsize::new(0);

#[derive(Deserialize)]
struct Args {
    data: Pairs<Key, Value>,
    #[serde(default)]
    workers: Value,
    #[serde(default)]
    client: Option<String>,
    #[serde(default)]
    broadcast: Value,
    #[serde(default)]
    timeout: Value,
}

/// `scatter`.
pub(crate) async fn scatter(server: &Server, request: &Request) -> Reply {
    let Args { data, workers, client, broadcast, timeout } = request.args()?;
    let keys: Vec<Key> = data.iter().map(|(key, _)| key.clone()).collect();
    let patience = timeout_argument(&timeout, WORKERS_TIMEOUT)?;
    let started = Instant::now();
    let (mut placed, mut waiting) = (Placed::new(), data.0);
    let targets = loop {
        let mut targets = running_workers(server, &workers, patience.saturating_sub(started.elapsed())).await?;
        targets.sort();
        let Err(failure) = send(server, &targets, &mut waiting, &mut placed).await else { break targets };
        // All that there were are lost. Others may come, unless these ones were asked for.
        if !workers.is_nil() || started.elapsed() > patience {
            return Err(failure);
        }
    };
    let stimulus_id: StimulusId = format!("scatter-{}", server.clock.now()).into();
    let owner = client.as_deref().map(Into::into);
    server.driver.event(Event::UpdateData { data: placed, client: owner, stimulus_id }).await?;
    let copies = match broadcast {
        Value::Bool(true) => Some(targets.len()),
        Value::Int(n) => usize::try_from(n).ok().filter(|&n| n > 0),
        _ => None,
    };
    if let Some(n) = copies {
        replicate::replicate_keys(server, keys.clone(), Some(n), Some(targets), replicate::BRANCHING_FACTOR, false)
            .await?;
    }
    let count = keys.len();
    let log = server.driver.run(move |core| {
        let name = client.as_deref().map(Value::from);
        let msg = Value::map([("action", "scatter".into()), ("client", name.into()), ("count", count.into())]);
        client.iter().for_each(|client| core.log_event(&Key::from(client.as_str()), msg.clone()));
        core.log_event(&Key::from("all"), msg);
    });
    log.await?;
    reply(&keys)
}

/// `timeout` arguments: seconds, or text such as "30 s"; nil for the default.
pub(crate) fn timeout_argument(timeout: &Value, default: Duration) -> Result<Duration, Failure> {
    if timeout.is_nil() {
        return Ok(default);
    }
    let seconds = parse_timedelta(timeout)
        .ok_or_else(|| Failure::value("timeout must be a number of seconds or a text such as \"30 s\""))?;
    Ok(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}

async fn running_workers(server: &Server, named: &Value, patience: Duration) -> Result<Vec<Address>, Failure> {
    let started = Instant::now();
    loop {
        let named = named.clone();
        let found = server.driver.run(move |core| {
            let candidates = named_workers(core, &named).unwrap_or_else(|| core.workers.keys().cloned().collect());
            let unknown = candidates.iter().find(|address| core.state.worker(address).is_none()).cloned();
            let running =
                |address: &Address| core.state.worker(address).is_some_and(|view| view.status == WorkerStatus::Running);
            (candidates.into_iter().filter(running).collect::<Vec<_>>(), unknown)
        });
        match found.await? {
            (_, Some(unknown)) => return Err(Failure::key(unknown.as_str())),
            (running, None) if !running.is_empty() => return Ok(running),
            _ if started.elapsed() > patience => return Err(Failure::timeout("No valid workers found")),
            _ => tokio::time::sleep(WORKERS_POLL).await,
        }
    }
}

#[derive(Serialize)]
struct WorkerUpdate {
    data: Pairs<Key, Value>,
}

#[derive(Deserialize)]
struct WorkerUpdated {
    #[serde(default)]
    nbytes: Pairs<Key, i64>,
}

type Placed = Vec<(Key, Vec<Address>, i64)>;

/// Sends each value to one worker, round-robin. What a worker that is lost meanwhile did not take goes to the others.
///
/// # Errors
/// The last worker's, when none is left; what no worker took is still in `waiting`.
async fn send(
    server: &Server,
    workers: &[Address],
    waiting: &mut Vec<(Key, Value)>,
    placed: &mut Placed,
) -> Result<(), Failure> {
    let start = ROUND_ROBIN.fetch_add(waiting.len(), Ordering::Relaxed);
    let mut targets = workers.to_vec();
    // Each round but the last loses a worker.
    loop {
        let mut shares: IndexMap<&Address, Vec<(Key, Value)>> = IndexMap::new();
        for (i, entry) in waiting.drain(..).enumerate() {
            shares.entry(&targets[start.wrapping_add(i) % targets.len()]).or_default().push(entry);
        }
        let calls = shares.into_iter().map(|(worker, share)| send_share(server, worker.clone(), Pairs(share)));
        let (mut lost, mut failure) = (Vec::new(), None);
        for outcome in join_all(calls).await {
            match outcome {
                Ok(share) => placed.extend(share),
                Err((worker, share, error)) => {
                    warn!(target: "distributed.scheduler", "Worker {worker} did not take scattered values: {error}");
                    lost.push(worker);
                    waiting.extend(share);
                    failure = Some(error);
                }
            }
        }
        let Some(failure) = failure else { return Ok(()) };
        targets.retain(|worker| !lost.contains(worker));
        if targets.is_empty() {
            return Err(failure);
        }
    }
}

/// Sends one worker its share; with the error comes back what it did not take.
async fn send_share(
    server: &Server,
    worker: Address,
    share: Pairs<Key, Value>,
) -> Result<Placed, (Address, Vec<(Key, Value)>, Failure)> {
    let update = WorkerUpdate { data: share };
    let call = server.pool.call(&worker, "update_data", &update);
    let answer: Result<WorkerUpdated, CommError> = server.while_there(&worker, call).await;
    match answer {
        Ok(updated) => Ok(updated.nbytes.into_iter().map(|(key, bytes)| (key, vec![worker.clone()], bytes)).collect()),
        Err(error) => Err((worker, update.data.0, error.into())),
    }
}

/// `update_data`: a client has put values onto workers itself.
pub(crate) async fn update_data(server: &Server, request: &Request) -> Reply {
    let UpdateData { who_has, nbytes, client } = request.args()?;
    let sizes: std::collections::HashMap<Key, i64> = nbytes.into_iter().collect();
    let sized = |(key, workers): (Key, Vec<Address>)| {
        let bytes = sizes.get(&key).copied().unwrap_or(-1);
        (key, workers, bytes)
    };
    let data = who_has.into_iter().map(sized).collect();
    let stimulus_id = format!("update-data-{}", server.clock.now()).into();
    server.driver.event(Event::UpdateData { data, client: client.map(Into::into), stimulus_id }).await?;
    nil()
}
