//! Fetching values from peers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dask_protocol::comm::ConnectionPool;
use dask_protocol::comm::pool::Lease;
use dask_protocol::message::{Pairs, StimulusId};
use dask_protocol::{Address, CommError, Key, Payload, Value};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{self, error::RecvError};
use tracing::{debug, error, warn};

use super::metrics::{InProgress, Metrics};
use super::shared::{Input, Shared, arrived};
use crate::executor;
use crate::executor::python::lending::{self, BorrowError, Borrowed};
use crate::state::{Event, GatherOutcome};
use crate::store::Stored;

/// How often a transfer that was cut is begun again. The scheduler says so when the peer is gone.
const CUTS_MAX: usize = 3;

/// The acknowledgement that ends a transfer.
const ACKNOWLEDGEMENT: &str = "OK";

#[derive(Serialize)]
struct GetData<'a> {
    op: &'static str,
    reply: bool,
    keys: &'a [Key],
    who: Option<&'a Address>,
    /// Whether values may be left where they are, for us to copy them from there. Upstream's workers know no such word.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lend: bool,
}

#[derive(Deserialize)]
struct GetDataReply {
    status: String,
    #[serde(default)]
    data: Pairs<Key, Payload>,
    #[serde(default)]
    lent: Option<Value>,
}

/// What a peer answered.
pub(crate) enum Got {
    Data(Vec<(Key, Payload)>),
    Busy,
}

/// What came of a fetch.
enum Fetched {
    Sent(Got),
    /// Some of it was copied from the peer's memory.
    Borrowed(Vec<(Key, Payload)>, Borrowed),
}

/// Asks one peer for values and acknowledges them.
pub(crate) async fn get_data(
    pool: &ConnectionPool,
    peer: &Address,
    keys: &[Key],
    who: Option<&Address>,
) -> Result<Got, CommError> {
    let mut lease = pool.lease(peer).await?;
    let got = match ask(&mut lease, peer, keys, who, false).await? {
        None => Got::Busy,
        Some(reply) => {
            lease.send_value(ACKNOWLEDGEMENT).await?;
            Got::Data(reply.data.0)
        }
    };
    lease.release();
    Ok(got)
}

/// What a peer answers before the acknowledgement; `None` when it is busy.
async fn ask(
    lease: &mut Lease,
    peer: &Address,
    keys: &[Key],
    who: Option<&Address>,
    lend: bool,
) -> Result<Option<GetDataReply>, CommError> {
    lease.send_value(&GetData { op: "get_data", reply: true, keys, who, lend }).await?;
    let message = lease.recv().await?;
    dask_protocol::comm::pool::check_reply("get_data", peer, &message)?;
    let reply: GetDataReply = message.decode()?;
    match reply.status.as_str() {
        "busy" => Ok(None),
        "OK" => Ok(Some(reply)),
        other => {
            let text = format!("unexpected status {other:?}");
            Err(CommError::Remote { op: "get_data".to_owned(), peer: peer.as_str().to_owned(), text })
        }
    }
}

/// As [`fetch`], over other connections where one is cut.
async fn fetch_through_cuts(shared: &Shared, peer: &Address, keys: &[Key]) -> Result<Fetched, CommError> {
    for _ in 0..CUTS_MAX {
        match fetch(shared, peer, keys).await {
            Err(cut) if cut.is_cut() && !shared.is_closing() => {
                warn!(target: "distributed.worker", "The transfer of {} keys from {peer} was cut and begins again ({cut})", keys.len());
                // Its others may be dead as well.
                shared.pool.remove(peer);
            }
            other => return other,
        }
    }
    fetch(shared, peer, keys).await
}

