//! (crate docs)

pub mod logging;
