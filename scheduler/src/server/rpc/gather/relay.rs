//! A reply that is sent while its values still come from workers.
//!
//! The table at the head of a message has the lengths of all its frames, and workers' answers begin with theirs. So the
//! reply's table is known before any value is; then the frames follow, one worker's value after another's, through a few
//! small buffers. Once the table is sent, a worker that is lost can only be told of by cutting the connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dask_protocol::comm::Comm;
use dask_protocol::message::{Message, Pairs};
use dask_protocol::{CommError, Key, Payload, PayloadKind, Value};
use serde::{Serialize, Serializer};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;
use tracing::warn;

use super::fetch::{Coming, Frames};
use crate::server::shared::Server;

/// What one reply has on its way, in bytes, for all its workers; each has three buffers.
const RELAY_BYTES_MAX: usize = 8 << 20;
/// Bytes of one buffer: no less than a system call is worth, no more than needed to keep both ends busy.
const PART_BYTES: std::ops::Range<usize> = 16 << 10..256 << 10;
/// A worker whose turn does not come is read a little from this often: its system gives a connection up that takes nothing
/// for `distributed.comm.timeouts.tcp`, 30 s.
const SIP_INTERVAL: Duration = Duration::from_secs(10);
/// How much is read then: more than a sixteenth of the largest receive buffer (6 MiB), below which a full one stays closed.
const SIP_BYTES: usize = 512 << 10;
/// How much may come of one worker in this way: 5 minutes' worth. After that it may give up.
const SIPS_BYTES_MAX: usize = 16 << 20;

/// Where the frames of values that are still to come will be in a message being packed.
static MARK: [u8; 1] = [0];

/// One entry of the reply.
enum Entry {
    Here(Value),
    Coming(Frames),
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Entry::Here(value) => value.serialize(serializer),
            Entry::Coming(frames) => {
                let places = vec![Bytes::new(); frames.lengths.len() - 1];
                Payload::from_raw(PayloadKind::Serialized, Bytes::from_static(&MARK), places).serialize(serializer)
            }
        }
    }
}

#[derive(Serialize)]
struct Gathered {
    status: &'static str,
    data: Pairs<Key, Entry>,
}

/// What follows the body.
#[derive(Debug, PartialEq)]
enum Step {
    Frame(Bytes),
    /// So many bytes of the next value of this worker.
    From {
        worker: usize,
        bytes: u64,
    },
}

/// A reply that is ready to be sent.
pub(super) struct Relay {
    body: Bytes,
    lengths: Vec<usize>,
    steps: Vec<Step>,
    coming: Vec<Coming>,
    _held: Vec<OwnedSemaphorePermit>,
}

impl Relay {
    /// Lays out the reply: first what is here, then the others' values in turn, so that nobody waits for all of another's.
    pub(super) fn new(
        here: Vec<(Key, Value)>,
        mut coming: Vec<Coming>,
        held: Vec<OwnedSemaphorePermit>,
    ) -> Result<Relay, CommError> {
        let mut data: Vec<(Key, Entry)> = here.into_iter().map(|(key, value)| (key, Entry::Here(value))).collect();
        let mut queues: Vec<VecDeque<_>> =
            coming.iter_mut().map(|one| std::mem::take(&mut one.values).into()).collect();
        let mut turns = Vec::new();
        while queues.iter().any(|queue| !queue.is_empty()) {
            for (worker, queue) in queues.iter_mut().enumerate() {
                if let Some((key, frames)) = queue.pop_front() {
                    turns.push((worker, frames.lengths.clone()));
                    data.push((key, Entry::Coming(frames)));
                }
            }
        }
        let message = Message::encode(&Gathered { status: "OK", data: Pairs(data) })?;
        let (lengths, steps) = layout(&message, turns);
        Ok(Relay { body: message.body().clone(), lengths, steps, coming, _held: held })
    }

    /// Sends it.
    ///
    /// # Errors
    /// When the receiver or one of the workers is lost; the connection is then of no more use.
    pub(super) async fn send(self, server: &Arc<Server>, comm: &mut Comm) -> Result<(), CommError> {
        let part_bytes = (RELAY_BYTES_MAX / (3 * self.coming.len().max(1))).clamp(PART_BYTES.start, PART_BYTES.end);
        let mut sources: Vec<Source> =
            self.coming.into_iter().map(|one| Source::start(server, one, part_bytes)).collect();
        comm.begin(&self.lengths).await?;
        comm.write_part(self.body).await?;
        for step in self.steps {
            match step {
                Step::Frame(frame) => comm.write_part(frame).await?,
                Step::From { worker, bytes } => sources[worker].pass_on(bytes, comm).await?,
            }
        }
        Ok(())
    }
}

