//! What the engine has to reach: the rows of `dask-bench table`.

use super::case::Case;
use super::cluster::Make;
use super::measure::Job;
use super::report::shown;
use super::results::{Results, geometric_mean};

const SCHEDULER_CPU: &str = "scheduler CPU, us/task";
const ALL_CPU: &str = "all CPU, us/task";
const HELD: &str = "scheduler memory held, bytes/task";
const LEFT: &str = "scheduler memory left, bytes/task";
/// The graphs of arXiv 2010.11105, in sizes for a machine of two cores.
const PAPER: [&str; 9] = [
    "merge-10000",
    "tree-13",
    "xarray-5",
    "bag-2500-25",
    "numpy-5000-25",
    "groupby-90-1s-8H",
    "join-1-1s-1T",
    "vectorizer-1000",
    "wordbag-1000",
];
/// Rounds of what is only measured on our side and takes long.
const ABSOLUTE_ROUNDS_MAX: usize = 3;

type Judge = Box<dyn Fn(&Results) -> Option<Verdict>>;

/// One demand.
pub struct Row {
    /// What is measured.
    pub title: String,
    /// What has to come of it.
    pub at_least: String,
    /// What has to run for it.
    pub jobs: Vec<Job>,
    judge: Judge,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// In words and numbers.
    pub measured: String,
    /// Whether the demand is met.
    pub reached: bool,
}

impl Row {
    /// What came of it; `None` when something was not measured.
    pub fn verdict(&self, results: &Results) -> Option<Verdict> {
        (self.judge)(results)
    }
}

/// How rows are made: sizes and rounds.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Of ratios.
    pub rounds: usize,
    /// Whether only to see that everything works.
    pub quick: bool,
}

impl Sizes {
    fn case(self, text: &str) -> Case {
        let case: Case = text.parse().expect("rows name cases that exist");
        if self.quick { case.shrunk() } else { case }
    }

    fn job(self, text: &str, makes: &[Make]) -> Job {
        let rounds = if makes.contains(&Make::Upstream) { self.rounds } else { self.rounds.min(ABSOLUTE_ROUNDS_MAX) };
        Job { case: self.case(text), makes: makes.to_vec(), rounds }
    }

    /// Each of the cases has to be better than upstream by a factor, in one figure.
    fn better(self, title: &str, figure: &'static str, unit: &'static str, times: f64, cases: &[&str]) -> Row {
        let cases: Vec<Case> = cases.iter().map(|text| self.case(text)).collect();
        let jobs = cases.iter().map(|case| Job { case: case.clone(), makes: BOTH.to_vec(), rounds: self.rounds });
        Row {
            title: title.to_owned(),
            at_least: if unit == "/s" { format!("{times}x") } else { format!("1/{times}") },
            jobs: jobs.collect(),
            judge: Box::new(move |results| {
                let parts: Option<Vec<(String, f64)>> =
                    cases.iter().map(|case| part(results, case, figure, unit)).collect();
                let parts = parts?;
                let reached = parts.iter().all(|(_, ratio)| *ratio >= times);
                Some(Verdict { measured: join(parts.into_iter().map(|(text, _)| text)), reached })
            }),
        }
    }

    /// A figure of ours alone has to be at least, or at most, so much.
    fn absolute(self, title: &str, case: &str, figure: &'static str, limit: Limit, unit: &'static str) -> Row {
        let case_run = self.case(case);
        let (value, word) = match limit {
            Limit::AtLeast(value) => (value, "at least"),
            Limit::AtMost(value) => (value, "at most"),
        };
        Row {
            title: title.to_owned(),
            at_least: format!("{word} {} {unit}", shown(Some(value))),
            jobs: vec![self.job(case, &[Make::Ours])],
            judge: Box::new(move |results| {
                let value = results.median(&case_run, Make::Ours, figure)?;
                let reached = match limit {
                    Limit::AtLeast(least) => value >= least,
                    Limit::AtMost(most) => value <= most,
                };
                Some(Verdict { measured: format!("{} {unit}", shown(Some(value))), reached })
            }),
        }
    }
}

