//! What the scheduler's state costs per task, in CPU time and in memory, as the cluster and the graph grow.

use dask_scheduler::state::{Event, Policy, State, UpdateGraph};

use super::clock::cpu_seconds;
use super::cluster::{Settings, record};
use super::memory::Count;
use super::shape::Shape;
use super::worker::SimWorker;
use super::workload::{Builder, Workload};

/// Reads how many bytes the process has allocated and not freed.
pub type LiveBytes = fn() -> usize;

/// One size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    /// About how many tasks.
    pub tasks: usize,
    /// Workers with two threads each.
    pub workers: usize,
}

/// What one size costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Tasks, exactly.
    pub tasks: usize,
    /// Microseconds of CPU in the state, from submission to the last result.
    pub micros_per_task: f64,
    /// Bytes the state holds once it has the graph; keys and specs, which it shares with the submitter, do not count.
    pub bytes_per_task: f64,
    /// Events per task.
    pub events_per_task: f64,
    /// Virtual seconds the run took.
    pub makespan: f64,
}

/// Chains of three that meet sixteen at a time, again and again.
pub fn workload(tasks: usize) -> Workload {
    let mut builder = Builder::new(0);
    let (load, map) = (builder.source("load", 0.1, 1_000_000), builder.layer("map", 0.1, 1_000_000));
    let part = builder.layer("part", 0.1, 1_000);
    // Three tasks per chain, and a fifteenth of a task per chain in the tree.
    let chains = (tasks * 15 / 46).max(1);
    let parts: Vec<u32> = (0..chains)
        .map(|i| {
            let block = builder.add(&load, &[i], &[]);
            let mapped = builder.add(&map, &[i], &[block]);
            builder.add(&part, &[i], &[mapped])
        })
        .collect();
    let result = builder.tree("sum", &parts, 16, 0.02, 1_000);
    builder.submit(0.0, vec![result]);
    builder.build("scale")
}

/// Measures one size; `progress` is told how many tasks are done.
///
/// # Errors
/// When the run comes to no end.
#[expect(clippy::cast_precision_loss, reason = "for ratios")]
pub fn measure(size: Size, policy: Policy, live: LiveBytes, progress: impl FnMut(u64)) -> Result<Cost, String> {
    let workload = workload(size.tasks);
    let mut settings = Settings::new(Shape::even(size.workers, 2));
    settings.scheduler.policy = policy;
    let tasks = workload.tasks.len();
    let bytes = bytes_held(&workload, &settings, live);
    let (outcome, told) = record(&workload, &settings, progress).map_err(|error| error.to_string())?;
    let events = told.len();
    Ok(Cost {
        tasks,
        micros_per_task: median_seconds(&settings, &told, repetitions(tasks)) * 1e6 / tasks as f64,
        bytes_per_task: bytes as f64 / tasks as f64,
        events_per_task: events as f64 / tasks as f64,
        makespan: outcome.makespan,
    })
}

/// How often a size is measured: small ones are over before the processor has settled.
fn repetitions(tasks: usize) -> usize {
    const TASKS_MEASURED: usize = 300_000;
    const REPETITIONS_MAX: usize = 15;
    (TASKS_MEASURED / tasks.max(1)).clamp(1, REPETITIONS_MAX) | 1
}

/// Events of one turn of the scheduler's loop: they were decoded just now and are in the processor's caches.
const EVENTS_PER_TURN: usize = 64;

fn median_seconds(settings: &Settings, told: &[(f64, Event)], repetitions: usize) -> f64 {
    let mut seconds: Vec<f64> = (0..repetitions).map(|_| seconds_to_hear(settings, told)).collect();
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Seconds of CPU that a fresh state takes for what another one was told in the same order at the same times: it decides the
/// same, and the simulated workers are not in its caches. What it decides is dropped at once, as if it had been sent. To bring
/// the events there, as decoding would, does not count.
#[inline(never)]
fn seconds_to_hear(settings: &Settings, told: &[(f64, Event)]) -> f64 {
    let mut state = State::new(settings.scheduler.clone(), 0.0);
    let mut actions = Vec::new();
    let mut seconds = 0.0;
    for turn in told.chunks(EVENTS_PER_TURN) {
        let turn = turn.to_vec();
        let begin = cpu_seconds();
        for (now, event) in turn {
            state.handle(now, event, &mut actions);
            actions.clear();
        }
        seconds += cpu_seconds() - begin;
    }
    seconds
}

/// Bytes that a state has more once it has taken in the graph and sent out the first tasks.
fn bytes_held(workload: &Workload, settings: &Settings, live: LiveBytes) -> usize {
    let mut state = State::new(settings.scheduler.clone(), 0.0);
    let mut actions = Vec::new();
    state.handle(0.0, Event::AddClient { client: "c".into() }, &mut actions);
    for (number, threads) in settings.shape.nthreads().iter().enumerate() {
        let worker = SimWorker::new(number, *threads, 0);
        state.handle(0.0, Event::AddWorker(Box::new(worker.registration(number))), &mut actions);
    }
    let _counting = Count::begin();
    let mut held = 0;
    for submission in &workload.submissions {
        actions = Vec::new();
        let before = live();
        let (tasks, keys) = workload.graph(submission);
        let event = Event::UpdateGraph(Box::new(UpdateGraph {
            client: "c".into(),
            tasks,
            keys,
            submitting_task: None,
            fifo_timeout: 0.0,
            stimulus_id: "update-graph".into(),
        }));
        state.handle(1.0, event, &mut actions);
        actions = Vec::new();
        held += live().wrapping_sub(before);
    }
    drop(actions);
    held
}
