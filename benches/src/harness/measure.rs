//! Rounds: in each, every cluster is started anew, those of the makes in turn, and runs the cases that want its workers.

use std::collections::BTreeMap;

use super::Failure;
use super::case::{Case, Layout};
use super::cluster::{Cluster, Make, Programs};
use super::driver;
use super::native;
use super::results::Results;

/// A case, who runs it, and in how many rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// What.
    pub case: Case,
    /// Who.
    pub makes: Vec<Make>,
    /// How often.
    pub rounds: usize,
}

/// Runs jobs into `results`, telling of each step on standard error. A case that fails is noted there, and the others go on.
pub fn measure(jobs: &[Job], programs: &Programs, results: &mut Results) {
    let rounds = jobs.iter().map(|job| job.rounds).max().unwrap_or(0);
    for round in 0..rounds {
        let due: Vec<&Job> = jobs.iter().filter(|job| round < job.rounds).collect();
        for group in groups(&due) {
            let mut makes: Vec<Make> = group.iter().flat_map(|job| job.makes.iter().copied()).collect();
            makes.sort_unstable();
            makes.dedup();
            if round % 2 == 1 {
                makes.reverse();
            }
            for make in makes {
                let cases = group.iter().filter(|job| job.makes.contains(&make)).map(|job| &job.case);
                let cases: Vec<&Case> = cases.collect();
                eprintln!("round {} of {rounds}, {make}: {}", round + 1, named(&cases));
                if let Err(error) = on_one_cluster(make, &cases, programs, results) {
                    eprintln!("{error}");
                    results.failures.push(error.to_string());
                }
            }
        }
    }
}

fn named(cases: &[&Case]) -> String {
    cases.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Jobs that can share a cluster.
fn groups<'a>(jobs: &[&'a Job]) -> Vec<Vec<&'a Job>> {
    let mut shared: BTreeMap<Layout, Vec<&Job>> = BTreeMap::new();
    let mut alone = Vec::new();
    for job in jobs {
        if job.case.alone() {
            alone.push(vec![*job]);
        } else {
            shared.entry(job.case.layout).or_default().push(job);
        }
    }
    shared.into_values().chain(alone).collect()
}

fn on_one_cluster(make: Make, cases: &[&Case], programs: &Programs, results: &mut Results) -> Result<(), Failure> {
    let first = cases.first().expect("a group has a case");
    if first.native() {
        results.add(first, make, native::run(first, programs)?);
        return Ok(());
    }
    let cluster = Cluster::start(make, first.layout, programs)?;
    for case in cases {
        match driver::run(case, &cluster, programs) {
            Ok(figures) => results.add(case, make, figures),
            Err(error) => {
                let text = format!("{make}: {error}");
                eprintln!("{text}");
                results.failures.push(text);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_share_clusters_unless_they_have_to_be_alone() {
        let names = ["noop-5", "merge-5", "zero/noop-5", "zero/memory-5", "noop-5@1"];
        let job = |text: &str| Job { case: text.parse().expect("a case"), makes: vec![Make::Ours], rounds: 1 };
        let jobs = names.map(job);
        let sizes: Vec<usize> = groups(&jobs.iter().collect::<Vec<_>>()).iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, 2, 1, 1]);
    }
}
