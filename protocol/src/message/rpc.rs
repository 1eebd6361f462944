//! Requests and replies outside the streams.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Message;
use crate::error::DecodeError;
use crate::scan;
use crate::value::Value;

/// One RPC as received: its `op` and reserved members are known, its arguments are decoded on demand.
#[derive(Debug, Clone)]
pub struct Request {
    message: Message,
    op: String,
    /// Whether the caller waits for a reply (default true).
    pub reply: bool,
    /// Whether to close the connection after replying.
    pub close: bool,
}

#[derive(serde::Deserialize)]
struct Reserved {
    #[serde(default = "yes")]
    reply: bool,
    #[serde(default)]
    close: bool,
}

fn yes() -> bool {
    true
}

impl Request {
    /// Reads the `op` and the reserved members.
    ///
    /// # Errors
    /// [`DecodeError`] when the message is not a map with an `op`.
    pub fn from_message(message: Message) -> Result<Request, DecodeError> {
        let op = scan::op(message.body())?.to_owned();
        let Reserved { reply, close } = message.decode()?;
        Ok(Request { message, op, reply, close })
    }

    /// What is asked for.
    pub fn op(&self) -> &str {
        &self.op
    }

    /// The arguments.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field that is missing or of the wrong type.
    pub fn args<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        self.message.decode()
    }

    /// The message itself, to forward it.
    pub fn message(&self) -> &Message {
        &self.message
    }
}

/// The reply that tells a caller its request failed; Python clients raise the exception in it.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize)]
pub struct ErrorReply {
    /// `uncaught-error` or `error`.
    pub status: String,
    /// A pickle (bare bytes or payload), or text.
    pub exception: Value,
    /// Nil, or a pickle.
    #[serde(default)]
    pub traceback: Value,
    /// `repr` of the exception.
    #[serde(default)]
    pub exception_text: String,
    /// The traceback as text.
    #[serde(default)]
    pub traceback_text: String,
}

impl ErrorReply {
    /// An `uncaught-error` whose exception is this pickle.
    pub fn uncaught(exception_pickle: impl Into<Value>, text: impl Into<String>) -> ErrorReply {
        ErrorReply {
            status: "uncaught-error".to_owned(),
            exception: exception_pickle.into(),
            traceback: Value::Nil,
            exception_text: text.into(),
            traceback_text: String::new(),
        }
    }
}
