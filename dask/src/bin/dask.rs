//! The command `dask`. As a link called `dask-scheduler`, `dscheduler`, `dask-worker` or `dworker` it is that command.

use std::process::ExitCode;

pub(crate) fn main() -> ExitCode {
    dask::cli::front::main(std::env::args_os())
}
