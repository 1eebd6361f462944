//! `heartbeat_worker`.

use dask_protocol::message::{HeartbeatWorker, HeartbeatWorkerReply, Request};

use super::super::core::heartbeat_of;
use super::super::failure::{Reply, reply};
use super::super::shared::Server;
use super::super::worker_stream::known_as;

/// Takes a worker's metrics. A worker that is not known is told so, and closes.
pub(crate) async fn heartbeat(server: &Server, request: &Request) -> Reply {
    let HeartbeatWorker { address, metrics, executing, resolve_address, .. } = request.args()?;
    let worker = known_as(&address, resolve_address).await?;
    let heartbeat = heartbeat_of(worker, executing.0, &metrics);
    let (status, told) = match server.driver.run(move |core| core.heartbeat(heartbeat, metrics)).await? {
        Some(told) => ("OK", Some(told)),
        None => ("missing", None),
    };
    reply(&HeartbeatWorkerReply {
        status: status.to_owned(),
        time: told.map(|(time, _)| time),
        heartbeat_interval: told.map(|(_, interval)| interval),
    })
}
