//! What one worker answers: read whole while the window has room for it, else left on its connection.

use std::time::Duration;

use dask_protocol::comm::pool::Lease;
use dask_protocol::frame::MessageHead;
use dask_protocol::message::{Message, Pairs};
use dask_protocol::{Address, CommError, Key, Value};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::window::Window;
use crate::server::shared::Server;

/// How long a worker that has too many transfers is left alone.
const BUSY_PAUSE: Duration = Duration::from_millis(150);

/// Values that a worker has.
pub(super) enum Answer {
    /// They are here, and in the window until the permit is dropped.
    Here(Vec<(Key, Value)>, OwnedSemaphorePermit),
    /// Their frames are still to be read.
    Coming(Box<Coming>),
}

/// An answer of which only the beginning was read.
pub(super) struct Coming {
    pub(super) worker: Address,
    pub(super) lease: Lease,
    /// The values in the order of their frames.
    pub(super) values: Vec<(Key, Frames)>,
}

/// The frames of one value, header first.
#[derive(Debug, PartialEq)]
pub(super) struct Frames {
    pub(super) lengths: Vec<usize>,
}

impl Answer {
    /// The keys it has values of.
    pub(super) fn keys(&self) -> Vec<Key> {
        match self {
            Answer::Here(values, _) => values.iter().map(|(key, _)| key.clone()).collect(),
            Answer::Coming(coming) => coming.values.iter().map(|(key, _)| key.clone()).collect(),
        }
    }
}

/// Why nothing came from a worker.
pub(super) enum Failed {
    /// It raised an exception, here as its reply.
    Raised(Message),
    /// It could not be reached.
    Lost(CommError),
}

impl From<CommError> for Failed {
    fn from(error: CommError) -> Failed {
        Failed::Lost(error)
    }
}

#[derive(Serialize)]
struct GetData<'a> {
    op: &'static str,
    keys: &'a [Key],
    who: Option<&'a str>,
    reply: bool,
    #[serde(skip_serializing_if = "Value::is_nil")]
    serializers: &'a Value,
}

#[derive(Deserialize)]
struct Status {
    status: String,
}

#[derive(Deserialize)]
struct GotData {
    #[serde(default)]
    data: Pairs<Key, Value>,
}

/// The values that this worker has, waiting while it is busy with other transfers.
pub(super) async fn get_data(
    server: &Server,
    worker: &Address,
    keys: &[Key],
    serializers: &Value,
) -> Result<Answer, Failed> {
    let request = Message::encode(&GetData { op: "get_data", keys, who: None, reply: true, serializers })?;
    loop {
        let mut lease = server.pool.lease(worker).await?;
        lease.send(&request).await?;
        let head = lease.recv_head().await?;
        let body = Message::from_frames(vec![head.body.clone()]);
        let Status { status } = body.decode().map_err(CommError::from)?;
        match status.as_str() {
            "OK" => return answer(&server.window, worker, lease, head).await,
            "busy" => {
                lease.recv_whole(head).await?;
                lease.release();
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            _ => return Err(Failed::Raised(lease.recv_whole(head).await?)),
        }
    }
}

async fn answer(window: &Window, worker: &Address, mut lease: Lease, head: MessageHead) -> Result<Answer, Failed> {
    let permit = match (window.try_enter(head.rest_bytes()), outline(&head)) {
        (Some(permit), _) => permit,
        (None, Some(values)) => return Ok(Answer::Coming(Box::new(Coming { worker: worker.clone(), lease, values }))),
        // No worker in use answers like this: it waits for its turn, with whatever part of the window there is.
        (None, None) => window.enter(head.rest_bytes()).await,
    };
    let message = lease.recv_whole(head).await?;
    let GotData { data } = message.decode().map_err(CommError::from)?;
    lease.send_value("OK").await?;
    lease.release();
    Ok(Answer::Here(data.0, permit))
}

/// Which frames belong to which value, if all values are plain placeholders that share no frame.
fn outline(head: &MessageHead) -> Option<Vec<(Key, Frames)>> {
    #[derive(Deserialize)]
    struct Placeholder {
        #[serde(rename = "__Serialized__")]
        frame: usize,
    }
    #[derive(Deserialize)]
    struct Placeholders {
        data: Pairs<Key, Placeholder>,
    }
    let Placeholders { data } = Message::from_frames(vec![head.body.clone()]).decode().ok()?;
    let mut starts: Vec<(usize, Key)> = data.0.into_iter().map(|(key, at)| (at.frame, key)).collect();
    starts.sort_by_key(|(frame, _)| *frame);
    let ends: Vec<usize> = starts.iter().skip(1).map(|(frame, _)| *frame).chain([head.lengths.len() + 1]).collect();
    if starts.first()?.0 != 1 {
        return None;
    }
    let frames = |((start, key), end): ((usize, Key), usize)| {
        let lengths = head.lengths.get(start - 1..end - 1).filter(|lengths| !lengths.is_empty())?.to_vec();
        Some((key, Frames { lengths }))
    };
    starts.into_iter().zip(ends).map(frames).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dask_protocol::Payload;

    use super::*;

    fn head_of(data: Vec<(&str, Value)>) -> MessageHead {
        let reply = Value::map([("status", "OK".into()), ("data", Value::map(data))]);
        let message = Message::encode(&reply).expect("packs");
        let lengths = message.frames()[1..].iter().map(Bytes::len).collect();
        MessageHead { body: message.body().clone(), lengths }
    }

    fn payload(frames: &[usize]) -> Value {
        let frames = frames.iter().map(|&length| Bytes::from(vec![0; length])).collect();
        Payload::serialized("pickle", None, frames).into()
    }

    #[test]
    fn each_value_has_the_frames_up_to_the_next_one() {
        let outlined = outline(&head_of(vec![("x", payload(&[10, 20])), ("y", payload(&[]))])).expect("plain");
        assert_eq!(outlined.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), ["x".into(), "y".into()]);
        assert_eq!(outlined[0].1.lengths[1..], [10, 20]);
        assert_eq!(outlined[1].1.lengths.len(), 1);
    }

    #[test]
    fn answers_of_another_shape_have_no_outline() {
        assert!(outline(&head_of(vec![])).is_none());
        assert!(outline(&head_of(vec![("x", 5_i64.into())])).is_none());
        assert!(outline(&head_of(vec![("x", Value::Array(vec![payload(&[1])]))])).is_none());
        let twice = |at: [i64; 2]| {
            let placeholder = |at: i64| Value::map([("__Serialized__", at.into())]);
            let data = Value::map([("x", placeholder(at[0])), ("y", placeholder(at[1]))]);
            let body = rmp_serde::to_vec_named(&Value::map([("data", data)])).expect("packs").into();
            outline(&MessageHead { body, lengths: vec![1, 2] })
        };
        assert!(twice([1, 2]).is_some());
        assert!(twice([1, 1]).is_none() && twice([2, 3]).is_none() && twice([1, 9]).is_none());
    }
}
