//! Runs with a script instead of trouble: a cluster that grows while it works, and one whose workers are all replaced.
//!
//! Nothing goes wrong in them, only slowly, so more must hold than in a run with faults: every result arrives, none is
//! computed twice, and no task runs in two places.

use std::str::FromStr;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::case::{Case, Slot};
use super::plan::Plan;
use super::step::{Step, TaskDef, WorkerNo};

/// Of so many ordinary seeds one is of each scenario.
const SHARE: u64 = 25;
/// Workers that an ordinary seed may grow to.
const SMALL_MAX: u32 = 12;

/// Which script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scenario {
    /// Many more workers join while a job runs.
    ScaleOut,
    /// Every worker is replaced by a new one and retired while a job runs.
    Rolling,
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(name: &str) -> Result<Scenario, String> {
        match name {
            "scale-out" => Ok(Scenario::ScaleOut),
            "rolling" => Ok(Scenario::Rolling),
            _ => Err(format!("{name:?} is no scenario; there are scale-out and rolling")),
        }
    }
}

/// The scenario of an ordinary seed, if it has one; then it is a small one.
pub fn of_seed(seed: u64) -> Option<Scenario> {
    match seed % SHARE {
        13 => Some(Scenario::Rolling),
        17 => Some(Scenario::ScaleOut),
        _ => None,
    }
}

/// Draws a run of a scenario: from 8 to 100 workers, or replacing up to eight; smaller where `small`.
pub fn draw(scenario: Scenario, seed: u64, small: bool) -> (Case, Plan) {
    let mut rng = SmallRng::seed_from_u64(seed);
    match scenario {
        Scenario::ScaleOut => scale_out(seed, small, &mut rng),
        Scenario::Rolling => rolling(seed, small, &mut rng),
    }
}

fn case(scenario: Scenario, seed: u64, slots: u32, rng: &mut SmallRng) -> Case {
    let threads = rng.random_range(1..=2);
    let slot = |n: u32, rng: &mut SmallRng| Slot {
        nthreads: threads,
        gpus: 0,
        host: format!("10.0.{}.{}", n / 250, n % 250 + 1),
        transfer_bytes_max: rng.random_bool(0.3).then_some(20_000),
    };
    Case {
        scenario: Some(scenario),
        slots: (0..slots).map(|n| slot(n, rng)).collect(),
        clients: 1,
        saturation: if rng.random_bool(0.5) { Some(1.1) } else { None },
        stealing: scenario == Scenario::ScaleOut || rng.random_bool(0.7),
        amm: rng.random_bool(0.7),
        ..Case::draw(seed, rng)
    }
}

fn scale_out(seed: u64, small: bool, rng: &mut SmallRng) -> (Case, Plan) {
    let (before, after) = if small { (2, rng.random_range(5..=SMALL_MAX)) } else { (8, 100) };
    let case = case(Scenario::ScaleOut, seed, after, rng);
    let mut script = begin(before);
    // The first workers alone would be busy for 30 tasks of 0.2 s, which is long after the last has come, and there is
    // work for all then.
    let loads = (4 * after + 30 * before) * case.slots[0].nthreads;
    script.push((0.3, submit(loads, rng)));
    let joins = rng.random_range(0.5..2.0);
    script.extend((before..after).map(|slot| (1.0 + joins * rng.random_range(0.0..1.0), Step::Start { slot })));
    let plan = Plan::scripted(SmallRng::seed_from_u64(rng.random()), script);
    (case, plan)
}

fn rolling(seed: u64, small: bool, rng: &mut SmallRng) -> (Case, Plan) {
    let workers = if small { rng.random_range(1..=4) } else { rng.random_range(2..=8) };
    let case = case(Scenario::Rolling, seed, workers, rng);
    let mut script = begin(workers);
    script.push((0.3, submit(rng.random_range(5..=15) * workers, rng)));
    let (gap, delay) = (rng.random_range(0.1..3.0), rng.random_range(0.0..1.0));
    for slot in 0..workers {
        let at = 0.5 + gap * f64::from(slot + 1);
        // Starts in another time than the retirement, else the last worker would have nobody to give its results to.
        script.push((at, Step::Start { slot }));
        script.push((at + 1.0 + delay, Step::Retire { workers: vec![slot] }));
    }
    let plan = Plan::scripted(SmallRng::seed_from_u64(rng.random()), script);
    (case, plan)
}

/// One client, and the first workers: their numbers are those of their slots.
fn begin(workers: u32) -> Vec<(f64, Step)> {
    let starts = (0..workers).map(|slot| (0.001 * f64::from(slot + 1), Step::Start { slot }));
    [(0.0, Step::Connect(0))].into_iter().chain(starts).collect()
}

/// Loads, something made of each, and a tree on top; the client wants the top and some of the rest.
fn submit(loads: WorkerNo, rng: &mut SmallRng) -> Step {
    let task = |key: String, deps: Vec<String>| TaskDef { key, deps, ..TaskDef::default() };
    let mut tasks: Vec<TaskDef> = (0..loads).map(|n| task(format!("load-{n}"), Vec::new())).collect();
    tasks.extend((0..loads).map(|n| task(format!("inc-{n}"), vec![format!("load-{n}")])));
    let mut level: Vec<String> = (0..loads).map(|n| format!("inc-{n}")).collect();
    for depth in 0.. {
        if level.len() == 1 {
            break;
        }
        let sum = |(n, of): (usize, &[String])| task(format!("sum-{depth}-{n}"), of.to_vec());
        let next: Vec<TaskDef> = level.chunks(4).enumerate().map(sum).collect();
        level = next.iter().map(|task| task.key.clone()).collect();
        tasks.extend(next);
    }
    let top = level.swap_remove(0);
    let others = tasks.iter().map(|task| task.key.clone()).filter(|key| *key != top && rng.random_bool(0.1));
    let wants = others.chain([top.clone()]).collect();
    Step::Submit { client: 0, tasks, wants }
}
