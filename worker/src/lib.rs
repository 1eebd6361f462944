//! The worker: [`state`] decides, the shell around it moves bytes and runs tasks.

pub mod native;
pub mod server;
pub mod state;
