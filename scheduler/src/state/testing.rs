//! Helpers for tests of the state: builders, and a scheduler that is checked after every event.

use std::sync::Arc;

use bytes::Bytes;
use dask_protocol::message::{
    AddKeys, ComputeTask, LongRunning, ReleaseWorkerData, Reschedule, RunId, SchedulerToClient, SchedulerToWorker,
    StartStop, StealResponse, TaskErred, TaskFinished, WorkerStatus, WorkerStatusChange, WorkerToScheduler,
};
use dask_protocol::{Address, Key, Payload, Value};

use super::{
    Action, Annotations, Config, Event, NewTask, NewWorker, Runtime, Seconds, State, TaskSpec, TaskState, UpdateGraph,
};

/// The client most tests use.
pub(crate) const CLIENT: &str = "Client-1";

/// A task without dependencies.
pub(crate) fn task(key: impl Into<Key>) -> NewTask {
    NewTask {
        key: key.into(),
        dependencies: Vec::new(),
        spec: TaskSpec::Payload(Payload::pickled(Bytes::from_static(b"spec"), Vec::new())),
        runtime: Runtime::Python,
        data_producer: false,
        is_task: true,
        is_barrier: false,
        order: 0.0,
        actor: false,
        annotations: Arc::default(),
    }
}

/// A task that reads others.
pub(crate) fn task_of(key: impl Into<Key>, dependencies: &[&str]) -> NewTask {
    NewTask { dependencies: dependencies.iter().map(|dep| Key::from(*dep)).collect(), ..task(key) }
}

/// The same task with annotations.
pub(crate) fn annotated(task: NewTask, change: impl FnOnce(&mut Annotations)) -> NewTask {
    let mut annotations = (*task.annotations).clone();
    change(&mut annotations);
    NewTask { annotations: Arc::new(annotations), ..task }
}

/// The address of worker number `n`, each on its own host.
pub(crate) fn address(n: usize) -> Address {
    Address::from(format!("tcp://10.0.0.{n}:4000"))
}

/// A running worker that can run everything.
pub(crate) fn worker(n: usize, nthreads: u32) -> NewWorker {
    NewWorker {
        address: address(n),
        name: Value::from(format!("w{n}")),
        server_id: format!("Worker-{n}"),
        status: WorkerStatus::Running,
        nthreads,
        memory_limit: 0,
        resources: Default::default(),
        nanny: None,
        runtimes: vec![Runtime::Python, Runtime::Native],
        stimulus_id: "worker-connect".into(),
    }
}

/// A scheduler, and what it decided last.
pub(crate) struct Kit {
    pub(crate) state: State,
    pub(crate) now: Seconds,
    pub(crate) actions: Vec<Action>,
    /// Every `compute-task` ever sent: worker, key, run id.
    pub(crate) runs: Vec<(Address, Key, RunId)>,
}

impl Kit {
    /// With one client and workers 1.. with these many threads.
    pub(crate) fn new(threads: &[u32]) -> Kit {
        Kit::with(Config::default(), threads)
    }

    pub(crate) fn with(config: Config, threads: &[u32]) -> Kit {
        let config = Config { validate: true, ..config };
        let now = 1_700_000_000.0;
        let mut kit = Kit { state: State::new(config, now), now, actions: Vec::new(), runs: Vec::new() };
        kit.handle(Event::AddClient { client: CLIENT.into() });
        for (n, nthreads) in (1..).zip(threads) {
            kit.handle(Event::AddWorker(Box::new(worker(n, *nthreads))));
        }
        kit
    }

    /// Handles one event a millisecond after the last.
    pub(crate) fn handle(&mut self, event: Event) -> &[Action] {
        self.now += 0.001;
        self.actions.clear();
        self.state.handle(self.now, event, &mut self.actions);
        for action in &self.actions {
            if let Action::ToWorker { worker, message: SchedulerToWorker::ComputeTask(message) } = action {
                self.runs.push((worker.clone(), message.key.clone(), message.run_id));
            }
        }
        &self.actions
    }

