//! A native Dask engine: a scheduler, workers and nannies on the wire protocol of `dask.distributed`.
//!
//! Python programs use it through `dask-scheduler` and `dask-worker` ([`cli`]) and the client they have. Rust programs
//! read [`task`] and [`LocalCluster`] first:
//!
//! ```standalone_crate
//! #[dask::task]
//! fn add(a: i64, b: i64) -> i64 {
//!     a + b
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = dask::LocalCluster::builder().workers(2).start().await?;
//! let client = cluster.client().await?;
//! let three = client.submit(add(1, 2));
//! let thirteen = client.submit(add(&three, 10)); // a future is an argument
//! assert_eq!(thirteen.result().await?, 13);
//! # client.close().await;
//! # cluster.close().await;
//! # Ok(()) }
//! ```
//!
//! Longer ones are programs, `cargo run --release -p dask --example NAME`:
//!
//! | example | shows |
//! |---|---|
//! | `quickstart` | tasks, futures as arguments, errors; in one process or against a cluster |
//! | `word_count` | files, a tree of merges that share their parts |
//! | `matrix` | a pipeline over blocks as one graph ([`GraphBuilder`]); its static order and picture |
//! | `search` | [`as_completed`], cancelling the rest, tasks that notice |
//! | `tree_reduction` | futures level by level, retries, a published result |
//! | `own_worker` | two worker processes of the same program ([`worker`]), one of which dies |
//! | `task_library` | tasks that the stock `dask-worker` loads |
//! | `mixed` | Rust's and Python's functions in one graph ([`python`]) |
//! | `arrow` | arrays that Rust tasks share and pyarrow computes with |
//! | `scheduler_by_hand` | the scheduler as a library, without IO |

pub mod cli;
mod cluster;
#[cfg(doctest)]
mod compile_fail;
pub mod config;
mod context;
mod graph;
mod library;
pub mod logging;
pub mod worker;

pub use cluster::{ClusterError, LocalCluster, LocalClusterBuilder};
pub use context::{ContextError, TaskContext};
pub use dask_client::{
    Bytes, CallArg, Client, ClientError, ClientOptions, CoordinateError, Event, Future, GraphBuilder, GraphError,
    IntoArg, IntoPythonArg, Item, Join, Lease, Node, PythonCall, Queue, Semaphore, Status, TaskCall, TaskError,
    Variable, as_completed, explain, join, python,
};
pub use dask_macros::task;
pub use dask_protocol::{Address, Key, Value};
pub use dask_scheduler::{Scheduler, SchedulerOptions};
pub use dask_worker::native::is_cancelled;
pub use graph::static_order;

/// Any error, for tasks whose causes differ.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What `#[dask::task]` expands to; not for direct use.
#[doc(hidden)]
pub mod __private {
    pub use dask_worker::native::library::{Table, table};
    pub use dask_worker::native::{
        Arg, ArgSlot, Brief, Definition, NativeError, NativeFunction, NativeValue, TaskContext,
    };
    pub use inventory;
}
