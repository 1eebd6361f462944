//! The scheduler: [`state`] decides, [`graph`] turns submitted graphs into tasks, [`server`] moves bytes.
//!
//! Programs start one with [`Scheduler::start`].

pub mod graph;
mod http;
pub mod server;
pub mod state;

pub use http::to_json as value_to_json;
pub use server::{Scheduler, SchedulerOptions, StartError};
