//! What native tasks cost: many trivial ones, one at a time, and against rayon.
//!
//! ```console
//! cargo run --release -p dask-benches --bin native-load -- throughput --tasks 1000000 --in-flight 100000
//! cargo run --release -p dask-benches --bin native-load -- round-trip --count 5000
//! cargo run --release -p dask-benches --bin native-load -- coarse --tasks 4000
//! ```
//!
//! Each starts a `LocalCluster`, or uses the one whose scheduler is given with `--scheduler`: its workers have to be this
//! program too (`native-load worker ADDRESS`).

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use dask::{Client, LocalCluster};
use futures::StreamExt;
use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use tokio::runtime::Builder;

/// Tasks are counted up in bursts of this many, so that the time until the first is short.
const BURST: u64 = 10_000;
/// Round trips before those that count.
const WARM_UP: usize = 200;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Cli {
    /// Client, scheduler and workers take turns on one thread; jobs have theirs
    #[arg(long, global = true)]
    one_thread: bool,
    #[command(subcommand)]
    case: Case,
}

#[derive(Subcommand)]
enum Case {
    /// Trivial tasks, submitted, run and released
    Throughput {
        /// How many
        #[arg(long, default_value_t = 1_000_000)]
        tasks: u64,
        /// Most of them submitted and not done (`Client::stream`); all at once where not given, with all results held
        #[arg(long)]
        in_flight: Option<usize>,
        #[command(flatten)]
        place: Place,
    },
    /// One trivial task at a time, from submit to result
    RoundTrip {
        /// How many
        #[arg(long, default_value_t = 5_000)]
        count: usize,
        #[command(flatten)]
        place: Place,
    },
    /// Tasks of one millisecond, beside the same work in rayon, in turn
    Coarse {
        /// How many
        #[arg(long, default_value_t = 4_000)]
        tasks: u64,
        /// How often each, of which the medians count
        #[arg(long, default_value_t = 5)]
        repeat: usize,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Args)]
struct Place {
    /// An existing cluster's scheduler; its workers have to be this program
    #[arg(long)]
    scheduler: Option<String>,
    /// Workers of a cluster in this process
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Threads of each
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Tasks sent ahead to each thread (`worker-saturation`)
    #[arg(long, default_value_t = f64::INFINITY)]
    saturation: f64,
    /// Talk over the loopback interface within the process too
    #[arg(long)]
    loopback: bool,
    /// Each worker has a thread of its own besides those for jobs
    #[arg(long)]
    apart: bool,
    /// Trivial tasks are marked as brief, and run where their worker decides
    #[arg(long)]
    brief: bool,
}

#[dask::task(name = "native-load-increment")]
fn increment(n: u64) -> u64 {
    n + 1
}

#[dask::task(name = "native-load-increment-briefly", brief)]
fn increment_briefly(n: u64) -> u64 {
    n + 1
}

fn trivial(n: u64, brief: bool) -> dask::TaskCall<u64> {
    if brief { increment_briefly(n) } else { increment(n) }
}

/// Arithmetic for about a millisecond.
fn grind(seed: u64, rounds: u64) -> u64 {
    (0..rounds).fold(seed | 1, |x, _| std::hint::black_box(x).wrapping_mul(6_364_136_223_846_793_005).rotate_left(17))
}

