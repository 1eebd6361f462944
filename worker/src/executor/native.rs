//! Threads that run native tasks. A panic fails its task and leaves the thread alive.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Once};
use std::thread;

use crossbeam::channel::{self, Receiver, Sender};

use crate::native::{ArgSlot, NativeError, NativeFunction, NativeValue, TaskContext};

/// A task whose arguments are at hand.
pub(crate) struct Job {
    pub function: NativeFunction,
    pub context: TaskContext,
    pub args: Vec<ArgSlot>,
    /// Called on the pool's thread with the outcome.
    pub done: Box<dyn FnOnce(Outcome) + Send>,
}

/// How a job ended.
pub(crate) struct Outcome {
    pub result: Result<NativeValue, NativeError>,
    /// Unix seconds.
    pub start: f64,
    /// Unix seconds.
    pub stop: f64,
    /// Which of the pool's threads ran it, from 1.
    pub thread: u64,
}

/// A fixed number of threads fed by one queue. Dropping the pool lets the threads end after the jobs they have.
pub(crate) struct NativePool {
    jobs: Sender<Job>,
}

impl NativePool {
    /// Starts the threads.
    pub(crate) fn start(threads: u32) -> std::io::Result<NativePool> {
        install_panic_hook();
        let (jobs, queue) = channel::unbounded::<Job>();
        let spawn = |i: u32| {
            let queue: Receiver<Job> = queue.clone();
            thread::Builder::new().name(format!("dask-native-{i}")).spawn(move || {
                for job in queue {
                    run(job, u64::from(i));
                }
            })
        };
        (1..=threads.max(1)).map(spawn).collect::<Result<Vec<_>, _>>()?;
        Ok(NativePool { jobs })
    }

    /// Queues a job. The worker's state sends no more at a time than there are threads.
    pub(crate) fn submit(&self, job: Job) {
        self.jobs.send(job).expect("the pool's threads take jobs until it is dropped");
    }
}

fn run(job: Job, thread: u64) {
    let Job { function, context, args, done } = job;
    let start = crate::clock::unix_now();
    LAST_PANIC.set(None);
    RUNNING.set(true);
    let called = panic::catch_unwind(AssertUnwindSafe(|| (function.call)(&context, args)));
    RUNNING.set(false);
    let result = called.unwrap_or_else(|payload| {
        let message = panic_message(&*payload);
        Err(NativeError::Panicked { message, location: LAST_PANIC.take() })
    });
    done(Outcome { result, start, stop: crate::clock::unix_now(), thread });
}

thread_local! {
    static RUNNING: RefCell<bool> = const { RefCell::new(false) };
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes where a task panicked. Panics outside tasks go to the hook that was there before.
fn install_panic_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous: Arc<dyn Fn(&panic::PanicHookInfo<'_>) + Send + Sync> = Arc::from(panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            if RUNNING.with_borrow(|running| *running) {
                LAST_PANIC.set(info.location().map(ToString::to_string));
            } else {
                previous(info);
            }
        }));
    });
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

    fn context() -> TaskContext {
        TaskContext { key: "k".into(), worker: "tcp://127.0.0.1:1".into() }
    }

    fn function(call: fn(&TaskContext, Vec<ArgSlot>) -> Result<NativeValue, NativeError>) -> NativeFunction {
        NativeFunction { name: "f", location: "here:1", call }
    }

    fn outcome_of(pool: &NativePool, function: NativeFunction) -> Outcome {
        let (send, receive) = mpsc::channel();
        let done = Box::new(move |outcome| send.send(outcome).expect("the test waits"));
        pool.submit(Job { function, context: context(), args: Vec::new(), done });
        receive.recv_timeout(Duration::from_secs(20)).expect("the job ends")
    }

    #[test]
    fn a_panic_fails_its_task_and_the_thread_goes_on() {
        let pool = NativePool::start(1).expect("threads");
        let outcome = outcome_of(&pool, function(|_, _| panic!("out of {}", "luck")));
        let Err(NativeError::Panicked { message, location }) = outcome.result else { panic!("expected a panic") };
        assert_eq!(message, "out of luck");
        assert!(location.is_some_and(|place| place.contains("native.rs")));
        let outcome = outcome_of(&pool, function(|_, _| Ok(NativeValue::new(7_i64))));
        assert_eq!(*outcome.result.expect("returns").downcast::<i64>().expect("an i64"), 7);
        assert!(outcome.start <= outcome.stop);
    }
}
