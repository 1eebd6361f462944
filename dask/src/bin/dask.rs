//! The command `dask`, as upstream's front for the other two: `dask scheduler ...`, `dask worker ...`. `dask explain` is
//! ours.

use std::ffi::OsString;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub(crate) fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let command = args.next().unwrap_or_default();
    let rest = |name: &str| [OsString::from(name)].into_iter().chain(args).collect::<Vec<_>>();
    match command.to_str() {
        Some("scheduler") => dask::cli::scheduler::main(rest("dask-scheduler")),
        Some("worker") => dask::cli::worker::main(rest("dask-worker"), &["worker"]),
        Some("explain") => dask::cli::explain::main(rest("dask explain")),
        Some("--version") => {
            println!("dask, version {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some("--help" | "-h") => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

const USAGE: &str = "Usage: dask [--version] COMMAND [OPTIONS]...

Commands:
  scheduler  Launch a Dask scheduler.
  worker     Launch a Dask worker attached to an existing scheduler
  explain    Tell why a task waits, why it is where it is, and what happened to it";