#[dask::task(name = "native-load-grind")]
fn grind_task(seed: u64, rounds: u64) -> u64 {
    grind(seed, rounds)
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("worker") {
        return dask::worker::main_from(std::env::args_os().skip(1));
    }
    let cli = Cli::parse();
    let runtime =
        if cli.one_thread { Builder::new_current_thread() } else { Builder::new_multi_thread() }.enable_all().build();
    match runtime.expect("threads can be started").block_on(run(cli.case)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(case: Case) -> Result<(), Failure> {
    let (Case::Throughput { place, .. } | Case::RoundTrip { place, .. } | Case::Coarse { place, .. }) = &case;
    let mut cluster = None;
    let client = match &place.scheduler {
        Some(address) => Client::connect(address).await?,
        None => {
            let builder = LocalCluster::builder().workers(place.workers).threads_per_worker(place.threads);
            let builder = builder.worker_saturation(place.saturation);
            let builder = if place.loopback { builder.over_loopback() } else { builder };
            let builder = if place.apart { builder.workers_apart() } else { builder };
            cluster.insert(builder.start().await?).client().await?
        }
    };
    match case {
        Case::Throughput { tasks, in_flight: None, place } => throughput(&client, tasks, place.brief).await?,
        Case::Throughput { tasks, in_flight: Some(most), place } => streamed(&client, tasks, most, place.brief).await?,
        Case::RoundTrip { count, place } => round_trip(&client, count, place.brief).await?,
        Case::Coarse { tasks, repeat, place } => {
            coarse(&client, tasks, place.workers * usize::try_from(place.threads)?, repeat.max(1)).await?
        }
    }
    client.close().await;
    if let Some(cluster) = cluster {
        cluster.close().await;
    }
    Ok(())
}

async fn throughput(client: &Client, tasks: u64, brief: bool) -> Result<(), Failure> {
    let (since, cpu) = (Instant::now(), cpu_seconds());
    let mut futures = Vec::with_capacity(usize::try_from(tasks)?);
    for start in (0..tasks).step_by(usize::try_from(BURST)?) {
        futures.extend(client.map((start..tasks.min(start + BURST)).map(|n| trivial(n, brief))));
    }
    let submitted = since.elapsed();
    client.wait(&futures).await?;
    let done = since.elapsed();
    let last = futures.last().expect("at least one task").result().await?;
    assert_eq!(last, tasks, "the last task's result");
    drop(futures);
    // The answer comes behind the releases.
    client.submit(trivial(0, brief)).result().await?;
    let (all, cpu) = (since.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let count = tasks as f64;
    println!(
        "{tasks} tasks: submitted after {:.2} s, done after {:.2} s, released after {all:.2} s: {:.0} tasks/s, \
         {:.2} us of processor time each, {} MiB resident at most",
        submitted.as_secs_f64(),
        done.as_secs_f64(),
        count / all,
        cpu / count * 1e6,
        peak_resident_mib(),
    );
    Ok(())
}

/// As [`throughput`], with at most `in_flight` tasks at a time; each result is dropped as soon as it is there.
async fn streamed(client: &Client, tasks: u64, in_flight: usize, brief: bool) -> Result<(), Failure> {
    let (since, cpu) = (Instant::now(), cpu_seconds());
    let mut done = std::pin::pin!(client.stream((0..tasks).map(|n| trivial(n, brief)), in_flight));
    let mut count = 0;
    while let Some(future) = done.next().await {
        future.wait().await?;
        count += 1;
    }
    assert_eq!(count, tasks, "every task once");
    // The answer comes behind the releases.
    client.submit(trivial(0, brief)).result().await?;
    let (all, cpu) = (since.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let count = tasks as f64;
    println!(
        "{tasks} tasks, {in_flight} in flight: released after {all:.2} s: {:.0} tasks/s, {:.2} us of processor time each, \
         {} MiB resident at most",
        count / all,
        cpu / count * 1e6,
        peak_resident_mib(),
    );
    Ok(())
}

async fn round_trip(client: &Client, count: usize, brief: bool) -> Result<(), Failure> {
    let mut times = Vec::with_capacity(count);
    for n in 0..(WARM_UP + count) as u64 {
        let since = Instant::now();
        assert_eq!(client.submit(trivial(n, brief)).result().await?, n + 1);
        times.push(since.elapsed());
    }
    let mut times = times.split_off(WARM_UP);
    times.sort_unstable();
    let at = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index"
        )]
        let index = ((times.len() - 1) as f64 * share) as usize;
        times[index].as_secs_f64() * 1e6
    };
    println!("{count} round trips: p50 {:.0} us, p90 {:.0} us, p99 {:.0} us", at(0.5), at(0.9), at(0.99));
    Ok(())
}

async fn coarse(client: &Client, tasks: u64, threads: usize, repeat: usize) -> Result<(), Failure> {
    let rounds = rounds_per_millisecond();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let seeds: Vec<u64> = (0..tasks).collect();
    let (mut ours, mut theirs, mut wall, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..repeat {
        let (since, before) = (Instant::now(), cpu_seconds());
        let sum = pool.install(|| seeds.par_iter().with_max_len(1).map(|n| grind(*n, rounds) & 1).sum::<u64>());
        let rayon = since.elapsed().as_secs_f64();
        let plain = cpu_seconds() - before;
        let (since, before) = (Instant::now(), cpu_seconds());
        let futures = client.map((0..tasks).map(|n| grind_task(n, rounds)));
        client.wait(&futures).await?;
        let here = since.elapsed().as_secs_f64();
        cpu.push((cpu_seconds() - before) / plain);
        // Each against its neighbour in time: the machine may be slower a minute later.
        wall.push(here / rayon);
        ours.push(here);
        theirs.push(rayon);
        let odd = client.gather(&futures).await?.into_iter().map(|it| it & 1).sum::<u64>();
        assert_eq!(odd, sum, "the same work");
    }
    let (ours, theirs, wall, cpu) = (median(ours), median(theirs), median(wall), median(cpu));
    println!(
        "{tasks} tasks of 1 ms on {threads} threads, medians of {repeat}: {ours:.3} s, rayon {theirs:.3} s: overhead {:.1} %; \
         processor time {:.1} % more",
        (wall - 1.0) * 100.0,
        (cpu - 1.0) * 100.0
    );
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How many rounds take a millisecond here and now: the fastest of several tries.
fn rounds_per_millisecond() -> u64 {
    const ROUNDS: u64 = 1_000_000;
    let tries = (0..20).map(|n| {
        let since = Instant::now();
        std::hint::black_box(grind(n, ROUNDS));
        since.elapsed()
    });
    let best = tries.min().unwrap_or(Duration::from_millis(1)).as_secs_f64();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a count")]
    let rounds = (ROUNDS as f64 * 1e-3 / best) as u64;
    rounds.max(1)
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "seconds and nanoseconds of one process")]
    let seconds = time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9;
    seconds
}

/// `VmHWM` of this process.
fn peak_resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}
