//! The policy simulator: a cluster in virtual time.
//!
//! The scheduler's and the workers' own states decide; threads, links and the client are modelled. A
//! [`Workload`](workload::Workload) on a [`Shape`](shape::Shape) runs in [`run`](cluster::run) and gives an
//! [`Outcome`](outcome::Outcome): makespan, bytes moved, peak memory, the scheduler's CPU time. The same input gives the
//! same outcome, but for the CPU time.

pub mod cli;
pub mod clock;
pub mod cluster;
pub mod compare;
pub mod graphs;
pub mod log;
pub mod memory;
pub mod network;
pub mod outcome;
pub mod plot;
pub mod queue;
pub mod scale;
pub mod shape;
pub mod table;
pub mod timeline;
pub mod worker;
pub mod workload;
