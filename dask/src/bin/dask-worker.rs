//! The command `dask-worker`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dask::cli::worker::main(std::env::args_os(), &[])
}
