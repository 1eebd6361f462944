//! `dask-sim`: runs graphs on simulated clusters, and compares policies.

use std::process::ExitCode;

use clap::Parser;
use dask_benches::sim::cli::Args;

fn main() -> ExitCode {
    match Args::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}
