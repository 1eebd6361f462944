//! Finding the parts of a message body without decoding it: the elements of a batch and the `op` of each.

use crate::error::DecodeError;

/// Deepest nesting the scanner follows.
pub const SCAN_DEPTH_MAX: usize = 256;

/// A cursor over msgpack bytes. All reads are bounds-checked; nothing is allocated from a peer's count.
struct Cursor<'a> {
    rest: &'a [u8],
}

fn truncated() -> DecodeError {
    DecodeError::Body("message body ends early".to_owned())
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or_else(truncated)?;
        self.rest = tail;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    fn uint(&mut self, width: usize) -> Result<usize, DecodeError> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().fold(0, |n, &b| (n << 8) | usize::from(b)))
    }

    /// The next value's head: what it is, and how many bytes or inner values follow.
    fn head(&mut self) -> Result<Head, DecodeError> {
        let marker = self.byte()?;
        Ok(match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Head::Scalar(0),
            0x80..=0x8f => Head::Map(usize::from(marker & 0x0f)),
            0x90..=0x9f => Head::Array(usize::from(marker & 0x0f)),
            0xa0..=0xbf => Head::Str(usize::from(marker & 0x1f)),
            0xc1 => return Err(DecodeError::Body("reserved msgpack marker 0xc1".to_owned())),
            0xc4 => Head::Scalar(self.uint(1)?),
            0xc5 => Head::Scalar(self.uint(2)?),
            0xc6 => Head::Scalar(self.uint(4)?),
            0xc7 => Head::Scalar(self.uint(1)? + 1),
            0xc8 => Head::Scalar(self.uint(2)? + 1),
            0xc9 => Head::Scalar(self.uint(4)? + 1),
            0xca | 0xce | 0xd2 => Head::Scalar(4),
            0xcb | 0xcf | 0xd3 => Head::Scalar(8),
            0xcc | 0xd0 => Head::Scalar(1),
            0xcd | 0xd1 => Head::Scalar(2),
            0xd4 => Head::Scalar(2),
            0xd5 => Head::Scalar(3),
            0xd6 => Head::Scalar(5),
            0xd7 => Head::Scalar(9),
            0xd8 => Head::Scalar(17),
            0xd9 => Head::Str(self.uint(1)?),
            0xda => Head::Str(self.uint(2)?),
            0xdb => Head::Str(self.uint(4)?),
            0xdc => Head::Array(self.uint(2)?),
            0xdd => Head::Array(self.uint(4)?),
            0xde => Head::Map(self.uint(2)?),
            0xdf => Head::Map(self.uint(4)?),
        })
    }

    fn skip(&mut self, depth: usize) -> Result<(), DecodeError> {
        if depth > SCAN_DEPTH_MAX {
            return Err(DecodeError::TooLarge {
                what: "nesting of the message body",
                actual: depth as u64,
                limit: SCAN_DEPTH_MAX as u64,
            });
        }
        match self.head()? {
            Head::Scalar(n) | Head::Str(n) => self.take(n).map(drop),
            Head::Array(n) => (0..n).try_for_each(|_| self.skip(depth + 1)),
            Head::Map(n) => (0..2 * n).try_for_each(|_| self.skip(depth + 1)),
        }
    }

    fn text(&mut self) -> Result<Option<&'a str>, DecodeError> {
        let mut probe = Cursor { rest: self.rest };
        match probe.head()? {
            Head::Str(n) => {
                let text = std::str::from_utf8(probe.take(n)?).ok();
                self.rest = probe.rest;
                Ok(text)
            }
            Head::Scalar(_) | Head::Array(_) | Head::Map(_) => {
                self.skip(0)?;
                Ok(None)
            }
        }
    }
}

enum Head {
    Scalar(usize),
    Str(usize),
    Array(usize),
    Map(usize),
}

/// What a message body is, seen from outside.
#[derive(Debug, PartialEq)]
pub enum Shape<'a> {
    /// A map: one request, or one stream element.
    Map,
    /// An array: the raw bytes of each element.
    Batch(Vec<&'a [u8]>),
    /// A text such as the `"OK"` that acknowledges a transfer.
    Text(&'a str),
    /// Anything else.
    Other,
}

/// Looks at the outermost value of a body.
///
/// # Errors
/// [`DecodeError`] when the bytes are not one well-formed msgpack value.
pub fn shape(body: &[u8]) -> Result<Shape<'_>, DecodeError> {
    let mut cursor = Cursor { rest: body };
    match cursor.head()? {
        Head::Map(_) => Ok(Shape::Map),
        Head::Scalar(_) => Ok(Shape::Other),
        Head::Str(n) => {
            std::str::from_utf8(cursor.take(n)?).map(Shape::Text).map_err(|e| DecodeError::Body(e.to_string()))
        }
        Head::Array(n) => {
            let mut elements = Vec::new();
            for _ in 0..n {
                let before = cursor.rest;
                cursor.skip(1)?;
                elements.push(&before[..before.len() - cursor.rest.len()]);
            }
            Ok(Shape::Batch(elements))
        }
    }
}

/// The text under `name` in a map's bytes, without decoding the rest.
///
/// # Errors
/// [`DecodeError`] when the bytes are not a well-formed msgpack map.
pub fn text_field<'a>(map: &'a [u8], name: &str) -> Result<Option<&'a str>, DecodeError> {
    let mut cursor = Cursor { rest: map };
    let Head::Map(n) = cursor.head()? else {
        return Err(DecodeError::Body("expected a map".to_owned()));
    };
    for _ in 0..n {
        let key = cursor.text()?;
        if key == Some(name) {
            return cursor.text();
        }
        cursor.skip(1)?;
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

    #[test]
    fn finds_ops_and_elements() {
        let body = rmp_serde::to_vec_named(&serde_json_like()).expect("packs");
        let Shape::Batch(elements) = shape(&body).expect("well-formed") else { panic!("a batch") };
        assert_eq!(elements.len(), 2);
        assert_eq!(op(elements[0]).expect("has op"), "first");
        assert_eq!(op(elements[1]).expect("has op"), "second");
    }

    fn serde_json_like() -> crate::Value {
        use crate::Value;
        Value::Array(vec![
            Value::Map(vec![
                (Value::Array(vec![1.into(), Value::Nil]), Value::from(0.5)),
                ("op".into(), "first".into()),
            ]),
            Value::map([("data", Value::Bin(vec![0; 300].into())), ("op", "second".into())]),
        ])
    }

    #[test]
    fn garbage_is_an_error_not_a_panic() {
        for body in [&b"\xdd\xff\xff\xff\xff"[..], b"\xc1", b"", b"\xdb\xff\xff\xff\xff"] {
            assert!(shape(body).is_err(), "{body:?}");
        }
        let deep = vec![0x91; 100_000];
        assert!(shape(&deep).is_err());
    }
}
