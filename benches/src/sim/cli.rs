//! The command line of `dask-sim`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use dask_scheduler::state::{Config, Policy};
use indicatif::{ProgressBar, ProgressStyle};

use super::cluster::{Settings, run};
use super::compare::Plan;
use super::graphs::{ALL, Graph};
use super::network::Network;
use super::outcome::Outcome;
use super::shape::Shape;
use super::table::{summary, table};
use super::workload::Workload;

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
    /// Runs at a time
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Where to write the table, and plots beside it; standard output if not given
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// The graph (see `dask-sim graphs`)
    #[arg(long)]
    graph: String,
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
        }
    }
}

impl RunArgs {
    fn run(self) -> Result<(), String> {
        let graph =
            Graph::find(&self.graph).ok_or_else(|| format!("{:?} is no graph: see dask-sim graphs", self.graph))?;
        let workload = graph.build(self.cluster.seed);
        let settings = self.cluster.settings(self.policy.0, self.timeline.is_some());
        let bar = progress(workload.tasks.len() as u64);
        let outcome = run(&workload, &settings, |done| bar.set_position(done)).map_err(|error| error.to_string())?;
        bar.finish_and_clear();
        print_outcome(&workload, &settings, &outcome);
        Ok(())
    }
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
        let plan = Plan { graphs, shapes: self.shapes, seeds: self.seeds, jobs: self.jobs, settings };
        let rows = plan.run(|| bar.inc(1))?;
        bar.finish_and_clear();
        println!("{}\n{}", table(&rows), summary(&rows));
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
