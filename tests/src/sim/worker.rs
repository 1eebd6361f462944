//! A worker process as the simulation sees it: the real state, and a pretended shell that keeps only names of values.

use dask_protocol::message::{ErrorInfo, Resources, SchedulerToWorker, StimulusId, WorkerStatus};
use dask_protocol::{Address, Key, Value};
use dask_scheduler::state as sched;
use dask_worker::state::{Actions, Config, Event, ExecuteOutcome, GatherOutcome, State};
use indexmap::{IndexMap, IndexSet};

use super::case::Case;
use super::step::{Arrival, Outcome, WorkerNo};

/// Bytes of a worker's memory, for the active memory manager.
const MEMORY_LIMIT: u64 = 1_000_000_000;

/// A live worker process.
pub struct SimWorker {
    /// Its slot.
    pub slot: u32,
    /// Its address.
    pub address: Address,
    /// Its state.
    pub state: State,
    /// Values it really has, and their sizes in bytes.
    pub store: IndexMap<Key, i64>,
    /// Requests sent, by holder: what was asked for.
    pub requests: IndexMap<Address, Vec<Key>>,
    /// Replies under way, by holder; `None` is a refused connection.
    pub replies: IndexMap<Address, Option<Served>>,
    /// What its state decided and is not carried out yet.
    pub actions: Actions,
    running: IndexSet<(Key, i64)>,
}

/// What a worker answers a peer.
#[derive(Debug, Clone)]
pub enum Served {
    /// That it has too many transfers.
    Busy,
    /// What it has of what was asked for, and sizes in bytes.
    Values(Vec<(Key, i64)>),
}

impl SimWorker {
    /// A fresh process.
    pub fn new(case: &Case, slot: u32, no: WorkerNo, address: Address, now: f64) -> SimWorker {
        let place = &case.slots[slot as usize];
        let mut config = Config::new(address.clone(), place.nthreads);
        config.resources = resources(place.gpus);
        config.transfer_incoming_bytes_max = place.transfer_bytes_max;
        config.transfer_message_bytes_max = 2000;
        config.transfer_incoming_count_max = 3;
        config.seed = case.seed.wrapping_add(u64::from(no));
        config.validate = true;
        SimWorker {
            slot,
            address,
            state: State::new(config, now),
            store: IndexMap::new(),
            requests: IndexMap::new(),
            replies: IndexMap::new(),
            actions: Vec::new(),
            running: IndexSet::new(),
        }
    }

    /// What it tells the scheduler when it registers.
    pub fn registration(&self, case: &Case, stimulus_id: StimulusId) -> sched::NewWorker {
        let place = &case.slots[self.slot as usize];
        sched::NewWorker {
            address: self.address.clone(),
            name: Value::Str(format!("w{}-{}", self.slot, self.address.port().unwrap_or(0))),
            server_id: format!("Worker-{}", self.address),
            status: WorkerStatus::Init,
            nthreads: place.nthreads,
            memory_limit: MEMORY_LIMIT,
            resources: resources(place.gpus),
            nanny: None,
            runtimes: vec![sched::Runtime::Python],
            stimulus_id,
        }
    }

    /// Whether nothing goes on that will end by itself.
    pub fn is_quiet(&self) -> bool {
        self.running.is_empty() && self.requests.is_empty()
    }

    /// Compares what the state believes with what the process has.
    ///
    /// # Errors
    /// What differs.
    pub fn check(&self) -> Result<(), String> {
        for (key, _) in self.state.in_memory() {
            if !self.store.contains_key(key) {
                return Err(format!("{key:?} is in memory and there is no value"));
            }
        }
        let claimed = self.state.in_memory().count();
        if claimed != self.store.len() {
            let stray = self.store.keys().find(|k| self.state.task_state(k).is_none_or(|s| s.name() != "memory"));
            return Err(format!("the value of {stray:?} belongs to no task in memory"));
        }
        Ok(())
    }

    fn handle(&mut self, now: f64, event: Event) {
        let mut actions = Vec::new();
        self.state.handle(now, event, &mut actions);
        self.actions.extend(actions);
    }

    /// A message of the scheduler.
    pub fn scheduler(&mut self, now: f64, message: SchedulerToWorker) {
        self.handle(now, Event::Scheduler(message));
    }

    /// A time it waited for has come.
    pub fn timeout(&mut self, now: f64) {
        self.handle(now, Event::Timeout);
    }

    /// Memory fills up, or is free again.
    pub fn set_paused(&mut self, now: f64, paused: bool) {
        let stimulus_id: StimulusId = "memory".into();
        self.handle(now, if paused { Event::Pause { stimulus_id } } else { Event::Unpause { stimulus_id } });
    }

    /// An execution starts.
    ///
    /// # Errors
    /// When an input is not here, or this run is running already.
    pub fn start(&mut self, key: &Key, run: i64, dependencies: &[Key]) -> Result<(), String> {
        if let Some(absent) = dependencies.iter().find(|dep| !self.store.contains_key(*dep)) {
            return Err(format!("{key:?} starts without its input {absent:?}"));
        }
        if !self.running.insert((key.clone(), run)) {
            return Err(format!("run {run} of {key:?} starts twice"));
        }
        Ok(())
    }

