//! A message that came whole, given out in parts.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::error::DecodeError;
use crate::frame::MessageHead;
use crate::message::Message;

/// Frames of a message whose head was taken.
#[derive(Debug, Default)]
pub(super) struct Parts(VecDeque<Bytes>);

impl Parts {
    /// Sets the frames of a message aside, to be taken one after the other.
    pub(super) fn take_apart(&mut self, message: &Message) -> MessageHead {
        let (body, rest) = message.frames().split_first().expect("a message has a body");
        self.0 = rest.iter().cloned().collect();
        MessageHead { body: body.clone(), lengths: rest.iter().map(Bytes::len).collect() }
    }

    /// The whole message again, if nothing of it was taken.
    pub(super) fn put_together(&mut self, head: MessageHead) -> Result<Message, DecodeError> {
        let untouched = self.0.iter().map(Bytes::len).eq(head.lengths.iter().copied());
        if !untouched {
            return Err(DecodeError::FrameTable("some frames of the message were taken already"));
        }
        Ok(Message::from_frames(std::iter::once(head.body).chain(self.0.drain(..)).collect()))
    }

    /// The next part of those frames.
    pub(super) fn next(&mut self, bytes_max: usize) -> Option<Bytes> {
        while self.0.front().is_some_and(Bytes::is_empty) {
            self.0.pop_front();
        }
        let frame = self.0.front_mut()?;
        let part = frame.split_to(frame.len().min(bytes_max.max(1)));
        if frame.is_empty() {
            self.0.pop_front();
        }
        Some(part)
    }
}
