//! Reading small pickled fields (`annotations`, `code`, `span_metadata`) as plain values.

use bytes::Bytes;

use super::error::PickleError;
use super::value::PickleValue;

/// Reads a small pickle. Objects that only Python can build are kept as [`PickleValue::Opaque`].
///
/// # Errors
/// [`PickleError`] when the bytes are malformed, over a limit, recursive, or hold an integer beyond 64 bits.
pub fn loads_plain(_pickle: &Bytes, _buffers: &[Bytes]) -> Result<PickleValue, PickleError> {
    Err(PickleError::unsupported("plain fields are not read yet"))
}
