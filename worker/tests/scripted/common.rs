//! A scheduler that does what a test tells it, over real connections.

use std::time::Duration;

use dask_protocol::comm::{BatchedSender, Comm, CommConfig, CommReader, Listener};
use dask_protocol::message::{
    ComputeTask, Pairs, Priority, RegisterWorker, RegisterWorkerReply, Request, SchedulerToWorker, WorkerToScheduler,
};
use dask_protocol::native::{Definition, NativeArg, NativeCall};
use dask_protocol::{Address, Key, Payload, Value};
use dask_worker::native::{ArgSlot, Brief, NativeError, NativeFunction, NativeValue, TaskContext};
use dask_worker::{PythonChoice, Worker, WorkerOptions};
use tokio::sync::mpsc;

/// No test waits longer for anything.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Fails the test when `future` takes too long.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} took over {} s", DEADLINE.as_secs()))
}

/// The scripted scheduler's listening end.
pub struct Scheduler {
    pub address: Address,
    registrations: mpsc::UnboundedReceiver<(RegisterWorker, Comm)>,
}

/// What it answers to heartbeats.
#[derive(Clone, Copy)]
pub enum Heartbeats {
    Known,
    Missing,
}

impl Scheduler {
    pub async fn start(heartbeats: Heartbeats) -> Scheduler {
        let listener = Listener::bind(&"tcp://127.0.0.1:0".into(), &CommConfig::default()).await.expect("a free port");
        let address = listener.contact_address();
        let (found, registrations) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(incoming) = listener.accept().await {
                let found = found.clone();
                tokio::spawn(async move {
                    if let Ok(comm) = incoming.handshake().await {
                        serve(comm, found, heartbeats).await;
                    }
                });
            }
        });
        Scheduler { address, registrations }
    }

    /// The next worker that registers, accepted.
    pub async fn accept(&mut self) -> ConnectedWorker {
        let (registration, mut comm) = soon("registration", self.registrations.recv()).await.expect("listening");
        let reply = RegisterWorkerReply {
            status: "OK".into(),
            time: 0.0,
            heartbeat_interval: Some(0.5),
            worker_plugins: Pairs::default(),
            warning: String::new(),
            error: String::new(),
            message: None,
            resume: None,
        };
        comm.send_value(&reply).await.expect("sent");
        let (reader, writer) = comm.split();
        ConnectedWorker { registration, reader, sender: BatchedSender::spawn(writer), received: Vec::new(), runs: 0 }
    }
}

async fn serve(mut comm: Comm, found: mpsc::UnboundedSender<(RegisterWorker, Comm)>, heartbeats: Heartbeats) {
    while let Ok(message) = comm.recv().await {
        let request = Request::from_message(message).expect("workers send requests");
        match request.op() {
            "register-worker" => {
                let registration = request.args().expect("a registration");
                return drop(found.send((registration, comm)));
            }
            "heartbeat_worker" => {
                let status = match heartbeats {
                    Heartbeats::Known => "OK",
                    Heartbeats::Missing => "missing",
                };
                let reply =
                    Value::map([("status", status.into()), ("time", 0.0.into()), ("heartbeat-interval", 0.1.into())]);
                comm.send_value(&reply).await.expect("sent");
            }
            other => panic!("unexpected call {other}"),
        }
    }
}

/// A registered worker, from the scheduler's side.
pub struct ConnectedWorker {
    pub registration: RegisterWorker,
    reader: CommReader,
    sender: BatchedSender<SchedulerToWorker>,
    received: Vec<WorkerToScheduler>,
    runs: i64,
}

impl ConnectedWorker {
    pub fn send(&self, message: impl Into<SchedulerToWorker>) {
        self.sender.send(message.into());
    }

    /// Cuts the connection.
    pub fn abort(&self) {
        self.sender.abort();
    }

    /// Waits for a message that `pick` accepts; others are kept for later.
    pub async fn expect<T>(&mut self, what: &str, pick: impl Fn(&WorkerToScheduler) -> Option<T>) -> T {
        soon(what, async {
            loop {
                if let Some(at) = self.received.iter().position(|message| pick(message).is_some()) {
                    let message = self.received.remove(at);
                    return pick(&message).expect("just picked");
                }
                let batch = self.reader.recv().await.unwrap_or_else(|e| panic!("waiting for {what}: {e}"));
                self.received.extend(batch.decode_stream::<WorkerToScheduler>().expect("worker messages"));
            }
        })
        .await
    }

