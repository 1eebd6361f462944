//! From a client's `update-graph` to tasks the state machine can take: read or materialise, cull, order, annotate.
//!
//! Start with [`intake::Intake`], then [`order::order`], the static priorities. Nothing here touches the scheduler's state, so all
//! of it runs beside the driver.

pub mod cull;
pub mod helper;
pub mod intake;
pub mod order;
pub mod topology;
