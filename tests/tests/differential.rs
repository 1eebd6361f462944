//! Upstream's scheduler state and ours agree after every event; `--bin differential --seeds A..B` runs as many scenarios
//! as wanted.

use dask_tests::differential::plan::OPERATIONS_FROM;
use dask_tests::differential::upstream::{Summary, follow};
use dask_tests::venv;

/// Scenarios of each of the two halves.
const SCENARIOS: u64 = 320;
/// Scenarios with what operators and the scheduler itself do.
const OPERATIONS: u64 = 200;
const OPERATIONS_TO_THE_END_MIN: usize = 150;
/// So many of them must be followed to their end: named differences end the others.
const TO_THE_END_MIN: usize = 250;

fn both_agree(seeds: std::ops::Range<u64>, to_the_end_min: usize) -> Summary {
    let target = venv::target_directory().expect("tests are built by cargo");
    let python = venv::python(&target, |step| eprintln!("{step} ...")).expect("a Python environment");
    let summary = Summary::of(&follow(&python, seeds).expect("upstream follows"));
    assert!(
        summary.differences.is_empty(),
        "look closer with `--bin differential -- --seed N`:\n{}",
        summary.differences.join("\n")
    );
    assert!(summary.to_the_end >= to_the_end_min, "{summary:?}");
    // The harness compares something at all.
    assert!(summary.determined > 5 * summary.tied, "{summary:?}");
    assert_eq!(summary.order, 0, "both sides walk relations in the same order: {summary:?}");
    summary
}

#[test]
fn states_and_placements_agree_with_upstream() {
    both_agree(0..SCENARIOS, TO_THE_END_MIN);
}

#[test]
fn more_states_and_placements_agree_with_upstream() {
    both_agree(SCENARIOS..2 * SCENARIOS, TO_THE_END_MIN);
}

#[test]
fn stealing_copies_retirements_and_restarts_agree_with_upstream() {
    let summary = both_agree(OPERATIONS_FROM..OPERATIONS_FROM + OPERATIONS, OPERATIONS_TO_THE_END_MIN);
    for (event, scenarios_min) in [("steal-response", 30), ("run-amm", 100), ("retire-workers", 40), ("restart", 5)] {
        let (_, scenarios) = summary.events.get(event).copied().unwrap_or_default();
        assert!(scenarios >= scenarios_min, "{event} came up in {scenarios} scenarios only: {summary:?}");
    }
}
