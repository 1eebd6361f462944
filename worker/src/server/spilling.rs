//! Moving values to disk while memory is short, and back when they are needed.
//!
//! Values go in the order in which they were not used, when those in memory exceed the target, when the process is larger
//! than the limit for spilling, or when room is needed for values that come back. A value that was on disk before and came
//! back keeps its file: it goes again without being written again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dask_protocol::{Key, Payload};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;
use tracing::{debug, error, warn};

use super::memory::format_bytes;
use super::monitor::resident_bytes;
use super::shared::{Input, Shared, stimulus};
use crate::executor::python::Python;
use crate::executor::python::message::Loaded;
use crate::native::NativeValue;
use crate::options::MemoryOptions;
use crate::spill::{SpillDirectory, SpillError, Spilled};
use crate::state::Event;
use crate::store::{Store, Stored};

/// Most values moved at a time, and about how many bytes of them.
const BATCH_VALUES: usize = 64;
const BATCH_BYTES: i64 = 16 << 20;
/// After a failed write nothing is written for this long.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Longest wait for room before a value comes back regardless.
const ROOM_WAIT: Duration = Duration::from_secs(30);
/// How often the log says that memory is full of what is no task's result; as upstream.
const UNMANAGED_WARNING_INTERVAL: Duration = Duration::from_secs(300);

/// Bounds in bytes, and the folder.
#[derive(Debug)]
pub(crate) struct Spilling {
    directory: Arc<SpillDirectory>,
    limit: u64,
    /// Bytes of values that may be in memory.
    target: Option<i64>,
    /// The process's size from which values go, and the size at which they stop going.
    resident: Option<(u64, u64)>,
    /// The process's size from which a worker that can move nothing refuses results.
    full: Option<u64>,
    /// Bytes of values that are about to come back.
    wanted: AtomicI64,
    /// Whether the process was seen larger than it should be, and not yet smaller.
    oversized: AtomicBool,
    /// Why the disk took nothing when it was last tried.
    blocked: Mutex<Option<String>>,
    wake: Notify,
    settled: Notify,
}

/// Bytes that a value which comes back will need, until it is there.
#[derive(Debug)]
pub(crate) struct Room<'a>(&'a Spilling, i64);

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// A value that cannot be written, or could not.
enum Stays {
    /// No file can be made of it.
    Unserialisable(String),
    Failed(SpillError),
}

impl Spilling {
    /// `None` where values stay in memory whatever comes.
    pub(crate) fn new(limit: Option<u64>, options: &MemoryOptions, directory: SpillDirectory) -> Option<Spilling> {
        let limit = limit?;
        let target = options.target.map(|fraction| share(limit, fraction));
        let spill = options.spill.map(|fraction| share(limit, fraction));
        if target.is_none() && spill.is_none() {
            return None;
        }
        Some(Spilling {
            directory: Arc::new(directory),
            limit,
            target: target.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
            resident: spill.map(|bytes| (bytes, target.unwrap_or(bytes).min(bytes))),
            full: options.pause.map(|fraction| share(limit, fraction)),
            wanted: AtomicI64::new(0),
            oversized: AtomicBool::new(false),
            blocked: Mutex::default(),
            wake: Notify::new(),
            settled: Notify::new(),
        })
    }

    pub(crate) fn directory(&self) -> &SpillDirectory {
        &self.directory
    }

    /// To be called when values were stored.
    pub(crate) fn stored(&self, store: &Store) {
        if self.over_target(store) > 0 {
            self.wake.notify_one();
        }
    }

