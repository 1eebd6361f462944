//! What Python code looks at on the scheduler: tasks, workers, clients, groups, prefixes and numbers.

use std::sync::Arc;

use dask_protocol::comm::BatchedSender;
use dask_protocol::message::{Keys, Request};
use dask_protocol::{Address, Key, Value};
use indexmap::IndexSet;
use serde::Deserialize;

use super::super::core::Core;
use super::super::failure::{Reply, nil, reply};
use super::super::identity;
use super::super::shared::Server;
use super::hooks::Hooks;
use crate::state::{State, StateCounts, StoryRow, TaskState, TaskView};

/// Of what there are tables.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum What {
    Tasks,
    Workers,
    Clients,
    Groups,
    Prefixes,
}

#[derive(Deserialize)]
struct Named {
    what: What,
    #[serde(default)]
    names: Option<Keys>,
}

/// Answers a question that only the process beside the scheduler asks; none if it is an ordinary remote call.
pub(super) async fn answer(server: &Arc<Server>, sender: &BatchedSender<Value>, request: &Request) -> Option<Reply> {
    Some(match request.op() {
        "dask-rs-facts" => facts(server, request).await,
        "dask-rs-names" => names(server, request).await,
        "dask-rs-count" => count(server, request).await,
        "dask-rs-numbers" => numbers(server).await,
        "dask-rs-wants" => wants(server, request).await,
        "dask-rs-transitions" => transitions(server).await,
        "dask-rs-hooks" => set_hooks(server, sender, request).await,
        _ => return None,
    })
}

async fn facts(server: &Arc<Server>, request: &Request) -> Reply {
    let Named { what, names } = request.args()?;
    let names = names.map(|names| names.0);
    reply(&server.driver.run(move |core| Value::Array(facts_of(core, what, names))).await?)
}

fn facts_of(core: &Core, what: What, names: Option<Vec<Key>>) -> Vec<Value> {
    let state = &core.state;
    let named = |name: &Key| names.as_ref().is_none_or(|names| names.contains(name));
    match (what, &names) {
        (What::Tasks, Some(names)) => {
            names.iter().filter_map(|key| state.task(key).map(|task| task_facts(&task, state))).collect()
        }
        (What::Tasks, None) => state.tasks().map(|task| task_facts(&task, state)).collect(),
        (What::Workers, _) => {
            let chosen = core.workers.keys().filter(|address| named(&Key::from(address.as_str())));
            chosen.filter_map(|address| worker_facts(core, address)).collect()
        }
        (What::Clients, _) => {
            let chosen = state.clients().filter(|client| named(&Key::from(&***client)));
            chosen.map(|client| client_facts(core, client)).collect()
        }
        (What::Groups, _) => {
            let chosen = state.groups().filter(|(name, _, _)| named(name));
            let facts = |(name, prefix, states): (&Key, &str, &StateCounts)| {
                let fields = [("name", name.into()), ("prefix_name", prefix.into()), ("states", counts(states))];
                Value::map(fields)
            };
            chosen.map(facts).collect()
        }
        (What::Prefixes, _) => {
            let chosen = state.prefixes().filter(|prefix| named(&Key::from(prefix.name)));
            let facts = |prefix: crate::state::PrefixView<'_>| {
                let durations =
                    prefix.all_durations.iter().map(|(name, seconds)| ((&**name).into(), (*seconds).into()));
                Value::map([
                    ("name", prefix.name.into()),
                    ("states", counts(prefix.states)),
                    ("duration_average", prefix.duration_average.unwrap_or(-1.0).into()),
                    ("suspicious", prefix.suspicious.into()),
                    ("all_durations", Value::Map(durations.collect())),
                ])
            };
            chosen.map(facts).collect()
        }
    }
}

fn counts(states: &StateCounts) -> Value {
    Value::map(TaskState::ALL.map(|state| (state.name(), states.get(state).into())))
}

/// A task as Python sees it.
pub(super) fn task_facts(task: &TaskView<'_>, state: &State) -> Value {
    let keys = |keys: &[&Key]| Value::Array(keys.iter().map(|&key| Value::from(key)).collect());
    let error = state.error(task.key).map(|(_, error)| error);
    let raised = error.filter(|_| task.exception_blame == Some(task.key));
    Value::map([
        ("key", task.key.into()),
        ("state", task.state.name().into()),
        ("group", task.group.into()),
        ("prefix", task.prefix.into()),
        ("processing_on", task.processing_on.map(Address::as_str).into()),
        ("who_has", Value::Array(task.who_has.iter().map(|holder| holder.as_str().into()).collect())),
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
        ("metadata", task.metadata.cloned().unwrap_or_default()),
        ("annotations", task.annotations.clone()),
        ("exception_blame", task.exception_blame.map_or(Value::Nil, Value::from)),
        ("exception", raised.map(|error| error.exception.clone()).unwrap_or_default()),
        ("traceback", raised.map(|error| error.traceback.clone()).unwrap_or_default()),
        ("exception_text", raised.map_or("", |error| &error.exception_text).into()),
        ("traceback_text", raised.map_or("", |error| &error.traceback_text).into()),
    ])
}

