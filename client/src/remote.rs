//! Remote exceptions as text. They are pickles made by Python or by our workers; nothing is unpickled here.

use bytes::Bytes;
use dask_protocol::{Value, pickle};

/// `Class('message')` of a remote exception, as far as it can be read without executing it.
pub(crate) fn describe(exception: &Value) -> String {
    let pickled = match exception {
        Value::Str(text) => return text.clone(),
        Value::Bin(bytes) => Some(bytes.clone()),
        Value::Payload(payload) => payload.logical_frames().ok().and_then(|frames| frames.into_iter().next()),
        _ => None,
    };
    pickled.and_then(|p: Bytes| pickle::describe_exception(&p)).unwrap_or_else(|| "an exception that Rust cannot read".to_owned())
}
