//! The command `dask-scheduler`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dask::cli::scheduler::main(std::env::args_os())
}
