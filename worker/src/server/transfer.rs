//! One transfer of values from a peer, over as many connections as it takes.

use std::sync::atomic::Ordering;

use dask_protocol::comm::pool::{Lease, check_reply};
use dask_protocol::message::Pairs;
use dask_protocol::partial::{Came, CutMessage, Held, PartialPayload, PayloadPlace};
use dask_protocol::{Address, CommError, Key, Payload, Value};
use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use super::shared::Shared;
use crate::executor::python::lending::{self, BorrowError, Borrowed};

/// How often in a row a transfer may be cut without bringing anything. The scheduler says so when the peer is gone.
const CUTS_MAX: usize = 3;

/// Less of a value than this is fetched once more: that is less work than for both ends to look at what is there.
pub(crate) const HELD_BYTES_MIN: usize = 1 << 20;

/// The acknowledgement that ends a transfer.
const ACKNOWLEDGEMENT: &str = "OK";

#[derive(Serialize)]
struct GetData<'a> {
    op: &'static str,
    reply: bool,
    keys: &'a [Key],
    who: &'a Address,
    /// Whether values may be left where they are, for us to copy them from there. Upstream's workers know no such word.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lend: bool,
    /// What is here of one of the values. Only for peers that said `resumable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<(&'a Key, Held)>,
}

#[derive(Deserialize)]
struct GetDataReply {
    status: String,
    #[serde(default)]
    data: Pairs<Key, Payload>,
    #[serde(default)]
    lent: Option<Value>,
    /// What was missing of the value that is here in part.
    #[serde(default)]
    rest: Option<Payload>,
}

/// The same, of which not all came.
#[derive(Deserialize)]
struct CutReply {
    data: Pairs<Key, PayloadPlace>,
    #[serde(default)]
    resumable: bool,
    #[serde(default)]
    rest: Option<PayloadPlace>,
}

/// Values on their way from a peer. What has come is kept when a connection breaks.
#[derive(Debug)]
pub(crate) struct Transfer {
    peer: Address,
    /// Those to ask for.
    keys: Vec<Key>,
    values: Vec<(Key, Payload)>,
    /// One that was cut.
    part: Option<(Key, PartialPayload)>,
    /// Whether values may come through memory.
    lend: bool,
}

/// How a transfer ended.
pub(crate) enum Ended {
    /// The peer has sent what it has, and lent the rest.
    Answered(Option<Borrowed>),
    /// The peer has too many transfers.
    Busy,
}

impl Transfer {
    /// Of these keys, for this worker's own use: some may come through memory.
    pub(crate) fn new(peer: Address, keys: Vec<Key>) -> Transfer {
        Transfer { peer, keys, values: Vec::new(), part: None, lend: true }
    }

    /// The same, in messages alone.
    pub(crate) fn in_messages(peer: Address, keys: Vec<Key>) -> Transfer {
        Transfer { lend: false, ..Transfer::new(peer, keys) }
    }

    /// What came, however it ended.
    pub(crate) fn into_values(self) -> Vec<(Key, Payload)> {
        self.values
    }

