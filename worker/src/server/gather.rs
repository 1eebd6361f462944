//! Fetching values from peers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dask_protocol::comm::ConnectionPool;
use dask_protocol::message::{Pairs, StimulusId};
use dask_protocol::{Address, CommError, Key, Payload};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{self, error::RecvError};
use tracing::{debug, error};

use super::metrics::InProgress;
use super::shared::{Shared, arrived};
use crate::executor;
use crate::state::{Event, GatherOutcome};

/// The acknowledgement that ends a transfer.
const ACKNOWLEDGEMENT: &str = "OK";

#[derive(Serialize)]
struct GetData<'a> {
    op: &'static str,
    reply: bool,
    keys: &'a [Key],
    who: Option<&'a Address>,
}

#[derive(Deserialize)]
struct GetDataReply {
    status: String,
    #[serde(default)]
    data: Pairs<Key, Payload>,
}

/// What a peer answered.
pub(crate) enum Got {
    Data(Vec<(Key, Payload)>),
    Busy,
}

/// Asks one peer for values and acknowledges them.
pub(crate) async fn get_data(
    pool: &ConnectionPool,
    peer: &Address,
    keys: &[Key],
    who: Option<&Address>,
) -> Result<Got, CommError> {
    let request = GetData { op: "get_data", reply: true, keys, who };
    let mut lease = pool.lease(peer).await?;
    lease.send_value(&request).await?;
    let message = lease.recv().await?;
    dask_protocol::comm::pool::check_reply("get_data", peer, &message)?;
    let reply: GetDataReply = message.decode()?;
    let got = match reply.status.as_str() {
        "busy" => Got::Busy,
        "OK" => {
            lease.send_value(ACKNOWLEDGEMENT).await?;
            Got::Data(reply.data.0)
        }
        other => {
            let text = format!("unexpected status {other:?}");
            return Err(CommError::Remote { op: "get_data".to_owned(), peer: peer.as_str().to_owned(), text });
        }
    };
    lease.release();
    Ok(got)
}

/// Completes when the scheduler says that this worker left: nobody need try to reach it any longer.
async fn removed(mut removals: broadcast::Receiver<Address>, worker: &Address) {
    loop {
        match removals.recv().await {
            Ok(gone) if gone == *worker => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Carries out one `Gather` of the state.
pub(crate) async fn run(
    shared: Arc<Shared>,
    worker: Address,
    keys: Vec<Key>,
    total_nbytes: i64,
    stimulus_id: StimulusId,
) {
    let metrics = &shared.metrics;
    metrics.incoming_count_total.fetch_add(1, Ordering::Relaxed);
    let progress = InProgress::begin(&metrics.incoming_count, &metrics.incoming_bytes, total_nbytes);
    let start = shared.clock.now();
    let removals = shared.removals.subscribe();
    let answer = tokio::select! {
        answer = get_data(&shared.pool, &worker, &keys, Some(&shared.identity.address)) => answer,
        () = removed(removals, &worker) => Err(CommError::Closed { peer: worker.as_str().to_owned() }),
    };
    let stop = shared.clock.now();
    drop(progress);
    let (values, outcome) = match answer {
        Ok(Got::Busy) => (Vec::new(), GatherOutcome::Busy),
        Ok(Got::Data(data)) => {
            let values: Vec<_> = data.into_iter().map(arrived).collect();
            let received: Vec<(Key, i64)> = values.iter().map(|(key, value)| (key.clone(), value.nbytes)).collect();
            metrics.received(&worker, received.iter().map(|(_, nbytes)| nbytes).sum(), stop - start);
            metrics.gathered(stop - start);
            (values, GatherOutcome::Data { received })
        }
        // The peer is there and answers nonsense: asking again would not help.
        Err(broken @ (CommError::Decode(_) | CommError::Remote { .. } | CommError::Encode(_))) => {
            error!(target: "distributed.worker", "Could not gather {} keys from {worker}: {broken}", keys.len());
            (Vec::new(), GatherOutcome::Failed { error: executor::describe("RuntimeError", &broken.to_string()) })
        }
        Err(
            broken @ (CommError::Closed { .. }
            | CommError::Connect { .. }
            | CommError::Address { .. }
            | CommError::Io(_)
            | CommError::Handshake { .. }
            | CommError::Tls(_)
            | CommError::Timeout { .. }),
        ) => {
            error!(target: "distributed.worker", "Worker stream died during communication: {worker} ({broken})");
            (Vec::new(), GatherOutcome::Unreachable)
        }
    };
    debug!(%worker, keys = keys.len(), total_nbytes, "transfer ended");
    shared.notify_with(values, Event::GatherDone { worker, keys, outcome, start, stop, stimulus_id });
}
