//! Graphs of the shapes users submit. Keys come from a small pool, so that graphs share tasks and come back to them.

use std::sync::Arc;

use bytes::Bytes;
use dask_protocol::{Key, Payload};
use dask_scheduler::state::{Annotations, NewTask, Runtime, TaskSpec};
use rand::Rng;
use rand::rngs::SmallRng;

/// Which extras a scenario's tasks may have.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extras {
    /// Retries and priorities.
    pub annotations: bool,
    /// Restrictions to workers and hosts, loose ones too.
    pub places: bool,
    /// Resources.
    pub resources: bool,
    /// Actors.
    pub actors: bool,
    /// Sources of data and literals.
    pub producers: bool,
}

/// A task before it is annotated.
struct Def {
    key: String,
    deps: Vec<String>,
}

fn def(key: String, deps: Vec<String>) -> Def {
    Def { key, deps }
}

/// A graph and the keys wanted of it.
pub fn draw(rng: &mut SmallRng, extras: Extras, places: &[String], threads: u64) -> (Vec<NewTask>, Vec<Key>) {
    let size = rng.random_range(1..=7);
    let mut defs = shape(rng, size, threads);
    if rng.random_bool(0.2) {
        // One of its inputs is the result of another graph.
        let below = shape(rng, size, threads);
        let shared = below[below.len() - 1].key.clone();
        if defs.iter().all(|def| below.iter().all(|other| other.key != def.key)) {
            defs[0].deps.push(shared);
            defs.splice(0..0, below);
        }
    }
    let last = defs[defs.len() - 1].key.clone();
    let share = if rng.random_bool(0.3) { 1.0 } else { 0.25 };
    let mut wanted: Vec<Key> =
        defs.iter().filter(|_| rng.random_bool(share)).map(|def| Key::from(def.key.as_str())).collect();
    if !wanted.contains(&Key::from(last.as_str())) {
        wanted.push(last.as_str().into());
    }
    let mut tasks: Vec<NewTask> =
        defs.iter().zip(0..).map(|(def, n)| annotate(rng, new_task(def, n), extras, places)).collect();
    for task in tasks.iter_mut().filter(|task| extras.actors && task.is_task && wanted.contains(&task.key)) {
        task.actor = rng.random_bool(0.2);
    }
    (tasks, wanted)
}

fn new_task(def: &Def, order: u32) -> NewTask {
    NewTask {
        key: def.key.as_str().into(),
        dependencies: def.deps.iter().map(|key| Key::from(key.as_str())).collect(),
        spec: TaskSpec::Payload(Payload::pickled(Bytes::from_static(b"spec"), Vec::new())),
        runtime: Runtime::Python,
        data_producer: false,
        is_task: true,
        is_barrier: false,
        order: order.into(),
        actor: false,
        annotations: Arc::default(),
    }
}

fn annotate(rng: &mut SmallRng, mut task: NewTask, extras: Extras, places: &[String]) -> NewTask {
    let mut annotations = Annotations::default();
    if extras.annotations {
        annotations.retries = if rng.random_bool(0.3) { rng.random_range(1..3) } else { 0 };
        annotations.priority = if rng.random_bool(0.2) { rng.random_range(-2..3).into() } else { 0.0 };
    }
    if extras.places && rng.random_bool(0.25) {
        let count = rng.random_range(1..=2);
        annotations.workers = (0..count).map(|_| places[rng.random_range(0..places.len())].clone()).collect();
        annotations.allow_other_workers = rng.random_bool(0.3);
    }
    if extras.resources && rng.random_bool(0.25) {
        annotations.resources.push(("GPU".to_owned(), rng.random_range(1..=2).into()));
        if rng.random_bool(0.3) {
            annotations.resources.push(("FPGA".to_owned(), 0.5));
        }
    }
    if task.dependencies.is_empty() && extras.producers {
        task.data_producer = rng.random_bool(0.3);
        task.is_task = !(task.data_producer && rng.random_bool(0.5));
    }
    task.annotations = Arc::new(annotations);
    task
}

