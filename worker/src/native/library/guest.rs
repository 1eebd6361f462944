//! The library's side: its tasks as a table of C functions, and what a running one asks of its worker.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::ffi::c_void;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use dask_protocol::native::pack_bytes;
use dask_protocol::{Address, Key, Value};
use tokio::runtime::{Builder, Handle, Runtime};

use super::super::{ArgSlot, NativeError, NativeFunction, NativeValue, Registry, TaskContext};
use super::abi::{
    Blob, Call, Description, Failure, Head, Host, MAGIC, Outcome, Shape, Sink, Table, Text, VERSION, Watcher,
};
use crate::executor::fate::Fate;
use crate::executor::native::{call_caught, install_panic_hook};

/// Threads that drive what tasks of a library wait for; each task's own thread polls it.
const RUNTIME_THREADS: usize = 1;

/// The table of this library: what `dask::task_library!()` exports.
pub fn table() -> *const Table {
    static TABLE: Table = Table {
        head: Head {
            magic: MAGIC,
            version: VERSION,
            unwinds: cfg!(panic = "unwind") as u32,
            release: Text::of(dask_protocol::native::RELEASE.as_bytes()),
        },
        describe,
        call,
        pack,
        drop: drop_value,
    };
    &TABLE
}

/// The tasks of this library by their places, or why there are none.
fn tasks() -> Result<&'static [NativeFunction], &'static str> {
    static TASKS: LazyLock<Result<Vec<NativeFunction>, String>> = LazyLock::new(|| {
        let registry = Registry::from_binary().map_err(|error| error.to_string())?;
        let mut tasks: Vec<NativeFunction> = registry.functions().cloned().collect();
        tasks.sort_by(|a, b| a.definition().name.cmp(&b.definition().name));
        Ok(tasks)
    });
    TASKS.as_ref().map(Vec::as_slice).map_err(String::as_str)
}

extern "C" fn describe() -> Outcome {
    guarded(|| {
        let described = tasks().map_err(|reason| Failure::Failed(reason.to_owned()))?.iter().map(|task| Description {
            name: task.definition().name.to_string(),
            signature: task.definition().signature.as_deref().unwrap_or_default().to_owned(),
            location: task.location().to_owned(),
        });
        let packed = rmp_serde::to_vec_named(&described.collect::<Vec<_>>()).expect("texts always pack");
        Ok(Outcome::done(packed.into()))
    })
}

/// # Safety
/// `call` has to point to a call that nobody else uses until this returns.
unsafe extern "C" fn call(index: u32, call: *mut Call) -> Outcome {
    guarded(|| {
        // SAFETY: the worker's promise.
        let call = unsafe { &mut *call };
        let host = HostTask(share_of(&call.host));
        // SAFETY: the worker keeps all of the call until this returns.
        let (key, args) = unsafe { (call.key.bytes(), arguments(call)?) };
        let key: Key = rmp_serde::from_slice(key).map_err(unreadable)?;
        // SAFETY: as above.
        let (worker, scheduler) = unsafe { (Address::from(call.worker.text()), Address::from(call.scheduler.text())) };
        let context = TaskContext::in_library(host, key, call.run_id, worker, scheduler);
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let task = tasks().ok().and_then(|tasks| tasks.get(index));
        let task = task.ok_or_else(|| Failure::Failed(format!("the library has no task {index}")))?;
        install_panic_hook();
        let value = call_caught(task.call(), &context, args).map_err(failure)?;
        let (nbytes, type_name) = (value.nbytes(), Text::of(value.type_name().as_bytes()));
        let value = Box::into_raw(Box::new(value)).cast();
        Ok(Outcome { value, nbytes, type_name, ..Outcome::done(Bytes::new()) })
    })
}

/// The worker's functions: plain pointers, of which this side now owns the share.
fn share_of(host: &Host) -> Host {
    Host { task: host.task, drop: host.drop, watch: host.watch, secede: host.secede, log_event: host.log_event }
}

