//! `replicate`: more copies of some results, fetched from each other by the workers.

use dask_protocol::message::{Keys, Pairs, Request, WorkerStatus};
use dask_protocol::{Address, Key, Value};
use futures::future::join_all;
use indexmap::{IndexMap, IndexSet};
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::super::failure::{Failure, Reply, nil, reply};
use super::super::shared::Server;
use super::queries::named_workers;
use crate::state::Event;

/// New copies per existing copy and round (`branching_factor`).
pub(crate) const BRANCHING_FACTOR: usize = 2;
/// Rounds without a new copy after which the rest is given up: its workers are gone or full.
const FRUITLESS_ROUNDS_MAX: usize = 3;

#[derive(Deserialize)]
struct Args {
    keys: Keys,
    #[serde(default)]
    n: Option<usize>,
    #[serde(default)]
    workers: Value,
    #[serde(default)]
    branching_factor: Option<usize>,
    #[serde(default = "yes")]
    delete: bool,
}

fn yes() -> bool {
    true
}

/// Keys that could not be handled.
#[derive(Serialize)]
pub(crate) struct PartialFail {
    status: &'static str,
    keys: Vec<Key>,
}

impl PartialFail {
    pub(crate) fn new(keys: Vec<Key>) -> PartialFail {
        PartialFail { status: "partial-fail", keys }
    }
}

/// `replicate`.
pub(crate) async fn replicate(server: &Server, request: &Request) -> Reply {
    let Args { keys, n, workers, branching_factor, delete } = request.args()?;
    let workers =
        if workers.is_nil() { None } else { server.driver.run(move |core| named_workers(core, &workers)).await? };
    let factor = branching_factor.unwrap_or(BRANCHING_FACTOR).max(1);
    let missing = replicate_keys(server, keys.0, n, workers, factor, delete).await?;
    if missing.is_empty() { nil() } else { reply(&PartialFail::new(missing)) }
}

/// Brings each key to `n` copies on `workers` (all running ones where none are named); returns keys without data.
pub(crate) async fn replicate_keys(
    server: &Server,
    keys: Vec<Key>,
    n: Option<usize>,
    workers: Option<Vec<Address>>,
    factor: usize,
    delete: bool,
) -> Result<Vec<Key>, Failure> {
    let _alone = server.replicas.lock().await;
    let workers = running(server, workers).await?;
    let n = n.map_or(workers.len(), |n| n.min(workers.len()));
    if n == 0 {
        return Err(Failure::value("Can not use replicate to delete data"));
    }
    let keys: IndexSet<Key> = keys.into_iter().collect();
    let holders = holders(server, keys.iter().cloned().collect()).await?;
    let missing: Vec<Key> = holders.iter().filter(|(_, held)| held.is_empty()).map(|(key, _)| key.clone()).collect();
    if !missing.is_empty() {
        return Ok(missing);
    }
    if delete {
        drop_surplus(server, &holders, &workers, n).await?;
    }
    let mut wanted: Vec<Key> = keys.into_iter().collect();
    let mut fruitless = 0;
    while fruitless < FRUITLESS_ROUNDS_MAX {
        let plan = plan_round(&self::holders(server, wanted.clone()).await?, &workers, n, factor);
        if plan.is_empty() {
            break;
        }
        wanted = plan.values().flatten().map(|(key, _)| key.clone()).collect::<IndexSet<_>>().into_iter().collect();
        let copied = gather_on_workers(server, plan).await?;
        fruitless = if copied == 0 { fruitless + 1 } else { 0 };
    }
    Ok(Vec::new())
}

async fn running(server: &Server, named: Option<Vec<Address>>) -> Result<IndexSet<Address>, Failure> {
    let workers = server.driver.run(move |core| {
        let candidates = named.unwrap_or_else(|| core.workers.keys().cloned().collect());
        let running = |address: &Address| core.state.worker(address).is_some_and(|v| v.status == WorkerStatus::Running);
        candidates.into_iter().filter(running).collect()
    });
    Ok(workers.await?)
}

type Holders = Vec<(Key, Vec<Address>)>;

async fn holders(server: &Server, keys: Vec<Key>) -> Result<Holders, Failure> {
    let found = server.driver.run(move |core| {
        let holders = |key: Key| {
            let workers = core.state.who_has(&key);
            (key, workers)
        };
        keys.into_iter().map(holders).collect()
    });
    Ok(found.await?)
}

/// For each worker the keys it shall fetch, with their holders.
pub(crate) type FetchPlan = IndexMap<Address, Vec<(Key, Vec<Address>)>>;

