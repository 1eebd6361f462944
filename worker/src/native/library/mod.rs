//! Task libraries: tasks compiled into a shared library, which a worker of another binary loads.
//!
//! Rust promises no layout of its types from one compilation to the next, so nothing but plain C crosses the border between
//! the two: `abi` has every type that does, and the version that says so. A worker and its libraries may be built by
//! different compilers, with different allocators.
//!
//! - What an argument's bytes are stays with whoever allocated it: the other side gets a share with a function that ends it.
//! - A result stays in the library as the typed object that it is; the worker holds a handle. Tasks of the same library get
//!   the object itself, without a copy; for all others it is packed.
//! - A panic ends at the border: the library catches it and hands over its message.
//! - A library stays loaded as long as its process: threads and thread-locals of its own may live on.
//!
//! `host` is the worker's side, `guest` the library's.

mod abi;
mod guest;
mod host;

pub use abi::Table;
pub use guest::table;
pub use host::{Library, LibraryError};

pub(super) use guest::HostTask;
pub(crate) use host::LibraryTask;
pub(super) use host::LibraryValue;