    pub(crate) fn submit(&mut self, tasks: Vec<NewTask>, keys: &[&str]) {
        self.submit_for(CLIENT, tasks, keys);
    }

    pub(crate) fn submit_for(&mut self, client: &str, tasks: Vec<NewTask>, keys: &[&str]) {
        self.handle(Event::UpdateGraph(Box::new(UpdateGraph {
            client: client.into(),
            tasks,
            keys: keys.iter().map(|key| Key::from(*key)).collect(),
            submitting_task: None,
            fifo_timeout: 0.0,
            stimulus_id: "update-graph".into(),
        })));
    }

    pub(crate) fn release(&mut self, keys: &[&str]) {
        let keys = keys.iter().map(|key| Key::from(*key)).collect();
        self.handle(Event::ClientReleasesKeys { client: CLIENT.into(), keys });
    }

    /// A message from worker number `n`.
    pub(crate) fn say(&mut self, n: usize, message: impl Into<WorkerToScheduler>) {
        self.handle(Event::WorkerMessage { worker: address(n), message: message.into() });
    }

    /// The latest run of a key, and on which worker.
    pub(crate) fn last_run(&self, key: &str) -> (Address, RunId) {
        let last = self.runs.iter().rev().find(|(_, other, _)| *other == Key::from(key));
        let (worker, _, run_id) = last.unwrap_or_else(|| panic!("{key} was never sent to a worker"));
        (worker.clone(), *run_id)
    }

    /// The number of the worker a key was sent to last.
    pub(crate) fn worker_of(&self, key: &str) -> usize {
        let worker = self.last_run(key).0;
        (1..256).find(|n| address(*n) == worker).expect("workers are numbered")
    }

    /// The worker a key was sent to finishes it.
    pub(crate) fn finish(&mut self, key: &str) {
        self.finish_in(key, 28, 0.01);
    }

    /// ... with a result of so many bytes, after so many seconds.
    pub(crate) fn finish_in(&mut self, key: &str, nbytes: i64, seconds: Seconds) {
        let (worker, run_id) = self.last_run(key);
        let message = finished(key, run_id, nbytes, seconds);
        self.handle(Event::WorkerMessage { worker, message: message.into() });
    }

    /// The worker a key was sent to raises.
    pub(crate) fn err(&mut self, key: &str) {
        let (worker, run_id) = self.last_run(key);
        self.handle(Event::WorkerMessage { worker, message: erred(key, run_id).into() });
    }

    pub(crate) fn add_worker(&mut self, worker: NewWorker) {
        self.handle(Event::AddWorker(Box::new(worker)));
    }

    /// Worker number `n` dies.
    pub(crate) fn lose(&mut self, n: usize) {
        self.remove(n, false);
    }

    pub(crate) fn remove(&mut self, n: usize, expected: bool) {
        let stimulus_id = "handle-worker-cleanup".into();
        self.handle(Event::RemoveWorker { worker: address(n), expected, close: true, stimulus_id });
    }

    pub(crate) fn set_status(&mut self, n: usize, status: WorkerStatus) {
        self.say(n, WorkerStatusChange { status, stimulus_id: "worker-status-change".into() });
    }

    /// Lets time pass, with a callback wherever the state asks for one.
    pub(crate) fn pass(&mut self, seconds: Seconds) -> Vec<Action> {
        let end = self.now + seconds;
        let mut all = Vec::new();
        while let Some((time, _)) = self.state.next_timeout().filter(|(time, _)| *time <= end) {
            self.now = self.now.max(time);
            all.extend(self.handle(Event::Timeout).to_vec());
        }
        self.now = self.now.max(end);
        all
    }

    pub(crate) fn state_of(&self, key: &str) -> Option<TaskState> {
        self.state.task_state(&Key::from(key))
    }

    /// Asserts the states of several tasks; `None` for unknown ones.
    pub(crate) fn assert_states<const N: usize>(&self, expected: [(&str, Option<TaskState>); N]) {
        for (key, state) in expected {
            assert_eq!(self.state_of(key), state, "state of {key}");
        }
    }

