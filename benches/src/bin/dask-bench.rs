//! `dask-bench`: named cases on a cluster of ours and on one of upstream's (see `docs/benchmarks.md`).

use std::process::ExitCode;

use clap::Parser;
use dask_benches::harness::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}