/// Asks one peer for values, for this worker's own use: they may come through memory.
async fn fetch(shared: &Shared, peer: &Address, keys: &[Key]) -> Result<Fetched, CommError> {
    let (pool, who) = (&shared.pool, Some(&shared.identity.address));
    let Some(python) = shared.python().filter(|_| shared.borrows.load(Ordering::Relaxed)) else {
        return get_data(pool, peer, keys, who).await.map(Fetched::Sent);
    };
    let mut lease = pool.lease(peer).await?;
    let lend = lease.is_same_host();
    let Some(reply) = ask(&mut lease, peer, keys, who, lend).await? else {
        lease.release();
        return Ok(Fetched::Sent(Got::Busy));
    };
    let data = reply.data.0;
    let fetched = match reply.lent.filter(|_| lend) {
        None => Fetched::Sent(Got::Data(data)),
        Some(lent) => match lending::borrow(python, lent).await {
            Ok(borrowed) => Fetched::Borrowed(data, borrowed),
            Err(error) => {
                // Without an acknowledgement the connection is of no more use, and the peer keeps nothing any more.
                drop(lease);
                if matches!(error, BorrowError::Refused(_)) {
                    shared.borrows.store(false, Ordering::Relaxed);
                }
                debug!(target: "distributed.worker", %peer, %error, "values are not copied from the peer's memory, but sent");
                return get_data(pool, peer, keys, who).await.map(Fetched::Sent);
            }
        },
    };
    lease.send_value(ACKNOWLEDGEMENT).await?;
    lease.release();
    Ok(fetched)
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
        answer = fetch_through_cuts(&shared, &worker, &keys) => answer,
        () = removed(removals, &worker) => Err(CommError::Closed { peer: worker.as_str().to_owned() }),
    };
    let stop = shared.clock.now();
    drop(progress);
    let (values, borrowed, outcome) = match answer {
        Ok(Fetched::Sent(Got::Busy)) => (Vec::new(), None, GatherOutcome::Busy),
        Ok(Fetched::Sent(Got::Data(data))) => arrive(metrics, &worker, data, None, stop - start),
        Ok(Fetched::Borrowed(data, borrowed)) => arrive(metrics, &worker, data, Some(borrowed), stop - start),
        // The peer is there and answers nonsense: asking again would not help.
        Err(broken @ (CommError::Decode(_) | CommError::Remote { .. } | CommError::Encode(_))) => {
            error!(target: "distributed.worker", "Could not gather {} keys from {worker}: {broken}", keys.len());
            (Vec::new(), None, GatherOutcome::Failed { error: executor::describe("RuntimeError", &broken.to_string()) })
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
            (Vec::new(), None, GatherOutcome::Unreachable)
        }
    };
    debug!(%worker, keys = keys.len(), total_nbytes, "transfer ended");
    let Some(borrowed) = borrowed else {
        return shared.notify_with(values, Event::GatherDone { worker, keys, outcome, start, stop, stimulus_id });
    };
    let stage = Arc::clone(&shared);
    let step = move || {
        let outcome = match borrowed.keep(stage.python().as_ref()) {
            Some(copies) => {
                stage.keep(values);
                stage.keep(copies.into_iter().map(|(key, nbytes)| (key, Stored::python(nbytes, None))).collect());
                outcome
            }
            // They went with the Python process: once more.
            None => GatherOutcome::Busy,
        };
        vec![Event::GatherDone { worker, keys, outcome, start, stop, stimulus_id }]
    };
    let _ = shared.inbox.send(Input::Step(Box::new(step)));
}

/// Notes what came.
fn arrive(
    metrics: &Metrics,
    worker: &Address,
    data: Vec<(Key, Payload)>,
    borrowed: Option<Borrowed>,
    seconds: f64,
) -> (Vec<(Key, Stored)>, Option<Borrowed>, GatherOutcome) {
    let values: Vec<_> = data.into_iter().map(arrived).collect();
    let mut received: Vec<(Key, i64)> = values.iter().map(|(key, value)| (key.clone(), value.nbytes)).collect();
    if let Some(borrowed) = &borrowed {
        let nbytes = borrowed.sizes.iter().map(|(_, nbytes)| nbytes).sum();
        metrics.borrowed_bytes_total.fetch_add(nbytes, Ordering::Relaxed);
        received.extend(borrowed.sizes.iter().cloned());
    }
    metrics.received(worker, received.iter().map(|(_, nbytes)| nbytes).sum(), seconds);
    metrics.gathered(seconds);
    (values, borrowed, GatherOutcome::Data { received })
}