/// One round: each key grows to at most `factor` new copies per copy there is.
fn plan_round(holders: &Holders, workers: &IndexSet<Address>, n: usize, factor: usize) -> FetchPlan {
    let mut plan = FetchPlan::new();
    let mut rng = rand::rng();
    for (key, held) in holders {
        let here = held.iter().filter(|address| workers.contains(*address)).count();
        let count = n.saturating_sub(here).min(factor.saturating_mul(held.len()));
        let without: Vec<&Address> = workers.iter().filter(|address| !held.contains(address)).collect();
        for target in without.choose_multiple(&mut rng, count) {
            plan.entry((*target).clone()).or_default().push((key.clone(), held.clone()));
        }
    }
    plan
}

#[derive(Serialize)]
struct Gather {
    who_has: Pairs<Key, Vec<Address>>,
}

#[derive(Deserialize)]
struct Gathered {
    status: String,
    #[serde(default)]
    keys: Keys,
}

/// Lets workers fetch, tells the state what arrived, and counts it.
pub(crate) async fn gather_on_workers(server: &Server, plan: FetchPlan) -> Result<usize, Failure> {
    let calls = plan.into_iter().map(|(worker, wanted)| async move {
        let keys: Vec<Key> = wanted.iter().map(|(key, _)| key.clone()).collect();
        let wanted = Gather { who_has: Pairs(wanted) };
        let call = server.pool.call::<_, Gathered>(&worker, "gather", &wanted);
        let gathered = server.while_there(&worker, call).await;
        (worker, keys, gathered)
    });
    let mut copied = 0;
    for (worker, mut keys, gathered) in join_all(calls).await {
        match gathered {
            Ok(Gathered { status, keys: failed }) => {
                if status != "OK" {
                    warn!(target: "distributed.scheduler", "Worker {worker} failed to acquire keys: {failed:?}");
                    keys.retain(|key| !failed.contains(key));
                }
                copied += keys.len();
                let stimulus_id = format!("gather-on-worker-{}", server.clock.now()).into();
                server.driver.event(Event::ReplicasAdded { worker, keys, stimulus_id }).await?;
            }
            Err(error) => {
                warn!(target: "distributed.scheduler", "Communication with worker {worker} failed during replication: {error}");
            }
        }
    }
    Ok(copied)
}

async fn drop_surplus(
    server: &Server,
    holders: &Holders,
    workers: &IndexSet<Address>,
    n: usize,
) -> Result<(), Failure> {
    let mut surplus: IndexMap<Address, Vec<Key>> = IndexMap::new();
    for (key, held) in holders {
        let here: Vec<&Address> = held.iter().filter(|address| workers.contains(*address)).collect();
        let extra = here.len().saturating_sub(n);
        for worker in here.choose_multiple(&mut rand::rng(), extra) {
            surplus.entry((*worker).clone()).or_default().push(key.clone());
        }
    }
    free_on_workers(server, surplus).await
}

#[derive(Serialize)]
struct FreeKeys<'a> {
    keys: &'a [Key],
    stimulus_id: &'a str,
}

/// Lets workers drop copies and tells the state.
pub(crate) async fn free_on_workers(server: &Server, surplus: IndexMap<Address, Vec<Key>>) -> Result<(), Failure> {
    let stimulus_id = format!("delete-data-{}", server.clock.now());
    let calls = surplus.into_iter().map(|(worker, keys)| {
        let stimulus_id = stimulus_id.as_str();
        async move {
            let surplus = FreeKeys { keys: &keys, stimulus_id };
            let call = server.pool.call::<_, Value>(&worker, "free_keys", &surplus);
            let freed = server.while_there(&worker, call).await;
            (worker, keys, freed)
        }
    });
    for (worker, keys, freed) in join_all(calls).await {
        match freed {
            Ok(_) => {
                let stimulus_id = stimulus_id.as_str().into();
                server.driver.event(Event::ReplicasRemoved { worker, keys, stimulus_id }).await?;
            }
            Err(error) => {
                warn!(target: "distributed.scheduler", "Communication with worker {worker} failed during replication: {error}");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_grow_by_the_branching_factor() {
        let workers: IndexSet<Address> = (0..10).map(|i| Address::from(format!("tcp://h:{i}"))).collect();
        let held = vec![(Key::from("x"), vec![workers[0].clone()])];
        let plan = plan_round(&held, &workers, 10, 2);
        assert_eq!(plan.len(), 2);
        assert!(!plan.contains_key(&workers[0]));
        assert!(plan_round(&held, &workers, 1, 2).is_empty());
    }
}
