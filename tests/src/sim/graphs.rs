//! Shapes of graphs. Keys come from a small pool, so that clients meet on the same tasks and come back to them.

use rand::Rng;
use rand::rngs::SmallRng;

use super::step::TaskDef;

/// Different graphs a run can choose from.
const GRAPHS: u32 = 6;

/// Which extras a run's tasks may have.
#[derive(Debug, Clone, Copy)]
pub struct Extras {
    /// Retries and priorities.
    pub annotations: bool,
    /// Host restrictions.
    pub hosts: bool,
    /// Resources.
    pub gpus: bool,
    /// Actors.
    pub actors: bool,
}

/// A graph and the keys wanted of it.
pub fn draw(rng: &mut SmallRng, extras: Extras, hosts: &[String]) -> (Vec<TaskDef>, Vec<String>) {
    let graph = rng.random_range(0..GRAPHS);
    let size = rng.random_range(1..=8);
    let mut tasks = shape(graph, size);
    if graph > 0 && rng.random_bool(0.3) {
        // Builds on a neighbour, shared by whoever submits it.
        let below = shape(graph - 1, size);
        let shared = below[below.len() - 1].key.clone();
        tasks[0].deps.push(shared);
        tasks.splice(0..0, below);
    }
    for task in &mut tasks {
        annotate(rng, task, extras, hosts);
    }
    let last = tasks[tasks.len() - 1].key.clone();
    let mut wants: Vec<String> = tasks.iter().map(|t| t.key.clone()).filter(|_| rng.random_bool(0.4)).collect();
    if !wants.contains(&last) {
        wants.push(last);
    }
    (tasks, wants)
}

fn annotate(rng: &mut SmallRng, task: &mut TaskDef, extras: Extras, hosts: &[String]) {
    if extras.annotations {
        task.retries = if rng.random_bool(0.2) { rng.random_range(1..3) } else { 0 };
        task.priority = if rng.random_bool(0.2) { rng.random_range(-2..3) } else { 0 };
        task.data_producer = task.deps.is_empty() && rng.random_bool(0.2);
    }
    if extras.hosts && rng.random_bool(0.15) {
        task.host = Some(hosts[rng.random_range(0..hosts.len())].clone());
        task.loose = rng.random_bool(0.3);
    }
    if extras.gpus && rng.random_bool(0.2) {
        task.gpus = rng.random_range(1..=2);
    }
    task.actor = extras.actors && rng.random_bool(0.05);
}

fn task(key: String, deps: Vec<String>) -> TaskDef {
    TaskDef { key, deps, ..TaskDef::default() }
}

/// The same graph for the same number and size; graphs of different size share their first tasks.
fn shape(graph: u32, size: u32) -> Vec<TaskDef> {
    let key = |n: u32| format!("g{graph}-{n}");
    match graph {
        // Independent.
        0 => (0..size * 2).map(|n| task(key(n), Vec::new())).collect(),
        // A chain.
        1 => (0..size).map(|n| task(key(n), (n > 0).then(|| key(n - 1)).into_iter().collect())).collect(),
        // A tree, leaves first.
        2 => tree(&key, size),
        // A fan out of one input and in again (a diamond).
        3 => {
            let mut tasks = vec![task(key(0), Vec::new())];
            tasks.extend((1..=size).map(|n| task(key(n), vec![key(0)])));
            tasks.push(task(key(100 + size), (1..=size).map(key).collect()));
            tasks
        }
        // Layers, all to all.
        4 => {
            let width = size.div_ceil(2);
            (0..width * 3)
                .map(|n| {
                    let below = (n / width).checked_sub(1).map(|layer| (0..width).map(move |i| layer * width + i));
                    task(
                        format!("g4w{width}-{n}"),
                        below.into_iter().flatten().map(|n| format!("g4w{width}-{n}")).collect(),
                    )
                })
                .collect()
        }
        // Many readers of few inputs.
        _ => {
            let mut tasks: Vec<_> = (0..2).map(|n| task(key(n), Vec::new())).collect();
            tasks.extend((2..2 + size).map(|n| task(key(n), vec![key(n % 2)])));
            tasks
        }
    }
}

fn tree(key: &dyn Fn(u32) -> String, leaves: u32) -> Vec<TaskDef> {
    let mut tasks: Vec<_> = (0..leaves).map(|n| task(key(n), Vec::new())).collect();
    let mut level: Vec<String> = tasks.iter().map(|t| t.key.clone()).collect();
    while level.len() > 1 {
        let mut next = Vec::new();
        for pair in level.chunks(2) {
            let parent = format!("{}+", pair.concat());
            tasks.push(task(parent.clone(), pair.to_vec()));
            next.push(parent);
        }
        level = next;
    }
    tasks
}
