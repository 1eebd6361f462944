//! The command `dask-worker`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dask::cli::worker::main(std::env::args_os(), &[])
}
