//! Upstream's scheduler state and ours agree after every event; `--bin differential --seeds A..B` runs as many scenarios
//! as wanted.

use dask_tests::differential::upstream::{Summary, follow};
use dask_tests::venv;

/// Scenarios of each of the two halves.
const SCENARIOS: u64 = 320;
/// So many of them must be followed to their end: named differences end the others.
const TO_THE_END_MIN: usize = 250;

fn both_agree(seeds: std::ops::Range<u64>) {
    let target = venv::target_directory().expect("tests are built by cargo");
    let python = venv::python(&target, |step| eprintln!("{step} ...")).expect("a Python environment");
    let summary = Summary::of(&follow(&python, seeds).expect("upstream follows"));
    assert!(
        summary.differences.is_empty(),
        "look closer with `--bin differential -- --seed N`:\n{}",
        summary.differences.join("\n")
    );
    assert!(summary.to_the_end >= TO_THE_END_MIN, "{summary:?}");
    // The harness compares something at all.
    assert!(summary.determined > 5 * summary.tied, "{summary:?}");
    assert_eq!(summary.order, 0, "both sides walk relations in the same order: {summary:?}");
}

#[test]
fn states_and_placements_agree_with_upstream() {
    both_agree(0..SCENARIOS);
}

#[test]
fn more_states_and_placements_agree_with_upstream() {
    both_agree(SCENARIOS..2 * SCENARIOS);
}
