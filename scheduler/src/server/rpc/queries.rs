//! Requests that only read the state.

use dask_protocol::message::{Keys, Pairs, Request};
use dask_protocol::{Address, Key, Value};
use indexmap::IndexMap;
use serde::Deserialize;

use super::super::core::Core;
use super::super::failure::{Reply, nil, reply};
use super::super::identity as identities;
use super::super::peers::name_text;
use super::super::shared::Server;
use crate::state::{StateCounts, StoryRow, TaskState, TaskView};

/// `identity`.
pub(crate) async fn identity(server: &std::sync::Arc<Server>, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        #[serde(default = "all")]
        n_workers: i64,
    }
    fn all() -> i64 {
        -1
    }
    let Args { n_workers } = request.args()?;
    let shared = server.clone();
    reply(&server.driver.run(move |core| identities::scheduler(&shared, core, n_workers)).await?)
}

/// `echo`.
pub(crate) fn echo(request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        #[serde(default)]
        data: Value,
    }
    reply(&request.args::<Args>()?.data)
}

#[derive(Deserialize)]
struct WorkersArgs {
    #[serde(default)]
    workers: Value,
}

/// The worker a client means: an address with or without scheme, a worker's name, or a host and port.
pub(crate) fn coerce_address(core: &Core, named: &Value) -> Option<Address> {
    if let Some((address, _)) = core.workers.iter().find(|(_, peer)| peer.info.name == *named) {
        return Some(address.clone());
    }
    match named {
        Value::Str(text) => Some(Address::normalize(text, None).unwrap_or_else(|_| Address::from(text.as_str()))),
        Value::Array(parts) => match parts.as_slice() {
            [Value::Str(host), Value::Int(port)] => Some(Address::from_parts("tcp", host, u16::try_from(*port).ok()?)),
            _ => None,
        },
        _ => None,
    }
}

/// Workers as a client named them: one or several, or `None` for all.
pub(crate) fn named_workers(core: &Core, named: &Value) -> Option<Vec<Address>> {
    match named {
        Value::Nil => None,
        Value::Array(items) | Value::Set(items) => {
            Some(items.iter().filter_map(|one| coerce_address(core, one)).collect())
        }
        one => Some(coerce_address(core, one).into_iter().collect()),
    }
}

/// As [`named_workers`]; all registered workers where none are named, and only registered ones.
pub(crate) fn chosen_workers(core: &Core, named: &Value) -> Vec<Address> {
    match named_workers(core, named) {
        None => core.workers.keys().cloned().collect(),
        Some(named) => named.into_iter().filter(|address| core.workers.contains_key(address)).collect(),
    }
}

/// `ncores`, `ncores_running`.
pub(crate) async fn ncores(server: &Server, request: &Request, running_only: bool) -> Reply {
    let WorkersArgs { workers } = request.args()?;
    let answer = server.driver.run(move |core| {
        let threads = |address: Address| {
            let view = core.state.worker(&address)?;
            let shown = !running_only || view.status == dask_protocol::message::WorkerStatus::Running;
            shown.then_some((address, view.nthreads))
        };
        chosen_workers(core, &workers).into_iter().filter_map(threads).collect::<Pairs<Address, u32>>()
    });
    reply(&answer.await?)
}

#[derive(Deserialize)]
struct KeysArgs {
    #[serde(default)]
    keys: Option<Keys>,
}

/// `who_has`.
pub(crate) async fn who_has(server: &Server, request: &Request) -> Reply {
    let KeysArgs { keys } = request.args()?;
    let answer = server.driver.run(move |core| {
        let holders = |key: Key| {
            let holders = core.state.who_has(&key);
            (key, holders)
        };
        match keys {
            Some(keys) => keys.into_iter().map(holders).collect::<Pairs<Key, Vec<Address>>>(),
            None => core.state.all_who_has().map(|(key, holders)| (key.clone(), holders)).collect(),
        }
    });
    reply(&answer.await?)
}

/// `has_what`.
pub(crate) async fn has_what(server: &Server, request: &Request) -> Reply {
    let WorkersArgs { workers } = request.args()?;
    let answer = server.driver.run(move |core| {
        let workers = named_workers(core, &workers).unwrap_or_else(|| core.workers.keys().cloned().collect());
        let held = |address: Address| {
            let keys = core.state.has_what(&address);
            (address, keys)
        };
        workers.into_iter().map(held).collect::<Pairs<Address, Vec<Key>>>()
    });
    reply(&answer.await?)
}

/// `processing`.
pub(crate) async fn processing(server: &Server, request: &Request) -> Reply {
    let WorkersArgs { workers } = request.args()?;
    let answer = server.driver.run(move |core| {
        let busy = |address: Address| {
            let keys = core.state.processing(&address);
            (address, keys)
        };
        chosen_workers(core, &workers).into_iter().map(busy).collect::<Pairs<Address, Vec<Key>>>()
    });
    reply(&answer.await?)
}

