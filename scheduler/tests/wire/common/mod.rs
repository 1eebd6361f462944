//! Peers of a scheduler that say exactly what a test tells them to.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use dask_protocol::comm::{Comm, CommConfig, CommReader, Listener};
use dask_protocol::message::{
    ClientToScheduler, ComputeTask, Message, NativeTask, Pairs, RUNTIMES_EXTRA, RegisterWorker, RegisterWorkerReply,
    SchedulerToClient, SchedulerToWorker, StreamMessage, TaskFinished, UpdateNativeGraph, WorkerStatus,
    WorkerToScheduler,
};
use dask_protocol::{Address, Key, Payload, Value};
use dask_scheduler::{Scheduler, SchedulerOptions};

/// No single test takes longer.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A scheduler on a free port, without HTTP.
pub async fn scheduler() -> Scheduler {
    scheduler_with(SchedulerOptions::default()).await
}

/// The same with other options.
pub async fn scheduler_with(options: SchedulerOptions) -> Scheduler {
    let listen = vec![Address::from("tcp://127.0.0.1:0")];
    let options = SchedulerOptions { listen, dashboard_address: None, ..options };
    // Boxed: the futures of tests would each have all of it.
    Box::pin(Scheduler::start(options)).await.expect("the scheduler starts")
}

/// Fails a test that hangs. Boxed, as whole tests are large.
pub fn in_time<'a, T>(test: impl Future<Output = T> + 'a) -> Pin<Box<dyn Future<Output = T> + 'a>> {
    Box::pin(async { tokio::time::timeout(TEST_TIMEOUT, test).await.expect("the test ends in time") })
}

pub async fn connect(address: &Address) -> Comm {
    Comm::connect(address, &CommConfig::default()).await.expect("connects")
}

/// One call on a connection of its own; the fields of `args` beside the op.
pub async fn call(address: &Address, op: &str, args: &[(&str, Value)]) -> Value {
    let mut comm = connect(address).await;
    call_on(&mut comm, op, args).await
}

pub async fn call_on(comm: &mut Comm, op: &str, args: &[(&str, Value)]) -> Value {
    let fields = [("op", Value::from(op)), ("reply", true.into())].into_iter().chain(args.iter().cloned());
    comm.send_value(&Value::map(fields)).await.expect("sends");
    comm.recv().await.expect("answers").decode().expect("a value")
}

/// A stream to a peer, element by element.
pub struct Stream<In> {
    reader: CommReader,
    pub writer: dask_protocol::comm::CommWriter,
    arrived: std::collections::VecDeque<In>,
}

impl<In: StreamMessage> Stream<In> {
    fn new(comm: Comm) -> Stream<In> {
        let (reader, writer) = comm.split();
        Stream { reader, writer, arrived: Default::default() }
    }

    /// The next message; `None` when the scheduler ended the stream.
    pub async fn next(&mut self) -> Option<In> {
        while self.arrived.is_empty() {
            let message = self.reader.recv().await.ok()?;
            self.arrived.extend(message.decode_stream::<In>().expect("known messages"));
        }
        self.arrived.pop_front()
    }

    /// Skips to the first message that `pick` takes.
    pub async fn find<T>(&mut self, pick: impl Fn(In) -> Option<T>) -> T {
        loop {
            let message = self.next().await.expect("the stream goes on");
            if let Some(found) = pick(message) {
                return found;
            }
        }
    }
}

/// A client's stream, registered.
pub async fn client(address: &Address, id: &str) -> Stream<SchedulerToClient> {
    client_with(address, id, Value::Nil).await
}

/// The same with the versions that the client tells.
pub async fn client_with(address: &Address, id: &str, versions: Value) -> Stream<SchedulerToClient> {
    let mut comm = connect(address).await;
    let register = Value::map([
        ("op", "register-client".into()),
        ("client", id.into()),
        ("reply", false.into()),
        ("versions", versions),
    ]);
    comm.send_value(&register).await.expect("sends");
    let mut stream = Stream::new(comm);
    assert!(matches!(stream.next().await, Some(SchedulerToClient::StreamStart(_))));
    stream
}

impl Stream<SchedulerToClient> {
    pub async fn send(&mut self, message: impl Into<ClientToScheduler>) {
        self.writer.send_batch(&[message.into()]).await.expect("sends");
    }

    /// Submits native tasks: each a key and what it depends on; all are wanted.
    pub async fn submit(&mut self, tasks: &[(&str, &[&str])]) {
        let key = |name: &&str| Key::from(*name);
        let task = |(name, needs): &(&str, &[&str])| NativeTask {
            key: Key::from(*name),
            run_spec: Payload::serialized("dask-rs", None, vec![name.as_bytes().to_vec().into()]),
            dependencies: needs.iter().map(key).collect(),
            annotations: Value::Nil,
        };
        let keys = tasks.iter().map(|(name, _)| Key::from(*name)).collect();
        self.send(UpdateNativeGraph { tasks: tasks.iter().map(task).collect(), keys, submitting_task: None }).await;
    }
}

