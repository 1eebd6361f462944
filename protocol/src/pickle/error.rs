//! Why a pickle could not be read.

/// A pickle that is malformed, too large, or beyond what is read without Python.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// The bytes are not a pickle that any pickler writes.
    #[error("malformed pickle at byte {at}: {reason}")]
    Malformed {
        /// Offset of the offending opcode.
        at: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// A valid pickle that needs a Python interpreter to be understood.
    #[error("this pickle needs Python: {0}")]
    Unsupported(String),
    /// A size, count or depth beyond its limit.
    #[error("pickle has {what} of {actual}, over the limit of {limit}")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// What was found, or the count at which reading stopped.
        actual: usize,
        /// The named limit.
        limit: usize,
    },
}

impl PickleError {
    pub(crate) fn unsupported(reason: impl Into<String>) -> PickleError {
        PickleError::Unsupported(reason.into())
    }
}
