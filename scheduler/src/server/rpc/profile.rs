//! What workers are doing: `call_stack`, `profile`, `benchmark_hardware`.

use dask_protocol::message::{Keys, Pairs, Request};
use dask_protocol::{Address, Key, Value};
use futures::future::join_all;
use indexmap::{IndexMap, IndexSet};
use serde::{Deserialize, Serialize};

use super::super::failure::{Failure, Reply, reply};
use super::super::shared::Server;
use super::broadcast::{OnError, targets, to_peers};
use crate::state::{State, TaskState};

/// Deepest call tree that is merged; workers cut theirs at 100.
const PROFILE_DEPTH_MAX: usize = 120;

#[derive(Serialize)]
struct CallStack<'a> {
    keys: Option<&'a [Key]>,
}

/// `call_stack`: of these tasks, or what they wait for; of everything when none are named.
pub(crate) async fn call_stack(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        #[serde(default)]
        keys: Option<Keys>,
    }
    let wanted = match request.args::<Args>()?.keys {
        None => server.driver.run(|core| core.workers.keys().map(|worker| (worker.clone(), None)).collect()).await?,
        Some(keys) => {
            server
                .driver
                .run(move |core| {
                    let mut by_worker: IndexMap<Address, Option<Vec<Key>>> = IndexMap::new();
                    for (key, worker) in running_for(&core.state, keys.0) {
                        by_worker.entry(worker).or_default().get_or_insert_default().push(key);
                    }
                    by_worker
                })
                .await?
        }
    };
    let calls = wanted.iter().map(|(worker, keys)| async move {
        let stacks = server.pool.call::<_, Value>(worker, "call_stack", &CallStack { keys: keys.as_deref() }).await?;
        Ok::<_, Failure>((worker.clone(), stacks))
    });
    let mut answer = Pairs::default();
    for outcome in join_all(calls).await {
        let (worker, stacks) = outcome?;
        if matches!(&stacks, Value::Map(entries) if !entries.is_empty()) {
            answer.0.push((worker, stacks));
        }
    }
    reply(&answer)
}

/// The tasks that run for these keys: themselves, or what they wait for.
fn running_for(state: &State, mut keys: Vec<Key>) -> Vec<(Key, Address)> {
    let (mut seen, mut running) = (IndexSet::new(), Vec::new());
    while let Some(key) = keys.pop() {
        let Some(task) = state.task(&key) else { continue };
        match task.state {
            TaskState::Waiting if seen.insert(key.clone()) => keys.extend(task.waiting_on.into_iter().cloned()),
            TaskState::Processing if seen.insert(key.clone()) => {
                running.extend(task.processing_on.map(|worker| (key.clone(), worker.clone())));
            }
            TaskState::Waiting
            | TaskState::Processing
            | TaskState::Released
            | TaskState::NoWorker
            | TaskState::Queued
            | TaskState::Memory
            | TaskState::Erred
            | TaskState::Forgotten => {}
        }
    }
    running
}

/// `profile`: the workers' call trees, merged or each by itself. The scheduler itself has none.
pub(crate) async fn profile(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        #[serde(default)]
        workers: Value,
        #[serde(default)]
        scheduler: bool,
        #[serde(default)]
        server: bool,
        #[serde(default = "yes")]
        merge_workers: bool,
        #[serde(default)]
        start: Value,
        #[serde(default)]
        stop: Value,
        #[serde(default)]
        key: Value,
    }
    fn yes() -> bool {
        true
    }
    let args: Args = request.args()?;
    if args.scheduler {
        return reply(&empty_tree());
    }
    let targets = targets(server, args.workers, Value::Nil, false).await?;
    let msg = Value::map([
        ("op", "profile".into()),
        ("start", args.start),
        ("stop", args.stop),
        ("key", args.key),
        ("server", args.server.into()),
    ]);
    let trees = to_peers(server, targets, msg, &Value::Nil, OnError::Ignore).await?;
    if !args.merge_workers {
        return reply(&trees);
    }
    reply(&trees.0.into_iter().fold(empty_tree(), |merged, (_, tree)| merge(merged, tree, 0)))
}

