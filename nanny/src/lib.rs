//! Keeps one worker process running: starts it, restarts it when it dies, ends it when told, and never outlives it.
//!
//! [`state`] decides; [`Nanny`] is the shell around it.

pub mod event;
pub mod state;

mod environment;
mod memory;
mod process;
mod python;
mod rpc;
mod scheduler;
pub mod server;

pub use environment::worker_environment;
pub use process::WorkerCommand;
pub use python::{NannyTls, PythonOptions};
pub use server::{Nanny, NannyError, NannyOptions};
