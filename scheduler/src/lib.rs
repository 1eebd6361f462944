//! The scheduler: [`state`] decides, the shell around it moves bytes.

pub mod state;