#[derive(Clone, Copy)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

const BOTH: [Make; 2] = [Make::Ours, Make::Upstream];

fn part(results: &Results, case: &Case, figure: &str, unit: &str) -> Option<(String, f64)> {
    let (ours, ratio) = (results.median(case, Make::Ours, figure)?, results.better_by(case, Make::Ours, figure)?);
    let ratio_text =
        if unit == "/s" { format!("{}x", shown(Some(ratio))) } else { format!("1/{}", shown(Some(ratio))) };
    Some((format!("{} {} {unit} ({ratio_text})", case.program, shown(Some(ours))), ratio))
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join("; ")
}

/// All of them, in the order in which they are told.
pub fn rows(sizes: Sizes) -> Vec<Row> {
    let mut rows = vec![noop(sizes)];
    rows.push(sizes.better(
        "zero workers, merge, tree, all-to-all as dicts: scheduler CPU",
        SCHEDULER_CPU,
        "us",
        20.0,
        &["zero/merge-10000", "zero/tree-14", "zero/all_to_all-300"],
    ));
    rows.push(sizes.better(
        "zero workers, numpy, transpose-sum, xarray, groupby, join: scheduler CPU, helpers included",
        SCHEDULER_CPU,
        "us",
        8.0,
        &[
            "zero/numpy-5000-50",
            "zero/transpose_sum-5000-50",
            "zero/xarray-5",
            "zero/groupby-90-1s-1H",
            "zero/join-1-1s-1T",
        ],
    ));
    rows.push(delayed(sizes));
    for (workers, times) in [(1, 20.0), (2, 12.0), (8, 9.0)] {
        let title = format!("noop, Python client, {workers} worker threads: tasks/s");
        rows.push(sizes.better(&title, "tasks/s", "/s", times, &[&format!("noop-10000@{workers}x1")]));
    }
    rows.push(sizes.better("noop, 8 workers: CPU of all processes", ALL_CPU, "us", 10.0, &["noop-10000@8x1"]));
    rows.push(mixed(sizes));
    rows.push(sizes.better("chain, per link", "us/task", "us", 15.0, &["chain-1000@1x1"]));
    rows.push(sizes.better("paced round trip, p50", "round trip p50, ms", "ms", 2.5, &["trip_paced-200@1x1"]));
    rows.push(paper(sizes));
    let merge_slow = "merge_slow-5000-0.1, overhead over ideal";
    rows.push(sizes.absolute(merge_slow, "merge_slow-5000-0.1@8x1", "overhead over ideal, %", Limit::AtMost(3.0), "%"));
    let rate = |least| Limit::AtLeast(least);
    rows.push(sizes.absolute(
        "Rust client, native worker over loopback",
        "native-1000000",
        "tasks/s",
        rate(100_000.0),
        "tasks/s",
    ));
    rows.push(sizes.absolute("the same in one process", "native_local-1000000", "tasks/s", rate(200_000.0), "tasks/s"));
    let memory = "zero/memory-1000000@10";
    rows.push(sizes.absolute("scheduler memory, map of 1M", memory, HELD, Limit::AtMost(600.0), "bytes/task"));
    rows.push(sizes.absolute("the same once released", memory, LEFT, Limit::AtMost(60.0), "bytes/task"));
    let resident = "scheduler resident, MB";
    rows.push(sizes.absolute(
        "scheduler memory, map of 5M",
        "zero/memory-5000000@10",
        resident,
        Limit::AtMost(4295.0),
        "MB",
    ));
    rows.push(flat(sizes));
    let idle = |title, figure, case: &str| sizes.better(title, figure, "% of a core", 10.0, &[case]);
    rows.push(idle("idle, scheduler with 100 workers: CPU", "scheduler CPU, % of a core", "zero/idle-30@100"));
    rows.push(idle("idle, one worker: CPU", "workers CPU, % of a core", "idle-30@1"));
    let trip = "another client's round trip while a 100k-task array graph arrives, p90";
    rows.push(sizes.absolute(trip, "zero/intake_other-100000@8", "round trip p90, ms", Limit::AtMost(5.0), "ms"));
    rows
}

