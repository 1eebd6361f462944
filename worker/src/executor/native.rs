//! Threads that run native tasks. A panic fails its task and leaves the thread alive.

use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::thread;

use dask_protocol::Key;
use dask_protocol::message::RunId;
use rustc_hash::FxBuildHasher;

use super::fate::Fate;
use super::replace::{Overdue, overdue_failure};
use crate::native::{ArgSlot, Brief, Call, NativeError, NativeValue, TaskContext};
use crate::server::Closed;
use crate::server::shared::{Shared, stimulus};
use crate::state::Event;

/// Jobs after which a thread is woken although more may follow.
const UNANNOUNCED_MAX: usize = 16;
/// So many jobs that wait for each thread are plenty.
const PLENTY: usize = 2;
/// Most lines kept of a panic's backtrace, two for each call.
const BACKTRACE_LINES_MAX: usize = 64;

/// A task whose arguments are at hand.
pub(crate) struct Job {
    pub call: Call,
    /// Of a function that needs no thread of its own.
    pub brief: Option<&'static Brief>,
    pub context: TaskContext,
    pub args: Vec<ArgSlot>,
    /// Called with the outcome by the thread that ran it.
    pub done: Box<dyn FnOnce(Outcome) + Send>,
}

/// Which execution of which task.
pub(crate) type Run = (Key, RunId);

/// How a job ended.
pub(crate) struct Outcome {
    pub result: Result<NativeValue, NativeError>,
    /// Unix seconds.
    pub start: f64,
    /// Unix seconds.
    pub stop: f64,
    /// Which of the pool's threads ran it, from 1; 0 for the one that submitted it.
    pub thread: u64,
    /// The `timeout` it was over when it ended, in seconds.
    pub overdue: Option<f64>,
}

/// A fixed number of threads fed by one queue. Dropping the pool lets the threads end after the jobs they have.
pub(crate) struct NativePool {
    crew: Arc<Crew>,
    threads: usize,
}

/// What the pool's threads have in common.
struct Crew {
    queue: Arc<Queue>,
    fates: Mutex<HashMap<Run, Arc<Fate>, FxBuildHasher>>,
    /// How many threads were ever started.
    started: AtomicU64,
}

/// Jobs that wait for a thread, and threads that wait for a job.
///
/// Jobs are announced some at a time: waking a thread for each costs more than a trivial task does. For the same reason this
/// is no channel, whose receivers look again and again before they sleep.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Jobs for which no thread was woken yet.
    unannounced: usize,
    /// Threads that sleep and were not told to wake.
    sleeping: usize,
    /// Threads that were told and have not come yet.
    called: usize,
    /// No more jobs will come.
    closed: bool,
}

impl Waiting {
    /// How many threads to wake for the jobs since the last time.
    fn call(&mut self) -> usize {
        let wanted = std::mem::take(&mut self.unannounced).min(self.sleeping);
        self.sleeping -= wanted;
        self.called += wanted;
        wanted
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) {
        let mut waiting = self.lock();
        waiting.jobs.push_back(job);
        waiting.unannounced += 1;
        let wanted = if waiting.unannounced >= UNANNOUNCED_MAX { waiting.call() } else { 0 };
        drop(waiting);
        self.wake(wanted);
    }

    fn announce(&self) {
        let wanted = self.lock().call();
        self.wake(wanted);
    }

    fn wake(&self, threads: usize) {
        for _ in 0..threads {
            self.filled.notify_one();
        }
    }

    /// The next job, or `None` once there will be none.
    fn pop(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            if waiting.closed {
                return None;
            }
            waiting.sleeping += 1;
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            // Threads may also wake by themselves; whoever comes first answers the call.
            match waiting.called.checked_sub(1) {
                Some(others) => waiting.called = others,
                None => waiting.sleeping -= 1,
            }
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }
}

impl Drop for NativePool {
    fn drop(&mut self) {
        self.crew.queue.close();
    }
}

