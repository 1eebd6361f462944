//! The worker: [`state`] decides, the shell around it moves bytes and runs tasks.
//!
//! Read [`Worker`] and [`WorkerOptions`] first.

mod clock;
mod executor;
pub mod native;
mod options;
pub mod server;
pub mod spill;
pub mod state;
pub mod store;

pub use executor::python::PythonError;
pub use options::{MemoryOptions, OnRegistered, PythonChoice, TlsFiles, TransferOptions, WorkerOptions};
pub use server::{Closed, End, StartError, Worker};