    /// Asks the peer and acknowledges, again where a connection is cut. May be called again after [`Ended::Busy`].
    pub(crate) async fn run(&mut self, shared: &Shared) -> Result<Ended, CommError> {
        let mut cuts = 0;
        loop {
            let before = self.nbytes();
            match self.attempt(shared).await {
                Ok(Some(ended)) => return Ok(ended),
                Ok(None) => self.ask_no_more_for_received(),
                Err(cut) if cut.is_cut() && !shared.is_closing() => {
                    cuts = if self.nbytes() > before { 1 } else { cuts + 1 };
                    if cuts > CUTS_MAX {
                        return Err(cut);
                    }
                    self.ask_no_more_for_received();
                    let (peer, missing, nbytes) = (&self.peer, self.keys.len(), self.nbytes());
                    warn!(target: "distributed.worker", "A transfer from {peer} was cut and goes on: {nbytes} bytes are here, {missing} keys are missing ({cut})");
                    // Its others may be dead as well.
                    shared.pool.remove(peer);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes that are here.
    fn nbytes(&self) -> usize {
        let whole: usize = self.values.iter().map(|(_, payload)| payload.len()).sum();
        whole + self.part.as_ref().map_or(0, |(_, part)| part.len())
    }

    /// One request; nothing when another has to follow.
    async fn attempt(&mut self, shared: &Shared) -> Result<Option<Ended>, CommError> {
        let mut lease = shared.pool.lease(&self.peer).await?;
        let can_borrow = self.lend && shared.borrows.load(Ordering::Relaxed) && lease.is_same_host();
        let python = shared.python().filter(|_| can_borrow);
        let Some(reply) = self.ask(&mut lease, &shared.identity.address, python.is_some()).await? else {
            lease.release();
            return Ok(Some(Ended::Busy));
        };
        self.values.extend(reply.data);
        if let (Some((key, part)), Some(rest)) = (self.part.take(), reply.rest) {
            self.values.push((key, part.finish(&rest)?));
        }
        let borrowed = match python.zip(reply.lent) {
            None => None,
            Some((python, lent)) => match lending::borrow(python, lent).await {
                Ok(borrowed) => Some(borrowed),
                Err(error) => {
                    // Without an acknowledgement the connection is of no more use, and the peer keeps nothing any more.
                    drop(lease);
                    if matches!(error, BorrowError::Refused(_)) {
                        shared.borrows.store(false, Ordering::Relaxed);
                    }
                    debug!(target: "distributed.worker", peer = %self.peer, %error, "values are not copied from the peer's memory, but sent");
                    self.lend = false;
                    return Ok(None);
                }
            },
        };
        match lease.send_value(ACKNOWLEDGEMENT).await {
            Ok(()) => lease.release(),
            Err(error) => debug!(peer = %self.peer, %error, "the peer left before its values were acknowledged"),
        }
        Ok(Some(Ended::Answered(borrowed)))
    }

    /// What the peer answers before the acknowledgement; `None` when it is busy.
    async fn ask(&mut self, lease: &mut Lease, who: &Address, lend: bool) -> Result<Option<GetDataReply>, CommError> {
        let held = match &self.part {
            Some((key, part)) => held(part.clone()).await.map(|held| (key, held)),
            None => None,
        };
        lease.send_value(&GetData { op: "get_data", reply: true, keys: &self.keys, who, lend, held }).await?;
        let message = match lease.recv().await {
            Ok(message) => message,
            Err(error) => {
                if let Some(cut) = lease.take_cut().filter(|_| error.is_cut()) {
                    self.salvage(cut);
                }
                return Err(error);
            }
        };
        check_reply("get_data", &self.peer, &message)?;
        let reply: GetDataReply = message.decode()?;
        match reply.status.as_str() {
            "busy" => Ok(None),
            "OK" => Ok(Some(reply)),
            other => {
                let text = format!("unexpected status {other:?}");
                Err(CommError::Remote { op: "get_data".to_owned(), peer: self.peer.as_str().to_owned(), text })
            }
        }
    }

    /// Keeps what has come of a reply.
    fn salvage(&mut self, mut cut: CutMessage) {
        let Some(CutReply { data, resumable, rest }) = cut.body() else { return };
        if let Some((key, part)) = self.part.take() {
            // It is the first thing in the message. Without a rest the peer's value is another one by now.
            match rest.map(|place| cut.payload(place)) {
                Some(Came::Whole(rest)) => self.values.extend(part.finish(&rest).ok().map(|whole| (key, whole))),
                Some(Came::Part(rest)) => self.part = Some((key, part.clone().extended(rest).unwrap_or(part))),
                Some(Came::Nothing) => self.part = Some((key, part)),
                None => {}
            }
        }
        for (key, place) in data {
            match cut.payload(place) {
                Came::Whole(payload) => self.values.push((key, payload)),
                Came::Part(part) if resumable && part.len() >= HELD_BYTES_MIN => self.part = Some((key, part)),
                Came::Part(_) | Came::Nothing => {}
            }
        }
    }

    fn ask_no_more_for_received(&mut self) {
        let received: FxHashSet<&Key> = self.values.iter().map(|(key, _)| key).collect();
        self.keys.retain(|key| !received.contains(key));
    }
}

/// What the peer is told of a part, which reads all of it; none when the runtime ends.
async fn held(part: PartialPayload) -> Option<Held> {
    tokio::task::spawn_blocking(move || part.held()).await.ok()
}
