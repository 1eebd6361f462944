//! `dask-bench`'s command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use dask_protocol::Address;

use super::case::{Case, families};
use super::cluster::{Make, Programs};
use super::measure::{Job, measure};
use super::results::Results;
use super::rows::{self, Row, Sizes};
use super::{Failure, fakes, plot, report};

/// Measures clusters of ours, and upstream's beside them.
#[derive(Debug, Parser)]
#[command(name = "dask-bench")]
pub struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs cases: [zero/]FAMILY-PARAMETERS[@WORKERS[xTHREADS]], such as noop-10000@8 or zero/merge-10000
    Run {
        /// Cases; `dask-bench list` shows families
        #[arg(required = true)]
        cases: Vec<Case>,
        /// Who else runs them, in turn with ours
        #[arg(long, value_enum)]
        vs: Vec<Make>,
        #[command(flatten)]
        common: Common,
    },
    /// Runs what the demands need, and says which are met
    Table {
        /// Rows by number, such as 1,5,6; all of them if absent
        #[arg(long, value_delimiter = ',')]
        rows: Vec<usize>,
        #[command(flatten)]
        common: Common,
    },
    /// Shows the families of cases and the rows of the table
    List,
    /// Fake workers: what zero/ cases run on
    #[command(hide = true)]
    Fakes {
        /// The scheduler's address
        scheduler: String,
        /// How many
        #[arg(long, default_value_t = 1)]
        workers: usize,
        /// Of each
        #[arg(long, default_value_t = 1)]
        threads: u32,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// A Python with dask and distributed 2026.8.0: the client's, the workers' and upstream's
    #[arg(long, env = "DASK_PYTHON", default_value = "python3")]
    python: PathBuf,
    /// The folder of dask-scheduler, dask-worker and native-load; this program's own if absent
    #[arg(long)]
    binaries: Option<PathBuf>,
    /// Rounds; figures are medians
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// One round of small sizes: whether everything works, not what it costs
    #[arg(long)]
    quick: bool,
    /// Writes every round's figures there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws how much better than upstream each case is
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl Common {
    fn programs(&self) -> Result<Programs, Failure> {
        let own = std::env::current_exe()?;
        let own = own.parent().ok_or("this program is in no folder")?;
        let binaries = self.binaries.clone().unwrap_or_else(|| own.to_path_buf());
        for name in ["dask-scheduler", "dask-worker"] {
            if !binaries.join(name).exists() {
                return Err(format!("no {name} in {}: cargo build --release -p dask --bins", binaries.display()).into());
            }
        }
        Ok(Programs { binaries: binaries.canonicalize()?, python: self.python.clone() })
    }

    fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.repeat }
    }

    fn write(&self, results: &Results) -> Result<(), Failure> {
        if let Some(file) = &self.json {
            std::fs::write(file, serde_json::to_string_pretty(&report::json(results))? + "\n")?;
        }
        if let Some(file) = &self.svg {
            std::fs::write(file, plot::svg(results))?;
        }
        match results.failures.len() {
            0 => Ok(()),
            failed => Err(format!("{failed} measurements failed").into()),
        }
    }
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// When something could not be measured; all else is reported before.
    pub fn run(self) -> Result<(), Failure> {
        match self.what {
            What::Run { cases, vs, common } => run(&cases, vs, &common),
            What::Table { rows, common } => table(&rows, &common),
            What::List => {
                println!("Families of cases, with workers x threads:\n\n{}", families());
                println!("Rows of the table:\n");
                for (number, row) in (1..).zip(rows::rows(Sizes { rounds: 1, quick: false })) {
                    println!("{number:>3} {}", row.title);
                }
                Ok(())
            }
            What::Fakes { scheduler, workers, threads } => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(fakes::run(Address::from(scheduler), workers, threads))
            }
        }
    }
}

fn run(cases: &[Case], vs: Vec<Make>, common: &Common) -> Result<(), Failure> {
    let mut makes = vec![Make::Ours];
    makes.extend(vs);
    makes.sort_unstable();
    makes.dedup();
    let sized = |case: &Case| if common.quick { case.shrunk() } else { case.clone() };
    let job = |case: &Case| {
        let makes = if case.native() { vec![Make::Ours] } else { makes.clone() };
        Job { case: sized(case), makes, rounds: common.rounds() }
    };
    let jobs: Vec<Job> = cases.iter().map(job).collect();
    let mut results = Results::default();
    measure(&jobs, &common.programs()?, &mut results);
    print!("{}", report::markdown(&results));
    common.write(&results)
}

fn table(numbers: &[usize], common: &Common) -> Result<(), Failure> {
    let all = rows::rows(Sizes { rounds: common.rounds(), quick: common.quick });
    let numbers: Vec<usize> = if numbers.is_empty() { (1..=all.len()).collect() } else { numbers.to_vec() };
    let chosen: Option<Vec<&Row>> = numbers.iter().map(|number| all.get(number.checked_sub(1)?)).collect();
    let chosen = chosen.ok_or_else(|| format!("rows are 1 to {}", all.len()))?;
    let mut results = Results::default();
    measure(&rows::jobs(&chosen), &common.programs()?, &mut results);
    println!("{}", rows::markdown(&chosen, &numbers, &results));
    print!("{}", report::markdown(&results));
    println!("\n{}", report::machine());
    common.write(&results)
}