    /// An execution ends.
    pub fn finish(&mut self, now: f64, key: &Key, run: i64, outcome: Outcome) {
        if !self.running.swap_remove(&(key.clone(), run)) {
            return;
        }
        let outcome = match outcome {
            Outcome::Success(nbytes) => {
                self.store.insert(key.clone(), nbytes);
                success(nbytes)
            }
            Outcome::Failure => failure(),
            Outcome::Reschedule => ExecuteOutcome::Reschedule,
        };
        let (key, stimulus_id) = (key.clone(), format!("execute-done-{now}").into());
        self.handle(now, Event::ExecuteDone { key, run_id: run, outcome, stimulus_id });
    }

    /// A running task secedes.
    pub fn secede(&mut self, now: f64, key: &Key) {
        if self.running.iter().any(|(k, _)| k == key) {
            let stimulus_id = format!("secede-{now}").into();
            self.handle(now, Event::Seceded { key: key.clone(), compute_duration: 0.1, stimulus_id });
        }
    }

    /// The executor process dies: some values are gone, and everything that ran is rescheduled.
    pub fn executor_dies(&mut self, now: f64, lost: &[Key]) {
        let lost: Vec<Key> = lost.iter().filter(|key| self.store.swap_remove(*key).is_some()).cloned().collect();
        let ran = std::mem::take(&mut self.running);
        self.handle(now, Event::DataLost { keys: lost, stimulus_id: format!("executor-died-{now}").into() });
        for (key, run_id) in ran {
            let stimulus_id = format!("executor-died-{now}").into();
            self.handle(now, Event::ExecuteDone { key, run_id, outcome: ExecuteOutcome::Reschedule, stimulus_id });
        }
    }

    /// The outstanding request to a peer.
    pub fn request_to(&self, from: WorkerNo) -> Option<(Address, Vec<Key>)> {
        let port = u16::try_from(from + 1000).ok();
        let (address, keys) = self.requests.iter().find(|(address, _)| address.port() == port)?;
        Some((address.clone(), keys.clone()))
    }

    /// Answers a peer's request.
    pub fn serve(&self, keys: &[Key], busy: bool) -> Served {
        if busy {
            return Served::Busy;
        }
        Served::Values(keys.iter().filter_map(|key| Some((key.clone(), *self.store.get(key)?))).collect())
    }

    /// A transfer ends here.
    pub fn arrive(&mut self, now: f64, from: WorkerNo, arrival: Arrival) {
        let Some((worker, keys)) = self.request_to(from) else { return };
        self.requests.swap_remove(&worker);
        let reply = self.replies.swap_remove(&worker).flatten();
        let (received, outcome) = match (arrival, reply) {
            (Arrival::Cut, _) | (_, None) => (Vec::new(), GatherOutcome::Unreachable),
            (Arrival::CutInside, Some(Served::Values(mut values))) => {
                values.truncate(values.len().div_ceil(2));
                (values, GatherOutcome::Unreachable)
            }
            (Arrival::CutInside, Some(Served::Busy)) => (Vec::new(), GatherOutcome::Unreachable),
            (Arrival::Unusable, Some(Served::Values(values))) if !values.is_empty() => {
                (Vec::new(), GatherOutcome::Failed { error: error("cannot unpickle") })
            }
            (Arrival::Reply | Arrival::Unusable, Some(Served::Values(values))) => (values, GatherOutcome::Answered),
            (Arrival::Reply | Arrival::Unusable, Some(Served::Busy)) => (Vec::new(), GatherOutcome::Busy),
        };
        self.store.extend(received.iter().cloned());
        let stimulus_id = format!("gather-dep-{now}").into();
        self.handle(now, Event::GatherDone { worker, keys, received, outcome, start: now, stop: now, stimulus_id });
    }

    /// Values arrive by RPC.
    pub fn scatter(&mut self, now: f64, data: &[(String, i64)]) {
        let data: Vec<(Key, i64)> = data.iter().map(|(k, n)| (k.as_str().into(), *n)).collect();
        self.store.extend(data.iter().cloned());
        self.handle(now, Event::DataStored { data, report: false, stimulus_id: format!("scatter-{now}").into() });
    }

    /// What it tells in a heartbeat.
    pub fn heartbeat(&self, now: f64) -> sched::WorkerHeartbeat {
        sched::WorkerHeartbeat {
            worker: self.address.clone(),
            executing: self.state.executing().map(|(key, _, start)| (key.clone(), now - start)).collect(),
            bandwidth: None,
            memory: self.state.nbytes_in_memory(),
            spilled_memory: 0,
            spilled_disk: 0,
        }
    }
}

fn resources(gpus: u32) -> Resources {
    if gpus == 0 { Resources::default() } else { [("GPU".to_owned(), f64::from(gpus))].into_iter().collect() }
}

fn success(nbytes: i64) -> ExecuteOutcome {
    ExecuteOutcome::Success {
        nbytes,
        typename: "int".into(),
        type_pickle: None,
        value: None,
        metadata: Value::Map(Vec::new()),
        thread: Value::Int(1),
        startstops: vec![dask_protocol::message::StartStop {
            action: "compute".into(),
            start: 0.0,
            stop: 0.1,
            source: None,
        }],
    }
}

fn failure() -> ExecuteOutcome {
    ExecuteOutcome::Failure { error: error("boom"), thread: Value::Int(1), startstops: Vec::new() }
}

fn error(text: &str) -> ErrorInfo {
    ErrorInfo { exception: Value::Str(text.to_owned()), exception_text: text.into(), ..ErrorInfo::default() }
}
