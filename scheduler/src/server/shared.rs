//! What every connection task shares.

use std::sync::{Arc, OnceLock};

use dask_protocol::comm::ConnectionPool;
use dask_protocol::{Address, Value};
use tokio::sync::Mutex as AsyncMutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::driver::Driver;
use super::extensions::Extensions;
use super::graphs::Graphs;
use super::jupyter::Jupyter;
use super::options::SchedulerOptions;
use super::rpc::gather::Window;
use super::rpc::metadata::Metadata;
use super::rpc::nanny::StartingNannies;
use super::rpc::plugins::Plugins;
use super::sidecar::Sidecar;

/// The scheduler as its connections see it.
pub(crate) struct Server {
    /// `Scheduler-<uuid>`.
    pub(crate) id: String,
    /// The contact address.
    pub(crate) address: Address,
    /// Unix time of the start.
    pub(crate) started: f64,
    pub(crate) clock: Clock,
    pub(crate) driver: Driver,
    /// Connections we open, to workers and nannies.
    pub(crate) pool: ConnectionPool,
    pub(crate) options: SchedulerOptions,
    pub(crate) graphs: Graphs,
    pub(crate) plugins: Plugins,
    pub(crate) nannies: StartingNannies,
    pub(crate) metadata: Metadata,
    /// Room for results on their way to clients.
    pub(crate) window: Window,
    pub(crate) extensions: Extensions,
    /// Python for what clients run on the scheduler.
    pub(crate) sidecar: Sidecar,
    /// Set at the start, if there is to be one.
    pub(crate) jupyter: OnceLock<Arc<Jupyter>>,
    pub(crate) dashboard_port: OnceLock<u16>,
    /// Held by operations that move replicas about, which must not overlap (`replicate`, `rebalance`).
    pub(crate) replicas: AsyncMutex<()>,
    /// Cancelled when the scheduler closes: connections end.
    pub(crate) closing: CancellationToken,
    /// The reason to close, once somebody has asked for it.
    pub(crate) close_requested: watch::Sender<Option<String>>,
}

impl Server {
    /// Asks for the scheduler to close; the first reason counts.
    pub(crate) fn request_close(&self, reason: &str) {
        self.close_requested.send_if_modified(|requested| {
            let first = requested.is_none();
            if first {
                *requested = Some(reason.to_owned());
            }
            first
        });
    }

    /// Whether an op is refused (`blocked-handlers`).
    pub(crate) fn blocks(&self, op: &str) -> bool {
        self.options.blocked_handlers.iter().any(|blocked| blocked == op)
    }

    /// Ports by service name, as the identity tells them.
    pub(crate) fn services(&self) -> Value {
        let dashboard = self.dashboard_port.get().map(|&port| ("dashboard", i64::from(port).into()));
        Value::map(dashboard)
    }
}
