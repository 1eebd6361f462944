//! The scheduler: [`state`] decides, [`graph`] turns submitted graphs into tasks, the shell around them moves bytes.

pub mod graph;
pub mod state;
