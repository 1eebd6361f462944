//! `dask-sim`: runs graphs on simulated clusters, and compares policies.

use std::process::ExitCode;

use clap::Parser;
use dask_benches::sim::cli::Args;
use dask_benches::sim::memory::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    match Args::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}