/// # Safety
/// `value` has to come from [`call`], and to be alive.
unsafe extern "C" fn pack(value: *const c_void, sink: Sink, to: *mut c_void) -> Outcome {
    guarded(|| {
        // SAFETY: the caller's promise.
        let value = unsafe { &*value.cast::<NativeValue>() };
        let payload = value.to_payload().map_err(failure)?;
        for piece in std::iter::once(payload.header()).chain(payload.frames()) {
            // SAFETY: whoever gives a sink gives what it writes to.
            unsafe { sink(to, piece.clone().into()) };
        }
        Ok(Outcome::done(Bytes::new()))
    })
}

/// # Safety
/// `value` has to come from [`call`], and to be used no more.
unsafe extern "C" fn drop_value(value: *mut c_void) {
    // SAFETY: the caller's promise: made by `Box::into_raw`, and dropped once.
    let value = unsafe { Box::from_raw(value.cast::<NativeValue>()) };
    // A value whose `Drop` panics has been dropped as far as it goes.
    let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(value)));
}

/// What unwinds no further than here: the other side of the border may be another compiler's.
fn guarded(work: impl FnOnce() -> Result<Outcome, Failure>) -> Outcome {
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(failure)) => Outcome::failed(&failure),
        Err(_) => Outcome::failed(&Failure::Failed("the task library panicked outside of its tasks".to_owned())),
    }
}

fn unreadable(error: rmp_serde::decode::Error) -> Failure {
    Failure::Failed(format!("the worker's call cannot be read: {error}"))
}

fn failure(error: NativeError) -> Failure {
    match error {
        NativeError::Panicked { message, location, backtrace } => Failure::Panicked { message, location, backtrace },
        NativeError::Cancelled => Failure::Cancelled,
        NativeError::WorkerClosed => Failure::WorkerClosed,
        NativeError::Failed(text) => Failure::Failed(text),
        other @ (NativeError::UnknownFunction { .. }
        | NativeError::OtherDefinition { .. }
        | NativeError::OtherRelease { .. }
        | NativeError::ArgumentCount { .. }
        | NativeError::ArgumentType { .. }
        | NativeError::Unserialisable { .. }) => Failure::Failed(other.to_string()),
    }
}

/// # Safety
/// All of `call` has to be alive.
unsafe fn arguments(call: &mut Call) -> Result<Vec<ArgSlot>, Failure> {
    // SAFETY: the caller's promise.
    let (shapes, blobs, values) = unsafe {
        (
            call.shapes.bytes(),
            std::slice::from_raw_parts_mut(call.blobs, call.blobs_len),
            std::slice::from_raw_parts(call.values, call.values_len),
        )
    };
    let shapes: Vec<Shape> = rmp_serde::from_slice(shapes).map_err(unreadable)?;
    let mut reader = Reader { blobs, values };
    shapes.into_iter().map(|shape| reader.slot(shape)).collect()
}

struct Reader<'a> {
    blobs: &'a mut [Blob],
    values: &'a [*const c_void],
}

impl Reader<'_> {
    fn slot(&mut self, shape: Shape) -> Result<ArgSlot, Failure> {
        match shape {
            Shape::Packed(place) => Ok(ArgSlot::Inline(self.take(place)?)),
            Shape::Bytes(place) => {
                let payload = pack_bytes(&self.take(place)?);
                payload.map(ArgSlot::Payload).map_err(|error| Failure::Failed(error.to_string()))
            }
            Shape::Value(place) => {
                let value = *self.values.get(place).ok_or_else(Reader::missing)?;
                // SAFETY: the worker passes handles of this library's values, which it holds during the call.
                Ok(ArgSlot::Native(unsafe { &*value.cast::<NativeValue>() }.clone()))
            }
            Shape::List(items) => {
                items.into_iter().map(|item| self.slot(item)).collect::<Result<_, _>>().map(ArgSlot::List)
            }
            Shape::Map(entries) => {
                let entry = |(key, item)| Ok((self.take(key)?, self.slot(item)?));
                entries.into_iter().map(entry).collect::<Result<_, _>>().map(ArgSlot::Map)
            }
        }
    }

    fn take(&mut self, place: usize) -> Result<Bytes, Failure> {
        let blob = self.blobs.get_mut(place).ok_or_else(Reader::missing)?;
        Ok(std::mem::replace(blob, Blob::EMPTY).into_bytes())
    }

    fn missing() -> Failure {
        Failure::Failed("the worker's call names an argument that it does not have".to_owned())
    }
}

