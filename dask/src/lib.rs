//! (crate docs)

pub mod cli;
pub mod logging;
