//! The commands `dask-scheduler` and `dask-worker`, with the options and the texts that users of dask know.

mod address;
pub mod parse;
mod pid_file;
mod scheduler_args;
mod signals;
pub mod system;
mod tls;
mod worker_args;
mod worker_plan;
