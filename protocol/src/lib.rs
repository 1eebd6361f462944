//! The wire of `dask.distributed`, as both our roles and Python's speak it.
//!
//! Read [`Key`] and [`Payload`] first: the first names everything, the second carries user data that no engine part
//! ever looks into. [`comm`] moves [`message`]s as [`frame`]s; [`pickle`] reads the graphs that Python clients pickle
//! without executing anything.

pub mod address;
pub mod comm;
pub mod compression;
pub mod error;
pub mod frame;
pub mod key;
mod key_text;
mod large_frame;
pub mod logs;
pub mod memory_watch;
pub mod message;
pub mod nanny_link;
pub mod native;
mod near_hash;
mod pack;
pub mod pages;
pub mod partial;
pub mod payload;
pub mod pickle;
mod region;
pub mod scan;
pub mod slots;
pub mod unpack;
pub mod value;

pub use address::Address;
pub use error::{CommError, DecodeError};
pub use key::{Key, KeyRef};
pub use payload::{Payload, PayloadKind};
pub use value::{EnumMember, Value};
