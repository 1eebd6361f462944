//! A few hundred simulated clusters; `cargo run -p dask-tests --release --bin sim` runs as many as wanted.

use dask_tests::sim::run::{Recording, replay, run_seed};

/// Seeds of each of the two halves.
const SEEDS: u64 = 120;

fn all_rules_are_kept(seeds: std::ops::Range<u64>) {
    let broken: Vec<String> =
        seeds.filter_map(|seed| Some(format!("seed {seed}: {}", run_seed(seed, false).failure?))).collect();
    assert!(broken.is_empty(), "look closer with `--bin sim -- --seed N --trace`:\n{}", broken.join("\n"));
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
