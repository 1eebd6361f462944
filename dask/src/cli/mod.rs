//! The commands `dask-scheduler` and `dask-worker`, with the options and the texts that users of dask know.

pub mod parse;
pub mod system;
