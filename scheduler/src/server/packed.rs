//! Values kept for long, as the bytes of a message.

use bytes::Bytes;
use dask_protocol::Value;
use dask_protocol::message::Message;

/// A value in its packed form. A slice of a received buffer would keep all of that buffer: nothing in here is one.
#[derive(Debug, Clone)]
pub(crate) struct Packed(Message);

impl Packed {
    /// Packs a value. One that cannot be packed is kept as the text that says so.
    pub(crate) fn new(value: &Value) -> Packed {
        let packed = Message::encode(value).or_else(|error| Message::encode(&format!("<not kept: {error}>")));
        let frames = packed.map(|message| message.frames().iter().map(|frame| Bytes::copy_from_slice(frame)).collect());
        Packed(Message::from_frames(frames.unwrap_or_default()))
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value.
    pub(crate) fn unpack(&self) -> Value {
        self.0.decode().unwrap_or_else(|error| Value::from(format!("<not kept: {error}>")))
    }
}

#[cfg(test)]
mod tests {
    use dask_protocol::Payload;

    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_as_it_was() {
        let payload = Payload::pickled(Bytes::from_static(b"pickle"), vec![Bytes::from_static(b"buffer")]);
        let value = Value::map([
            ("text", "x".into()),
            ("payload", payload.into()),
            ("bytes", Value::Bin(Bytes::from_static(b"\x00"))),
        ]);
        assert_eq!(Packed::new(&value).unpack(), value);
    }

    #[test]
    fn what_nests_too_deep_to_be_read_again_says_so() {
        let deep = (0..200).fold(Value::Nil, |value, _| Value::Array(vec![value]));
        assert!(Packed::new(&deep).unpack().as_str().is_some_and(|text| text.contains("nested deeper")));
    }

    #[test]
    fn a_buffer_is_not_kept_for_a_part_of_it() {
        let buffer = Bytes::from(vec![7; 1 << 20]);
        let packed = Packed::new(&Value::Payload(Payload::pickled(Bytes::new(), vec![buffer.slice(..1)])));
        assert!(buffer.is_unique(), "only this test has it: {packed:?}");
    }
}