    /// Sends a native call to run; returns its run id.
    pub fn compute(
        &mut self,
        key: &str,
        function: &str,
        args: Vec<NativeArg>,
        who_has: Vec<(Key, Vec<Address>)>,
    ) -> i64 {
        let call = NativeCall { function: Definition::named(function.to_owned()).into(), args, tells_result: false };
        self.runs += 1;
        let nbytes = who_has.iter().map(|(key, _)| (key.clone(), 8)).collect();
        self.send(compute_task(key, self.runs, call.into_payload(), Pairs(who_has), nbytes));
        self.runs
    }

    /// Sends any spec to run, without dependencies.
    pub fn compute_spec(&mut self, key: &str, spec: Payload) {
        self.runs += 1;
        self.send(compute_task(key, self.runs, spec, Pairs::default(), Pairs::default()));
    }
}

/// The execution of this key that a message says is finished.
pub fn finished(message: &WorkerToScheduler, key: &str) -> Option<i64> {
    match message {
        WorkerToScheduler::TaskFinished(it) if it.key == key.into() => Some(it.run_id),
        _ => None,
    }
}

fn compute_task(
    key: &str,
    run_id: i64,
    run_spec: Payload,
    who_has: Pairs<Key, Vec<Address>>,
    nbytes: Pairs<Key, i64>,
) -> ComputeTask {
    ComputeTask {
        key: key.into(),
        run_id,
        priority: Priority::new(0.0, 1.0, 0.0),
        stimulus_id: "test".into(),
        who_has,
        nbytes,
        run_spec,
        resource_restrictions: None,
        actor: false,
        annotations: Value::Map(Vec::new()),
        span_id: None,
    }
}

/// An inline argument.
pub fn value<T: serde::Serialize>(value: &T) -> NativeArg {
    NativeArg::Value(rmp_serde::to_vec_named(value).expect("packs").into())
}

/// Starts a worker with the test functions and without Python.
pub async fn start_worker(scheduler: &mut Scheduler) -> (Worker, ConnectedWorker) {
    start_worker_with(scheduler, |_| ()).await
}

/// As [`start_worker`], with changed options.
pub async fn start_worker_with(
    scheduler: &mut Scheduler,
    change: impl FnOnce(&mut WorkerOptions),
) -> (Worker, ConnectedWorker) {
    let mut options = WorkerOptions::new(scheduler.address.clone()).expect("distinct names");
    options.python = PythonChoice::Off;
    options.dashboard_address = None;
    options.listen_address = "tcp://127.0.0.1:0".into();
    options.nthreads = 2;
    for function in functions() {
        options.registry.insert(function).expect("distinct names");
    }
    change(&mut options);
    let starting = tokio::spawn(Worker::start(options));
    let connected = scheduler.accept().await;
    let worker = soon("start", starting).await.expect("no panic").expect("started");
    (worker, connected)
}

fn functions() -> [NativeFunction; 6] {
    static ADD: Definition = Definition::new("add", "(i64, i64) -> i64");
    static BRIEF_ADD: Definition = Definition::new("brief-add", "(i64, i64) -> i64");
    static PANIC: Definition = Definition::new("panic", "()");
    static BRIEF_PANIC: Definition = Definition::new("brief-panic", "()");
    static LONG: Definition = Definition::new("long", "() -> String");
    static REFUSE: Definition = Definition::new("refuse", "()");
    static BRIEF: Brief = Brief::new();
    static BRIEF_BY_NAME_ONLY: Brief = Brief::new();
    [
        NativeFunction::new(&ADD, "test:1", add, None),
        NativeFunction::new(&BRIEF_ADD, "test:2", add, Some(&BRIEF)),
        NativeFunction::new(&PANIC, "test:3", |_, _| panic!("the sky fell"), None),
        NativeFunction::new(&BRIEF_PANIC, "test:4", |_, _| panic!("the sky fell"), Some(&BRIEF)),
        NativeFunction::new(&LONG, "test:5", long, Some(&BRIEF_BY_NAME_ONLY)),
        NativeFunction::new(&REFUSE, "test:6", |_, _| Err(NativeError::Failed("not today".to_owned())), None),
    ]
}

fn add(_: &TaskContext, args: Vec<ArgSlot>) -> Result<NativeValue, NativeError> {
    let mut sum = 0;
    for (i, arg) in args.into_iter().enumerate() {
        sum += *dask_worker::native::Arg::<i64>::from_slot("add", i, arg)?;
    }
    Ok(NativeValue::new(sum))
}

/// Waits, and gives the name of its thread.
fn long(_: &TaskContext, _: Vec<ArgSlot>) -> Result<NativeValue, NativeError> {
    std::thread::sleep(Duration::from_millis(150));
    Ok(NativeValue::new(std::thread::current().name().unwrap_or_default().to_owned()))
}
