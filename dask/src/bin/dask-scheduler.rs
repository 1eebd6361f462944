//! The command `dask-scheduler`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dask::cli::scheduler::main(std::env::args_os())
}