/// Whether the native task that this thread runs should end: nobody wants its result any more, or it is over its
/// `timeout`. Long tasks ask now and then, and return an error when it is so.
pub fn is_cancelled() -> bool {
    FATE.with_borrow(|fate| fate.as_ref().is_some_and(|fate| fate.is_cancelled()))
}

impl NativePool {
    /// Starts the threads.
    pub(crate) fn start(threads: u32) -> std::io::Result<NativePool> {
        install_panic_hook();
        let crew = Arc::new(Crew { queue: Arc::default(), fates: Mutex::default(), started: AtomicU64::new(0) });
        let threads = threads.max(1) as usize;
        for _ in 0..threads {
            crew.start_thread()?;
        }
        Ok(NativePool { crew, threads })
    }

    /// Tells a job that it should end; `limit` is the `timeout` that it is over.
    pub(crate) fn cancel(&self, key: &Key, run_id: RunId, limit: Option<f64>) {
        if let Some(fate) = self.crew.fates().get(&(key.clone(), run_id)).cloned() {
            fate.cancel(limit);
        }
    }

    /// Takes a running job out of the pool: another thread is started in place of the one it holds, which ends with the
    /// job. False when it has left already, or has ended.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub(crate) fn secede(&self, key: &Key, run_id: RunId) -> std::io::Result<bool> {
        let Some(fate) = self.crew.fates().get(&(key.clone(), run_id)).cloned() else { return Ok(false) };
        if !fate.secede() {
            return Ok(false);
        }
        self.crew.start_thread().map(|()| true)
    }

    /// Stops waiting for a job, and starts another thread in place of the one it holds. False when the job has ended.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub(crate) fn give_up(&self, key: &Key, run_id: RunId) -> std::io::Result<bool> {
        let Some(fate) = self.crew.fates().remove(&(key.clone(), run_id)) else { return Ok(false) };
        fate.give_up();
        if !fate.has_seceded() {
            self.crew.start_thread()?;
        }
        Ok(true)
    }

    /// Queues a job. Some threads may sleep on until [`NativePool::announce`]. A brief one is run at once.
    pub(crate) fn submit(&self, job: Job) {
        if let Some(brief) = job.brief {
            return run_here(job, brief);
        }
        self.crew.fates().insert(job.context.run(), Arc::clone(&job.context.fate));
        self.crew.queue.push(job);
    }

    /// How many jobs wait for a thread.
    pub(crate) fn jobs_left(&self) -> usize {
        self.crew.queue.lock().jobs.len()
    }

    /// The same, if the threads have plenty to go on with.
    pub(crate) fn plenty(&self) -> Option<usize> {
        let jobs = self.jobs_left();
        (jobs >= PLENTY * self.threads).then_some(jobs)
    }

    /// Sees to it that the jobs queued so far are run.
    pub(crate) fn announce(&self) {
        self.crew.queue.announce();
    }
}

impl Crew {
    fn fates(&self) -> MutexGuard<'_, HashMap<Run, Arc<Fate>, FxBuildHasher>> {
        self.fates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_thread(self: &Arc<Crew>) -> std::io::Result<()> {
        let (number, queue) = (self.started.fetch_add(1, Ordering::Relaxed) + 1, Arc::clone(&self.queue));
        // The crew is not kept alive by its threads: they end when the pool is dropped.
        let crew = Arc::downgrade(self);
        thread::Builder::new().name(format!("dask-native-{number}")).spawn(move || {
            while let Some(job) = queue.pop() {
                if !run(job, number, &crew) {
                    return;
                }
            }
        })?;
        Ok(())
    }
}

/// Runs a job. False when the thread has been replaced meanwhile: the job was given up, or left the pool.
fn run(job: Job, thread: u64, crew: &Weak<Crew>) -> bool {
    let Job { call, context, args, done, .. } = job;
    let run = context.run();
    let fate = Arc::clone(&context.fate);
    let start = crate::clock::unix_now();
    let result = call_caught(call, &context, args);
    // Whoever removes it decides what became of the job.
    let waited_for = crew.upgrade().is_none_or(|crew| crew.fates().remove(&run).is_some());
    if !waited_for && fate.is_given_up() {
        return false;
    }
    done(Outcome { result, start, stop: crate::clock::unix_now(), thread, overdue: fate.overdue() });
    !fate.has_seceded()
}

