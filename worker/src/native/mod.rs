//! Native tasks: functions of this binary or of a task library, registered by name, on typed values that stay in memory.
//!
//! [`NativeFunction`] is what the `#[dask::task]` macro registers; [`Registry`] finds it by name. A result is a
//! [`NativeValue`]: tasks on the same worker share it by reference, and it is packed only when it leaves.

mod arg;
mod brief;
mod context;
pub mod library;
mod registry;
mod value;

pub use crate::executor::native::is_cancelled;
pub use arg::{Arg, ArgSlot};
pub use brief::Brief;
pub use context::TaskContext;
pub use dask_protocol::native::Definition;
pub use library::LibraryError;
pub(crate) use registry::Call;
pub use registry::{NativeFunction, Registry, RegistryError};
pub use value::NativeValue;

use std::fmt;

/// Why a native task has no result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NativeError {
    /// No function of this name in the worker's binary.
    #[error("unknown native task {name:?}; this worker has {}", Names(.registered))]
    UnknownFunction {
        /// The name asked for.
        name: String,
        /// The names registered, sorted.
        registered: Vec<String>,
    },
    /// The caller was built with another definition of the task.
    #[error(
        "native task {name:?} differs: the caller has {asked}, this worker {here} ({location}); build both from one source"
    )]
    OtherDefinition {
        /// Its name.
        name: String,
        /// The caller's definition.
        asked: String,
        /// The worker's.
        here: String,
        /// Where the worker's is defined.
        location: String,
    },
    /// The caller was built with a release of dask-rs that does not go with the worker's.
    #[error(
        "native task {name:?} was submitted with dask-rs {asked}, this worker was built with {here}; build both with one release"
    )]
    OtherRelease {
        /// The task's name.
        name: String,
        /// The caller's release.
        asked: String,
        /// The worker's.
        here: &'static str,
    },
    /// The call has the wrong number of arguments.
    #[error("native task {function:?} takes {expected} arguments, got {found}")]
    ArgumentCount {
        /// The function.
        function: &'static str,
        /// What it takes.
        expected: usize,
        /// What came.
        found: usize,
    },
    /// An argument is of another type.
    #[error("argument {index} of native task {function:?}: expected {expected}, found {found}")]
    ArgumentType {
        /// The function.
        function: &'static str,
        /// Which argument, from 0.
        index: usize,
        /// The type it takes.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// The task returned an error.
    #[error("{0}")]
    Failed(String),
    /// The task panicked.
    #[error("native task panicked: {message}{}", At(.location))]
    Panicked {
        /// The panic's message.
        message: String,
        /// `file:line:column`, if known.
        location: Option<String>,
        /// The calls that led there, innermost first, if the binary has debug information.
        backtrace: Option<String>,
    },
    /// It was waiting when it was cancelled, or over its `timeout`.
    #[error("the task was cancelled")]
    Cancelled,
    /// The worker closed under it.
    #[error("the worker is closing")]
    WorkerClosed,
    /// The result could not be packed to leave the worker.
    #[error("result of type {type_name} cannot be serialised: {reason}")]
    Unserialisable {
        /// The result's type.
        type_name: &'static str,
        /// Why.
        reason: String,
    },
}

struct Names<'a>(&'a [String]);
impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 20;
        if self.0.is_empty() {
            return f.write_str("none registered");
        }
        f.write_str(&self.0[..self.0.len().min(SHOWN_MAX)].join(", "))?;
        if self.0.len() > SHOWN_MAX {
            write!(f, " and {} more", self.0.len() - SHOWN_MAX)?;
        }
        Ok(())
    }
}

struct At<'a>(&'a Option<String>);
impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |location| write!(f, " at {location}"))
    }
}
