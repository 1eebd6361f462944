//! Requests about tasks that change the state: `retry`, `add_keys`.

use std::time::Duration;

use dask_protocol::message::{Keys, Pairs, Request, StimulusId};
use dask_protocol::{Address, Key, Value};
use serde::Deserialize;
use tracing::info;

use super::super::driver::Driver;
use super::super::failure::{Failure, Reply, nil, reply};
use super::super::shared::Server;
use super::super::task_stream::Wanted;
use super::super::trackers::{TaskMetadata, Tracker};
use super::ok;
use crate::graph::intake::parse_timedelta;
use crate::state::{ClientId, Event};

/// `retry`: run erred tasks again; the answer names all that will.
pub(crate) async fn retry(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        keys: Keys,
        #[serde(default)]
        client: Option<String>,
    }
    let Args { keys, client } = request.args()?;
    let client = client.unwrap_or_default();
    info!(target: "distributed.scheduler", "Client {client} requests to retry {} keys", keys.len());
    let stimulus_id: StimulusId = format!("stimulus-retry-{}", server.clock.now()).into();
    let again = server.driver.run(move |core| {
        let again = core.state.retried_keys(&keys);
        core.handle(Event::Retry { keys: keys.0, stimulus_id });
        again
    });
    let again = again.await?;
    tokio::spawn(report_again(server.driver.clone(), client.into(), again.clone()));
    reply(&again)
}

/// A client marks what it retries as pending when it has the reply, and so forgets what it heard of it by its stream before.
/// It is told once more, after it has had time to take in the reply.
async fn report_again(driver: Driver, client: ClientId, keys: Vec<Key>) {
    const DELAYS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];
    for delay in DELAYS {
        tokio::time::sleep(delay).await;
        let (client, keys) = (client.clone(), keys.clone());
        let told = driver.run(move |core| {
            for key in keys {
                // What is not known any more was let go of; a report would call off what comes next under its key.
                if core.state.nbytes_of(&key).is_some() {
                    core.handle(Event::ReportKey { client: client.clone(), key });
                }
            }
        });
        if told.await.is_err() {
            return;
        }
    }
}

/// `get_task_stream_index`: how many records there are; recording begins with the first question.
pub(crate) async fn task_stream_index(server: &Server) -> Reply {
    reply(&server.driver.run(|core| core.task_stream.index()).await?)
}

/// `get_task_stream`: times are unix seconds, or how long ago as text.
pub(crate) async fn task_stream(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        #[serde(default)]
        start: Value,
        #[serde(default)]
        stop: Value,
        #[serde(default)]
        count: Option<usize>,
        #[serde(default)]
        start_index: Option<u64>,
    }
    let Args { start, stop, count, start_index } = request.args()?;
    let now = server.clock.now();
    let moment = |time: &Value| match time {
        Value::Str(_) => parse_timedelta(time).map(|ago| now - ago),
        other => other.as_f64(),
    };
    let wanted = Wanted { start: moment(&start), stop: moment(&stop), count, start_index };
    reply(&server.driver.run(move |core| core.task_stream.collect(&wanted)).await?)
}

/// `start_task_metadata`: collects metadata of the tasks submitted from now on.
pub(crate) async fn start_task_metadata(server: &Server, request: &Request) -> Reply {
    let name = request.args::<MetadataName>()?.name;
    let started = server.driver.run(move |core| core.track(|_| Some(Tracker::Metadata(TaskMetadata::new(name)))));
    started.await?.ok_or_else(|| Failure::runtime("too many blocks collect metadata at the same time"))?;
    nil()
}

/// `stop_task_metadata`: what was collected, by key.
pub(crate) async fn stop_task_metadata(server: &Server, request: &Request) -> Reply {
    let name = request.args::<MetadataName>()?.name;
    let unknown = Failure::value(format!("no block called {name} collects metadata of tasks"));
    let collected = server.driver.run(move |core| core.untrack_metadata(&name)).await?;
    reply(&collected.ok_or(unknown)?)
}

#[derive(Deserialize)]
struct MetadataName {
    #[serde(default)]
    name: String,
}

/// `set_restrictions`: where tasks may run from now on. One worker, several, or nil for any.
pub(crate) async fn set_restrictions(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        worker: Pairs<Key, Value>,
    }
    let restrictions: Vec<(Key, Vec<Address>)> =
        request.args::<Args>()?.worker.into_iter().map(|(key, named)| (key, addresses(&named))).collect();
    let set = server.driver.run(move |core| {
        let unknown = restrictions.iter().find(|(key, _)| core.state.task_state(key).is_none());
        if let Some((key, _)) = unknown {
            return Err(Failure::key(key.to_string()));
        }
        core.handle(Event::SetRestrictions { restrictions });
        Ok(())
    });
    set.await??;
    nil()
}

fn addresses(named: &Value) -> Vec<Address> {
    match named {
        Value::Str(one) => vec![Address::from(one.as_str())],
        several => several.as_items().unwrap_or_default().iter().filter_map(Value::as_str).map(Address::from).collect(),
    }
}

/// `add_keys`: a worker tells that it holds copies.
pub(crate) async fn add_keys(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        worker: Address,
        #[serde(default)]
        keys: Keys,
        #[serde(default)]
        stimulus_id: Option<StimulusId>,
    }
    let Args { worker, keys, stimulus_id } = request.args()?;
    let known = server.driver.run(move |core| {
        let known = core.workers.contains_key(&worker);
        if known {
            let stimulus_id = stimulus_id.unwrap_or_else(|| core.stimulus("add-keys"));
            core.handle(Event::ReplicasAdded { worker, keys: keys.0, stimulus_id });
        }
        known
    });
    if known.await? { ok() } else { reply("not found") }
}
