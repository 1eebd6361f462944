//! `dump_state`, `get_cluster_state`: what there is to see for whoever looks for a bug. The shape is not stable, as
//! upstream's is not.

use std::sync::Arc;

use dask_protocol::message::{Pairs, Request};
use dask_protocol::{Address, Key, Value};
use serde::Deserialize;

use super::super::core::Core;
use super::super::failure::{Failure, Reply, nil, reply};
use super::super::identity;
use super::super::shared::Server;
use super::broadcast::{OnError, targets, to_peers};
use crate::state::TaskView;

#[derive(Deserialize)]
struct Args {
    #[serde(default)]
    exclude: Value,
}

/// `dump_state`: the scheduler alone.
pub(crate) async fn dump_state(server: &Arc<Server>, request: &Request) -> Reply {
    let Args { exclude } = request.args()?;
    reply(&plain(scheduler_state(server, &exclude).await?))
}

/// `get_cluster_state`: the scheduler and what its workers answer to the same question.
pub(crate) async fn cluster_state(server: &Arc<Server>, request: &Request) -> Reply {
    let Args { exclude } = request.args()?;
    reply(&whole(server, &exclude).await?)
}

/// `dump_cluster_state_to_url`: Python beside the scheduler writes it, because only `fsspec` knows the user's storage.
pub(crate) async fn to_url(server: &Arc<Server>, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct ToUrl {
        url: String,
        #[serde(default)]
        exclude: Value,
        #[serde(default)]
        format: Value,
    }
    let ToUrl { url, exclude, format } = request.args()?;
    let Value::Map(mut options) = request.args::<Value>()? else { return Err(Failure::value("no arguments")) };
    let own = ["op", "reply", "close", "serializers", "url", "exclude", "format"];
    options.retain(|(name, _)| name.as_str().is_some_and(|name| !own.contains(&name)));
    let state = whole(server, &exclude).await?;
    let written = server.graphs.helpers().write_dump(&url, format, Value::Map(options), state).await;
    written.map_err(Failure::from)?;
    nil()
}

async fn whole(server: &Arc<Server>, exclude: &Value) -> Result<Value, Failure> {
    let everybody = targets(server, Value::Nil, Value::Nil, false).await?;
    let ask =
        |op: &str, more: Option<(&'static str, Value)>| Value::map([("op", Value::from(op))].into_iter().chain(more));
    let dump = ask("dump_state", Some(("exclude", exclude.clone())));
    let workers = to_peers(server, everybody.clone(), dump, &Value::Nil, OnError::Return).await?;
    let versions = to_peers(server, everybody, ask("versions", None), &Value::Nil, OnError::Ignore).await?;
    let own = server.graphs.versions(&[]).await;
    Ok(plain(Value::map([
        ("scheduler", scheduler_state(server, exclude).await?),
        ("workers", by_address(workers)),
        ("versions", Value::map([("scheduler", own), ("workers", by_address(versions))])),
    ])))
}

fn by_address(answers: Pairs<Address, Value>) -> Value {
    Value::Map(answers.into_iter().map(|(address, answer)| (address.as_str().into(), answer)).collect())
}

async fn scheduler_state(server: &Arc<Server>, exclude: &Value) -> Result<Value, Failure> {
    let shared = Arc::clone(server);
    let whole = server.driver.run(move |core| state(&shared, core)).await?;
    let Value::Map(mut entries) = whole else { return Ok(whole) };
    let excluded: Vec<&str> = exclude.as_items().unwrap_or_default().iter().filter_map(Value::as_str).collect();
    entries.retain(|(name, _)| name.as_str().is_none_or(|name| !excluded.contains(&name)));
    Ok(Value::Map(entries))
}

fn state(server: &Server, core: &Core) -> Value {
    let tasks = core.state.tasks().map(|task| (task.key.to_string().into(), task_fields(&task))).collect();
    let events = core.events.all().into_iter().map(|(topic, events)| {
        let events = events.into_iter().map(|(time, msg)| Value::Array(vec![time.into(), plain(msg)])).collect();
        (topic.to_string().into(), Value::Array(events))
    });
    let wants = |client: &str| Value::Array(core.state.wants_what(client).iter().map(Value::from).collect());
    let clients = core.state.clients().map(|client| ((**client).into(), wants(client))).collect();
    let mut whole = match identity::scheduler(server, core, -1) {
        Value::Map(entries) => entries,
        other => vec![("identity".into(), other)],
    };
    whole.push(("tasks".into(), Value::Map(tasks)));
    whole.push(("clients".into(), Value::Map(clients)));
    whole.push(("events".into(), Value::Map(events.collect())));
    whole.push(("transition_counter".into(), core.state.transition_counter().into()));
    Value::Map(whole)
}

/// Only what every msgpack reader takes: clients write the dump to a file as it is.
fn plain(value: Value) -> Value {
    match value {
        Value::Set(items) | Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        Value::Map(entries) => {
            Value::Map(entries.into_iter().map(|(name, value)| (plain_name(name), plain(value))).collect())
        }
        Value::Enum(member) => Value::Str(member.name),
        Value::Payload(payload) => Value::Str(format!("<{} bytes>", payload.len())),
        other => other,
    }
}

/// Names that are arrays cannot be looked up in what Python makes of the file.
fn plain_name(name: Value) -> Value {
    match name {
        Value::Array(_) | Value::Set(_) | Value::Map(_) => {
            name.to_key().map_or_else(|| format!("{name:?}"), |key| key.to_string()).into()
        }
        other => plain(other),
    }
}

fn task_fields(task: &TaskView<'_>) -> Value {
    let keys = |keys: &[&Key]| Value::Array(keys.iter().map(|key| key.to_string().into()).collect());
    let workers = |workers: &[&Address]| Value::from(workers.iter().map(|worker| worker.as_str()).collect::<Vec<_>>());
    Value::map([
        ("key", Value::from(task.key)),
        ("state", task.state.name().into()),
        ("processing_on", task.processing_on.map(Address::as_str).into()),
        ("who_has", workers(&task.who_has)),
        ("who_wants", Value::from(task.who_wants.clone())),
        ("dependencies", keys(&task.dependencies)),
        ("dependents", keys(&task.dependents)),
        ("waiting_on", keys(&task.waiting_on)),
        ("waiters", keys(&task.waiters)),
        ("priority", task.priority.map(|parts| parts.to_vec()).into()),
        ("retries", i64::from(task.retries).into()),
        ("suspicious", i64::from(task.suspicious).into()),
        ("nbytes", task.nbytes.into()),
        ("type", task.type_name.into()),
        ("actor", task.actor.into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_hold_nothing_that_only_dask_can_read() {
        let event = Value::map([("keys", Value::Set(vec!["x".into()]))]);
        assert_eq!(plain(event), Value::map([("keys", Value::from(vec!["x"]))]));
        let measured = Value::Map(vec![(Value::from(vec!["execute", "inc"]), Value::Float(0.5))]);
        assert_eq!(plain(measured), Value::map([("('execute', 'inc')", Value::Float(0.5))]));
    }
}
