//! The command line of `dask-sim`.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use dask_scheduler::state::{Config, Policy};
use indicatif::{ProgressBar, ProgressStyle};

use crate::order::{self, Recorded, Row, compare};

use super::cluster::{Settings, run};
use super::compare::{Measure, Plan};
use super::graphs::{ALL, Graph};
use super::log;
use super::memory::live_bytes;
use super::network::Network;
use super::outcome::Outcome;
use super::plot::ratios;
use super::scale::{self, Cost, Size};
use super::shape::{Shape, WORKERS_MAX};
use super::table::{summary, table};
use super::timeline::{html, svg};
use super::workload::Workload;

/// Most tasks of one size of `scale`.
const TASKS_MAX: usize = 20_000_000;

/// Runs task graphs on simulated clusters, in virtual time, with the real scheduler deciding.
#[derive(Debug, Parser)]
#[command(name = "dask-sim", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the graphs
    Graphs,
    /// Run one graph
    Run(RunArgs),
    /// Run graphs under both policies
    Compare(CompareArgs),
    /// Compare our static order with that of dask.order
    Order(OrderArgs),
    /// Measure what the scheduler's state costs per task as everything grows
    Scale(ScaleArgs),
}

#[derive(Debug, clap::Args)]
struct OrderArgs {
    /// The graphs and dask's orders, as benches/order/make_graphs.py writes them
    graphs: PathBuf,
}

#[derive(Debug, clap::Args)]
struct ScaleArgs {
    /// Sizes, as tasks x workers; each worker has two threads
    #[arg(long = "size", value_delimiter = ',', value_parser = parse_size, default_value = "10000x10,100000x100,1000000x1000")]
    sizes: Vec<Size>,
    /// Who decides: upstream or native
    #[arg(long, default_value_t = PolicyArg(Policy::default()))]
    policy: PolicyArg,
}

#[derive(Debug, clap::Args)]
struct CompareArgs {
    /// The graphs, by name; all if none is given
    #[arg(long = "graph")]
    graphs: Vec<String>,
    /// The shapes of the clusters
    #[arg(long = "shape", value_delimiter = ',', default_value = "4x8,10x2,50x4,200x2,2x16+8x2")]
    shapes: Vec<Shape>,
    /// The figures are means over this many seeds
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// The first of these seeds
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// Runs at a time
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Directory to write the plots to
    #[arg(long)]
    plots: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// The graph (see `dask-sim graphs`)
    #[arg(long, required_unless_present = "log", conflicts_with = "log")]
    graph: Option<String>,
    /// An event log, as `dask-scheduler --event-log` writes it
    #[arg(long)]
    log: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Who decides: upstream or native
    #[arg(long, default_value_t = PolicyArg(Policy::default()))]
    policy: PolicyArg,
    /// Where to write the timeline of tasks, as .html or .svg
    #[arg(long)]
    timeline: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct ClusterArgs {
    /// Workers and their threads, such as 4x8, or 2x16+8x2
    #[arg(long, default_value = "10x2")]
    shape: Shape,
    /// Bytes per second into and out of each worker
    #[arg(long, default_value_t = Network::default().bandwidth)]
    bandwidth: f64,
    /// Seconds per message
    #[arg(long, default_value_t = Network::default().latency)]
    latency: f64,
    /// Durations and choices between equals vary by it
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// A policy by its name.
#[derive(Debug, Clone, Copy)]
struct PolicyArg(Policy);

impl std::str::FromStr for PolicyArg {
    type Err = String;
    fn from_str(name: &str) -> Result<PolicyArg, String> {
        name.parse().map(PolicyArg)
    }
}

impl std::fmt::Display for PolicyArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name())
    }
}

impl Args {
    /// Does what was asked for.
    ///
    /// # Errors
    /// What to tell the user.
    pub fn run(self) -> Result<(), String> {
        match self.command {
            Command::Graphs => {
                ALL.iter().for_each(|graph| println!("{:14} {}", graph.name, graph.about));
                Ok(())
            }
            Command::Run(args) => args.run(),
            Command::Compare(args) => args.run(),
            Command::Order(args) => args.run(),
            Command::Scale(args) => args.run(),
        }
    }
}

impl RunArgs {
    fn run(self) -> Result<(), String> {
        let workload = self.workload()?;
        let settings = self.cluster.settings(self.policy.0, self.timeline.is_some());
        let bar = progress(workload.tasks.len() as u64);
        let outcome = run(&workload, &settings, |done| bar.set_position(done)).map_err(|error| error.to_string())?;
        bar.finish_and_clear();
        print_outcome(&workload, &settings, &outcome);
        if let Some(path) = &self.timeline {
            let title = format!("{} on {}, {}", workload.name, settings.shape, self.policy);
            let picture = svg(&workload, &settings.shape, &title, &outcome);
            let plain = path.extension().is_some_and(|extension| extension == "svg");
            write(path, &if plain { picture } else { html(&picture, &title) })?;
        }
        Ok(())
    }

