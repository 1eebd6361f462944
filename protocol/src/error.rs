//! What can go wrong on the wire.

use crate::address::Address;

/// A peer sent bytes that are not what the protocol says. The connection that sent them is closed.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The body is not msgpack of the expected form.
    #[error("malformed message body: {0}")]
    Body(String),
    /// A placeholder or header points outside the message's frames.
    #[error("message refers to frame {index}, but has {count} frames")]
    MissingFrame {
        /// The frame referred to.
        index: u64,
        /// How many frames the message has.
        count: usize,
    },
    /// A length, count or depth beyond its limit.
    #[error("{what} is {actual}, over the limit of {limit}")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// What the peer sent.
        actual: u64,
        /// The named limit.
        limit: u64,
    },
    /// A frame prefix that contradicts the frame table.
    #[error("malformed frame table: {0}")]
    FrameTable(&'static str),
    /// A WebSocket frame that no dask peer sends.
    #[error("malformed WebSocket frame: {0}")]
    WebSocket(String),
    /// A compression this build does not know, or data it cannot expand.
    #[error("cannot decompress frame: {0}")]
    Compression(String),
    /// A message without the `op` that says what it is.
    #[error("message has no \"op\"")]
    MissingOp,
    /// A placeholder where a plain value was needed or the reverse.
    #[error("field {field}: expected {expected}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
}

impl From<rmp_serde::decode::Error> for DecodeError {
    fn from(error: rmp_serde::decode::Error) -> DecodeError {
        DecodeError::Body(error.to_string())
    }
}

/// A connection that could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum CommError {
    /// The peer closed the connection, or it was cut.
    #[error("connection to {peer} closed")]
    Closed {
        /// The peer's address as far as known.
        peer: String,
    },
    /// The peer could not be reached in time.
    #[error("could not connect to {address} within {seconds:.1} s: {reason}")]
    Connect {
        /// Where to.
        address: Address,
        /// The time allowed.
        seconds: f64,
        /// The last failure.
        reason: String,
    },
    /// An address that cannot be used.
    #[error("invalid address {address:?}: {reason}")]
    Address {
        /// The text given.
        address: String,
        /// Why not.
        reason: String,
    },
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The peer broke the protocol.
    #[error("protocol violation: {0}")]
    Decode(#[from] DecodeError),
    /// The handshake failed.
    #[error("handshake with {peer} failed: {reason}")]
    Handshake {
        /// The peer's address.
        peer: String,
        /// What was wrong.
        reason: String,
    },
    /// TLS set-up or verification failed.
    #[error("TLS: {0}")]
    Tls(String),
    /// A value of ours could not be packed.
    #[error("could not encode message: {0}")]
    Encode(String),
    /// The peer answered an RPC with an error.
    #[error("{op} at {peer} failed: {text}")]
    Remote {
        /// The operation called.
        op: String,
        /// The peer called.
        peer: String,
        /// The peer's exception text.
        text: String,
    },
    /// No answer in time.
    #[error("{what} timed out after {seconds:.1} s")]
    Timeout {
        /// What was waited for.
        what: String,
        /// The time allowed.
        seconds: f64,
    },
}

impl CommError {
    /// Whether the connection is to blame and not the peer: the same peer may be there over another one.
    pub fn is_cut(&self) -> bool {
        match self {
            CommError::Closed { .. } | CommError::Io(_) => true,
            CommError::Connect { .. }
            | CommError::Address { .. }
            | CommError::Decode(_)
            | CommError::Handshake { .. }
            | CommError::Tls(_)
            | CommError::Encode(_)
            | CommError::Remote { .. }
            | CommError::Timeout { .. } => false,
        }
    }
}
