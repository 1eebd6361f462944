//! A few hundred simulated clusters; `cargo run -p dask-tests --release --bin sim` runs as many as wanted.

use dask_tests::sim::run::{Recording, Report, replay, run_scenario, run_seed};
use dask_tests::sim::scenario::Scenario;

/// Seeds of each of the two halves.
const SEEDS: u64 = 120;

fn all_rules_are_kept(seeds: std::ops::Range<u64>) {
    all_are_kept("", seeds, |seed| run_seed(seed, false));
}

fn all_are_kept(arguments: &str, seeds: std::ops::Range<u64>, run: impl Fn(u64) -> Report) {
    let broken: Vec<String> = seeds.filter_map(|seed| Some(format!("seed {seed}: {}", run(seed).failure?))).collect();
    let broken = broken.join("\n");
    assert!(broken.is_empty(), "look closer with `--bin sim -- {arguments} --seed N --trace`:\n{broken}");
}

#[test]
fn clusters_under_faults_finish_everything_and_leave_nothing() {
    all_rules_are_kept(0..SEEDS);
}

#[test]
fn more_clusters_under_faults_finish_everything_and_leave_nothing() {
    all_rules_are_kept(SEEDS..2 * SEEDS);
}

#[test]
fn one_seed_is_one_run() {
    for seed in 0..10 {
        let (first, second) = (run_seed(seed, true), run_seed(seed, true));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!(first.digest, second.digest, "seed {seed}");
    }
}

#[test]
fn a_recording_replays_to_the_same_decisions() {
    for seed in 0..10 {
        let run = run_seed(seed, true);
        let written = serde_json::to_string(&run.recording).expect("plain data");
        let read: Recording = serde_json::from_str(&written).expect("plain data");
        let again = replay(&read, true);
        let (original, replayed) = (run.trace.expect("traced"), again.trace.expect("traced"));
        assert!(replayed.starts_with(&original), "seed {seed} replays otherwise");
    }
}

#[test]
fn replacing_every_worker_loses_nothing_and_repeats_nothing() {
    all_are_kept("--scenario rolling", 0..25, |seed| run_scenario(Scenario::Rolling, seed, false));
}

#[test]
fn a_cluster_that_grows_from_8_to_100_workers_repeats_nothing_and_uses_all() {
    all_are_kept("--scenario scale-out", 0..3, |seed| run_scenario(Scenario::ScaleOut, seed, false));
}
