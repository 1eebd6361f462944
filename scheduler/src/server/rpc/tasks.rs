//! Requests about tasks that change the state: `retry`, `add_keys`.

use dask_protocol::message::{Keys, Request, StimulusId};
use dask_protocol::{Address, Value};
use serde::Deserialize;
use tracing::info;

use super::super::failure::{Reply, reply};
use super::super::shared::Server;
use super::super::task_stream::Wanted;
use super::ok;
use crate::graph::intake::parse_timedelta;
use crate::state::Event;

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
    reply(&again.await?)
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
