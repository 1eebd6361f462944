//! What crosses the border between a worker and a task library. A change here is another [`VERSION`].

use std::ffi::c_void;
use std::{ptr, slice};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The one symbol of a task library: a function without arguments that gives its [`Table`].
pub(super) const SYMBOL: &str = "dask_task_library";
/// How a table begins, whatever its version.
pub(super) const MAGIC: [u8; 16] = *b"dask-rs tasks\0\0\0";
/// The version of everything in this file after [`Head`].
pub(super) const VERSION: u32 = 1;

/// The beginning of a table, the same in every version.
#[repr(C)]
pub(super) struct Head {
    pub magic: [u8; 16],
    /// The [`VERSION`] of the rest.
    pub version: u32,
    /// 1 when a panic can be caught, 0 when it ends the process.
    pub unwinds: u32,
    /// The release of dask-rs.
    pub release: Text,
}

/// What a task library offers. Lives as long as the process.
#[repr(C)]
pub struct Table {
    pub(super) head: Head,
    /// The tasks, as packed [`Description`]s; or why there are none.
    pub(super) describe: extern "C" fn() -> Outcome,
    /// Runs a task, by its place in the description.
    pub(super) call: unsafe extern "C" fn(index: u32, call: *mut Call) -> Outcome,
    /// Packs a value: its header and frames go to the sink, in this order.
    pub(super) pack: unsafe extern "C" fn(value: *const c_void, sink: Sink, to: *mut c_void) -> Outcome,
    /// Ends the worker's share in a value.
    pub(super) drop: unsafe extern "C" fn(value: *mut c_void),
}

/// One task of a library.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Description {
    pub name: String,
    pub signature: String,
    pub location: String,
}

/// Takes one more piece.
pub(super) type Sink = unsafe extern "C" fn(to: *mut c_void, piece: Blob);

/// A text or bytes that whoever passes them keeps.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Text {
    data: *const u8,
    len: usize,
}

// SAFETY: it is only read, and whoever makes one keeps what it points at.
unsafe impl Send for Text {}
// SAFETY: as above.
unsafe impl Sync for Text {}

impl Text {
    pub(super) const fn of(text: &[u8]) -> Text {
        Text { data: text.as_ptr(), len: text.len() }
    }

    /// The bytes.
    ///
    /// # Safety
    /// What it was made of has to live for `'a`.
    pub(super) unsafe fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: a text is made of a slice, which the caller vouches for.
        unsafe { slice::from_raw_parts(self.data, self.len) }
    }

    /// The text; what is no UTF-8 is empty.
    ///
    /// # Safety
    /// As [`Text::bytes`].
    pub(super) unsafe fn text<'a>(self) -> &'a str {
        // SAFETY: passed on to the caller.
        std::str::from_utf8(unsafe { self.bytes() }).unwrap_or_default()
    }
}

/// Bytes that whoever made them frees, once the other side needs them no more.
#[repr(C)]
pub(super) struct Blob {
    data: *const u8,
    len: usize,
    owner: *mut c_void,
    release: Option<unsafe extern "C" fn(*mut c_void)>,
}

// SAFETY: the owner is a `Bytes`, which may be read and dropped on any thread.
unsafe impl Send for Blob {}

impl Blob {
    pub(super) const EMPTY: Blob =
        Blob { data: ptr::NonNull::dangling().as_ptr(), len: 0, owner: ptr::null_mut(), release: None };

    /// The bytes for this side, without a copy.
    pub(super) fn into_bytes(self) -> Bytes {
        if self.len == 0 { Bytes::new() } else { Bytes::from_owner(self) }
    }
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Blob {
        unsafe extern "C" fn release(owner: *mut c_void) {
            // SAFETY: made by `Box::into_raw` below, and released once.
            drop(unsafe { Box::from_raw(owner.cast::<Bytes>()) });
        }
        if bytes.is_empty() {
            return Blob::EMPTY;
        }
        let (data, len) = (bytes.as_ptr(), bytes.len());
        Blob { data, len, owner: Box::into_raw(Box::new(bytes)).cast(), release: Some(release) }
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the owner keeps these bytes until it is released, which is when this is dropped.
        unsafe { slice::from_raw_parts(self.data, self.len) }
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the owner belongs to this blob, which is dropped once.
            unsafe { release(self.owner) };
        }
    }
}