/// The same of a task that is gone already.
pub(super) fn gone_task_facts(key: &Key) -> Value {
    let none = || Value::Array(Vec::new());
    Value::map([
        ("key", key.into()),
        ("state", TaskState::Forgotten.name().into()),
        ("group", (&key.group()).into()),
        ("prefix", key.prefix().into_owned().into()),
        ("processing_on", Value::Nil),
        ("who_has", none()),
        ("who_wants", none()),
        ("dependencies", none()),
        ("dependents", none()),
        ("waiting_on", none()),
        ("waiters", none()),
        ("nbytes", Value::Int(-1)),
        ("type", Value::Nil),
        ("exception_blame", Value::Nil),
        ("exception", Value::Nil),
        ("metadata", Value::Nil),
        ("annotations", Value::Map(Vec::new())),
    ])
}

/// A worker: its identity, and what the state knows of it.
fn worker_facts(core: &Core, address: &Address) -> Option<Value> {
    let Value::Map(mut facts) = identity::worker(core, address)? else { return None };
    let view = core.state.worker(address)?;
    let memory = view.memory;
    let own = [
        ("address", Value::from(address.as_str())),
        ("nbytes", view.nbytes.into()),
        ("occupancy", view.occupancy.into()),
        ("idle", view.idle.into()),
        ("saturated", view.saturated.into()),
        (
            "memory",
            Value::map([
                ("process", Value::from(memory.process)),
                ("managed", memory.managed.into()),
                ("spilled", memory.spilled.into()),
                ("unmanaged", memory.unmanaged.into()),
                ("unmanaged_old", memory.unmanaged_old.into()),
                ("unmanaged_recent", memory.unmanaged.saturating_sub(memory.unmanaged_old).into()),
                ("optimistic", memory.optimistic().into()),
            ]),
        ),
        (
            "used_resources",
            Value::Map(view.used_resources.iter().map(|(name, amount)| ((*name).into(), (*amount).into())).collect()),
        ),
    ];
    let own = own.map(|(name, value)| (Value::from(name), value));
    facts.retain(|(name, _)| !own.iter().any(|(known, _)| known == name));
    facts.extend(own);
    Some(Value::Map(facts))
}

fn client_facts(core: &Core, client: &str) -> Value {
    let last_seen = core.clients.get(client).map_or(Value::Nil, |peer| peer.last_seen.into());
    Value::map([("client_key", client.into()), ("last_seen", last_seen)])
}

async fn names(server: &Arc<Server>, request: &Request) -> Reply {
    let Named { what, .. } = request.args()?;
    let names = server.driver.run(move |core| -> Vec<Value> {
        let state = &core.state;
        match what {
            What::Tasks => state.tasks().map(|task| task.key.into()).collect(),
            What::Workers => core.workers.keys().map(|address| address.as_str().into()).collect(),
            What::Clients => state.clients().map(|client| (&**client).into()).collect(),
            What::Groups => state.groups().map(|(name, _, _)| name.into()).collect(),
            What::Prefixes => state.prefixes().map(|prefix| prefix.name.into()).collect(),
        }
    });
    reply(&names.await?)
}

async fn count(server: &Arc<Server>, request: &Request) -> Reply {
    let Named { what, .. } = request.args()?;
    let count = server.driver.run(move |core| match what {
        What::Tasks => core.state.task_count(),
        What::Workers => core.workers.len(),
        What::Clients => core.state.clients().count(),
        What::Groups => core.state.groups().count(),
        What::Prefixes => core.state.prefixes().count(),
    });
    reply(&count.await?)
}

/// Attributes of the scheduler that are numbers.
async fn numbers(server: &Arc<Server>) -> Reply {
    let shared = Arc::clone(server);
    let numbers = server.driver.run(move |core| {
        let state = &core.state;
        Value::map([
            ("total_nthreads", Value::from(state.total_nthreads())),
            ("total_memory", state.total_memory().into()),
            ("total_occupancy", state.total_occupancy().into()),
            ("bandwidth", state.bandwidth().into()),
            ("transition_counter", state.transition_counter().into()),
            ("idle_since", state.idle_since().into()),
            ("time_started", shared.started.into()),
        ])
    });
    reply(&numbers.await?)
}

async fn wants(server: &Arc<Server>, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        client: String,
    }
    let Args { client } = request.args()?;
    reply(&server.driver.run(move |core| core.state.wants_what(&client)).await?)
}

/// The latest transitions: `[key, start, finish, {}, stimulus_id, time]`.
async fn transitions(server: &Arc<Server>) -> Reply {
    let row = |row: &StoryRow| {
        Value::Array(vec![
            (&row.key).into(),
            row.start.name().into(),
            row.finish.name().into(),
            Value::Map(row.recommendations.iter().map(|(key, state)| (key.into(), state.name().into())).collect()),
            (&*row.stimulus_id).into(),
            row.timestamp.into(),
        ])
    };
    reply(&server.driver.run(move |core| core.state.transition_log().map(row).collect::<Vec<_>>()).await?)
}

async fn set_hooks(server: &Arc<Server>, sender: &BatchedSender<Value>, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        hooks: IndexSet<String>,
    }
    let Args { hooks } = request.args()?;
    let hooks = (!hooks.is_empty()).then(|| Hooks::new(hooks, sender.clone()));
    server.driver.run(move |core| core.set_hooks(hooks)).await?;
    nil()
}