fn noop(sizes: Sizes) -> Row {
    const TIMES: f64 = 28.0;
    let case = sizes.case("zero/noop-50000");
    Row {
        title: "zero workers, noop map 50k: CPU of all processes on the scheduler's side".to_owned(),
        at_least: format!("1/{TIMES}, no Python started"),
        jobs: vec![sizes.job("zero/noop-50000", &BOTH)],
        judge: Box::new(move |results| {
            let (text, ratio) = part(results, &case, SCHEDULER_CPU, "us")?;
            let processes = results.median(&case, Make::Ours, "scheduler processes")?;
            let alone = processes < 1.5;
            let python = if alone { "no Python" } else { "with Python" };
            Some(Verdict { measured: format!("{text}, {python}"), reached: ratio >= TIMES && alone })
        }),
    }
}

fn delayed(sizes: Sizes) -> Row {
    const TIMES: f64 = 25.0;
    const LINEAR: f64 = 1.25;
    let names = ["zero/delayed_merge-10000", "zero/delayed_merge-25000"];
    let cases = names.map(|name| sizes.case(name));
    Row {
        title: "zero workers, dask.delayed merge, 10k and 25k: scheduler CPU".to_owned(),
        at_least: format!("1/{TIMES}, linear"),
        jobs: names.iter().map(|name| sizes.job(name, &BOTH)).collect(),
        judge: Box::new(move |results| {
            let small = part(results, &cases[0], SCHEDULER_CPU, "us")?;
            let large = part(results, &cases[1], SCHEDULER_CPU, "us")?;
            let cost = |case| results.median(case, Make::Ours, SCHEDULER_CPU);
            let growth = cost(&cases[1])? / cost(&cases[0])?;
            let measured = format!("{}; {}; {} times as much a task", small.0, large.0, shown(Some(growth)));
            Some(Verdict { measured, reached: small.1 >= TIMES && large.1 >= TIMES && growth <= LINEAR })
        }),
    }
}

fn mixed(sizes: Sizes) -> Row {
    const TIMES: f64 = 1.25;
    let case = sizes.case("noop-10000@8x1");
    Row {
        title: "our scheduler with upstream's Python workers, noop, 8 workers: tasks/s".to_owned(),
        at_least: format!("{TIMES}x"),
        jobs: vec![sizes.job("noop-10000@8x1", &[Make::Upstream, Make::Mixed])],
        judge: Box::new(move |results| {
            let ratio = results.better_by(&case, Make::Mixed, "tasks/s")?;
            let rate = results.median(&case, Make::Mixed, "tasks/s");
            let measured = format!("{} tasks/s ({}x)", shown(rate), shown(Some(ratio)));
            Some(Verdict { measured, reached: ratio >= TIMES })
        }),
    }
}

fn paper(sizes: Sizes) -> Row {
    const MEAN: f64 = 2.0;
    const EACH: f64 = 0.95;
    let cases = PAPER.map(|name| sizes.case(name));
    Row {
        title: "the paper's graphs, 8 workers: geometric mean of wall times; none slower".to_owned(),
        at_least: format!("{MEAN}x, none below {EACH}x"),
        jobs: PAPER.iter().map(|name| sizes.job(name, &BOTH)).collect(),
        judge: Box::new(move |results| {
            let ratios: Option<Vec<f64>> =
                cases.iter().map(|case| results.better_by(case, Make::Ours, "seconds")).collect();
            let ratios = ratios?;
            let mean = geometric_mean(&ratios)?;
            let each =
                cases.iter().zip(&ratios).map(|(case, ratio)| format!("{} {}x", case.program, shown(Some(*ratio))));
            let measured = format!("{}x: {}", shown(Some(mean)), join(each));
            Some(Verdict { measured, reached: mean >= MEAN && ratios.iter().all(|ratio| *ratio >= EACH) })
        }),
    }
}