/// The merged call tree of what tasks did since a moment, of the workers that answer.
pub(crate) async fn of_tasks(server: &Server, start: f64) -> Result<Value, Failure> {
    let targets = targets(server, Value::Nil, Value::Nil, false).await?;
    let msg = Value::map([("op", "profile".into()), ("start", start.into())]);
    let trees = to_peers(server, targets, msg, &Value::Nil, OnError::Ignore).await?;
    Ok(trees.0.into_iter().fold(empty_tree(), |merged, (_, tree)| merge(merged, tree, 0)))
}

fn empty_tree() -> Value {
    Value::map([
        ("count", 0_i64.into()),
        ("children", Value::Map(Vec::new())),
        ("identifier", "root".into()),
        (
            "description",
            Value::map([
                ("filename", "".into()),
                ("name", "".into()),
                ("line_number", 0_i64.into()),
                ("line", "".into()),
            ]),
        ),
    ])
}

/// Sums counts and unites children with equal identifiers.
fn merge(a: Value, b: Value, depth: usize) -> Value {
    let (Value::Map(mut ours), Value::Map(theirs)) = (a, b) else { return empty_tree() };
    for (name, value) in theirs {
        let Some((_, mine)) = ours.iter_mut().find(|(known, _)| *known == name) else {
            ours.push((name, value));
            continue;
        };
        match (name.as_str(), &mut *mine, value) {
            (Some("count"), Value::Int(count), Value::Int(more)) => *count = count.saturating_add(more),
            (Some("children"), Value::Map(children), Value::Map(more)) if depth < PROFILE_DEPTH_MAX => {
                for (identifier, child) in more {
                    match children.iter_mut().find(|(known, _)| *known == identifier) {
                        Some((_, known)) => *known = merge(std::mem::take(known), child, depth + 1),
                        None => children.push((identifier, child)),
                    }
                }
            }
            _ => {}
        }
    }
    Value::Map(ours)
}

/// `benchmark_hardware`: disk and memory of every worker.
pub(crate) async fn benchmark_hardware(server: &Server) -> Reply {
    let mut all: Vec<(&str, Value)> = Vec::new();
    for (name, op) in [("disk", "benchmark_disk"), ("memory", "benchmark_memory")] {
        let targets = targets(server, Value::Nil, Value::Nil, false).await?;
        let answers = to_peers(server, targets, Value::map([("op", op.into())]), &Value::Nil, OnError::Raise).await?;
        all.push((name, mean_by_size(answers.0.into_iter().map(|(_, answer)| answer))));
    }
    all.push(("network", network(server).await?));
    reply(&Value::map(all))
}

/// Between workers, two by two.
async fn network(server: &Server) -> Result<Value, Failure> {
    let workers: Vec<Address> = server.driver.run(|core| core.workers.keys().cloned().collect()).await?;
    let calls = workers.chunks_exact(2).map(|pair| async {
        let args = Value::map([("address", Value::from(pair[1].as_str()))]);
        Ok::<_, Failure>(server.pool.call::<_, Value>(&pair[0], "benchmark_network", &args).await?)
    });
    let answers = join_all(calls).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(mean_by_size(answers.into_iter()))
}

/// Bytes per second by size, averaged over workers.
#[expect(clippy::cast_precision_loss, reason = "a count of workers")]
fn mean_by_size(answers: impl Iterator<Item = Value>) -> Value {
    let mut sums: IndexMap<String, (f64, usize)> = IndexMap::new();
    for answer in answers {
        let Value::Map(entries) = answer else { continue };
        for (size, speed) in entries {
            if let (Some(size), Some(speed)) = (size.as_str(), speed.as_f64()) {
                let (sum, count) = sums.entry(size.to_owned()).or_default();
                (*sum, *count) = (*sum + speed, *count + 1);
            }
        }
    }
    Value::Map(sums.into_iter().map(|(size, (sum, count))| (size.into(), (sum / count as f64).into())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_profiles_add_up() {
        let leaf = |count: i64| {
            let child = Value::map([("count", count.into()), ("children", Value::Map(Vec::new()))]);
            Value::map([("count", count.into()), ("children", Value::map([("f;x.py;1", child)]))])
        };
        let merged = merge(leaf(2), leaf(3), 0);
        assert_eq!(merged.get("count"), Some(&Value::Int(5)));
        let child = merged.get("children").and_then(|c| c.get("f;x.py;1")).expect("the shared frame");
        assert_eq!(child.get("count"), Some(&Value::Int(5)));
    }
}