/// The lengths of all frames, and what is to be written after the body.
fn layout(message: &Message, turns: Vec<(usize, Vec<usize>)>) -> (Vec<usize>, Vec<Step>) {
    let (mut lengths, mut steps) = (vec![message.body().len()], Vec::new());
    let mut turns = turns.into_iter();
    let mut frames = message.frames()[1..].iter();
    while let Some(frame) = frames.next() {
        if frame.as_ptr() != MARK.as_ptr() {
            lengths.push(frame.len());
            steps.push(Step::Frame(frame.clone()));
            continue;
        }
        let (worker, real) = turns.next().expect("every mark was made for a turn");
        for _ in 1..real.len() {
            frames.next().expect("a mark is followed by its places");
        }
        steps.push(Step::From { worker, bytes: real.iter().map(|&length| length as u64).sum() });
        lengths.extend(real);
    }
    (lengths, steps)
}

/// One worker's answer, being read.
struct Source {
    parts: mpsc::Receiver<Result<Bytes, CommError>>,
    /// Of the part received last, what belongs to later values.
    left: Bytes,
}

impl Source {
    fn start(server: &Arc<Server>, coming: Coming, part_bytes: usize) -> Source {
        let (sender, parts) = mpsc::channel(1);
        tokio::spawn(read(Arc::clone(server), coming, part_bytes, sender));
        Source { parts, left: Bytes::new() }
    }

    async fn pass_on(&mut self, mut bytes: u64, comm: &mut Comm) -> Result<(), CommError> {
        while bytes > 0 {
            if self.left.is_empty() {
                // A reader that ends early has told why.
                let ended = || CommError::Closed { peer: "a worker that is being read from".to_owned() };
                self.left = self.parts.recv().await.unwrap_or_else(|| Err(ended()))?;
            }
            let now = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.left.len());
            comm.write_part(self.left.split_to(now)).await?;
            bytes -= now as u64;
        }
        Ok(())
    }
}

/// Reads an answer to its end, as fast as its parts are taken.
async fn read(server: Arc<Server>, coming: Coming, part_bytes: usize, parts: mpsc::Sender<Result<Bytes, CommError>>) {
    let Coming { worker, mut lease, .. } = coming;
    let (mut held, mut sipped) = (VecDeque::new(), 0);
    loop {
        let mut wanted = part_bytes;
        if !held.is_empty() {
            match timeout(SIP_INTERVAL, parts.reserve()).await {
                Ok(Ok(room)) => {
                    room.send(Ok(held.pop_front().expect("something is held")));
                    continue;
                }
                // Nobody takes them any more. The connection ends with the lease.
                Ok(Err(_)) => return,
                Err(_) if sipped < SIPS_BYTES_MAX => wanted = SIP_BYTES,
                Err(_) => continue,
            }
        }
        match server.while_there(&worker, lease.recv_rest(wanted)).await {
            Ok(Some(part)) => {
                sipped += if held.is_empty() { 0 } else { part.len() };
                held.push_back(part);
            }
            Ok(None) if held.is_empty() => break,
            Ok(None) => {}
            Err(error) => {
                warn!(target: "distributed.scheduler", "{worker} was lost while its results were passed on: {error}");
                // Nobody may be there to hear it.
                let _ = parts.send(Err(error)).await;
                return;
            }
        }
    }
    if lease.send_value("OK").await.is_ok() {
        lease.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_comes_first_and_then_each_worker_in_turn() {
        let payload =
            Payload::from_raw(PayloadKind::Serialized, Bytes::from_static(b"header"), vec![Bytes::from_static(b"xy")]);
        let coming = |lengths: &[usize]| Frames { lengths: lengths.to_vec() };
        let turns = vec![(0, vec![7, 100]), (1, vec![5]), (0, vec![7, 0, 9])];
        let data = Pairs(vec![
            (Key::from("here"), Entry::Here(payload.into())),
            (Key::from("a"), Entry::Coming(coming(&turns[0].1))),
            (Key::from("b"), Entry::Coming(coming(&turns[1].1))),
            (Key::from("c"), Entry::Coming(coming(&turns[2].1))),
        ]);
        let message = Message::encode(&Gathered { status: "OK", data }).expect("packs");
        let (lengths, steps) = layout(&message, turns);
        assert_eq!(lengths[1..], [6, 2, 7, 100, 5, 7, 0, 9]);
        let from = |worker, bytes| Step::From { worker, bytes };
        let here = [Step::Frame(Bytes::from_static(b"header")), Step::Frame(Bytes::from_static(b"xy"))];
        assert_eq!(steps[..2], here);
        assert_eq!(steps[2..], [from(0, 107), from(1, 5), from(0, 16)]);
        // The placeholders name the frames that the reader will find there.
        let body: Value = Message::from_frames(
            std::iter::once(message.body().clone())
                .chain(
                    message.frames()[1..].iter().enumerate().map(|(i, _)| Bytes::from(vec![0x81, 0xa1, b'i', i as u8])),
                )
                .collect(),
        )
        .decode()
        .expect("reads");
        let first = |key: &str| match body.get("data").and_then(|data| data.get(key)) {
            Some(Value::Payload(payload)) => payload.header()[3],
            other => panic!("{key}: {other:?}"),
        };
        assert_eq!(["here", "a", "b", "c"].map(first), [0, 2, 4, 5]);
    }
}
