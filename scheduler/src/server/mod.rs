//! The shell around the state: sockets, clocks and queues. It takes no scheduling decision.
//!
//! Start with [`Scheduler`] and `driver`: connection tasks decode what peers send and hand events to the one driver
//! task that owns the state; what the state decides goes to the writer task of each peer's stream.

mod beside;
mod client_stream;
mod clock;
mod core;
mod driver;
pub(crate) mod events;
pub(crate) mod extensions;
mod failure;
mod followers;
mod graphs;
pub(crate) mod identity;
pub(crate) mod jupyter;
mod listener;
mod options;
mod packed;
pub(crate) mod peers;
mod periodic;
pub(crate) mod recent;
mod reconnect;
mod recording;
pub(crate) mod rpc;
mod scheduler;
mod shared;
mod shuffles;
mod sidecar;
mod task_stream;
mod trackers;
mod versions;
mod while_there;
mod worker_link;
mod worker_stream;

pub(crate) use self::core::{Core, Totals, Turns};
pub use jupyter::JupyterOptions;
pub use options::{
    DASHBOARD_PORT, GATHER_WINDOW_BYTES, LogLine, LogSource, MemoryPolicyMaker, SCHEDULER_PORT, SchedulerOptions,
    WORKER_TTL,
};
pub use scheduler::{Scheduler, StartError};
pub(crate) use shared::Server;
