//! The commands `dask-scheduler`, `dask-worker` and `dask`, with the options and the texts that users of dask know.

mod address;
mod allocator;
mod auto_tls;
mod children;
pub mod completion;
pub mod config;
pub mod explain;
mod follow;
pub mod front;
mod memory_args;
pub mod parse;
mod pid_file;
mod preload_args;
pub mod scheduler;
mod scheduler_args;
mod scheduler_config;
mod signals;
pub mod spec;
mod spec_options;
pub mod ssh;
pub mod system;
mod tls;
pub mod worker;
mod worker_args;
mod worker_plan;
mod worker_settings;

use std::process::ExitCode;

use tracing::error;

/// Why a command ends without success.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    /// The user asked for something that cannot be: printed.
    Usage(String),
    /// Something went wrong: logged.
    Logged(String),
    /// Whoever needs to know was told already.
    Told,
}

fn report(outcome: Result<ExitCode, Failure>) -> ExitCode {
    match outcome {
        Ok(code) => return code,
        Err(Failure::Usage(text)) => eprintln!("Error: {text}"),
        Err(Failure::Logged(text)) => error!(target: "distributed", "{text}"),
        Err(Failure::Told) => {}
    }
    ExitCode::FAILURE
}

/// Prints clap's help or complaint; the status is click's: 0 for help, 2 for wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody to tell when the terminal is gone.
    let _ = error.print();
    ExitCode::from(u8::from(error.use_stderr()) * 2)
}

fn show_version(command: &str) -> ExitCode {
    println!("{command}, version {}", env!("CARGO_PKG_VERSION"));
    ExitCode::SUCCESS
}

/// A bare port is an address too.
fn http_address(text: &str) -> String {
    if text.chars().all(|c| c.is_ascii_digit()) && !text.is_empty() { format!(":{text}") } else { text.to_owned() }
}
