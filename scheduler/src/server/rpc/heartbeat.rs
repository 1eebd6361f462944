//! `heartbeat_worker`.

use dask_protocol::Address;
use dask_protocol::message::{HeartbeatWorker, HeartbeatWorkerReply, Request, StreamState, StreamStateReply};

use super::super::core::heartbeat_of;
use super::super::failure::{Reply, SchedulerClosed, reply};
use super::super::shared::Server;
use super::super::worker_stream::known_as;

/// Takes a worker's metrics. A worker that is not known is told so, and closes.
pub(crate) async fn heartbeat(server: &Server, request: &Request) -> Reply {
    let HeartbeatWorker { address, metrics, executing, resolve_address, stream, .. } = request.args()?;
    let worker = known_as(&address, resolve_address).await?;
    let heartbeat = heartbeat_of(worker.clone(), executing.0, &metrics);
    let (status, told) = match server.driver.run(move |core| core.heartbeat(heartbeat, metrics)).await? {
        Some(told) => ("OK", Some(told)),
        None => ("missing", None),
    };
    let stream = match stream {
        Some(told) => stream_state(server, worker, told).await?,
        None => None,
    };
    reply(&HeartbeatWorkerReply {
        status: status.to_owned(),
        time: told.map(|(time, _)| time),
        heartbeat_interval: told.map(|(_, interval)| interval),
        stream,
    })
}

async fn stream_state(
    server: &Server,
    worker: Address,
    told: StreamState,
) -> Result<Option<StreamStateReply>, SchedulerClosed> {
    let at = worker.clone();
    let link = server.driver.run(move |core| core.workers.get(&at).and_then(|peer| peer.link.clone())).await?;
    // Read before the driver is asked: what was taken in by now is before the question.
    let Some(taken_in) = link.map(|link| link.received()) else { return Ok(None) };
    server.driver.run(move |core| core.stream_state(&worker, &told, taken_in)).await
}
