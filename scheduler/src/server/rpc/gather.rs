//! `gather`: fetch results from workers on behalf of a client, frames untouched.

use std::collections::HashSet;
use std::time::Duration;

use dask_protocol::comm::ConnectionPool;
use dask_protocol::message::{Keys, Message, Pairs, Request};
use dask_protocol::{Address, CommError, Key, Value};
use futures::future::join_all;
use indexmap::{IndexMap, IndexSet};
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use super::super::failure::{Failure, Reply, reply};
use super::super::shared::Server;

/// How long a worker that has too many transfers is left alone.
const BUSY_PAUSE: Duration = Duration::from_millis(150);

#[derive(Deserialize)]
struct Args {
    keys: Keys,
    #[serde(default)]
    serializers: Value,
}

/// `gather`.
pub(crate) async fn gather(server: &Server, request: &Request) -> Reply {
    let Args { keys, serializers } = request.args()?;
    let keys: IndexSet<Key> = keys.into_iter().collect();
    let mut data: Vec<(Key, Value)> = Vec::with_capacity(keys.len());
    let mut wanted = keys.clone();
    let mut tried: HashSet<(Address, Key)> = HashSet::new();
    let mut failed: Vec<Key> = Vec::new();
    let mut lost: HashSet<Address> = HashSet::new();
    while !wanted.is_empty() {
        let plan = plan(server, &mut wanted, &tried, &lost, &mut failed).await?;
        let fetches = plan.into_iter().map(|(worker, keys)| fetch(server, worker, keys, &serializers));
        for (worker, keys, fetched) in join_all(fetches).await {
            match fetched {
                Ok(values) => {
                    for (key, value) in values {
                        if wanted.swap_remove(&key) {
                            data.push((key, value));
                        }
                    }
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
        reply(&Gathered { status: "OK", data: Pairs(data) })
    } else {
        error!(target: "distributed.scheduler", "Couldn't gather keys: {}", states(server, &failed).await?);
        reply(&Missing { status: "error", keys: failed })
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

/// Why nothing came from a worker.
enum Failed {
    /// It raised an exception, here as its reply.
    Raised(Message),
    /// It could not be reached.
    Lost(CommError),
}

impl From<CommError> for Failed {
    fn from(error: CommError) -> Failed {
        Failed::Lost(error)
    }
}

type Fetched = (Address, Vec<Key>, Result<Vec<(Key, Value)>, Failed>);

async fn fetch(server: &Server, worker: Address, keys: Vec<Key>, serializers: &Value) -> Fetched {
    let fetched = server.while_there(&worker, get_data(&server.pool, &worker, &keys, serializers)).await;
    (worker, keys, fetched)
}

#[derive(Serialize)]
struct GetData<'a> {
    op: &'static str,
    keys: &'a [Key],
    who: Option<&'a str>,
    reply: bool,
    #[serde(skip_serializing_if = "Value::is_nil")]
    serializers: &'a Value,
}

#[derive(Deserialize)]
struct GotData {
    status: String,
    #[serde(default)]
    data: Pairs<Key, Value>,
}

/// The values that this worker has, waiting while it is busy with other transfers.
async fn get_data(
    pool: &ConnectionPool,
    worker: &Address,
    keys: &[Key],
    serializers: &Value,
) -> Result<Vec<(Key, Value)>, Failed> {
    let request = Message::encode(&GetData { op: "get_data", keys, who: None, reply: true, serializers })?;
    loop {
        let mut lease = pool.lease(worker).await?;
        lease.send(&request).await?;
        let message = lease.recv().await?;
        let reply: GotData = message.decode().map_err(CommError::from)?;
        match reply.status.as_str() {
            "OK" => {
                lease.send_value("OK").await?;
                lease.release();
                return Ok(reply.data.0);
            }
            "busy" => {
                lease.release();
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            _ => return Err(Failed::Raised(message)),
        }
    }
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