/// A running task and its arguments. The worker keeps all of it until the call returns.
#[repr(C)]
pub(super) struct Call {
    /// The task's key, packed.
    pub key: Text,
    pub run_id: i64,
    /// The worker's address.
    pub worker: Text,
    /// The scheduler's address.
    pub scheduler: Text,
    pub host: Host,
    /// The arguments: packed [`Shape`]s, whose numbers are places in the lists below.
    pub shapes: Text,
    /// Bytes; the library takes them out.
    pub blobs: *mut Blob,
    pub blobs_len: usize,
    /// Values of this library.
    pub values: *const *const c_void,
    pub values_len: usize,
}

/// Where an argument is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Shape {
    /// A packed value, among the blobs.
    Packed(usize),
    /// Plain bytes, among the blobs.
    Bytes(usize),
    /// Among the values.
    Value(usize),
    List(Vec<Shape>),
    /// By packed keys, among the blobs.
    Map(Vec<(usize, Shape)>),
}

/// What a running task can ask of its worker. The library owns one share of `task`.
#[repr(C)]
pub(super) struct Host {
    pub task: *const c_void,
    /// Ends the library's share.
    pub drop: unsafe extern "C" fn(task: *const c_void),
    /// Has `cancel` called with `fate` when the task should end. The worker gets a share of `fate`, and ends it with `drop`.
    pub watch: unsafe extern "C" fn(task: *const c_void, watcher: Watcher),
    /// dask's `secede`.
    pub secede: unsafe extern "C" fn(task: *const c_void) -> Outcome,
    /// dask's `Worker.log_event`, of a packed message.
    pub log_event: unsafe extern "C" fn(task: *const c_void, topic: Text, message: Text) -> Outcome,
}

/// Whom to tell that a task should end.
#[repr(C)]
pub(super) struct Watcher {
    pub fate: *const c_void,
    pub cancel: unsafe extern "C" fn(fate: *const c_void),
    pub drop: unsafe extern "C" fn(fate: *const c_void),
}

/// What came of it.
#[repr(C)]
pub(super) struct Outcome {
    /// Whether it went well.
    pub done: bool,
    /// A result: the worker's share in it. Null where there is none.
    pub value: *mut c_void,
    /// The result's size in bytes.
    pub nbytes: u64,
    /// The result's Rust type. Lives as long as the library.
    pub type_name: Text,
    /// Where it went wrong, a packed [`Failure`]; else whatever else there is to tell.
    pub said: Blob,
}

impl Outcome {
    /// It went well, and there is this to tell.
    pub(super) fn done(said: Bytes) -> Outcome {
        Outcome { done: true, value: ptr::null_mut(), nbytes: 0, type_name: Text::of(b""), said: said.into() }
    }

    pub(super) fn failed(failure: &Failure) -> Outcome {
        let said = rmp_serde::to_vec_named(failure).expect("texts always pack");
        Outcome { done: false, ..Outcome::done(said.into()) }
    }

    /// The failure, if it is one.
    pub(super) fn checked(self) -> Result<Outcome, Failure> {
        if self.done {
            return Ok(self);
        }
        let failure = rmp_serde::from_slice(self.said.as_ref());
        Err(failure.unwrap_or_else(|error| Failure::Failed(format!("a failure that cannot be read: {error}"))))
    }
}

/// Why there is no result.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    Failed(String),
    Panicked { message: String, location: Option<String>, backtrace: Option<String> },
    Cancelled,
    WorkerClosed,
}
