//! What is run: a family with its parameters, and on which workers.

use std::fmt;
use std::str::FromStr;

/// A family, what it is and where it runs when nothing else is said: workers and threads of each.
const FAMILIES: &[(&str, &str, (usize, u32))] = &[
    ("noop", "COUNT trivial calls of a function of __main__, `client.map`", (8, 1)),
    ("noop_module", "the same with a function that workers import", (8, 1)),
    ("merge", "COUNT trivial tasks and one that reads them all, a dict", (8, 1)),
    ("tree", "the sum of 2**HEIGHT numbers, two at a time, a dict", (8, 1)),
    ("all_to_all", "WIDTH tasks, as many that each read all of them, and one for those, a dict", (8, 1)),
    ("chain", "LENGTH tasks, each reads the one before, a dict", (1, 1)),
    ("delayed_merge", "as merge, with dask.delayed", (8, 1)),
    ("delayed_tree", "as tree, with dask.delayed", (8, 1)),
    ("merge_slow", "COUNT tasks that sleep SECONDS each, and one that reads them all, a dict", (8, 1)),
    ("numpy", "array of SIDE in PARTITIONS a side: x + x.T, sliced, mean, sum", (8, 1)),
    ("transpose_sum", "array of SIDE in PARTITIONS a side: (x + x.T).sum()", (8, 1)),
    ("svd", "singular values of a tall array of ROWS in PARTITIONS", (8, 1)),
    ("bag", "product of COUNT numbers in PARTITIONS with themselves, filtered, folded", (8, 1)),
    ("xarray", "monthly anomalies of a temperature grid in chunks of CHUNK", (8, 1)),
    ("groupby", "table of DAYS, a record each FREQUENCY, by PARTITION: means by name", (8, 1)),
    ("join", "the same table joined with itself on its index", (8, 1)),
    ("vectorizer", "100,000 short texts by PARTITION texts: hashed features", (8, 1)),
    ("wordbag", "the same with a dictionary of all texts in between", (8, 1)),
    ("trip_paced", "COUNT round trips with 30 ms between", (1, 1)),
    ("trip_tight", "COUNT round trips, each as soon as the last is back", (1, 1)),
    ("data_worker", "BYTES by COUNT from one worker's memory to tasks on another", (2, 1)),
    ("data_gather", "BYTES by COUNT to the client, through the scheduler", (2, 1)),
    ("data_gather_direct", "BYTES by COUNT to the client, from the workers", (2, 1)),
    ("data_scatter", "BYTES by COUNT from the client, through the scheduler", (2, 1)),
    ("data_scatter_direct", "BYTES by COUNT from the client, to the workers", (2, 1)),
    ("intake", "until the scheduler has taken in an array graph of TASKS", (1, 1)),
    ("intake_other", "another client's round trips while an array graph of TASKS arrives", (8, 1)),
    ("native", "COUNT trivial native tasks of the Rust client, scheduler and worker as processes", (1, 2)),
    ("native_local", "the same with scheduler and worker in the client's process", (1, 2)),
    ("memory", "a map of COUNT whose results are held, then released", (10, 1)),
    ("idle", "nothing, for SECONDS", (1, 1)),
];

/// Families whose numbers are not sizes that a smoke run could make smaller.
const NOT_SHRUNK: &[&str] = &["idle", "tree", "delayed_tree", "xarray", "vectorizer", "wordbag", "join"];
/// A smoke run divides each number from this on by it.
const SHRUNK_BY: u64 = 100;

/// A case: `[zero/]FAMILY-PARAMETERS[@WORKERS[xTHREADS]]`, such as `zero/noop-50000@100`.
///
/// With `zero/`, workers are fakes that answer at once: what is left is the scheduler and the client.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    /// Family and parameters, as the driver takes them.
    pub program: String,
    /// On whom it runs.
    pub layout: Layout,
}

