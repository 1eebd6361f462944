//! The requests of the workers' shuffle plugin.

use std::sync::Arc;
use std::time::Duration;

use dask_protocol::message::{ErrorReply, Request};
use dask_protocol::pickle::write_exception;
use dask_protocol::{Address, Key, Payload, Value};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::super::failure::{Failure, Reply, nil, reply};
use super::super::rpc::broadcast::{OnError, to_peers};
use super::super::shared::Server;
use super::super::shuffles::Inconsistent;

/// Rounds of the barrier in which no worker more was reached, after which it fails.
const FRUITLESS_ROUNDS_MAX: usize = 3;
/// The pause before workers that could not be reached are called again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

#[derive(Serialize)]
struct RunSpec {
    status: &'static str,
    run_spec: Payload,
}

/// A `P2PConsistencyError` as the plugin expects it: a reply, not a failure of the request.
fn inconsistent(why: &Inconsistent) -> Reply {
    let pickle = write_exception("distributed.shuffle._exceptions", "P2PConsistencyError", &[why.as_str().into()], &[]);
    let text = format!("P2PConsistencyError({:?})", Key::from(why.as_str()));
    reply(&ErrorReply { status: "error".into(), ..ErrorReply::uncaught(pickle, text) })
}

fn run_spec(spec: Result<bytes::Bytes, Inconsistent>) -> Reply {
    match spec {
        Ok(spec) => reply(&RunSpec { status: "OK", run_spec: Payload::pickled(spec, Vec::new()) }),
        Err(why) => inconsistent(&why),
    }
}

/// `shuffle_get_or_create`.
pub(super) async fn get_or_create(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        shuffle_id: String,
        key: Key,
        worker: Address,
    }
    let Args { shuffle_id, key, worker } = request.args()?;
    run_spec(server.driver.run(move |core| core.shuffle_get_or_create(&shuffle_id, &key, &worker)).await?)
}

/// `shuffle_get`.
pub(super) async fn get(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        id: String,
        worker: Address,
    }
    let Args { id, worker } = request.args()?;
    let found = server.driver.run(move |core| {
        let spec = core.shuffle_get(&id, &worker)?;
        spec.ok_or_else(|| format!("No active shuffle with id='{id}' found"))
    });
    run_spec(found.await?)
}

/// `shuffle_restrict_task`.
pub(super) async fn restrict_task(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        id: String,
        run_id: i64,
        key: Key,
        worker: Address,
    }
    let Args { id, run_id, key, worker } = request.args()?;
    match server.driver.run(move |core| core.shuffle_restrict_task(&id, run_id, key, worker)).await? {
        Ok(()) => reply(&Value::map([("status", "OK".into())])),
        Err(why) => inconsistent(&why),
    }
}

/// `shuffle_barrier`: all inputs are in; every participant is told.
pub(super) async fn barrier(server: &Arc<Server>, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        id: String,
        run_id: i64,
        consistent: bool,
    }
    let Args { id, run_id, consistent } = request.args()?;
    let shuffle_id = id.clone();
    let run = server.driver.run(move |core| {
        let run = core.shuffles.run(&id).map(|run| (run.run_id, run.participants.iter().cloned().collect::<Vec<_>>()));
        if !consistent && run.as_ref().is_some_and(|(current, _)| *current == run_id) {
            core.shuffle_restart(&id);
        }
        run
    });
    match run.await? {
        None => Err(Failure::key(shuffle_id)),
        Some((current, _)) if current != run_id => {
            Err(Failure::value(format!("run_id={run_id} does not match run {current} of shuffle {shuffle_id}")))
        }
        Some(_) if !consistent => nil(),
        Some((_, participants)) => tell_inputs_done(server, &shuffle_id, run_id, participants).await,
    }
}

async fn tell_inputs_done(server: &Server, shuffle_id: &str, run_id: i64, mut workers: Vec<Address>) -> Reply {
    let msg = Value::map([
        ("op", "shuffle_inputs_done".into()),
        ("shuffle_id", shuffle_id.into()),
        ("run_id", run_id.into()),
    ]);
    let mut fruitless = 0;
    loop {
        let targets = workers.iter().map(|worker| (worker.clone(), worker.clone())).collect();
        let answers = to_peers(server, targets, msg.clone(), &Value::Nil, OnError::Return).await?;
        let unreached: Vec<Address> =
            answers.0.into_iter().filter(|(_, answer)| !answer.is_nil()).map(|(worker, _)| worker).collect();
        if unreached.is_empty() {
            return nil();
        }
        warn!(target: "distributed.shuffle._scheduler_plugin", "Failure during broadcast of {shuffle_id}, retrying.");
        let candidates = unreached.clone();
        let gone = server.driver.run(move |core| candidates.into_iter().find(|w| !core.workers.contains_key(w)));
        if let Some(gone) = gone.await? {
            return Err(Failure::runtime(format!("Worker {gone} left during shuffle {shuffle_id}")));
        }
        fruitless = if unreached.len() == workers.len() { fruitless + 1 } else { 0 };
        if fruitless >= FRUITLESS_ROUNDS_MAX {
            return Err(Failure::runtime(format!(
                "Broadcast not making progress for shuffle {shuffle_id}: cannot reach {unreached:?}. Workers may be \
                 overloaded; a longer distributed.comm.timeouts.connect may help."
            )));
        }
        workers = unreached;
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}
