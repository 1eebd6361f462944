//! Remote exceptions as text. They are pickles made by Python or by our workers; nothing is unpickled here.

use dask_protocol::pickle::{Opaque, PickleValue, loads_plain};
use dask_protocol::{Key, Value};

use crate::error::TaskError;

/// Why a task failed, as its `task-erred` tells.
pub(crate) fn failure(key: &Key, exception: &Value, traceback: &Value) -> TaskError {
    let exception = describe(exception);
    if let Some(reason) = exception.strip_prefix("KilledWorker") {
        return TaskError::WorkersLost { key: key.clone(), reason: reason.trim_start_matches(": ").to_owned() };
    }
    let backtrace = traceback.as_str().map(str::to_owned);
    TaskError::Failed { key: key.clone(), exception, backtrace }
}

/// `Class: message` of a remote exception, as far as it can be read without executing it.
pub(crate) fn describe(exception: &Value) -> String {
    let pickled = match exception {
        Value::Str(text) => return text.clone(),
        Value::Bin(bytes) => Some(bytes.clone()),
        Value::Payload(payload) => payload.logical_frames().ok().and_then(|frames| frames.into_iter().next()),
        _ => None,
    };
    let value = pickled.and_then(|bytes| loads_plain(&bytes, &[]).ok());
    match value {
        Some(PickleValue::Opaque(object)) => describe_object(&object),
        Some(_) | None => "an exception that only Python can read".to_owned(),
    }
}

/// Python pickles exceptions through tblib, as a call with the class and its arguments, or with the class and a dict of its
/// attributes; ours name the class directly.
fn describe_object(object: &Opaque) -> String {
    if object.name.starts_with("unpickle_exception")
        && let [PickleValue::Opaque(class), state, ..] = object.args.as_slice()
    {
        let args = state.get("args").unwrap_or(state);
        return with_message(&class.name, args.as_items().unwrap_or_default());
    }
    with_message(&object.name, &object.args)
}

fn with_message(class: &str, args: &[PickleValue]) -> String {
    match args {
        [] => class.to_owned(),
        [PickleValue::Str(message)] => format!("{class}: {message}"),
        args => {
            let texts: Vec<String> = args.iter().map(|arg| format!("{:?}", arg.to_value())).collect();
            format!("{class}({})", texts.join(", "))
        }
    }
}
