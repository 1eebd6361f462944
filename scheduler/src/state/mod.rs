//! The scheduler's decisions, without IO: [`Event`]s in, [`Action`]s out.

mod action;
mod event;

pub use action::{Action, Actions};
pub use event::*;
