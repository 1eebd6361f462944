//! Workers: to embed, and to turn a program of yours into one.
//!
//! A worker runs the `#[dask::task]` functions of its own binary. So a program that has tasks becomes a worker with one
//! line, which gives it all of `dask-worker`'s command line, its nanny included:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     dask::worker::main()
//! }
//! ```

use std::ffi::OsString;
use std::process::ExitCode;

pub use dask_worker::{PythonChoice, StartError, Worker, WorkerOptions};

/// Runs this program as `dask-worker`, with this process's arguments.
pub fn main() -> ExitCode {
    crate::cli::worker::main(std::env::args_os(), &[])
}

/// Runs a subcommand of this program as `dask-worker`: the first argument is the subcommand's name, under which a nanny
/// starts the program again.
///
/// ```no_run
/// # use std::process::ExitCode;
/// fn main() -> ExitCode {
///     match std::env::args().nth(1).as_deref() {
///         Some("worker") => dask::worker::main_from(std::env::args_os().skip(1)),
///         _ => ExitCode::SUCCESS, // what else the program does
///     }
/// }
/// ```
pub fn main_from(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = arguments.first().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    crate::cli::worker::main(arguments, &[&name])
}
