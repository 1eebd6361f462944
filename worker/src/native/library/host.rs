//! The worker's side: finds a library's table, calls its tasks, and holds their results.

use std::ffi::c_void;
use std::fmt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use bytes::Bytes;
use dask_protocol::native::{self, Definition, RELEASE, releases_agree};
use dask_protocol::{Payload, PayloadKind, Value};

use super::super::{ArgSlot, Call as TaskCall, NativeError, NativeFunction, NativeValue, TaskContext};
use super::abi::{
    Blob, Call, Description, Failure, Host, MAGIC, Outcome, SYMBOL, Shape, Table, Text, VERSION, Watcher,
};
use crate::executor::fate::Listener;

/// Most tasks that one library may describe.
const TASKS_MAX: usize = 65_536;

/// Why a task library cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// The system cannot load it.
    #[error("task library {path}: {reason}")]
    Load {
        /// Its path.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// It is something else.
    #[error(
        "{path} is a shared library, but no library of tasks: it has no symbol {SYMBOL:?} of ours; a task library is a crate \
         of type \"cdylib\" with `dask::task_library!();`"
    )]
    Other {
        /// Its path.
        path: String,
    },
    /// It was built with a release of dask-rs that does not go with this worker's.
    #[error(
        "task library {path} was built with dask-rs {found} (interface {found_interface}), this worker with {RELEASE} \
         (interface {VERSION}); build both with one release"
    )]
    Release {
        /// Its path.
        path: String,
        /// Its release.
        found: String,
        /// The version of its table.
        found_interface: u32,
    },
    /// A panic of one of its tasks would end the worker.
    #[error("task library {path} was built with `panic = \"abort\"`: a task that panics would end its worker")]
    Aborts {
        /// Its path.
        path: String,
    },
    /// It has no tasks that could be used.
    #[error("task library {path}: {reason}")]
    Tasks {
        /// Its path.
        path: String,
        /// Why.
        reason: String,
    },
}

/// A loaded task library. It stays loaded until the process ends.
pub struct Library {
    table: &'static Table,
}

impl Library {
    /// Loads a library and gives its tasks.
    ///
    /// # Errors
    /// [`LibraryError`] when it is no task library, or none of this release.
    pub(in super::super) fn load(path: &Path) -> Result<Vec<NativeFunction>, LibraryError> {
        let library: &'static Library = Box::leak(Box::new(Library { table: open(path)? }));
        let wrong = |reason: String| LibraryError::Tasks { path: path.display().to_string(), reason };
        let described = (library.table.describe)().checked();
        let described = described.map_err(|failure| wrong(NativeError::from(failure).to_string()))?;
        let described: Vec<Description> =
            rmp_serde::from_slice(described.said.as_ref()).map_err(|error| wrong(error.to_string()))?;
        if described.is_empty() {
            return Err(wrong("it has no #[dask::task] functions".to_owned()));
        }
        if described.len() > TASKS_MAX {
            return Err(wrong(format!("it has {} tasks; {TASKS_MAX} is the most", described.len())));
        }
        let function = |(index, it): (u32, Description)| {
            let (name, signature, release) = (it.name.into(), Some(it.signature.into()), Some(RELEASE.into()));
            let location = format!("{} in {}", it.location, path.display());
            let call = TaskCall::Library(LibraryTask { library, index });
            NativeFunction::of(Definition { name, signature, release }.into(), location.into(), call)
        };
        Ok((0..).zip(described).map(function).collect())
    }
}

