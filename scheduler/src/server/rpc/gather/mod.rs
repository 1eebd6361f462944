//! `gather`: fetch results from workers on behalf of a client, frames untouched.
//!
//! Results are held until all are here, so that what is lost with a worker can be fetched from another. That is bounded, for
//! all gathers together, by a window ([`window`]); what it has no room for stays with the workers until the reply is being
//! sent, and goes through in small pieces ([`relay`]).

mod fetch;
mod relay;
mod window;

use std::collections::HashSet;
use std::sync::Arc;

use dask_protocol::comm::Comm;
use dask_protocol::message::{Keys, Pairs, Request};
use dask_protocol::{Address, CommError, Key, Value};
use futures::future::join_all;
use indexmap::{IndexMap, IndexSet};
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use self::fetch::{Answer, Failed, get_data};
use self::relay::Relay;
pub(crate) use self::window::Window;
use super::super::failure::{Failure, reply};
use super::super::shared::Server;

#[derive(Deserialize)]
struct Args {
    keys: Keys,
    #[serde(default)]
    serializers: Value,
}

/// `gather`: fetches, and sends the reply.
///
/// # Errors
/// When the client is gone, or a worker was lost after the reply had begun.
pub(crate) async fn serve(server: &Arc<Server>, comm: &mut Comm, request: &Request) -> Result<(), CommError> {
    match gather(server, request).await {
        Ok(Found::Values(answers)) => send(server, comm, answers).await,
        Ok(Found::Missing(keys)) => comm.send_value(&Missing { status: "error", keys }).await,
        Err(failure) => {
            let told = failure.tell(request.op(), comm.peer());
            comm.send(&told).await
        }
    }
}

/// What became of a request.
enum Found {
    /// Everything asked for is here or about to come.
    Values(Vec<Answer>),
    /// These are nowhere.
    Missing(Vec<Key>),
}

async fn gather(server: &Arc<Server>, request: &Request) -> Result<Found, Failure> {
    let Args { keys, serializers } = request.args()?;
    let keys: IndexSet<Key> = keys.into_iter().collect();
    let mut answers = Vec::new();
    let mut wanted = keys.clone();
    let mut tried: HashSet<(Address, Key)> = HashSet::new();
    let mut failed: Vec<Key> = Vec::new();
    let mut lost: HashSet<Address> = HashSet::new();
    while !wanted.is_empty() {
        let plan = plan(server, &mut wanted, &tried, &lost, &mut failed).await?;
        let fetches = plan.into_iter().map(|(worker, keys)| fetch(server, worker, keys, &serializers));
        for (worker, keys, fetched) in join_all(fetches).await {
            match fetched {
                Ok(answer) => {
                    for key in answer.keys() {
                        wanted.swap_remove(&key);
                    }
                    answers.push(answer);
                }
                Err(Failed::Raised(reply)) => return Err(Failure::Relayed(reply)),
                Err(Failed::Lost(error)) => {
                    warn!(target: "distributed.scheduler", "Could not fetch results from {worker}: {error}");
                    lost.insert(worker.clone());
                }
            }
            tried.extend(keys.into_iter().map(|key| (worker.clone(), key)));
        }
    }
    let count = keys.len();
    let log = server.driver.run(move |core| {
        let msg = Value::map([("action", "gather".into()), ("count", count.into())]);
        core.log_event(&Key::from("all"), msg);
    });
    log.await?;
    if failed.is_empty() {
        Ok(Found::Values(answers))
    } else {
        error!(target: "distributed.scheduler", "Couldn't gather keys: {}", states(server, &failed).await?);
        Ok(Found::Missing(failed))
    }
}

#[derive(Serialize)]
struct Gathered {
    status: &'static str,
    data: Pairs<Key, Value>,
}

#[derive(Serialize)]
struct Missing {
    status: &'static str,
    keys: Vec<Key>,
}

async fn send(server: &Arc<Server>, comm: &mut Comm, answers: Vec<Answer>) -> Result<(), CommError> {
    let (mut here, mut coming, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Answer::Here(values, permit) => {
                here.extend(values);
                held.push(permit);
            }
            Answer::Coming(one) => coming.push(*one),
        }
    }
    if coming.is_empty() {
        let packed = reply(&Gathered { status: "OK", data: Pairs(here) });
        return comm.send(&packed.unwrap_or_else(Failure::into_message)).await;
    }
    Relay::new(here, coming, held)?.send(server, comm).await
}

/// One random holder for each wanted key; keys without any that is left to try are failed.
async fn plan(
    server: &Server,
    wanted: &mut IndexSet<Key>,
    tried: &HashSet<(Address, Key)>,
    lost: &HashSet<Address>,
    failed: &mut Vec<Key>,
) -> Result<IndexMap<Address, Vec<Key>>, Failure> {
    let keys: Vec<Key> = wanted.iter().cloned().collect();
    let holders = server.driver.run(move |core| {
        let holders = |key: Key| {
            let workers = core.state.who_has(&key);
            (key, workers)
        };
        keys.into_iter().map(holders).collect::<Vec<_>>()
    });
    let mut plan: IndexMap<Address, Vec<Key>> = IndexMap::new();
    for (key, holders) in holders.await? {
        let fresh: Vec<Address> = holders
            .into_iter()
            .filter(|worker| !lost.contains(worker) && !tried.contains(&(worker.clone(), key.clone())))
            .collect();
        match fresh.choose(&mut rand::rng()) {
            Some(worker) => plan.entry(worker.clone()).or_default().push(key),
            None => {
                wanted.swap_remove(&key);
                failed.push(key);
            }
        }
    }
    Ok(plan)
}

type Fetched = (Address, Vec<Key>, Result<Answer, Failed>);

async fn fetch(server: &Server, worker: Address, keys: Vec<Key>, serializers: &Value) -> Fetched {
    let fetched = server.while_there(&worker, get_data(server, &worker, &keys, serializers)).await;
    (worker, keys, fetched)
}

async fn states(server: &Server, keys: &[Key]) -> Result<String, Failure> {
    const SHOWN_MAX: usize = 20;
    let shown: Vec<Key> = keys.iter().take(SHOWN_MAX).cloned().collect();
    let text = server.driver.run(move |core| {
        let state = |key: &Key| core.state.task_state(key).map_or("forgotten", |state| state.name());
        shown.iter().map(|key| format!("{key:?}: '{}'", state(key))).collect::<Vec<_>>().join(", ")
    });
    Ok(format!("{{{}}}", text.await?))
}