/// `nbytes`: per key, or summed by prefix.
pub(crate) async fn nbytes(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        #[serde(default)]
        keys: Option<Keys>,
        #[serde(default = "yes")]
        summary: bool,
    }
    fn yes() -> bool {
        true
    }
    let Args { keys, summary } = request.args()?;
    let sizes = server.driver.run(move |core| {
        let size = |task: TaskView<'_>| (task.nbytes >= 0).then(|| (task.key.clone(), task.nbytes));
        match keys {
            Some(keys) => keys.iter().filter_map(|key| core.state.task(key).and_then(size)).collect::<Vec<_>>(),
            None => core.state.tasks().filter_map(size).collect(),
        }
    });
    let sizes = sizes.await?;
    if !summary {
        return reply(&Pairs(sizes));
    }
    let mut by_prefix: IndexMap<String, i64> = IndexMap::new();
    for (key, bytes) in sizes {
        *by_prefix.entry(key.prefix().into_owned()).or_default() += bytes;
    }
    reply(&by_prefix.into_iter().collect::<Pairs<String, i64>>())
}

/// `get_task_status`.
pub(crate) async fn task_status(server: &Server, request: &Request) -> Reply {
    let KeysArgs { keys } = request.args()?;
    let keys = keys.unwrap_or_default().0;
    let answer = server.driver.run(move |core| {
        let state = |key: Key| {
            let name = core.state.task_state(&key).map(|state| state.name());
            (key, name)
        };
        keys.into_iter().map(state).collect::<Pairs<Key, Option<&'static str>>>()
    });
    reply(&answer.await?)
}

/// `get_task_prefix_states`.
pub(crate) async fn prefix_states(server: &Server) -> Reply {
    const SHOWN: [TaskState; 5] =
        [TaskState::Memory, TaskState::Erred, TaskState::Released, TaskState::Processing, TaskState::Waiting];
    let answer = server.driver.run(|core| {
        let row = |counts: &StateCounts| Pairs(SHOWN.iter().map(|&state| (state.name(), counts.get(state))).collect());
        let used = core.state.prefixes().filter(|prefix| prefix.states.alive() > 0);
        let rows = used.map(|prefix| (prefix.name.to_owned(), row(prefix.states)));
        rows.collect::<Pairs<String, Pairs<&'static str, usize>>>()
    });
    reply(&answer.await?)
}

/// `get_story`.
pub(crate) async fn story(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        #[serde(default)]
        keys_or_stimuli: Value,
    }
    let wanted = request.args::<Args>()?.keys_or_stimuli;
    let rows = server.driver.run(move |core| core.state.story(wanted.as_items().unwrap_or_default())).await?;
    reply(&rows.iter().map(story_row).collect::<Vec<_>>())
}

/// `[key, start, finish, {key: recommended}, stimulus_id, timestamp]`.
fn story_row(row: &StoryRow) -> Value {
    let recommended = row.recommendations.iter().map(|(key, state)| (Value::from(key), state.name().into()));
    Value::Array(vec![
        Value::from(&row.key),
        row.start.name().into(),
        row.finish.name().into(),
        Value::Map(recommended.collect()),
        (*row.stimulus_id).into(),
        row.timestamp.into(),
    ])
}

/// `get_runspec`: the specification as it is sent to workers.
pub(crate) async fn run_spec(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        key: Key,
    }
    let Args { key } = request.args()?;
    match server.driver.run(move |core| core.state.run_spec(&key).cloned()).await? {
        Some(spec) => reply(&spec.to_payload()),
        None => nil(),
    }
}

/// `get_error_cause`: the key whose failure made one of these fail.
pub(crate) async fn error_cause(server: &Server, request: &Request) -> Reply {
    let keys = request.args::<KeysArgs>()?.keys.unwrap_or_default().0;
    reply(&server.driver.run(move |core| core.state.error_cause(&keys).cloned()).await?)
}

/// `check_idle`: unix time since when there was nothing to do, or nil.
pub(crate) async fn idle_since(server: &Server) -> Reply {
    reply(&server.driver.run(|core| core.state.idle_since()).await?)
}

/// `versions`.
pub(crate) async fn versions(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        #[serde(default)]
        packages: Value,
    }
    let Args { packages } = request.args()?;
    let name = |package: &Value| match package {
        Value::Array(pair) => pair.first().and_then(Value::as_str).map(str::to_owned),
        one => one.as_str().map(str::to_owned),
    };
    let packages: Vec<String> = packages.as_items().unwrap_or_default().iter().filter_map(name).collect();
    reply(&server.graphs.versions(&packages).await)
}

/// Names as text, for logs.
pub(crate) fn names_text(names: &[Value]) -> String {
    format!("[{}]", names.iter().map(name_text).collect::<Vec<_>>().join(", "))
}