/// The table of a library of this release.
fn open(path: &Path) -> Result<&'static Table, LibraryError> {
    let shown = || path.display().to_string();
    // Without a directory the system would look in its own.
    let file = if path.components().count() == 1 { Path::new(".").join(path) } else { path.to_owned() };
    // SAFETY: what a library does when it is loaded is its author's; whoever starts the worker trusts the file.
    let library = unsafe { libloading::Library::new(&file) };
    let library = library.map_err(|error| LibraryError::Load { path: shown(), reason: error.to_string() })?;
    // SAFETY: whatever has this name gives a table that begins as ours does, which is looked at before anything else.
    let symbol = unsafe { library.get::<extern "C" fn() -> *const Table>(SYMBOL.as_bytes()) };
    let table = symbol.map(|symbol| symbol()).unwrap_or(ptr::null());
    // SAFETY: as above: a pointer to a head, or null.
    let head = if table.is_null() { None } else { Some(unsafe { &(*table).head }) };
    let Some(head) = head.filter(|head| head.magic == MAGIC) else { return Err(LibraryError::Other { path: shown() }) };
    // SAFETY: the text of a static in the library.
    let found = unsafe { head.release.text() };
    if head.version != VERSION || !releases_agree(found, RELEASE) {
        let (found, found_interface) = (found.to_owned(), head.version);
        return Err(LibraryError::Release { path: shown(), found, found_interface });
    }
    if head.unwinds == 0 {
        return Err(LibraryError::Aborts { path: shown() });
    }
    // Never unloaded: its threads, thread-locals and values may outlive every call.
    let _kept: &'static libloading::Library = Box::leak(Box::new(library));
    // SAFETY: a table of this version, in a library that stays.
    Ok(unsafe { &*table })
}

/// One task of a library.
#[derive(Clone, Copy)]
pub(crate) struct LibraryTask {
    library: &'static Library,
    index: u32,
}

impl fmt::Debug for LibraryTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LibraryTask({})", self.index)
    }
}

impl LibraryTask {
    pub(crate) fn call(self, context: &TaskContext, args: Vec<ArgSlot>) -> Result<NativeValue, NativeError> {
        let mut written = Arguments { library: self.library, blobs: Vec::new(), values: Vec::new(), held: Vec::new() };
        let shapes: Vec<Shape> = args.into_iter().map(|arg| written.shape(arg)).collect::<Result<_, _>>()?;
        let shapes = rmp_serde::to_vec(&shapes).expect("numbers always pack");
        let key = rmp_serde::to_vec(context.key()).expect("keys always pack");
        let mut call = Call {
            key: Text::of(&key),
            run_id: context.run().1,
            worker: Text::of(context.worker().as_str().as_bytes()),
            scheduler: Text::of(context.scheduler().as_str().as_bytes()),
            host: host(context.clone()),
            shapes: Text::of(&shapes),
            blobs: written.blobs.as_mut_ptr(),
            blobs_len: written.blobs.len(),
            values: written.values.as_ptr(),
            values_len: written.values.len(),
        };
        // SAFETY: all that the call points at lives in this function.
        let outcome = unsafe { (self.library.table.call)(self.index, &raw mut call) };
        let outcome = outcome.checked().map_err(NativeError::from)?;
        // SAFETY: a name in the library, which stays loaded.
        let type_name = unsafe { outcome.type_name.text() };
        let value = LibraryValue { library: self.library, pointer: outcome.value, type_name };
        Ok(NativeValue::of_library(value, outcome.nbytes))
    }
}

/// A result that lives in a library: the worker's share in it.
pub(in super::super) struct LibraryValue {
    library: &'static Library,
    pointer: *mut c_void,
    type_name: &'static str,
}

// SAFETY: results of native tasks are `Send`, in a library too.
unsafe impl Send for LibraryValue {}
// SAFETY: results of native tasks are `Sync`, in a library too.
unsafe impl Sync for LibraryValue {}

impl LibraryValue {
    pub(in super::super) fn type_name(&self) -> &'static str {
        self.type_name
    }

    pub(in super::super) fn pack(&self) -> Result<Payload, String> {
        unsafe extern "C" fn sink(to: *mut c_void, piece: Blob) {
            // SAFETY: the list below, which outlives the call.
            unsafe { &mut *to.cast::<Vec<Bytes>>() }.push(piece.into_bytes());
        }
        let mut pieces: Vec<Bytes> = Vec::new();
        // SAFETY: the value is alive while this is, and the sink writes to a list that nobody else uses meanwhile.
        let outcome = unsafe { (self.library.table.pack)(self.pointer, sink, (&raw mut pieces).cast()) };
        outcome.checked().map_err(|failure| NativeError::from(failure).to_string())?;
        if pieces.is_empty() {
            return Err("the library gave nothing".to_owned());
        }
        let header = pieces.remove(0);
        Ok(Payload::from_raw(PayloadKind::Serialized, header, pieces))
    }
}

impl Drop for LibraryValue {
    fn drop(&mut self) {
        // SAFETY: the share that came with the result, ended once.
        unsafe { (self.library.table.drop)(self.pointer) };
    }
}