/// One of the shapes; its keys tell shape and size, so that the same key always has the same dependencies.
fn shape(rng: &mut SmallRng, size: u32, threads: u64) -> Vec<Def> {
    let shape = rng.random_range(0..9u32);
    let variant = rng.random_range(0..2u32);
    let key = |n: u32| format!("{}{variant}s{size}-{n}", NAMES[shape as usize]);
    match shape {
        0 => (0..size * 2).map(|n| def(key(n), Vec::new())).collect(),
        1 => (0..size).map(|n| def(key(n), (n > 0).then(|| key(n - 1)).into_iter().collect())).collect(),
        2 => tree(&key, size),
        3 => {
            let mut defs = vec![def(key(0), Vec::new())];
            defs.extend((1..=size).map(|n| def(key(n), vec![key(0)])));
            defs.push(def(key(100), (1..=size).map(key).collect()));
            defs
        }
        4 => layers(&key, size.div_ceil(2)),
        5 => {
            let mut defs: Vec<Def> = (0..2).map(|n| def(key(n), Vec::new())).collect();
            defs.extend((2..2 + size).map(|n| def(key(n), vec![key(n % 2)])));
            defs
        }
        6 | 7 => roots(shape == 7, variant, size, threads),
        _ => random(rng, size),
    }
}

const NAMES: [&str; 9] = ["inc", "chain", "sum", "fan", "layer", "read", "root", "load", "any"];

fn tree(key: &dyn Fn(u32) -> String, leaves: u32) -> Vec<Def> {
    let mut defs: Vec<Def> = (0..leaves).map(|n| def(key(n), Vec::new())).collect();
    let mut level: Vec<String> = defs.iter().map(|def| def.key.clone()).collect();
    let mut next = 100;
    while level.len() > 1 {
        let pairs: Vec<Vec<String>> = level.chunks(2).map(<[String]>::to_vec).collect();
        level.clear();
        for pair in pairs {
            level.push(key(next));
            defs.push(def(key(next), pair));
            next += 1;
        }
    }
    defs
}

fn layers(key: &dyn Fn(u32) -> String, width: u32) -> Vec<Def> {
    let below = |n: u32| match (n / width).checked_sub(1) {
        Some(layer) => (0..width).map(|i| key(layer * width + i)).collect(),
        None => Vec::new(),
    };
    (0..width * 3).map(|n| def(key(n), below(n))).collect()
}

/// A group larger than the cluster, each with a task of its own on top; with or without an input all share.
fn roots(shared: bool, variant: u32, size: u32, threads: u64) -> Vec<Def> {
    let count = u32::try_from(threads.min(20)).expect("small") * 2 + size;
    let name = |layer: &str, n: u32| format!("('{layer}{variant}x{count}', {n})");
    let mut defs = Vec::new();
    let input = shared.then(|| format!("open{variant}x{count}"));
    defs.extend(input.clone().map(|key| def(key, Vec::new())));
    let label = if shared { "load" } else { "root" };
    for n in 0..count {
        defs.push(def(name(label, n), input.clone().into_iter().collect()));
        defs.push(def(name(if shared { "clean" } else { "map" }, n), vec![name(label, n)]));
    }
    let tops = (0..count).map(|n| name(if shared { "clean" } else { "map" }, n)).collect();
    defs.push(def(format!("total{label}{variant}x{count}"), tops));
    defs
}

/// Each task reads a few of those before it. The keys are new each time.
fn random(rng: &mut SmallRng, size: u32) -> Vec<Def> {
    let number: u32 = rng.random_range(0..1_000_000);
    let key = |n: u32| format!("any{n}-{number}");
    let mut defs = Vec::new();
    for n in 0..size * 2 {
        let mut deps: Vec<String> = Vec::new();
        for _ in 0..rng.random_range(0..=n.min(3)) {
            let dep = key(rng.random_range(0..n));
            if !deps.contains(&dep) {
                deps.push(dep);
            }
        }
        defs.push(def(key(n), deps));
    }
    defs
}
