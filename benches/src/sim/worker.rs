//! One simulated worker: the worker's own state, and a model of its threads and its store.

use std::collections::{BTreeSet, VecDeque};

use dask_protocol::message::{StartStop, WorkerStatus};
use dask_protocol::{Address, Key, Value};
use dask_scheduler::state::{NewWorker, Runtime, WorkerHeartbeat};
use dask_worker::state::{Actions, Config, Event, ExecuteOutcome, State};
use rustc_hash::FxHashMap;

use super::workload::TaskNo;

/// Requests a worker answers at a time; the next ones are told that it is busy (`worker.connections.incoming`).
pub const OUTGOING_MAX: usize = 10;

/// A worker.
#[derive(Debug)]
pub struct SimWorker {
    /// Where it is.
    pub address: Address,
    /// What decides.
    pub state: State,
    /// What its state decided last.
    pub actions: Actions,
    /// Values held, by task, and their sizes in bytes.
    pub store: FxHashMap<TaskNo, u64>,
    /// Bytes of them.
    pub held: u64,
    /// Requests of peers being answered.
    pub outgoing: usize,
    /// When its state wants to be called, if that is arranged already.
    pub timeout: Option<f64>,
    free_threads: BTreeSet<u32>,
    /// Executions without a thread, by the number that the cluster gave them, in their order.
    waiting: VecDeque<usize>,
    nthreads: u32,
    bandwidth: f64,
}

impl SimWorker {
    /// A worker with nothing to do; `seed` feeds its choice between equally good peers.
    pub fn new(number: usize, nthreads: u32, seed: u64) -> SimWorker {
        let address = Address::from(format!("tcp://10.{}.{}.{}:4000", number >> 16, number >> 8 & 255, number & 255));
        let mut config = Config::new(address.clone(), nthreads);
        config.seed = seed.wrapping_add(number as u64);
        config.story_rows_max = 0;
        SimWorker {
            state: State::new(config, 0.0),
            address,
            actions: Vec::new(),
            store: FxHashMap::default(),
            held: 0,
            outgoing: 0,
            timeout: None,
            free_threads: (0..nthreads).collect(),
            waiting: VecDeque::new(),
            nthreads,
            bandwidth: 100e6,
        }
    }

    /// What it registers with.
    pub fn registration(&self, number: usize) -> NewWorker {
        NewWorker {
            address: self.address.clone(),
            name: Value::from(number),
            server_id: format!("Worker-{number}"),
            status: WorkerStatus::Running,
            nthreads: self.nthreads,
            memory_limit: 0,
            resources: Default::default(),
            nanny: None,
            runtimes: vec![Runtime::Python],
            stimulus_id: "register-worker".into(),
        }
    }

    /// Feeds its state.
    pub fn handle(&mut self, now: f64, event: Event) {
        self.state.handle(now, event, &mut self.actions);
    }

    /// An execution is handed over; the next one that begins, and its thread.
    pub fn add_execution(&mut self, slot: usize) -> Option<(usize, u32)> {
        self.waiting.push_back(slot);
        self.next_execution()
    }

    /// An execution ended on this thread; the next one that begins, and its thread.
    pub fn free_thread(&mut self, thread: u32) -> Option<(usize, u32)> {
        self.free_threads.insert(thread);
        self.next_execution()
    }

    fn next_execution(&mut self) -> Option<(usize, u32)> {
        let thread = *self.free_threads.first()?;
        let slot = self.waiting.pop_front()?;
        self.free_threads.remove(&thread);
        Some((slot, thread))
    }

    /// Stores a value; the bytes that came to those held.
    pub fn put(&mut self, task: TaskNo, nbytes: u64) -> u64 {
        if self.store.insert(task, nbytes).is_some() {
            return 0;
        }
        self.held += nbytes;
        nbytes
    }

    /// Drops a value; the bytes that went.
    pub fn drop_value(&mut self, task: TaskNo) -> u64 {
        let nbytes = self.store.remove(&task).unwrap_or(0);
        self.held -= nbytes;
        nbytes
    }

    /// A transfer to it took so long; what it reports follows slowly, as dask's does.
    #[expect(clippy::cast_precision_loss, reason = "sizes stay below 2^53")]
    pub fn observe_transfer(&mut self, nbytes: u64, seconds: f64) {
        /// Smaller transfers say more about latency than about bandwidth.
        const NBYTES_MIN: u64 = 1_000_000;
        const WEIGHT: f64 = 0.05;
        if nbytes > NBYTES_MIN && seconds > 0.0 {
            self.bandwidth = self.bandwidth * (1.0 - WEIGHT) + nbytes as f64 / seconds * WEIGHT;
        }
    }

    /// What it tells from time to time.
    pub fn heartbeat(&self, now: f64) -> WorkerHeartbeat {
        WorkerHeartbeat {
            worker: self.address.clone(),
            executing: self.state.executing().map(|(key, _, start)| (key.clone(), now - start)).collect(),
            bandwidth: Some(self.bandwidth),
            memory: self.held,
            spilled_memory: 0,
            spilled_disk: 0,
        }
    }
}

/// A result, as the worker's shell reports it.
pub fn success(nbytes: u64, start: f64, stop: f64) -> ExecuteOutcome {
    ExecuteOutcome::Success {
        nbytes: i64::try_from(nbytes).unwrap_or(i64::MAX),
        typename: "ndarray".into(),
        type_pickle: None,
        value: None,
        metadata: Value::Nil,
        thread: Value::Nil,
        startstops: vec![StartStop { action: "compute".into(), start, stop, source: None }],
    }
}

/// The number of a key in its workload.
pub fn task_of(numbers: &FxHashMap<Key, TaskNo>, key: &Key) -> TaskNo {
    *numbers.get(key).expect("the scheduler only names tasks of the workload")
}
