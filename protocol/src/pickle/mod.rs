//! Reading and writing pickles without executing them.
//!
//! A pickle is a small stack program. Here it is read *symbolically*: nothing is imported and nothing is called; what
//! comes out is a graph of nodes that can be looked at, taken apart and written back. Start with [`read_expression`],
//! which turns the expression a Python client submits into a [`Graph`] of self-contained task pickles, and
//! [`loads_plain`], which reads small pickled fields.

mod arena;
mod cursor;
mod encode;
mod error;
mod exception;
mod function;
mod graph;
mod instance;
mod intake;
mod legacy;
mod map_expr;
mod numpy_scalar;
mod opcode;
mod plain;
mod python_task;
mod reader;
mod split;
mod task_node;
#[cfg(test)]
mod tests;
mod value;
mod writer;

pub use encode::{PICKLE_PROTOCOL, dumps_plain};
pub use error::PickleError;
pub use exception::{
    KilledWorker, NoValidWorkerError, NoWorkerError, PickledException, builtin_exception, timeout_error,
    write_exception,
};
pub use function::PickledFunction;
pub use graph::{Graph, GraphTask, NodeClass, TaskSpec};
pub use instance::write_instance;
pub use intake::{Intake, read_expression, read_task_dict};
pub use plain::loads_plain;
pub use python_task::{PythonArg, PythonCall, read_native_task, write_futures};
pub use value::{Opaque, PickleValue};
