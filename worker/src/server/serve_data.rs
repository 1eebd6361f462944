//! `get_data`: values for peers and clients.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dask_protocol::comm::Comm;
use dask_protocol::message::{Keys, Message, Pairs, Request, WorkerStatus};
use dask_protocol::partial::{Held, rest_of};
use dask_protocol::payload::NATIVE_SERIALIZER;
use dask_protocol::{Address, Key, Payload, Value};
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use super::calls::Answer;
use super::metrics::InProgress;
use super::shared::Shared;
use super::transfer::HELD_BYTES_MIN;
use crate::executor::python::lending;

/// Transfers to peers at the same time (`distributed.worker.connections.incoming`).
const TRANSFERS_MAX: u64 = 10;
/// A requester on the same host may use this many times more.
const SAME_HOST_FACTOR: u64 = 2;
/// While paused, memory is precious and each transfer takes some.
const TRANSFERS_PAUSED_MAX: u64 = 1;

/// Smaller values are sent also to a peer on this machine.
const LENT_BYTES_MIN: i64 = 128 << 10;

#[derive(Deserialize)]
struct GetData {
    keys: Keys,
    #[serde(default)]
    who: Option<Address>,
    /// Whether the caller can copy values from this machine's memory.
    #[serde(default)]
    lend: bool,
    /// What the caller has of a value, of which it needs the rest.
    #[serde(default)]
    held: Option<(Key, Held)>,
}

#[derive(Serialize)]
struct Reply {
    status: &'static str,
    /// What the caller does not hold of the value that it told of; before the others, so that a cut concerns one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    rest: Option<Payload>,
    data: Pairs<Key, Payload>,
    /// Where the caller finds the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    lent: Option<Value>,
    /// Whether the caller may tell what it holds of a value, should this be cut.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    resumable: bool,
}

/// Answers one request, including the acknowledgement that the caller sends.
pub(crate) async fn answer(shared: &Arc<Shared>, comm: &mut Comm, request: &Request) -> Answer {
    let GetData { keys, who, lend, held } = match request.args() {
        Ok(args) => args,
        Err(error) => {
            warn!(target: "distributed.worker", peer = %comm.peer(), %error, "malformed get_data");
            return Answer::Close;
        }
    };
    let metrics = &shared.metrics;
    if metrics.outgoing_count.load(Ordering::Acquire) >= limit(shared, comm.peer()) {
        debug!(peer = %comm.peer(), ?who, "busy: too many transfers");
        return Answer::Reply(Value::map([("status", "busy".into())]));
    }
    let nbytes = keys.0.iter().filter_map(|key| shared.store.get(key)).map(|stored| stored.nbytes).sum();
    let _progress = InProgress::begin(&metrics.outgoing_count, &metrics.outgoing_bytes, nbytes);
    metrics.outgoing_count_total.fetch_add(1, Ordering::Relaxed);
    metrics.outgoing_bytes_total.fetch_add(nbytes, Ordering::Relaxed);
    let can_lend = lend && comm.is_same_host();
    let (lendable, sent) = keys.0.into_iter().partition::<Vec<_>, _>(|key| can_lend && is_lendable(shared, key));
    // They stay in place until the caller says that it has them, or is gone.
    let loan = match shared.python().filter(|_| !lendable.is_empty()) {
        Some(python) => lending::lend(python, lendable).await.ok(),
        None => None,
    };
    let (lent, _loan) = loan.unzip();
    let mut data = shared.payloads(&sent).await;
    let rest = match held {
        Some((key, held)) => take_rest(comm, &mut data, &key, held).await,
        None => None,
    };
    let resumable = rest.is_some() || data.iter().any(|(_, payload)| payload.len() >= HELD_BYTES_MIN);
    let reply = Reply { status: "OK", rest, data: Pairs(data), lent, resumable };
    if let Err(error) = comm.send_value(&reply).await {
        debug!(peer = %comm.peer(), %error, "could not send values");
        return Answer::Close;
    }
    match comm.recv().await {
        Ok(message) if message.is_ok() => Answer::Done,
        Ok(_) => {
            warn!(target: "distributed.worker", peer = %comm.peer(), "values were not acknowledged with OK; closing the connection");
            Answer::Close
        }
        Err(_) => Answer::Close,
    }
}

/// Takes a value out of what is to be sent if the caller has its beginning; what it needs instead.
async fn take_rest(comm: &Comm, data: &mut Vec<(Key, Payload)>, key: &Key, held: Held) -> Option<Payload> {
    let at = data.iter().position(|(there, _)| there == key)?;
    // What the caller holds is what went over the wire, where it may have been compressed.
    let sent = comm.as_sent(Message::encode(&data[at].1).ok()?).await;
    let rest = tokio::task::spawn_blocking(move || rest_of(&sent.frames()[1..], &held)).await.ok()??;
    data.remove(at);
    Some(Payload::serialized(NATIVE_SERIALIZER, None, rest))
}

/// Whether a value is worth it, and in the Python process alone.
fn is_lendable(shared: &Shared, key: &Key) -> bool {
    shared.store.get(key).is_some_and(|stored| stored.is_only_in_python() && stored.nbytes >= LENT_BYTES_MIN)
}

fn limit(shared: &Shared, peer: &Address) -> u64 {
    if shared.status() == WorkerStatus::Paused {
        TRANSFERS_PAUSED_MAX
    } else if peer.host() == shared.identity.address.host() {
        TRANSFERS_MAX * SAME_HOST_FACTOR
    } else {
        TRANSFERS_MAX
    }
}
