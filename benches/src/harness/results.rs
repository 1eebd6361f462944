//! What came of a measurement: figures of each round, their medians and ratios.

use std::collections::BTreeMap;

use serde::Serialize;

use super::case::Case;
use super::cluster::Make;

/// Figures of one round by name. Less is better, but where a name ends in `/s`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Keeps a figure; a name that is there already gets the new value.
    pub fn set(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }

    /// A figure by its name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }
}

/// Whether more is better.
pub fn more_is_better(figure: &str) -> bool {
    figure.ends_with("/s")
}

/// Rounds of all cases.
#[derive(Debug, Default)]
pub struct Results {
    rounds: BTreeMap<(Case, Make), Vec<Figures>>,
    /// What went wrong, in words.
    pub failures: Vec<String>,
}

impl Results {
    /// Keeps one round.
    pub fn add(&mut self, case: &Case, make: Make, figures: Figures) {
        self.rounds.entry((case.clone(), make)).or_default().push(figures);
    }

    /// Of each case and make.
    pub fn rounds(&self) -> impl Iterator<Item = (&Case, Make, &[Figures])> {
        self.rounds.iter().map(|((case, make), rounds)| (case, *make, rounds.as_slice()))
    }

    /// The cases that were run.
    pub fn cases(&self) -> Vec<&Case> {
        let mut cases: Vec<&Case> = self.rounds.keys().map(|(case, _)| case).collect();
        cases.dedup();
        cases
    }

    /// Figures that a case has, whoever ran it.
    pub fn names(&self, case: &Case) -> Vec<&str> {
        let rounds = self.rounds.iter().filter(|((of, _), _)| of == case).flat_map(|(_, rounds)| rounds);
        let names: std::collections::BTreeSet<&str> = rounds.flat_map(|it| it.0.keys().map(String::as_str)).collect();
        names.into_iter().collect()
    }

    /// The median of a figure.
    pub fn median(&self, case: &Case, make: Make, figure: &str) -> Option<f64> {
        let rounds = self.rounds.get(&(case.clone(), make))?;
        median(rounds.iter().filter_map(|it| it.get(figure)).collect())
    }

    /// By how much ours (or `make`) is better than upstream, from the medians.
    pub fn better_by(&self, case: &Case, make: Make, figure: &str) -> Option<f64> {
        let (ours, theirs) = (self.median(case, make, figure)?, self.median(case, Make::Upstream, figure)?);
        Some(if more_is_better(figure) { ours / theirs } else { theirs / ours })
    }
}

/// The middle one, or the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (lower, upper) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some(f64::midpoint(*lower, *upper))
}

/// `None` of nothing.
pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    let sum: f64 = values.iter().map(|value| value.ln()).sum();
    (!values.is_empty()).then(|| (sum / values.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn better_is_more_for_rates_and_less_for_costs() {
        let case: Case = "noop-10".parse().expect("a case");
        let mut results = Results::default();
        for (make, rate, cost) in [(Make::Ours, 100.0, 5.0), (Make::Upstream, 10.0, 50.0)] {
            let mut figures = Figures::default();
            figures.set("tasks/s", rate);
            figures.set("all CPU, us/task", cost);
            results.add(&case, make, figures);
        }
        assert_eq!(results.better_by(&case, Make::Ours, "tasks/s"), Some(10.0));
        assert_eq!(results.better_by(&case, Make::Ours, "all CPU, us/task"), Some(10.0));
        assert_eq!(results.better_by(&case, Make::Mixed, "tasks/s"), None);
    }
}
