//! Upstream's scheduler and ours on the same scenarios.
//!
//! ```text
//! differential --seeds 0..5000          follows them with upstream's scheduler and reports
//! differential --seed 7                 one of them
//! differential --seed 7 --write         only writes its lines
//! ```

use std::io::{self, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dask_tests::differential::plan::write_scenario;
use dask_tests::differential::upstream::{Summary, Verdict, follow};
use dask_tests::venv;

#[derive(Parser)]
#[command(about = "Takes the same events through upstream's scheduler and ours, and compares")]
struct Options {
    /// One seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Seeds from A up to but without B.
    #[arg(long, value_name = "A..B", default_value = "0..1000")]
    seeds: String,
    /// Pairs of processes.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Write the lines of the scenarios instead of following them.
    #[arg(long)]
    write: bool,
    /// Differences without a name that are shown in full.
    #[arg(long, default_value_t = 3)]
    show: usize,
    /// A Python with distributed 2026.8.0; the one the tests make if not given.
    #[arg(long)]
    python: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("differential: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<bool> {
    let seeds = match options.seed {
        Some(seed) => seed..seed + 1,
        None => range(&options.seeds)?,
    };
    if options.write {
        let mut out = io::BufWriter::new(io::stdout().lock());
        for seed in seeds {
            write_scenario(seed, &mut out)?;
        }
        return out.flush().map(|()| true);
    }
    let python = match &options.python {
        Some(python) => python.clone(),
        None => venv::python(&venv::target_directory()?, |step| eprintln!("{step} ..."))?,
    };
    let summary = Summary::of(&follow_all(&python, seeds, options.jobs.max(1))?);
    report(&summary, options.show);
    Ok(summary.differences.is_empty())
}

fn range(text: &str) -> io::Result<Range<u64>> {
    let parsed = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parsed.ok_or_else(|| io::Error::other(format!("--seeds wants A..B, not {text:?}")))
}

fn follow_all(python: &std::path::Path, seeds: Range<u64>, jobs: u64) -> io::Result<Vec<Verdict>> {
    let share = (seeds.end - seeds.start).div_ceil(jobs).max(1);
    let parts: Vec<Range<u64>> = (0..jobs)
        .map(|job| (seeds.start + job * share).min(seeds.end)..(seeds.start + (job + 1) * share).min(seeds.end))
        .collect();
    std::thread::scope(|scope| {
        let running: Vec<_> = parts.into_iter().map(|part| scope.spawn(|| follow(python, part))).collect();
        let mut verdicts = Vec::new();
        for part in running {
            verdicts.extend(part.join().map_err(|_| io::Error::other("a thread panicked"))??);
        }
        Ok(verdicts)
    })
}

fn report(summary: &Summary, show: usize) {
    let ended: u64 = summary.ended_by.values().sum();
    println!(
        "{} scenarios agree to their end, {ended} up to a named difference, {} differ; {} events compared",
        summary.to_the_end,
        summary.differences.len(),
        summary.steps
    );
    println!(
        "choices of a worker: {} determined and the same, {} between equals, {} by a rounding error, {} out of order",
        summary.determined, summary.tied, summary.noise, summary.order
    );
    let events = summary.events.iter().map(|(name, (count, scenarios))| format!("{name} {count} in {scenarios}"));
    println!("events, and scenarios with them: {}", events.collect::<Vec<_>>().join(", "));
    for (name, count) in &summary.known {
        let ended = summary.ended_by.get(name).map_or(String::new(), |n| format!(", ended {n} scenarios"));
        println!("  {name}: {count} times{ended}");
    }
    for difference in summary.differences.iter().take(show) {
        println!("{difference}");
    }
}
