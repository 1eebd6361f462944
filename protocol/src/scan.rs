//! Looking at a message body without decoding it: what it is, and single fields such as `op`.

use crate::error::DecodeError;
use crate::unpack::{Head, Unpacker};

/// What a message body is, seen from outside.
#[derive(Debug, PartialEq)]
pub enum Shape<'a> {
    /// A map: one request, or one stream element.
    Map,
    /// An array: elements of a stream.
    Batch,
    /// A text such as the `"OK"` that acknowledges a transfer.
    Text(&'a str),
    /// Anything else.
    Other,
}

/// Looks at the outermost value of a body, and no further.
///
/// # Errors
/// [`DecodeError`] when the bytes do not begin with a msgpack value.
pub fn shape(body: &[u8]) -> Result<Shape<'_>, DecodeError> {
    let mut cursor = Unpacker::new(body);
    Ok(match cursor.head()? {
        Head::Map(_) => Shape::Map,
        Head::Array(_) => Shape::Batch,
        Head::Str(len) => {
            Shape::Text(std::str::from_utf8(cursor.take(len)?).map_err(|e| DecodeError::Body(e.to_string()))?)
        }
        Head::Nil | Head::Bool(_) | Head::UInt(_) | Head::Int(_) | Head::Float(_) | Head::Bin(_) | Head::Ext(_) => {
            Shape::Other
        }
    })
}

/// The text under `name` in a map's bytes, without decoding the rest.
///
/// # Errors
/// [`DecodeError`] when the bytes are not a well-formed msgpack map as far as they are looked at.
pub fn text_field<'a>(map: &'a [u8], name: &str) -> Result<Option<&'a str>, DecodeError> {
    let mut cursor = Unpacker::new(map);
    let Head::Map(count) = cursor.head()? else {
        return Err(DecodeError::Body("expected a map".to_owned()));
    };
    for _ in 0..count {
        let key = cursor.text_or_skip()?;
        if key == Some(name.as_bytes()) {
            return Ok(cursor.text_or_skip()?.and_then(|text| std::str::from_utf8(text).ok()));
        }
        cursor.skip()?;
    }
    Ok(None)
}

/// The `op` of a request or stream element.
///
/// # Errors
/// [`DecodeError::MissingOp`] when there is none; [`DecodeError::Body`] when the bytes are not a map.
pub fn op(map: &[u8]) -> Result<&str, DecodeError> {
    text_field(map, "op")?.ok_or(DecodeError::MissingOp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    #[test]
    fn finds_ops_whatever_comes_before() {
        let packed = |value: &Value| rmp_serde::to_vec_named(value).expect("packs");
        let first = Value::Map(vec![
            (Value::Array(vec![1.into(), Value::Nil]), Value::from(0.5)),
            ("op".into(), "first".into()),
        ]);
        let second = Value::map([("data", Value::Bin(vec![0; 300].into())), ("op", "second".into())]);
        assert_eq!(op(&packed(&first)).expect("has op"), "first");
        assert_eq!(op(&packed(&second)).expect("has op"), "second");
        assert_eq!(shape(&packed(&first)).expect("a map"), Shape::Map);
        assert_eq!(shape(&packed(&Value::Array(vec![first]))).expect("an array"), Shape::Batch);
    }

    #[test]
    fn garbage_is_an_error_not_a_panic() {
        for body in [&b"\xc1"[..], b"", b"\xdb\xff\xff\xff\xff", b"\xdd\xff"] {
            assert!(shape(body).is_err(), "{body:?}");
        }
        let deep = [&[0x81][..], &vec![0x91; 100_000]].concat();
        assert!(op(&deep).is_err());
    }
}
