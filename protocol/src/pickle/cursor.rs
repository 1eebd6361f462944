//! The bytes of a pickle, taken one argument at a time.

use super::arena::Span;
use super::error::PickleError;
use super::opcode as op;

/// A position in a pickle shorter than [`PICKLE_BYTES_MAX`](super::reader::PICKLE_BYTES_MAX).
pub(crate) struct Cursor<'a> {
    pickle: &'a [u8],
    at: usize,
    opcode_at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(pickle: &'a [u8]) -> Cursor<'a> {
        Cursor { pickle, at: 0, opcode_at: 0 }
    }

    /// The next byte, as the opcode that errors and verbatim spans refer to.
    pub fn opcode(&mut self) -> Result<u8, PickleError> {
        self.opcode_at = self.at;
        self.byte()
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The opcode at hand with its argument.
    pub fn instruction(&self) -> Span {
        self.span_from(self.opcode_at)
    }

    /// The bytes of a span.
    pub fn bytes(&self, span: Span) -> &'a [u8] {
        &self.pickle[span.start as usize..][..span.len as usize]
    }

    /// An error at the opcode at hand.
    pub fn malformed(&self, reason: &'static str) -> PickleError {
        PickleError::Malformed { at: self.opcode_at, reason }
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, PickleError> {
        let byte = *self.pickle.get(self.at).ok_or_else(|| self.malformed("it ends before STOP"))?;
        self.at += 1;
        Ok(byte)
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.pickle.len());
        let end = end.ok_or_else(|| self.malformed("an argument is cut off"))?;
        let taken = &self.pickle[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        Ok(self.take(N)?.try_into().expect("took N bytes"))
    }

    /// What lies between `start` and here.
    fn span_from(&self, start: usize) -> Span {
        let narrow = |n| u32::try_from(n).expect("the pickle is shorter than PICKLE_BYTES_MAX");
        Span { start: narrow(start), len: narrow(self.at - start) }
    }

    /// The argument up to the next newline.
    pub fn line(&mut self) -> Result<Span, PickleError> {
        let start = self.at;
        let len = self.pickle[start..].iter().position(|&byte| byte == b'\n');
        let len = len.ok_or_else(|| self.malformed("a line is cut off"))?;
        self.at = start + len;
        let span = self.span_from(start);
        self.at += 1;
        Ok(span)
    }

    /// Like [`Cursor::line`], as text.
    pub fn line_text(&mut self) -> Result<&str, PickleError> {
        let span = self.line()?;
        let bytes = &self.pickle[span.start as usize..][..span.len as usize];
        std::str::from_utf8(bytes).map_err(|_| self.malformed("a line is not text"))
    }

    /// An argument that starts with its length.
    pub fn counted(&mut self, opcode: u8) -> Result<Span, PickleError> {
        let len = match opcode {
            op::SHORT_BINUNICODE | op::SHORT_BINBYTES | op::SHORT_BINSTRING => usize::from(self.byte()?),
            op::BINUNICODE | op::BINBYTES | op::BINSTRING => u32::from_le_bytes(self.array()?) as usize,
            _ => usize::try_from(u64::from_le_bytes(self.array()?)).unwrap_or(usize::MAX),
        };
        let start = self.at;
        self.take(len)?;
        Ok(self.span_from(start))
    }
}