/// The worker's side of a task that runs in this library.
pub(in super::super) struct HostTask(Host);

// SAFETY: what the worker passes may be asked on any thread.
unsafe impl Send for HostTask {}
// SAFETY: as above, and by several at once.
unsafe impl Sync for HostTask {}

impl HostTask {
    /// Has the worker tell `fate` when the task should end.
    pub(in super::super) fn watch(&self, fate: &Arc<Fate>) {
        unsafe extern "C" fn cancel(fate: *const c_void) {
            // SAFETY: the worker's share of a fate that is alive until it calls `drop`.
            unsafe { &*fate.cast::<Fate>() }.cancel(None);
        }
        unsafe extern "C" fn end(fate: *const c_void) {
            // SAFETY: made by `Arc::into_raw` below, and ended once.
            drop(unsafe { Arc::from_raw(fate.cast::<Fate>()) });
        }
        let watcher = Watcher { fate: Arc::into_raw(Arc::clone(fate)).cast(), cancel, drop: end };
        // SAFETY: the worker's task is alive while this is.
        unsafe { (self.0.watch)(self.0.task, watcher) };
    }

    pub(in super::super) fn secede(&self) -> Result<(), NativeError> {
        // SAFETY: as in `watch`.
        unsafe { (self.0.secede)(self.0.task) }.checked().map(drop).map_err(NativeError::from)
    }

    pub(in super::super) fn log_event(&self, topic: &str, message: &Value) -> Result<(), NativeError> {
        let packed = rmp_serde::to_vec_named(message).map_err(|error| NativeError::Failed(error.to_string()))?;
        // SAFETY: as in `watch`.
        let outcome = unsafe { (self.0.log_event)(self.0.task, Text::of(topic.as_bytes()), Text::of(&packed)) };
        outcome.checked().map(drop).map_err(NativeError::from)
    }

    /// What all tasks of this library on one worker share.
    pub(in super::super) fn worker_state(
        worker: &Address,
        of: TypeId,
        make: impl FnOnce() -> Arc<dyn Any + Send + Sync>,
    ) -> Arc<dyn Any + Send + Sync> {
        type States = HashMap<(Address, TypeId), Arc<dyn Any + Send + Sync>>;
        static STATES: LazyLock<Mutex<States>> = LazyLock::new(Mutex::default);
        let mut states = STATES.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(states.entry((worker.clone(), of)).or_insert_with(make))
    }

    /// What drives what this library's tasks wait for: sockets and clocks of another tokio are not ours to use.
    pub(in super::super) fn runtime() -> Result<Handle, NativeError> {
        static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
        let start = || {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(RUNTIME_THREADS).thread_name("dask-library").enable_all().build()
        };
        let runtime = RUNTIME.get_or_init(start).as_ref();
        let failed =
            |error: &std::io::Error| NativeError::Failed(format!("the library's runtime did not start: {error}"));
        runtime.map(|runtime| runtime.handle().clone()).map_err(failed)
    }
}

impl Drop for HostTask {
    fn drop(&mut self) {
        // SAFETY: the share that came with the call, ended once.
        unsafe { (self.0.drop)(self.0.task) };
    }
}

impl From<Failure> for NativeError {
    fn from(failure: Failure) -> NativeError {
        match failure {
            Failure::Failed(text) => NativeError::Failed(text),
            Failure::Panicked { message, location, backtrace } => {
                NativeError::Panicked { message, location, backtrace }
            }
            Failure::Cancelled => NativeError::Cancelled,
            Failure::WorkerClosed => NativeError::WorkerClosed,
        }
    }
}