/// The workers of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Layout {
    /// Whether they are fakes.
    pub zero: bool,
    /// How many.
    pub workers: usize,
    /// Of each.
    pub threads: u32,
}

/// The text names no case.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no case: {reason} (`dask-bench list` shows the families)")]
pub struct NoCase {
    text: String,
    reason: &'static str,
}

impl FromStr for Case {
    type Err = NoCase;

    fn from_str(text: &str) -> Result<Case, NoCase> {
        let wrong = |reason| NoCase { text: text.to_owned(), reason };
        let (zero, rest) = text.strip_prefix("zero/").map_or((false, text), |rest| (true, rest));
        let (program, place) = rest.split_once('@').map_or((rest, None), |(program, place)| (program, Some(place)));
        let family = program.split('-').next().unwrap_or_default();
        let known = FAMILIES.iter().find(|(name, ..)| *name == family).ok_or_else(|| wrong("no such family"))?;
        let (mut workers, mut threads) = known.2;
        if let Some(place) = place {
            let number = |_| wrong("workers and threads are numbers, as in @8x1");
            let (count, of_each) = place.split_once('x').unwrap_or((place, "1"));
            (workers, threads) = (count.parse().map_err(number)?, of_each.parse().map_err(number)?);
        }
        if workers == 0 || threads == 0 {
            return Err(wrong("somebody has to work"));
        }
        Ok(Case { program: program.to_owned(), layout: Layout { zero, workers, threads } })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Layout { zero, workers, threads } = self.layout;
        let zero = if zero { "zero/" } else { "" };
        write!(f, "{zero}{}@{workers}x{threads}", self.program)
    }
}

impl Case {
    /// The name before the parameters.
    pub fn family(&self) -> &str {
        self.program.split('-').next().unwrap_or_default()
    }

    /// Whether it needs a cluster that did nothing before.
    pub fn alone(&self) -> bool {
        self.native() || matches!(self.family(), "memory" | "idle")
    }

    /// Whether it is the Rust client's.
    pub fn native(&self) -> bool {
        matches!(self.family(), "native" | "native_local")
    }

    /// The same with sizes that take no time: whether everything works, not what it costs.
    #[must_use]
    pub fn shrunk(&self) -> Case {
        if NOT_SHRUNK.contains(&self.family()) {
            return self.clone();
        }
        let smaller = |part: &str| match part.parse::<u64>() {
            Ok(number) if number >= SHRUNK_BY => (number / SHRUNK_BY).max(10).to_string(),
            _ => part.to_owned(),
        };
        let program = self.program.split('-').map(smaller).collect::<Vec<_>>().join("-");
        Case { program, layout: self.layout }
    }
}

/// The families, one line each.
pub fn families() -> String {
    let line = |(name, what, (workers, threads)): &(&str, &str, (usize, u32))| {
        format!("{name:<20} {what} [@{workers}x{threads}]\n")
    };
    FAMILIES.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_runs_where() {
        let case: Case = "zero/noop-50000@100".parse().expect("a case");
        assert_eq!(case.program, "noop-50000");
        assert_eq!(case.layout, Layout { zero: true, workers: 100, threads: 1 });
        let case: Case = "groupby-360-1s-8H".parse().expect("a case");
        assert_eq!(case.to_string(), "groupby-360-1s-8H@8x1");
        assert_eq!(case.to_string().parse::<Case>().expect("its own name"), case);
        for text in ["nothing-5", "noop-5@0", "noop-5@many", ""] {
            assert!(text.parse::<Case>().is_err(), "{text}");
        }
    }

    #[test]
    fn smoke_runs_are_small() {
        let shrunk = |text: &str| text.parse::<Case>().expect("a case").shrunk().program;
        assert_eq!(shrunk("noop-50000"), "noop-500");
        assert_eq!(shrunk("merge_slow-5000-0.1"), "merge_slow-50-0.1");
        assert_eq!(shrunk("tree-15"), "tree-15");
    }
}