/// Runs a brief job on this thread, which is the worker's.
fn run_here(job: Job, brief: &Brief) {
    let Job { call, context, args, done, .. } = job;
    let start = crate::clock::unix_now();
    let result = call_caught(call, &context, args);
    let stop = crate::clock::unix_now();
    if brief.took(stop - start) {
        let (key, seconds) = (&context.run().0, stop - start);
        tracing::warn!(target: "distributed.worker", "Native task {key} is marked as brief and took {seconds:.3} s, while its worker could do nothing else; tasks of its function run in threads from now on");
    }
    done(Outcome { result, start, stop, thread: 0, overdue: None });
}

/// Calls a task on this thread. A panic is an error.
pub(crate) fn call_caught(call: Call, context: &TaskContext, args: Vec<ArgSlot>) -> Result<NativeValue, NativeError> {
    FATE.set(Some(Arc::clone(&context.fate)));
    LAST_PANIC.set(None);
    RUNNING.set(true);
    let called = panic::catch_unwind(AssertUnwindSafe(|| call.run(context, args)));
    RUNNING.set(false);
    FATE.set(None);
    called.unwrap_or_else(|payload| {
        let message = panic_message(&*payload);
        let (location, backtrace) = LAST_PANIC.take().unzip();
        Err(NativeError::Panicked { message, location: location.flatten(), backtrace })
    })
}

/// Ends a native task that goes on after its limit.
pub(crate) fn give_up(shared: &Arc<Shared>, overdue: &Overdue) {
    let Overdue { key, run_id, limit } = overdue;
    match shared.native.give_up(key, *run_id) {
        Ok(true) => {
            tracing::warn!(target: "distributed.worker", "Native task {key} goes on in a thread that was given up: it is over its timeout of {limit} s");
            let outcome = overdue_failure(shared, key, *limit, "its thread was given up");
            let (key, stimulus_id) = (key.clone(), stimulus("task-timeout"));
            shared.notify(Event::ExecuteDone { key, run_id: *run_id, outcome, stimulus_id });
        }
        Ok(false) => {}
        Err(error) => {
            let reason = format!("no thread could be started in place of the one that runs {key}: {error}");
            shared.request_close(Closed::restarting(reason));
        }
    }
}

thread_local! {
    static RUNNING: RefCell<bool> = const { RefCell::new(false) };
    static FATE: RefCell<Option<Arc<Fate>>> = const { RefCell::new(None) };
    /// Where the last panic of a task was, and the calls that led there.
    static LAST_PANIC: RefCell<Option<(Option<String>, String)>> = const { RefCell::new(None) };
}

/// Notes where a task panicked. Panics outside tasks go to the hook that was there before.
pub(crate) fn install_panic_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous: Arc<dyn Fn(&panic::PanicHookInfo<'_>) + Send + Sync> = Arc::from(panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            if RUNNING.with_borrow(|running| *running) {
                let backtrace = frames_of_task(&Backtrace::force_capture().to_string());
                LAST_PANIC.set(Some((info.location().map(ToString::to_string), backtrace)));
            } else {
                previous(info);
            }
        }));
    });
}