    /// To be called with the process's size now and then.
    pub(crate) fn measured(&self, resident: u64) {
        if self.resident.is_some_and(|(over, _)| resident > over) && !self.oversized.swap(true, Ordering::Relaxed) {
            debug!(target: "distributed.worker.memory", "Worker is at {:.0}% memory usage. Start spilling data to disk.",
                   100.0 * super::memory::fraction_of(resident, self.limit));
        }
        if self.oversized.load(Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Waits until values of this size fit beside the others, if that can be.
    pub(crate) async fn make_room(&self, store: &Store, bytes: i64) -> Room<'_> {
        self.wanted.fetch_add(bytes, Ordering::Relaxed);
        let room = Room(self, bytes);
        let settled = self.settled.notified();
        if self.over_target(store) > 0 && self.blocked().is_none() {
            self.wake.notify_one();
            // Too late is better than never.
            let _ = timeout(ROOM_WAIT, settled).await;
        }
        room
    }

    /// Why no result can be kept just now: memory is full, and the disk takes nothing. Without this the nanny would end the
    /// worker, with all that it holds.
    pub(crate) fn refusal(&self, resident: impl FnOnce() -> u64, nbytes: i64) -> Option<String> {
        let reason = self.blocked().clone()?;
        let (resident, full) = (resident(), self.full?);
        (resident > full).then(|| {
            format!(
                "its result of {} was dropped: the worker's memory is full ({} of {}), and nothing can be spilled: {reason}",
                format_bytes(u64::try_from(nbytes).unwrap_or(0)),
                format_bytes(resident),
                format_bytes(self.limit)
            )
        })
    }

    /// Whether the disk took nothing when it was last tried.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked().is_some()
    }

    fn blocked(&self) -> MutexGuard<'_, Option<String>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn over_target(&self, store: &Store) -> i64 {
        let wanted = self.wanted.load(Ordering::Relaxed);
        self.target.map_or(0, |target| store.nbytes_in_memory() + wanted - target)
    }

    /// Bytes that should leave memory now.
    fn excess(&self, shared: &Shared) -> i64 {
        let mut excess = self.over_target(&shared.store);
        if let (Some((_, until)), true) = (self.resident, self.oversized.load(Ordering::Relaxed)) {
            let resident = resident_bytes(&shared.python_pids());
            if resident > until {
                excess = excess.max(i64::try_from(resident - until).unwrap_or(i64::MAX));
            } else {
                self.oversized.store(false, Ordering::Relaxed);
            }
        }
        excess
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of the limit"
)]
fn share(limit: u64, fraction: f64) -> u64 {
    (limit as f64 * fraction) as u64
}

/// Moves values until the worker stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    let Some(spilling) = shared.spilling.as_ref() else { return };
    let mut warned: Option<Instant> = None;
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = spilling.wake.notified() => {}
        }
        let failure = settle(&shared, spilling, &mut warned).await.err();
        *spilling.blocked() = failure.as_ref().map(ToString::to_string);
        spilling.settled.notify_waiters();
        if let Some(failure) = failure {
            report(&failure);
            tokio::select! {
                () = shared.stop.cancelled() => return,
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
    }
}

/// One line in the words of upstream's log, with the reason.
fn report(failure: &SpillError) {
    let seconds = RETRY_AFTER.as_secs();
    match failure {
        SpillError::Limit { .. } => {
            error!(target: "distributed.spill", "Spill file on disk reached capacity; keeping data in memory: {failure}");
        }
        SpillError::Write { .. } | SpillError::Read { .. } => {
            error!(target: "distributed.spill", "Spill to disk failed; keeping data in memory: {failure}. Trying again in {seconds} s");
        }
    }
}

/// Moves values until there are few enough in memory, or none that could go.
async fn settle(shared: &Arc<Shared>, spilling: &Spilling, warned: &mut Option<Instant>) -> Result<(), SpillError> {
    loop {
        let excess = spilling.excess(shared);
        if excess <= 0 || shared.stop.is_cancelled() {
            return Ok(());
        }
        let batch = shared.store.coldest(BATCH_VALUES, excess.min(BATCH_BYTES));
        if batch.is_empty() {
            if spilling.oversized.load(Ordering::Relaxed) {
                warn_unmanaged(shared, spilling, warned);
            }
            return Ok(());
        }
        match move_out(shared, spilling, batch).await {
            // Files of values that are in memory can be written again.
            Err(SpillError::Limit { .. }) if shared.store.drop_copies_on_disk() > 0 => {}
            ended => ended?,
        }
    }
}

