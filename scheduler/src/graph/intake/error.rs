//! Why a graph could not be taken in, as the client will see it.

use dask_protocol::Value;
use dask_protocol::message::ErrorInfo;
use dask_protocol::pickle::{PickleError, PickledException, builtin_exception};

use crate::graph::helper::HelperError;
use crate::graph::order::Cycle;

/// Why a graph could not be taken in. Every requested key errs with it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IntakeError {
    /// The helper: the user's own exception, or what is wrong with Python.
    #[error(transparent)]
    Helper(#[from] HelperError),
    /// The graph runs in circles.
    #[error(transparent)]
    Cycle(#[from] Cycle),
    /// The helper's pickle cannot be taken apart.
    #[error("The graph built by Python cannot be taken apart: {0}")]
    Pickle(String),
    /// A field that does not hold what it should.
    #[error("{field} must be {expected}, not {actual}")]
    Field {
        /// Which field or annotation.
        field: String,
        /// What it should hold.
        expected: &'static str,
        /// What it holds, as text.
        actual: String,
    },
}

/// Longest text of a wrong value in a message, in characters.
const ACTUAL_CHARS_MAX: usize = 200;

impl IntakeError {
    pub(super) fn pickle(error: &PickleError) -> IntakeError {
        IntakeError::Pickle(error.to_string())
    }

    pub(super) fn field(field: impl Into<String>, expected: &'static str, actual: &Value) -> IntakeError {
        let actual: String = format!("{actual:?}").chars().take(ACTUAL_CHARS_MAX).collect();
        IntakeError::Field { field: field.into(), expected, actual }
    }

    /// The exception to send.
    pub fn to_error_info(&self) -> ErrorInfo {
        let PickledException { pickle, text } = match self {
            IntakeError::Helper(HelperError::Raised(info)) => return (**info).clone(),
            IntakeError::Helper(
                HelperError::NoPython(_) | HelperError::Died(_) | HelperError::Environment(_) | HelperError::Answer(_),
            )
            | IntakeError::Cycle(_)
            | IntakeError::Pickle(_) => builtin_exception("RuntimeError", &self.to_string()),
            IntakeError::Field { .. } => builtin_exception("TypeError", &self.to_string()),
        };
        ErrorInfo {
            exception: Value::Bin(pickle),
            traceback: Value::Nil,
            exception_text: text.into(),
            traceback_text: "".into(),
        }
    }
}
