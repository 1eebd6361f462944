//! Runs the simulation from the command line.
//!
//! ```text
//! sim --seed 7 --trace          one run, with everything that was decided
//! sim --seeds 0..20000 --jobs 2 many runs; the first failures are shrunk and written to files
//! sim --replay sim-7.json       a recorded run again
//! sim --scenario rolling --seeds 0..100   runs of a script: rolling or scale-out
//! ```

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use dask_tests::sim::run::{Recording, Report, replay, run_scenario, run_seed};
use dask_tests::sim::scenario::Scenario;
use dask_tests::sim::shrink::shrink;

#[derive(Parser)]
#[command(about = "Simulates clusters of real scheduler and worker states under faults")]
struct Options {
    /// One seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Seeds from A up to but without B.
    #[arg(long, value_name = "A..B")]
    seeds: Option<String>,
    /// A script instead of trouble: `scale-out` (from 8 to 100 workers during a job) or `rolling` (every worker is
    /// replaced during a job). Then nothing may be lost, computed twice or left idle.
    #[arg(long)]
    scenario: Option<Scenario>,
    /// Threads for --seeds.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// A recorded run.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Print everything that was decided.
    #[arg(long)]
    trace: bool,
    /// Run each seed twice and compare everything that was decided.
    #[arg(long)]
    twice: bool,
    /// Write failing runs here.
    #[arg(long, default_value = ".")]
    out: PathBuf,
    /// Stop after this many failures.
    #[arg(long, default_value_t = 10)]
    failures: usize,
    /// Write failing runs as they are.
    #[arg(long)]
    no_shrink: bool,
}

fn main() -> std::process::ExitCode {
    let options = Options::parse();
    if options.seed.is_none() && options.replay.is_none() {
        // States panic when an invariant is broken; of many runs only the reports are shown.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let failed = if let Some(path) = &options.replay {
        replay_file(&options, path)
    } else if let Some(seed) = options.seed {
        one(&options, seed)
    } else {
        many(&options)
    };
    if failed { std::process::ExitCode::FAILURE } else { std::process::ExitCode::SUCCESS }
}

fn replay_file(options: &Options, path: &PathBuf) -> bool {
    let text = std::fs::read_to_string(path).expect("the recording can be read");
    let recording: Recording = serde_json::from_str(&text).expect("the recording is one of ours");
    print(&replay(&recording, options.trace), options)
}

fn one(options: &Options, seed: u64) -> bool {
    let report = run(options, seed, options.trace);
    if report.failure.is_some() {
        save(options, &report);
    }
    print(&report, options)
}

fn run(options: &Options, seed: u64, trace: bool) -> Report {
    match options.scenario {
        Some(scenario) => run_scenario(scenario, seed, trace),
        None => run_seed(seed, trace),
    }
}

fn print(report: &Report, options: &Options) -> bool {
    if options.trace
        && let Some(trace) = &report.trace
    {
        println!("{trace}");
    }
    let seed = report.recording.case.seed;
    match &report.failure {
        Some(text) => println!("seed {seed} FAILED after {} steps: {text}", report.recording.steps.len()),
        None => println!("seed {seed}: {} steps, all rules kept", report.recording.steps.len()),
    }
    if let Some(seconds) = report.seconds_to_full_use {
        println!("seed {seed}: all workers worked {seconds:.2} s after the last had come");
    }
    report.failure.is_some()
}

fn save(options: &Options, report: &Report) {
    let failure = report.failure.clone().unwrap_or_default();
    let recording = if options.no_shrink { report.recording.clone() } else { shrink(&report.recording, &failure) };
    let path = options.out.join(format!("sim-{}.json", recording.case.seed));
    let mut text =
        format!("{{\"case\":{},\n\"steps\":[\n", serde_json::to_string(&recording.case).expect("plain data"));
    let lines: Vec<String> = recording.steps.iter().map(|s| serde_json::to_string(s).expect("plain data")).collect();
    text.push_str(&lines.join(",\n"));
    text.push_str("\n]}\n");
    match std::fs::write(&path, text) {
        Ok(()) => println!("recorded in {} ({} steps)", path.display(), recording.steps.len()),
        Err(error) => println!("could not write {}: {error}", path.display()),
    }
}

fn many(options: &Options) -> bool {
    let range = options.seeds.as_deref().unwrap_or("0..1000");
    let (from, to) = range.split_once("..").expect("--seeds A..B");
    let (from, to): (u64, u64) = (from.parse().expect("A is a number"), to.parse().expect("B is a number"));
    let next = AtomicU64::new(from);
    let failures = Mutex::new(Vec::<u64>::new());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| work(options, &next, to, &failures));
        }
    });
    let done = next.load(Ordering::Relaxed).min(to) - from;
    let mut failures = failures.into_inner().expect("no worker panicked");
    failures.sort_unstable();
    let seconds = began.elapsed().as_secs_f64();
    let pace = f64::from(u32::try_from(done).unwrap_or(u32::MAX)) / seconds * 60.0;
    println!("{done} seeds in {seconds:.1} s ({pace:.0} a minute), {} failed: {failures:?}", failures.len());
    !failures.is_empty()
}

fn work(options: &Options, next: &AtomicU64, to: u64, failures: &Mutex<Vec<u64>>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= to || failures.lock().expect("no worker panicked").len() >= options.failures {
            return;
        }
        let mut report = run(options, seed, options.twice);
        if options.twice {
            let again = run(options, seed, true);
            if again.digest != report.digest || again.trace != report.trace {
                report.failure.get_or_insert("two runs of one seed differ".to_owned());
            }
        }
        if report.failure.is_some() {
            failures.lock().expect("no worker panicked").push(seed);
            save(options, &report);
            print(&report, &Options { trace: false, ..Options::parse() });
        }
    }
}
