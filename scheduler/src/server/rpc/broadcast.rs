//! `broadcast` and `proxy`: a request passed on to workers or their nannies.

use dask_protocol::comm::pool::check_reply;
use dask_protocol::message::{Message, Pairs, Request};
use dask_protocol::pickle::{builtin_exception, timeout_error};
use dask_protocol::{Address, CommError, Payload, Value};
use futures::future::join_all;
use indexmap::IndexSet;
use serde::Deserialize;
use tracing::error;

use super::super::failure::{Failure, Reply, reply};
use super::super::shared::Server;
use super::queries::{coerce_address, named_workers};

/// What becomes of a worker that cannot answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnError {
    Raise,
    Return,
    ReturnPickle,
    Ignore,
}

#[derive(Deserialize)]
struct Args {
    msg: Value,
    #[serde(default)]
    workers: Value,
    #[serde(default)]
    hosts: Value,
    #[serde(default)]
    nanny: bool,
    #[serde(default)]
    serializers: Value,
    #[serde(default)]
    on_error: Option<OnError>,
}

/// `broadcast`.
pub(crate) async fn broadcast(server: &Server, request: &Request) -> Reply {
    let Args { msg, workers, hosts, nanny, serializers, on_error } = request.args()?;
    let targets = targets(server, workers, hosts, nanny).await?;
    let on_error = on_error.unwrap_or(OnError::Raise);
    reply(&to_peers(server, targets, msg, &serializers, on_error).await?)
}

/// `proxy`: broadcast to one. A worker that is not there is an `OSError`, as one that cannot be reached: that is what makes
/// calls of its actors end.
pub(crate) async fn proxy(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        msg: Value,
        worker: Value,
        #[serde(default)]
        serializers: Value,
    }
    let Args { msg, worker, serializers } = request.args()?;
    let named = worker.clone();
    let known = server
        .driver
        .run(move |core| coerce_address(core, &named).filter(|address| core.workers.contains_key(address)));
    let Some(address) = known.await? else {
        let worker = worker.as_str().unwrap_or("of no name");
        return Err(Failure::builtin("OSError", &format!("cannot pass a message on: worker {worker} is not there")));
    };
    let answers = to_peers(server, vec![(address.clone(), address)], msg, &serializers, OnError::Raise).await?;
    reply(&answers.0.into_iter().next().map(|(_, answer)| answer).unwrap_or_default())
}

/// `worker_logs`.
pub(crate) async fn worker_logs(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        #[serde(default)]
        n: Value,
        #[serde(default)]
        workers: Value,
        #[serde(default)]
        nanny: bool,
    }
    let Args { n, workers, nanny } = request.args()?;
    let targets = targets(server, workers, Value::Nil, nanny).await?;
    let msg = Value::map([("op", "get_logs".into()), ("n", n)]);
    reply(&to_peers(server, targets, msg, &Value::Nil, OnError::Raise).await?)
}

/// Workers by the name under which the answer is returned, each with whom to call.
pub(crate) type Targets = Vec<(Address, Address)>;

/// The workers meant: all of them unless some, or the hosts they are on, are named.
pub(crate) async fn targets(server: &Server, workers: Value, hosts: Value, nanny: bool) -> Result<Targets, Failure> {
    let found = server.driver.run(move |core| {
        let hosts = hosts.as_items().map(|items| items.iter().filter_map(Value::as_str).collect::<Vec<_>>());
        let mut chosen: IndexSet<Address> = match (named_workers(core, &workers), &hosts) {
            (Some(named), _) => named.into_iter().collect(),
            (None, None) => core.workers.keys().cloned().collect(),
            (None, Some(_)) => IndexSet::new(),
        };
        let on_hosts = |address: &&Address| hosts.iter().flatten().any(|&host| host == address.host());
        chosen.extend(core.workers.keys().filter(on_hosts).cloned());
        if !nanny {
            return Ok(chosen.into_iter().map(|address| (address.clone(), address)).collect());
        }
        let mut nannies = Targets::new();
        for address in chosen {
            let Some(peer) = core.workers.get(&address) else { return Err(address) };
            if let Some(nanny) = &peer.info.nanny {
                nannies.push((address, nanny.clone()));
            }
        }
        Ok(nannies)
    });
    found.await?.map_err(|unknown| Failure::key(unknown.as_str()))
}

/// Calls all at once and collects their answers.
pub(crate) async fn to_peers(
    server: &Server,
    targets: Targets,
    msg: Value,
    serializers: &Value,
    on_error: OnError,
) -> Result<Pairs<Address, Value>, Failure> {
    let request = Message::encode(&as_request(msg, serializers)?).map_err(Failure::from)?;
    let calls = targets.into_iter().map(|(name, address)| {
        let request = &request;
        async move {
            // The name is the worker's, also where its nanny is called: that one may go on without it.
            let call = server.pool.call_message(&address, request);
            let answered = if name == address { server.while_there(&address, call).await } else { call.await };
            (name, address, answered)
        }
    });
    let mut answers = Pairs::default();
    for (name, address, answered) in join_all(calls).await {
        let outcome = answered.and_then(|reply| {
            let remote = check_reply("broadcast", &address, &reply);
            Ok((reply.decode::<Value>()?, remote.is_err().then_some(reply)))
        });
        let answer = match outcome {
            Ok((answer, None)) => Some(answer),
            Ok((answer, Some(raised))) => match on_error {
                OnError::Raise => return Err(Failure::Relayed(raised)),
                OnError::Return | OnError::ReturnPickle => answer.get("exception").cloned(),
                OnError::Ignore => None,
            },
            Err(error) => {
                error!(target: "distributed.scheduler", "broadcast to {address} failed: {error}");
                unreachable_answer(on_error, error)?
            }
        };
        answers.0.extend(answer.map(|answer| (name, answer)));
    }
    Ok(answers)
}

/// What stands for the answer of a peer that could not be reached.
fn unreachable_answer(on_error: OnError, error: CommError) -> Result<Option<Value>, Failure> {
    let pickled = |error: &CommError| match error {
        CommError::Timeout { .. } => timeout_error(&error.to_string()),
        other => builtin_exception("OSError", &other.to_string()),
    };
    match on_error {
        OnError::Raise => Err(error.into()),
        OnError::Return => Ok(Some(Payload::pickled(pickled(&error).pickle, Vec::new()).into())),
        OnError::ReturnPickle => Ok(Some(Value::Bin(pickled(&error).pickle))),
        OnError::Ignore => Ok(None),
    }
}

fn as_request(msg: Value, serializers: &Value) -> Result<Value, Failure> {
    let Value::Map(mut entries) = msg else {
        return Err(Failure::builtin("TypeError", "msg must be a dict with an \"op\""));
    };
    entries.retain(|(name, _)| !matches!(name.as_str(), Some("reply" | "close")));
    entries.push(("reply".into(), true.into()));
    entries.push(("close".into(), false.into()));
    if !serializers.is_nil() {
        entries.push(("serializers".into(), serializers.clone()));
    }
    Ok(Value::Map(entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broadcast_asks_for_a_reply_on_a_connection_that_stays() {
        let msg = Value::map([("op", "run".into()), ("reply", false.into())]);
        let request = as_request(msg, &Value::Nil).expect("a map");
        assert_eq!(request.get("reply"), Some(&Value::Bool(true)));
        assert_eq!(request.get("close"), Some(&Value::Bool(false)));
        assert!(request.get("serializers").is_none());
        assert!(as_request(Value::Nil, &Value::Nil).is_err());
    }
}
