//! Why a request cannot be answered, as the exception its caller gets.

use dask_protocol::message::{ErrorInfo, ErrorReply, Message};
use dask_protocol::pickle::{PickledException, builtin_exception, timeout_error};
use dask_protocol::{Address, CommError, DecodeError, Value};
use serde::Serialize;
use tracing::warn;

use crate::graph::helper::HelperError;

/// The answer to a request: a packed reply, or the exception instead.
pub(crate) type Reply = Result<Message, Failure>;

/// Packs a reply.
pub(crate) fn reply<T: Serialize + ?Sized>(body: &T) -> Reply {
    Message::encode(body).map_err(|error| Failure::builtin("RuntimeError", &error.to_string()))
}

/// The reply that says nothing, `None` in Python.
pub(crate) fn nil() -> Reply {
    reply(&())
}

/// A request that failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An exception of ours.
    Raised(PickledException),
    /// A peer's error reply, passed on as it came.
    Relayed(Message),
}

impl Failure {
    /// A builtin exception of Python.
    pub(crate) fn builtin(class: &str, message: &str) -> Failure {
        Failure::Raised(builtin_exception(class, message))
    }

    /// `ValueError`.
    pub(crate) fn value(message: impl AsRef<str>) -> Failure {
        Failure::builtin("ValueError", message.as_ref())
    }

    /// `RuntimeError`.
    pub(crate) fn runtime(message: impl AsRef<str>) -> Failure {
        Failure::builtin("RuntimeError", message.as_ref())
    }

    /// `KeyError`.
    pub(crate) fn key(message: impl AsRef<str>) -> Failure {
        Failure::builtin("KeyError", message.as_ref())
    }

    /// `TimeoutError`.
    pub(crate) fn timeout(message: impl AsRef<str>) -> Failure {
        Failure::Raised(timeout_error(message.as_ref()))
    }

    /// `NotImplementedError` for what this scheduler cannot do.
    pub(crate) fn unsupported(message: impl AsRef<str>) -> Failure {
        Failure::builtin("NotImplementedError", message.as_ref())
    }

    /// The reply that carries it to this peer, which asked for `op`; exceptions of ours are logged.
    pub(crate) fn tell(self, op: &str, peer: &Address) -> Message {
        if let Failure::Raised(exception) = &self {
            warn!(target: "distributed.core", "Exception while handling op {op} from {peer}: {}", exception.text);
        }
        self.into_message()
    }

    /// The reply that carries it.
    pub(crate) fn into_message(self) -> Message {
        match self {
            Failure::Relayed(message) => message,
            Failure::Raised(PickledException { pickle, text }) => {
                Message::encode(&ErrorReply::uncaught(pickle, text)).expect("an error reply always packs")
            }
        }
    }
}

/// What to tell in a log.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Raised(exception) => f.write_str(&exception.text),
            Failure::Relayed(message) => {
                let text = message
                    .decode::<Value>()
                    .ok()
                    .and_then(|reply| Some(reply.get("exception_text")?.as_str()?.to_owned()));
                f.write_str(text.as_deref().unwrap_or("an exception without text"))
            }
        }
    }
}

/// Arguments that do not fit are a `TypeError`, as in Python.
impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Failure {
        Failure::builtin("TypeError", &format!("wrong arguments: {error}"))
    }
}

/// A peer that could not be reached is an `OSError`.
impl From<CommError> for Failure {
    fn from(error: CommError) -> Failure {
        match error {
            CommError::Timeout { .. } => Failure::timeout(error.to_string()),
            CommError::Encode(_) | CommError::Decode(_) | CommError::Remote { .. } => {
                Failure::runtime(error.to_string())
            }
            CommError::Closed { .. }
            | CommError::Connect { .. }
            | CommError::Address { .. }
            | CommError::Io(_)
            | CommError::Handshake { .. }
            | CommError::Tls(_) => Failure::builtin("OSError", &error.to_string()),
        }
    }
}

/// What Python beside the scheduler raised is passed on; anything else about it is a `RuntimeError`.
impl From<HelperError> for Failure {
    fn from(error: HelperError) -> Failure {
        match error {
            HelperError::Raised(info) => Failure::Relayed(
                Message::encode(&raised("uncaught-error", *info)).expect("an error reply always packs"),
            ),
            HelperError::NoPython(_) | HelperError::Died(_) | HelperError::Environment(_) | HelperError::Answer(_) => {
                Failure::runtime(error.to_string())
            }
        }
    }
}

/// An exception of Python's as a reply.
pub(crate) fn raised(status: &str, error: ErrorInfo) -> ErrorReply {
    ErrorReply {
        status: status.to_owned(),
        exception: error.exception,
        traceback: error.traceback,
        exception_text: error.exception_text.to_string(),
        traceback_text: error.traceback_text.to_string(),
    }
}

/// The driver is gone: the scheduler closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SchedulerClosed;

impl From<SchedulerClosed> for Failure {
    fn from(_: SchedulerClosed) -> Failure {
        Failure::runtime("the scheduler is closing")
    }
}