    /// What the last event sent to the client.
    pub(crate) fn to_client(&self) -> Vec<&SchedulerToClient> {
        fn message(action: &Action) -> Option<&SchedulerToClient> {
            match action {
                Action::ToClient { client, message } if **client == *CLIENT => Some(message),
                Action::ToAllClients { message } => Some(message),
                _ => None,
            }
        }
        self.actions.iter().filter_map(message).collect()
    }

    /// The ops the last event sent to the client, in order.
    pub(crate) fn client_ops(&self) -> Vec<&'static str> {
        use dask_protocol::message::StreamMessage;
        self.to_client().into_iter().map(StreamMessage::op).collect()
    }

    /// What the last event sent to worker number `n`.
    pub(crate) fn to_worker(&self, n: usize) -> Vec<&SchedulerToWorker> {
        let to = address(n);
        fn message<'a>(action: &'a Action, to: &Address) -> Option<&'a SchedulerToWorker> {
            match action {
                Action::ToWorker { worker, message } if worker == to => Some(message),
                _ => None,
            }
        }
        self.actions.iter().filter_map(|action| message(action, &to)).collect()
    }

    /// The ops the last event sent to worker number `n`, in order.
    pub(crate) fn worker_ops(&self, n: usize) -> Vec<&'static str> {
        use dask_protocol::message::StreamMessage;
        self.to_worker(n).into_iter().map(StreamMessage::op).collect()
    }

    /// The `compute-task`s of the last event.
    pub(crate) fn computes(&self) -> Vec<&ComputeTask> {
        fn compute(action: &Action) -> Option<&ComputeTask> {
            match action {
                Action::ToWorker { message: SchedulerToWorker::ComputeTask(message), .. } => Some(message),
                _ => None,
            }
        }
        self.actions.iter().filter_map(compute).collect()
    }

    /// The keys of these, in order.
    pub(crate) fn computed_keys(&self) -> Vec<String> {
        self.computes().into_iter().map(|message| message.key.to_string()).collect()
    }
}

pub(crate) fn finished(key: &str, run_id: RunId, nbytes: i64, seconds: Seconds) -> TaskFinished {
    TaskFinished {
        key: key.into(),
        run_id,
        nbytes,
        type_pickle: Some(Bytes::from_static(b"type")),
        typename: "int".into(),
        metadata: Value::Map(Vec::new()),
        thread: Value::Int(1),
        startstops: vec![StartStop { action: "compute".into(), start: 0.0, stop: seconds, source: None }],
        value: None,
        status: "OK".into(),
        stimulus_id: "task-finished".into(),
    }
}

pub(crate) fn erred(key: &str, run_id: RunId) -> TaskErred {
    TaskErred {
        key: key.into(),
        run_id,
        exception: Value::from(Bytes::from_static(b"exception")),
        traceback: Value::Nil,
        exception_text: "ZeroDivisionError()".to_owned(),
        traceback_text: String::new(),
        thread: Value::Nil,
        startstops: Vec::new(),
        status: "error".into(),
        stimulus_id: "task-erred".into(),
    }
}

pub(crate) fn add_keys(keys: &[&str]) -> AddKeys {
    AddKeys { keys: keys.iter().map(|key| Key::from(*key)).collect(), stimulus_id: "gather-dep-success".into() }
}

pub(crate) fn release_worker_data(key: &str) -> ReleaseWorkerData {
    ReleaseWorkerData { key: key.into(), stimulus_id: "release-worker-data".into() }
}

pub(crate) fn reschedule(key: &str) -> Reschedule {
    Reschedule { key: key.into(), stimulus_id: "reschedule".into() }
}

pub(crate) fn long_running(key: &str, run_id: RunId) -> LongRunning {
    LongRunning { key: key.into(), run_id, compute_duration: Some(0.1), stimulus_id: "long-running".into() }
}

pub(crate) fn steal_response(key: &str, state: Option<&str>, stimulus_id: &str) -> StealResponse {
    StealResponse { key: key.into(), state: state.map(str::to_owned), stimulus_id: stimulus_id.into() }
}
