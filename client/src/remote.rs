//! Remote exceptions as text. They are pickles made by Python or by our workers; nothing is unpickled here.

use dask_protocol::Value;
use dask_protocol::pickle::{Opaque, PickleValue, loads_plain};

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

/// Python pickles exceptions through tblib's `unpickle_exception(class, args, ...)`; ours name the class directly.
fn describe_object(object: &Opaque) -> String {
    if object.name == "unpickle_exception"
        && let [PickleValue::Opaque(class), PickleValue::Tuple(args), ..] = object.args.as_slice()
    {
        return with_message(&class.name, args);
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
