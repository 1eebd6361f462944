//! `dask config`: what the configuration says in effect, and where it says so.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::Failure;
use crate::config::{DaskConfig, files_with, search_paths};

/// Show the effective configuration and where each value comes from
#[derive(Debug, Clone, Parser)]
#[command(name = "dask config")]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: Option<What>,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// Print everything, as YAML with the origin of each value behind it (the default)
    List,
    /// The same
    Show,
    /// Print the value of a key such as distributed.scheduler.work-stealing; everything without one
    Get {
        /// The key
        key: Option<String>,
    },
    /// Find the files that say something about a key
    Find {
        /// The key
        key: String,
    },
    /// Print where files are looked for, in the order in which they are read
    Paths,
    /// Set a key in a file, by Python's dask
    Set {
        /// What Python's command takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// Runs the command with these arguments, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match ConfigArgs::try_parse_from(args) {
        Ok(args) => super::report(run(args.command.unwrap_or(What::List))),
        Err(error) => super::usage(&error),
    }
}

fn run(what: What) -> Result<ExitCode, Failure> {
    match what {
        What::List | What::Show | What::Get { key: None } => list(),
        What::Get { key: Some(key) } => get(&key),
        What::Find { key } => find(&key),
        What::Paths => {
            paths().iter().for_each(|path| println!("{}", path.display()));
            Ok(ExitCode::SUCCESS)
        }
        What::Set { args } => {
            let args = ["config", "set"].into_iter().map(OsString::from).chain(args);
            Ok(super::front::pass_on("config set", args.collect()))
        }
    }
}

fn paths() -> Vec<std::path::PathBuf> {
    search_paths(|name| std::env::var_os(name), std::env::current_exe().ok().as_deref())
}

/// Everything; values that cannot be read are told of, and fail the command.
fn list() -> Result<ExitCode, Failure> {
    let dask = DaskConfig::load().map_err(Failure::Usage)?;
    print!("{}", dask.show());
    let complaints = dask.complaints();
    for complaint in dask.warnings.iter().chain(&complaints) {
        eprintln!("{complaint}");
    }
    Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn get(key: &str) -> Result<ExitCode, Failure> {
    let dask = DaskConfig::load().map_err(Failure::Usage)?;
    let node = dask.effective(key).ok_or_else(|| Failure::Usage(format!("Section not found: {key}")))?;
    println!("{}", node.to_yaml());
    Ok(ExitCode::SUCCESS)
}

fn find(key: &str) -> Result<ExitCode, Failure> {
    let found = files_with(key, &paths()).map_err(Failure::Usage)?;
    if found.is_empty() {
        return Err(Failure::Usage(format!(
            "Unable to find {key:?} in any of the files looked for: dask config paths"
        )));
    }
    for node in found.values() {
        println!("{}: {}", node.origin, node.setting);
    }
    Ok(ExitCode::SUCCESS)
}
