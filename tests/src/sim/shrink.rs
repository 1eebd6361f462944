//! Makes a failing recording smaller: leaves out steps as long as the same rule is still broken.

use super::run::{Recording, replay};

/// Letters of a failure that must stay the same.
const SAME_FAILURE_CHARS: usize = 24;

/// Replays spent on one failure.
const REPLAYS_MAX: usize = 400;

/// The rule a text speaks of: its words without names and numbers.
fn rule(text: &str) -> String {
    let words =
        text.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit() || c == '"' || c == '\''));
    words.collect::<Vec<_>>().join(" ").chars().take(SAME_FAILURE_CHARS).collect()
}

/// Leaves out what is not needed for the failure.
pub fn shrink(recording: &Recording, failure: &str) -> Recording {
    let wanted = rule(failure);
    let mut best = recording.clone();
    let fails = |candidate: &Recording| replay(candidate, false).failure.is_some_and(|text| rule(&text) == wanted);
    if !fails(&best) {
        return best;
    }
    let mut replays = 0;
    let mut chunk = best.steps.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        while at < best.steps.len() && replays < REPLAYS_MAX {
            replays += 1;
            let mut candidate = best.clone();
            candidate.steps.drain(at..(at + chunk).min(best.steps.len()));
            if fails(&candidate) {
                best = candidate;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    best
}