/// Arguments on their way into a library.
struct Arguments {
    library: &'static Library,
    blobs: Vec<Blob>,
    values: Vec<*const c_void>,
    /// The values whose handles are passed.
    held: Vec<Arc<LibraryValue>>,
}

impl Arguments {
    fn shape(&mut self, arg: ArgSlot) -> Result<Shape, NativeError> {
        match arg {
            ArgSlot::Inline(packed) => Ok(Shape::Packed(self.blob(packed))),
            ArgSlot::Payload(payload) => self.payload(&payload),
            ArgSlot::Native(value) => match value.downcast::<LibraryValue>() {
                Some(own) if ptr::eq(own.library.table, self.library.table) => {
                    self.values.push(own.pointer);
                    self.held.push(own);
                    Ok(Shape::Value(self.values.len() - 1))
                }
                Some(_) | None => self.payload(&value.to_payload()?),
            },
            ArgSlot::List(items) => {
                items.into_iter().map(|item| self.shape(item)).collect::<Result<_, _>>().map(Shape::List)
            }
            ArgSlot::Map(entries) => {
                let entry = |(key, item)| Ok((self.blob(key), self.shape(item)?));
                entries.into_iter().map(entry).collect::<Result<_, _>>().map(Shape::Map)
            }
        }
    }

    fn payload(&mut self, payload: &Payload) -> Result<Shape, NativeError> {
        if let Some(bytes) = native::shared_bytes(payload) {
            return Ok(Shape::Bytes(self.blob(bytes)));
        }
        let packed = native::packed(payload).map_err(|error| NativeError::Failed(format!("an argument: {error}")))?;
        Ok(Shape::Packed(self.blob(packed)))
    }

    fn blob(&mut self, bytes: Bytes) -> usize {
        self.blobs.push(bytes.into());
        self.blobs.len() - 1
    }
}

/// What the library may ask of the worker about this task.
fn host(context: TaskContext) -> Host {
    unsafe extern "C" fn drop_task(task: *const c_void) {
        // SAFETY: made by `Arc::into_raw` below, and ended once.
        drop(unsafe { Arc::from_raw(task.cast::<TaskContext>()) });
    }
    unsafe extern "C" fn watch(task: *const c_void, watcher: Watcher) {
        // SAFETY: the library holds the task while it asks.
        unsafe { context_of(task) }.fate.listen(Box::new(LibraryListener(watcher)));
    }
    unsafe extern "C" fn secede(task: *const c_void) -> Outcome {
        // SAFETY: as above.
        told(unsafe { context_of(task) }.secede())
    }
    unsafe extern "C" fn log_event(task: *const c_void, topic: Text, message: Text) -> Outcome {
        // SAFETY: as above, and the library keeps the texts until this returns.
        let (context, topic, message) = unsafe { (context_of(task), topic.text(), message.bytes()) };
        let message = rmp_serde::from_slice::<Value>(message).map_err(|error| NativeError::Failed(error.to_string()));
        told(message.and_then(|message| context.log_event(topic, message)))
    }
    Host { task: Arc::into_raw(Arc::new(context)).cast(), drop: drop_task, watch, secede, log_event }
}

/// # Safety
/// `task` has to be a share that [`host`] made and that has not ended.
unsafe fn context_of<'a>(task: *const c_void) -> &'a TaskContext {
    // SAFETY: the caller's promise.
    unsafe { &*task.cast::<TaskContext>() }
}

fn told(result: Result<(), NativeError>) -> Outcome {
    match result {
        Ok(()) => Outcome::done(Bytes::new()),
        Err(NativeError::WorkerClosed) => Outcome::failed(&Failure::WorkerClosed),
        Err(error) => Outcome::failed(&Failure::Failed(error.to_string())),
    }
}

struct LibraryListener(Watcher);

// SAFETY: the library's fate may be told on any thread.
unsafe impl Send for LibraryListener {}
// SAFETY: as above, and by several at once.
unsafe impl Sync for LibraryListener {}

impl Listener for LibraryListener {
    fn cancelled(&self) {
        // SAFETY: the library's fate is alive until it is dropped below.
        unsafe { (self.0.cancel)(self.0.fate) };
    }
}

impl Drop for LibraryListener {
    fn drop(&mut self) {
        // SAFETY: the share that the library gave, ended once.
        unsafe { (self.0.drop)(self.0.fate) };
    }
}