/// The lines of a backtrace between the panic's machinery and that of the pool.
fn frames_of_task(backtrace: &str) -> String {
    let mut lines: Vec<&str> = backtrace.lines().collect();
    if let Some(end) = lines.iter().position(|line| line.contains("executor::native::call_caught")) {
        lines.truncate(end);
    }
    let frame = |line: &&str| line.split_once(": ").is_some_and(|(n, _)| n.trim().parse::<u32>().is_ok());
    let machinery =
        |line: &&str| ["core::panicking::", "rust_begin_unwind", "std::panicking::"].iter().any(|it| line.contains(it));
    let start = lines.iter().rposition(machinery).map_or(0, |last| last + 1);
    let first = lines[start..].iter().position(frame).map_or(lines.len(), |n| start + n);
    lines[first..].iter().take(BACKTRACE_LINES_MAX).copied().collect::<Vec<_>>().join("\n")
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn context(key: &str) -> TaskContext {
        TaskContext::without_worker(key.into(), 1)
    }

    fn function(call: fn(&TaskContext, Vec<ArgSlot>) -> Result<NativeValue, NativeError>) -> Call {
        Call::Here(call)
    }

    fn outcome_of(pool: &NativePool, call: Call) -> Outcome {
        let (send, receive) = mpsc::channel();
        let done = Box::new(move |outcome| send.send(outcome).expect("the test waits"));
        pool.submit(Job { call, brief: None, context: context("k"), args: Vec::new(), done });
        pool.announce();
        receive.recv_timeout(Duration::from_secs(20)).expect("the job ends")
    }

    #[test]
    fn a_cancelled_job_is_told_and_one_given_up_leaves_its_thread_to_another() {
        let pool = NativePool::start(1).expect("threads");
        let (send, receive) = mpsc::channel();
        let wait = function(|_, _| {
            while !is_cancelled() {
                thread::yield_now();
            }
            Ok(NativeValue::new(0_i64))
        });
        let submit = |key: &str| {
            let (send, context) = (send.clone(), context(key));
            let key = Key::from(key);
            let done = Box::new(move |_| send.send(key).expect("the test waits"));
            pool.submit(Job { call: wait, brief: None, context, args: Vec::new(), done });
            pool.announce();
        };
        submit("cancelled");
        pool.cancel(&"cancelled".into(), 1, None);
        assert_eq!(receive.recv_timeout(DEADLINE).expect("it ends"), "cancelled".into());
        submit("stuck");
        submit("next");
        assert!(pool.give_up(&"stuck".into(), 1).expect("a thread"));
        assert!(!pool.give_up(&"stuck".into(), 1).expect("no thread is needed"));
        pool.cancel(&"next".into(), 1, None);
        assert_eq!(receive.recv_timeout(DEADLINE).expect("another thread runs it"), "next".into());
    }

    #[test]
    fn threads_take_jobs_by_themselves_once_there_are_many() {
        let pool = NativePool::start(2).expect("threads");
        let (send, receive) = mpsc::channel();
        for n in 0..UNANNOUNCED_MAX {
            let (send, context) = (send.clone(), context(&n.to_string()));
            let done = Box::new(move |_| send.send(()).expect("the test waits"));
            let call = function(|_, _| Ok(NativeValue::new(0_i64)));
            pool.submit(Job { call, brief: None, context, args: Vec::new(), done });
        }
        for _ in 0..UNANNOUNCED_MAX {
            receive.recv_timeout(DEADLINE).expect("each job ends");
        }
    }

    #[test]
    fn a_panic_fails_its_task_and_the_thread_goes_on() {
        let pool = NativePool::start(1).expect("threads");
        let outcome = outcome_of(&pool, function(|_, _| panic!("out of {}", "luck")));
        let Err(NativeError::Panicked { message, location, backtrace }) = outcome.result else {
            panic!("expected a panic")
        };
        assert_eq!(message, "out of luck");
        assert!(location.is_some_and(|place| place.contains("native.rs")));
        let backtrace = backtrace.expect("always there");
        assert!(!backtrace.contains("core::panicking") && !backtrace.contains("call_caught"), "{backtrace}");
        let outcome = outcome_of(&pool, function(|_, _| Ok(NativeValue::new(7_i64))));
        assert_eq!(*outcome.result.expect("returns").downcast::<i64>().expect("an i64"), 7);
        assert!(outcome.start <= outcome.stop);
    }
}