fn warn_unmanaged(shared: &Shared, spilling: &Spilling, warned: &mut Option<Instant>) {
    if warned.is_some_and(|at| at.elapsed() < UNMANAGED_WARNING_INTERVAL) {
        return;
    }
    *warned = Some(Instant::now());
    let resident = resident_bytes(&shared.python_pids());
    let managed = u64::try_from(shared.store.nbytes_in_memory()).unwrap_or(0);
    warn!(
        target: "distributed.worker.memory",
        "Unmanaged memory use is high. This may indicate a memory leak or the memory may not be released to the OS; see \
         https://distributed.dask.org/en/latest/worker-memory.html#memory-not-released-back-to-the-os for more information. \
         -- Unmanaged memory: {} -- Worker memory limit: {}",
        format_bytes(resident.saturating_sub(managed)), format_bytes(spilling.limit)
    );
}

/// Moves these values. Those that cannot be serialised stay, and are not tried again.
async fn move_out(shared: &Arc<Shared>, spilling: &Spilling, batch: Vec<(Key, Stored)>) -> Result<(), SpillError> {
    let from_python = batch.iter().filter(|(_, it)| only_there(it)).map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let mut fetched: HashMap<Key, Payload> = match shared.python().filter(|_| !from_python.is_empty()) {
        // Of a process that ends, nobody needs the values any more.
        Some(python) => python.fetch(from_python).await.unwrap_or_default().into_iter().collect(),
        None => HashMap::new(),
    };
    let mut forms = Vec::with_capacity(batch.len());
    for (key, stored) in batch {
        let form = match &stored {
            Stored { disk: Some(disk), .. } => Form::Written(Arc::clone(disk)),
            Stored { payload: Some(payload), .. } => Form::Payload(payload.clone()),
            Stored { native: Some(value), .. } => Form::Native(value.clone()),
            _ => match fetched.remove(&key) {
                Some(payload) => Form::Payload(payload),
                // Freed meanwhile, or deleted by user code: asking again and again would not help.
                None => {
                    shared.store.forget_use(&key);
                    continue;
                }
            },
        };
        forms.push((key, stored, form));
    }
    let directory = Arc::clone(&spilling.directory);
    let written = tokio::task::spawn_blocking(move || write_all(&directory, forms)).await;
    let (mut moved, mut failure) = (Vec::new(), None);
    for (key, stored, outcome) in written.unwrap_or_default() {
        match outcome {
            Ok(disk) => moved.push((key, stored, disk)),
            Err(Stays::Unserialisable(reason)) => {
                error!(target: "distributed.spill", "Failed to pickle {key:?}; keeping it in memory: {reason}");
                shared.store.forget_use(&key);
            }
            Err(Stays::Failed(error)) => failure = Some(error),
        }
    }
    leave(shared, moved).await;
    failure.map_or(Ok(()), Err)
}

/// Whether Python has to be asked for the value.
fn only_there(stored: &Stored) -> bool {
    stored.disk.is_none() && stored.payload.is_none() && stored.native.is_none()
}

enum Form {
    Written(Arc<Spilled>),
    Payload(Payload),
    Native(NativeValue),
}

type Written = (Key, Stored, Result<Arc<Spilled>, Stays>);

/// Stops at the first value that the disk does not take.
fn write_all(directory: &SpillDirectory, forms: Vec<(Key, Stored, Form)>) -> Vec<Written> {
    let mut written = Vec::with_capacity(forms.len());
    for (key, stored, form) in forms {
        let outcome = match form {
            Form::Written(disk) => Ok(disk),
            Form::Payload(payload) => write(directory, &payload),
            Form::Native(value) => match value.to_payload() {
                Ok(payload) => write(directory, &payload),
                Err(error) => Err(Stays::Unserialisable(error.to_string())),
            },
        };
        let failed = matches!(outcome, Err(Stays::Failed(_)));
        written.push((key, stored, outcome));
        if failed {
            break;
        }
    }
    written
}

fn write(directory: &SpillDirectory, payload: &Payload) -> Result<Arc<Spilled>, Stays> {
    if payload.sub_header().ok().and_then(|header| header.serializer).as_deref() == Some("error") {
        let reason = payload.frames().first().map(|frame| String::from_utf8_lossy(frame).into_owned());
        return Err(Stays::Unserialisable(reason.unwrap_or_default()));
    }
    directory.write(payload).map(Arc::new).map_err(Stays::Failed)
}

