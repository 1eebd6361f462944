//! The command `dask`, for Python's package index: the package `dask` has a script of that name already.

use std::process::ExitCode;

#[path = "../dask.rs"]
mod front;

fn main() -> ExitCode {
    front::main()
}