fn flat(sizes: Sizes) -> Row {
    const TIMES: f64 = 1.3;
    let names = ["zero/noop-10000@10", "zero/noop-100000@1000", "zero/noop-1000000@10"];
    let cases = names.map(|name| sizes.case(name));
    Row {
        title: "scheduler CPU per task with 1,000 fakes, and of 1M tasks, against 10 and 10k".to_owned(),
        at_least: format!("within {TIMES}x"),
        jobs: names.iter().map(|name| sizes.job(name, &[Make::Ours])).collect(),
        judge: Box::new(move |results| {
            let cost = |case| results.median(case, Make::Ours, SCHEDULER_CPU);
            let (base, workers, tasks) = (cost(&cases[0])?, cost(&cases[1])?, cost(&cases[2])?);
            let text = |it: f64| format!("{} us ({}x)", shown(Some(it)), shown(Some(it / base)));
            let measured = format!("{} us; 1,000 fakes {}; 1M tasks {}", shown(Some(base)), text(workers), text(tasks));
            Some(Verdict { measured, reached: workers <= TIMES * base && tasks <= TIMES * base })
        }),
    }
}

/// Everything that rows need, each case once.
pub fn jobs(rows: &[&Row]) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    for job in rows.iter().flat_map(|row| &row.jobs) {
        match jobs.iter_mut().find(|known| known.case == job.case) {
            None => jobs.push(job.clone()),
            Some(known) => {
                known.rounds = known.rounds.max(job.rounds);
                known.makes.extend(&job.makes);
                known.makes.sort_unstable();
                known.makes.dedup();
            }
        }
    }
    jobs
}

/// The table, in Markdown.
pub fn markdown(rows: &[&Row], numbers: &[usize], results: &Results) -> String {
    let mut out = String::from("| | case | at least | measured | reached |\n|--:|---|---|---|---|\n");
    for (row, number) in rows.iter().zip(numbers) {
        let verdict = row.verdict(results);
        let reached = verdict.as_ref().map_or("", |it| if it.reached { "yes" } else { "no" });
        let measured = verdict.as_ref().map_or("not measured", |it| it.measured.as_str());
        out += &format!("| {number} | {} | {} | {measured} | {reached} |\n", row.title, row.at_least);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::results::Figures;

    #[test]
    fn rows_name_cases_that_exist_and_each_runs_once() {
        for quick in [false, true] {
            let rows = rows(Sizes { rounds: 5, quick });
            let jobs = jobs(&rows.iter().collect::<Vec<_>>());
            let noop = jobs.iter().filter(|job| job.case.program.starts_with("noop") && job.case.layout.workers == 8);
            let real: Vec<&Job> = noop.filter(|job| !job.case.layout.zero).collect();
            assert_eq!(real.len(), 1, "{real:?}");
            assert_eq!(real[0].makes, [Make::Ours, Make::Upstream, Make::Mixed]);
        }
    }

    #[test]
    fn a_row_is_reached_only_when_all_its_cases_are() {
        let sizes = Sizes { rounds: 1, quick: false };
        let row = sizes.better("both", "us/task", "us", 10.0, &["merge-5", "tree-5"]);
        let mut results = Results::default();
        let mut add = |case: &str, make, value| {
            let mut figures = Figures::default();
            figures.set("us/task", value);
            results.add(&sizes.case(case), make, figures);
        };
        add("merge-5", Make::Ours, 1.0);
        add("merge-5", Make::Upstream, 11.0);
        add("tree-5", Make::Ours, 1.0);
        add("tree-5", Make::Upstream, 9.0);
        let verdict = row.verdict(&results).expect("measured");
        assert_eq!(
            verdict,
            Verdict { measured: "merge-5 1.00 us (1/11.0); tree-5 1.00 us (1/9.00)".to_owned(), reached: false }
        );
        assert_eq!(row.verdict(&Results::default()), None);
    }
}
