//! The first message each way, and the compression it may bring.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::compression::Compression;
use crate::error::{CommError, DecodeError};
use crate::message::Message;
use crate::payload::Payload;
use crate::value::Value;

/// Highest pickle protocol we forward and write.
const PICKLE_PROTOCOL: u8 = 5;
/// A Python version for peers that print it; nothing compares it.
const PYTHON_VERSION: [u8; 3] = [3, 11, 0];

#[derive(Serialize)]
struct Hello<'a> {
    compression: Option<&'static str>,
    python: [u8; 3],
    #[serde(rename = "pickle-protocol")]
    pickle_protocol: u8,
    #[serde(rename = "dask-rs-host", skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
}

/// The fields we read of a peer's handshake. The first two are required, as upstream requires them.
#[derive(Deserialize)]
struct PeerHello {
    compression: Value,
    #[serde(rename = "pickle-protocol")]
    pickle_protocol: u8,
    #[serde(default, rename = "dask-rs-host")]
    host: Value,
}

/// What we say of ourselves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Offer<'a> {
    pub(super) compression: Option<Compression>,
    /// See [`CommConfig::host`](super::CommConfig::host).
    pub(super) host: Option<&'a str>,
}

/// What both ends can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Agreement {
    pub(super) compression: Option<Compression>,
    /// Whether they are on one machine, and both said so.
    pub(super) same_host: bool,
}

/// Our handshake.
pub(super) fn hello(offer: Offer<'_>) -> Result<Message, CommError> {
    let compression = offer.compression.map(Compression::name);
    let (python, pickle_protocol, host) = (PYTHON_VERSION, PICKLE_PROTOCOL, offer.host);
    Message::encode(&Hello { compression, python, pickle_protocol, host })
}

/// The common ground of our offer and the peer's handshake.
pub(super) fn agree(offer: Offer<'_>, theirs: &Message, peer: &Address) -> Result<Agreement, CommError> {
    let theirs: PeerHello = theirs.decode().map_err(|e| CommError::Handshake {
        peer: peer.as_str().to_owned(),
        reason: format!("not a dask.distributed handshake ({e})"),
    })?;
    tracing::trace!(%peer, pickle_protocol = theirs.pickle_protocol, "handshake");
    let compression = offer.compression.filter(|ours| theirs.compression.as_str() == Some(ours.name()));
    let same_host = offer.host.is_some_and(|ours| theirs.host.as_str() == Some(ours));
    Ok(Agreement { compression, same_host })
}

/// The message with its payload frames compressed, or `None` where no frame gets smaller or the message is too unusual
/// to be taken apart: then it travels as it is.
pub(super) fn compress(message: &Message, compression: Compression) -> Option<Message> {
    let mut body: Value = message.decode().ok()?;
    let any = compress_value(&mut body, compression).ok()?;
    if any { Message::encode(&body).ok() } else { None }
}

fn compress_value(value: &mut Value, compression: Compression) -> Result<bool, DecodeError> {
    match value {
        Value::Payload(payload) => match compress_payload(payload, compression)? {
            Some(smaller) => {
                *payload = smaller;
                Ok(true)
            }
            None => Ok(false),
        },
        Value::Array(items) | Value::Set(items) => {
            items.iter_mut().try_fold(false, |any, item| Ok(any | compress_value(item, compression)?))
        }
        Value::Map(entries) => {
            entries.iter_mut().try_fold(false, |any, (_, item)| Ok(any | compress_value(item, compression)?))
        }
        Value::Nil
        | Value::Bool(_)
        | Value::Int(_)
        | Value::UInt(_)
        | Value::Float(_)
        | Value::Str(_)
        | Value::Bin(_)
        | Value::Enum(_) => Ok(false),
    }
}

