//! `cargo demo`: a real cluster on this machine, a graph of native tasks, then the unmodified Python client.
//!
//! Starts a scheduler and two workers under nannies as processes of their own, runs over 16,000 Rust tasks that depend
//! on each other, makes a virtual environment with `dask[complete]==2026.8.0` and runs `demo.py` on the same cluster.
//! Ends every process it started; the exit code says whether all results were right.

mod cluster;
mod pi;
#[path = "../../../tests/src/venv.rs"]
mod venv;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use dask::{Client, GraphBuilder, as_completed};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};

use cluster::Cluster;

const WORKERS: usize = 2;
/// Intervals of the integral: as many `area` tasks, and one `add` less.
const INTERVALS: u32 = 8192;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|role| role.to_str()) {
        // The processes of the cluster are this executable again: its workers so have its tasks.
        Some("scheduler") => dask::cli::scheduler::main(std::env::args_os().skip(1)),
        Some("worker") => dask::worker::main_from(std::env::args_os().skip(1)),
        Some(_) | None => demo(),
    }
}

fn demo() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    match runtime.block_on(run()) {
        Ok(()) => {
            println!("All right.");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("demo failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let target = venv::target_directory()?;
    println!("Preparing Python (once; kept under {}):", target.display());
    // Asked for first: the workers need to know their interpreter when they start.
    let python = python(&target);
    println!("Starting a scheduler and {WORKERS} workers under nannies:");
    let cluster = Cluster::start(WORKERS, python.as_deref())?;
    println!("  scheduler at {}, dashboard at {}", cluster.address, cluster.dashboard);
    let client = Client::connect(&cluster.address).await?;
    client.wait_for_workers(WORKERS, Duration::from_secs(60)).await?;
    let native = native_graph(&client).await;
    client.close().await;
    native?;
    match &python {
        Some(python) => python_client(python, &cluster.address)?,
        None => println!("Skipping the Python client: see above."),
    }
    cluster.stop()
}

/// π as an integral: many small areas, summed up in a tree.
async fn native_graph(client: &Client) -> Result<(), Failure> {
    let mut graph = GraphBuilder::new(format!("pi-{}", std::process::id()));
    let areas = (0..INTERVALS).map(|i| graph.add(pi::area(i, INTERVALS))).collect::<Result<Vec<_>, _>>()?;
    let mut level = areas.clone();
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| graph.add(pi::add(&pair[0], &pair[1]))).collect::<Result<Vec<_>, _>>()?;
    }
    let tasks = graph.len();
    println!("Running {tasks} native tasks: the area under 4 / (1 + x²) in {INTERVALS} pieces, summed in a tree.");
    let started = Instant::now();
    let mut wanted = areas;
    wanted.extend(level);
    let mut futures = client.compute(graph, &wanted)?;
    let sum = futures.pop().expect("the root was asked for");
    let bar = ProgressBar::new(INTERVALS.into());
    bar.set_style(ProgressStyle::with_template("  {bar:40} {pos}/{len} areas, {per_sec}").expect("a valid template"));
    let mut done = as_completed(futures);
    while let Some(future) = done.next().await {
        future.wait().await?;
        bar.inc(1);
    }
    let pi = sum.result().await?;
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    println!("  π = {pi:.12} in {seconds:.2} s ({:.0} tasks/s)", f64::from(u32::try_from(tasks)?) / seconds);
    if (pi - std::f64::consts::PI).abs() > 1e-9 {
        return Err(format!("π came out as {pi}").into());
    }
    Ok(())
}

/// The interpreter with upstream's packages, or why there is none.
fn python(target: &Path) -> Option<PathBuf> {
    match venv::python(target, |step| println!("  {step} ...")) {
        Ok(python) => {
            println!("  {}", python.display());
            Some(python)
        }
        Err(error) => {
            println!("  no Python for the second half: {error}");
            None
        }
    }
}

fn python_client(python: &Path, scheduler: &str) -> Result<(), Failure> {
    println!("Running the unmodified Python client of dask.distributed 2026.8.0 on the same cluster:");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo/demo.py");
    let status = Command::new(python).arg(program).arg(scheduler).status()?;
    if status.success() { Ok(()) } else { Err(format!("the Python client ended with {status}").into()) }
}