/// A worker that does nothing by itself.
pub struct Worker {
    pub address: Address,
    pub listener: Listener,
    pub stream: Stream<SchedulerToWorker>,
}

/// What a worker would send to register; it runs native and Python tasks.
pub fn registration(address: &Address, name: &str) -> RegisterWorker {
    RegisterWorker {
        address: address.clone(),
        status: WorkerStatus::Running,
        nthreads: 2,
        name: name.into(),
        now: None,
        resources: None,
        memory_limit: Some(1 << 30),
        local_directory: "/tmp".to_owned(),
        services: Value::Map(Vec::new()),
        nanny: None,
        pid: 1,
        versions: Value::Map(Vec::new()),
        metrics: Value::map([("memory", 1000_i64.into())]),
        extra: Value::map([(RUNTIMES_EXTRA, Value::from(vec!["native", "python"]))]),
        stimulus_id: None,
        server_id: format!("Worker-{name}"),
        resolve_address: None,
    }
}

/// Sends a registration and returns the reply with the connection.
pub async fn register(scheduler: &Address, registration: &RegisterWorker) -> (RegisterWorkerReply, Comm) {
    #[derive(serde::Serialize)]
    struct Register<'a> {
        op: &'static str,
        reply: bool,
        #[serde(flatten)]
        registration: &'a RegisterWorker,
    }
    let mut comm = connect(scheduler).await;
    comm.send_value(&Register { op: "register-worker", reply: false, registration }).await.expect("sends");
    let reply = comm.recv().await.expect("answers").decode().expect("a registration reply");
    (reply, comm)
}

/// A registered worker.
pub async fn worker(scheduler: &Address, name: &str) -> Worker {
    let listener = Listener::bind(&Address::from("tcp://127.0.0.1:0"), &CommConfig::default()).await.expect("listens");
    let address = listener.contact_address();
    let (reply, comm) = register(scheduler, &registration(&address, name)).await;
    assert_eq!(reply.status, "OK");
    Worker { address, listener, stream: Stream::new(comm) }
}

impl Worker {
    pub async fn send(&mut self, message: impl Into<WorkerToScheduler>) {
        self.stream.writer.send_batch(&[message.into()]).await.expect("sends");
    }

    /// Waits for a task and says that it is done.
    pub async fn finish_next(&mut self) -> Key {
        let task = self.next_task().await;
        let key = task.key.clone();
        self.finish_with(task, None).await;
        key
    }

    /// Says that a task is done, and tells its result.
    pub async fn finish_with(&mut self, task: ComputeTask, value: Option<Bytes>) {
        self.send(TaskFinished {
            key: task.key,
            run_id: task.run_id,
            nbytes: 8,
            type_pickle: None,
            typename: "i64".into(),
            metadata: Value::Nil,
            thread: Value::Nil,
            startstops: Vec::new(),
            value,
            status: "OK".into(),
            stimulus_id: "task-finished".into(),
        })
        .await;
    }

    pub async fn next_task(&mut self) -> ComputeTask {
        let compute = |message| match message {
            SchedulerToWorker::ComputeTask(task) => Some(task),
            _ => None,
        };
        self.stream.find(compute).await
    }

    /// Answers one `get_data`, first with `busy`, and takes the acknowledgement.
    pub async fn serve_data(&self, value: &Payload) {
        let incoming = self.listener.accept().await.expect("a caller");
        let mut comm = incoming.handshake().await.expect("a peer");
        let request: Value = comm.recv().await.expect("a request").decode().expect("a value");
        assert_eq!(request.get("op").and_then(Value::as_str), Some("get_data"));
        comm.send_value(&Value::map([("status", "busy".into())])).await.expect("sends");
        let again: Value = comm.recv().await.expect("asks again").decode().expect("a value");
        let keys = again.get("keys").and_then(Value::as_items).expect("keys").to_vec();
        let data = Pairs(keys.into_iter().map(|key| (key, Value::from(value.clone()))).collect());
        comm.send_value(&Value::map([("status", "OK".into()), ("data", as_map(data))])).await.expect("sends");
        assert!(comm.recv().await.expect("acknowledges").is_ok());
    }
}

fn as_map(pairs: Pairs<Value, Value>) -> Value {
    Value::Map(pairs.0)
}

/// What a client reads from a key's report.
pub fn in_memory(message: SchedulerToClient) -> Option<Key> {
    match message {
        SchedulerToClient::KeyInMemory(report) => Some(report.key),
        _ => None,
    }
}

/// Sends bytes that are no message on a fresh connection and waits until it is closed.
pub async fn send_garbage(address: &Address, garbage: &[u8]) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(address.host_port()).await.expect("connects");
    // The scheduler may close before everything is written.
    let _ = socket.write_all(garbage).await;
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest).await;
}

/// A request on a raw connection, as one message.
pub fn message(fields: &[(&str, Value)]) -> Message {
    Message::encode(&Value::map(fields.iter().cloned())).expect("packs")
}