/// Compresses the frames that are not compressed yet, and says so in the sub-header.
fn compress_payload(payload: &Payload, compression: Compression) -> Result<Option<Payload>, DecodeError> {
    let mut names = payload.sub_header()?.compression.unwrap_or_default();
    names.resize(payload.frames().len(), None);
    let mut frames = payload.frames().to_vec();
    let mut any = false;
    for (frame, name) in frames.iter_mut().zip(&mut names).filter(|(_, name)| name.is_none()) {
        if let Some(smaller) = compression.compress(frame) {
            (*frame, *name, any) = (smaller, Some(compression.name().to_owned()), true);
        }
    }
    if !any {
        return Ok(None);
    }
    let mut header: Value = rmp_serde::from_slice(payload.header())?;
    let names = names.into_iter().map(|name| name.map_or(Value::Nil, |name| Value::from(name.as_str()))).collect();
    set_entry(&mut header, "compression", Value::Array(names));
    let header = rmp_serde::to_vec_named(&header).map_err(|e| DecodeError::Body(e.to_string()))?;
    Ok(Some(Payload::from_raw(payload.kind(), Bytes::from(header), frames)))
}

fn set_entry(map: &mut Value, name: &str, value: Value) {
    let Value::Map(entries) = map else { return };
    match entries.iter_mut().find(|(key, _)| key.as_str() == Some(name)) {
        Some((_, slot)) => *slot = value,
        None => entries.push((Value::from(name), value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_needs_the_same_name_on_both_sides() {
        let peer = Address::new("tcp://10.0.0.1:1");
        let hello = |compression| hello(Offer { compression, host: None }).expect("packs");
        let (lz4, none) = (hello(Some(Compression::Lz4)), hello(None));
        let agreed = |compression, theirs: &Message| {
            agree(Offer { compression, host: None }, theirs, &peer).expect("valid").compression
        };
        assert_eq!(agreed(Some(Compression::Lz4), &lz4), Some(Compression::Lz4));
        assert_eq!(agreed(Some(Compression::Zstd), &lz4), None);
        assert_eq!(agreed(Some(Compression::Lz4), &none), None);
        assert_eq!(agreed(None, &lz4), None);
    }

    #[test]
    fn a_host_is_shared_if_both_say_so() {
        let peer = Address::new("tcp://127.0.0.1:1");
        let offer = |host| Offer { compression: None, host };
        let same =
            |ours, theirs| agree(offer(ours), &hello(offer(theirs)).expect("packs"), &peer).expect("valid").same_host;
        assert!(same(Some("a"), Some("a")));
        assert!(!same(Some("a"), Some("b")));
        assert!(!same(Some("a"), None));
        assert!(!same(None, Some("a")));
        assert!(!same(None, None));
    }

    #[test]
    fn a_peer_that_speaks_something_else_is_refused() {
        let peer = Address::new("tcp://10.0.0.1:1");
        for body in
            [Value::Nil, Value::map([("pickle-protocol", Value::Int(5))]), Value::map([("compression", Value::Nil)])]
        {
            let message = Message::encode(&body).expect("packs");
            assert!(matches!(agree(Offer::default(), &message, &peer), Err(CommError::Handshake { .. })), "{body:?}");
        }
    }

    #[test]
    fn compressed_payloads_still_hold_their_data_and_are_not_compressed_twice() {
        let data = Bytes::from(vec![3; 100_000]);
        let payload = Payload::serialized_pickle(Bytes::from_static(b"N."), vec![data.clone()]);
        let message = Message::encode(&Value::map([("x", Value::Payload(payload))])).expect("packs");
        let smaller = compress(&message, Compression::Lz4).expect("shrinks");
        assert!(smaller.len() < 10_000);
        let body: Value = smaller.decode().expect("well-formed");
        let Some(Value::Payload(payload)) = body.get("x") else { panic!("a payload") };
        assert_eq!(payload.logical_frames().expect("expands"), [Bytes::from_static(b"N."), data]);
        assert!(compress(&smaller, Compression::Lz4).is_none());
    }
}
