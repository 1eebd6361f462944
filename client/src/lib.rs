//! The Rust client: typed native tasks, futures of their results, and graphs.
//!
//! Read [`Client`] and [`Future`] first. A [`TaskCall`], made by a `#[dask::task]` function, says what to run; submitting
//! it gives a [`Future`] at once, which may be an argument of further calls. The `dask` crate re-exports all of this
//! together with the macro and a `LocalCluster`.

mod call;
mod client;
mod coordinate;
mod draw;
mod error;
pub mod explain;
mod future;
mod graph;
mod python;
mod remote;
mod session;

pub use bytes::Bytes;
pub use call::{CallArg, IntoArg, TaskCall};
pub use client::{Client, ClientOptions};
pub use coordinate::{CoordinateError, Event, Item, Lease, Queue, Semaphore, Variable};
pub use error::{ClientError, TaskError};
pub use future::{Future, Join, Status, as_completed, join};
pub use graph::{GraphBuilder, GraphError, Node};
pub use python::{IntoPythonArg, PythonCall, python};