/// In one step of the driver, so that Python hears of it before or after anything that counts on the values, never between.
async fn leave(shared: &Arc<Shared>, moved: Vec<(Key, Stored, Arc<Spilled>)>) {
    if moved.is_empty() {
        return;
    }
    let (told, gone) = oneshot::channel();
    let stage = Arc::clone(shared);
    let step = move || {
        let left = moved.into_iter().filter_map(|(key, stored, disk)| {
            let in_python = stage.store.moved_to_disk(&key, &stored, disk)?;
            in_python.then_some(key)
        });
        let left: Vec<Key> = left.collect();
        if let (false, Some(python)) = (left.is_empty(), stage.python()) {
            // Whoever waits may have been stopped.
            let _ = told.send(python.evict(left));
        }
        Vec::new()
    };
    if !shared.inbox.send(Input::Step(Box::new(step))) {
        return;
    }
    if let Ok(evicted) = gone.await {
        // A process that ends has evicted everything.
        let _ = evicted.await;
    }
}

/// Reads a value back, off the runtime's threads.
///
/// # Errors
/// [`SpillError::Read`].
pub(crate) async fn read(shared: &Shared, disk: Arc<Spilled>) -> Result<Payload, SpillError> {
    let spilling = shared.spilling.as_ref().expect("who has a file has a folder");
    let directory = Arc::clone(&spilling.directory);
    let reading = tokio::task::spawn_blocking(move || directory.read(&disk));
    reading.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// The value on disk cannot be read: says so, and tells the scheduler that it is not here any more.
pub(crate) fn lose(shared: &Arc<Shared>, key: &Key, stored: &Stored, failure: &SpillError) {
    error!(target: "distributed.spill", "The file of {key:?} cannot be read: {failure}");
    let (stage, key, stored) = (Arc::clone(shared), key.clone(), stored.clone());
    let step = move || forget(&stage, key, &stored);
    shared.inbox.send(Input::Step(Box::new(step)));
}

/// What the state is told of a value whose file cannot be read: nothing if it came back to memory meanwhile.
pub(crate) fn forget(shared: &Shared, key: Key, stored: &Stored) -> Vec<Event> {
    if shared.store.get(&key).is_some_and(|now| now.is_same(stored) && now.is_in_memory()) {
        shared.store.drop_file(&key, stored);
        return Vec::new();
    }
    if !shared.store.remove_same(&key, stored) {
        return Vec::new();
    }
    vec![Event::DataLost { keys: vec![key], stimulus_id: stimulus("spilled-value-lost") }]
}

/// User code in the Python process asks for a value that is not there.
pub(crate) async fn serve_load(shared: Arc<Shared>, asker: Arc<Python>, id: u64, key: Key) {
    let found = shared.store.get(&key);
    // A loop over all values of a worker must not bring them back faster than others leave.
    let _room = match (&shared.spilling, &found) {
        (Some(spilling), Some(stored)) => Some(spilling.make_room(&shared.store, stored.nbytes).await),
        _ => None,
    };
    let payload = shared.payloads(std::slice::from_ref(&key)).await.into_iter().next().map(|(_, payload)| payload);
    let stage = Arc::clone(&shared);
    let step = move || {
        // Nobody waits in a process that took its place.
        let Some(python) = stage.python().filter(|now| Arc::ptr_eq(now, &asker)) else { return Vec::new() };
        python.tell(Loaded { id, key: key.clone(), data: payload.clone() }.into());
        let same = found.as_ref().zip(stage.store.get(&key)).is_some_and(|(before, now)| before.is_same(&now));
        match (payload.is_some(), same) {
            (true, true) => stage.store.handed_to_python(&key),
            // It was freed meanwhile: only the asker has it.
            (true, false) => crate::executor::drop_in_python(&stage, vec![key]),
            (false, _) => {}
        }
        Vec::new()
    };
    shared.inbox.send(Input::Step(Box::new(step)));
}