    fn workload(&self) -> Result<Workload, String> {
        if let Some(path) = &self.log {
            let file = File::open(path).map_err(|error| format!("cannot open {}: {error}", path.display()))?;
            return log::read(&path.display().to_string(), BufReader::new(file)).map_err(|error| error.to_string());
        }
        let name = self.graph.as_deref().unwrap_or_default();
        let graph = Graph::find(name).ok_or_else(|| format!("{name:?} is no graph: see dask-sim graphs"))?;
        Ok(graph.build(self.cluster.seed))
    }
}

impl OrderArgs {
    fn run(self) -> Result<(), String> {
        let path = &self.graphs;
        let file = File::open(path).map_err(|error| format!("cannot open {}: {error}", path.display()))?;
        let rows: Vec<Row> = Recorded::read(BufReader::new(file))?.iter().map(compare).collect::<Result<_, _>>()?;
        print!("{}", order::table(&rows));
        Ok(())
    }
}

impl ScaleArgs {
    fn run(self) -> Result<(), String> {
        println!("| tasks | workers | CPU of the state, us per task | bytes per task | events per task | virtual s |");
        println!("|--:|--:|--:|--:|--:|--:|");
        for size in self.sizes {
            let bar = progress(size.tasks as u64);
            let cost = scale::measure(size, self.policy.0, live_bytes, |done| bar.set_position(done))?;
            bar.finish_and_clear();
            let Cost { tasks, micros_per_task, bytes_per_task, events_per_task, makespan } = cost;
            println!(
                "| {tasks} | {} | {micros_per_task:.2} | {bytes_per_task:.0} | {events_per_task:.2} | {makespan:.0} |",
                size.workers
            );
        }
        Ok(())
    }
}

fn parse_size(text: &str) -> Result<Size, String> {
    let wrong = || format!("{text:?} is no size such as 10000x10 (tasks x workers)");
    let (tasks, workers) = text.split_once('x').ok_or_else(wrong)?;
    let size = Size { tasks: tasks.parse().map_err(|_| wrong())?, workers: workers.parse().map_err(|_| wrong())? };
    let possible = (1..=TASKS_MAX).contains(&size.tasks) && (1..=WORKERS_MAX).contains(&size.workers);
    possible.then_some(size).ok_or_else(|| format!("{text:?}: 1 to {TASKS_MAX} tasks, 1 to {WORKERS_MAX} workers"))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

impl CompareArgs {
    fn run(self) -> Result<(), String> {
        let find =
            |name: &String| Graph::find(name).ok_or_else(|| format!("{name:?} is no graph: see dask-sim graphs"));
        let graphs: Vec<&'static Graph> = match self.graphs.as_slice() {
            [] => ALL.iter().collect(),
            names => names.iter().map(find).collect::<Result<_, _>>()?,
        };
        let bar = progress(graphs.len() as u64 * self.seeds.max(1));
        let settings = Settings::new(Shape::even(1, 1));
        let CompareArgs { shapes, seeds, first_seed, jobs, .. } = self;
        let plan = Plan { graphs, shapes, seeds, first_seed, jobs, settings };
        let rows = plan.run(|| bar.inc(1))?;
        bar.finish_and_clear();
        println!("{}\n{}", summary(&rows), table(&rows));
        if let Some(directory) = &self.plots {
            for measure in Measure::ALL {
                let name = format!("{}.svg", measure.name().replace(' ', "-"));
                write(&directory.join(name), &ratios(&rows, measure))?;
            }
        }
        Ok(())
    }
}

impl ClusterArgs {
    fn settings(&self, policy: Policy, spans: bool) -> Settings {
        Settings {
            shape: self.shape.clone(),
            network: Network { bandwidth: self.bandwidth, latency: self.latency },
            scheduler: Config { policy, ..Config::default() },
            seed: self.seed,
            spans,
        }
    }
}

fn progress(length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len}, {eta} left");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn print_outcome(workload: &Workload, settings: &Settings, outcome: &Outcome) {
    let bound = workload.lower_bound(settings.shape.threads());
    println!("graph           {} ({} tasks)", workload.name, workload.tasks.len());
    println!("workers         {}", settings.shape);
    println!("policy          {}", settings.scheduler.policy.name());
    println!(
        "makespan        {:.2} s, {:.2} times the lower bound of {bound:.2} s",
        outcome.makespan,
        outcome.makespan / bound
    );
    println!("utilisation     {:.1} %", outcome.utilisation * 100.0);
    println!("bytes moved     {:.2} GB in {} transfers", gigabytes(outcome.bytes_moved), outcome.transfers);
    println!(
        "peak memory     {:.2} GB, {:.2} GB on one worker",
        gigabytes(outcome.peak_memory),
        gigabytes(outcome.peak_worker_memory)
    );
    println!("steal requests  {}", outcome.steal_requests);
    println!(
        "scheduler       {:.2} us of CPU per task, {} events",
        outcome.scheduler_micros_per_task(),
        outcome.events
    );
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}
