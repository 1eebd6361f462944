//! Workers that do nothing: they speak the real protocol and answer each task at once. What a run costs then is the
//! scheduler's share and the client's.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dask_protocol::comm::{Comm, CommConfig, ConnectionPool, Listener};
use dask_protocol::message::{
    AddKeys, HeartbeatWorker, HeartbeatWorkerReply, Message, Pairs, RegisterWorker, RegisterWorkerReply,
    ReleaseWorkerData, Request, SchedulerToWorker, StartStop, StealResponse, StimulusId, TaskFinished, WorkerStatus,
    WorkerToScheduler,
};
use dask_protocol::{Address, CommError, Key, Payload, Value};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::Failure;

/// How many there can be: as many addresses as `host` gives.
pub const FAKES_MAX: usize = 250 * 250;
/// What a task claims to have taken, in seconds.
const TASK_SECONDS: f64 = 1e-4;
/// What a result claims to have, in bytes.
const RESULT_BYTES: i64 = 28;
/// `int`, as a pickle.
const INT_TYPE: &[u8] = b"\x80\x05\x8c\x08builtins\x94\x8c\x03int\x94\x93\x94.";
/// `None`, as a pickle: every result.
const NONE: &[u8] = b"\x80\x05N.";

#[derive(Serialize)]
struct Register<'a> {
    op: &'static str,
    reply: bool,
    #[serde(flatten)]
    body: &'a RegisterWorker,
}

#[derive(Deserialize)]
struct GetData {
    keys: Value,
}

/// Registers `workers` of them and answers until the scheduler says that they should close.
///
/// # Errors
/// When the scheduler cannot be reached or refuses one.
pub async fn run(scheduler: Address, workers: usize, threads: u32) -> Result<(), Failure> {
    if workers > FAKES_MAX {
        return Err(format!("{workers} fake workers, of {FAKES_MAX} at most").into());
    }
    // All have one listener: every address of 127.0.0.0/8 leads to it.
    let listener = Listener::bind(&Address::from("tcp://0.0.0.0:0"), &CommConfig::default()).await?;
    let port = listener.local_address().port().expect("a bound listener has a port");
    tokio::spawn(serve(listener));
    let pool = ConnectionPool::new(CommConfig::default());
    let mut all = JoinSet::new();
    for number in 0..workers {
        let address = Address::from_parts("tcp", &host(number).to_string(), port);
        let (comm, interval) = register(&scheduler, &address, number, threads).await?;
        all.spawn(beat(pool.clone(), scheduler.clone(), address, interval));
        all.spawn(stream(comm));
    }
    println!("{workers} fake workers registered");
    // The first that ends says that the scheduler has gone.
    match all.join_next().await.transpose()? {
        None | Some(Ok(()) | Err(CommError::Closed { .. } | CommError::Io(_))) => Ok(()),
        Some(Err(error)) => Err(error.into()),
    }
}

/// An address of its own for each.
fn host(number: usize) -> Ipv4Addr {
    let part = |n: usize| u8::try_from(n % 250 + 1).expect("up to 250");
    Ipv4Addr::new(127, 1, part(number / 250), part(number))
}

async fn register(scheduler: &Address, address: &Address, number: usize, threads: u32) -> Result<(Comm, f64), Failure> {
    let mut comm = Comm::connect(scheduler, &CommConfig::default()).await?;
    let body = RegisterWorker {
        address: address.clone(),
        status: WorkerStatus::Running,
        nthreads: threads,
        name: Value::from(format!("fake-{number}")),
        now: Some(now()),
        resources: None,
        memory_limit: None,
        local_directory: String::new(),
        services: Value::Map(Vec::new()),
        nanny: None,
        pid: i64::from(std::process::id()),
        versions: Value::Map(Vec::new()),
        metrics: metrics(),
        extra: Value::Map(Vec::new()),
        stimulus_id: Some("worker-connect".into()),
        server_id: format!("Worker-fake-{number}"),
        resolve_address: Some(false),
    };
    comm.send(&Message::encode(&Register { op: "register-worker", reply: false, body: &body })?).await?;
    let reply: RegisterWorkerReply = comm.recv().await?.decode()?;
    if reply.status != "OK" {
        return Err(format!("{scheduler} refuses the fake worker {address}: {:?}", reply.message).into());
    }
    Ok((comm, reply.heartbeat_interval.unwrap_or(0.5)))
}

/// The least that a scheduler of upstream's makes do with.
fn metrics() -> Value {
    let none = || Value::Map(Vec::new());
    Value::map([
        ("task_counts", none()),
        ("bandwidth", Value::map([("total", 1e8.into()), ("workers", none()), ("types", none())])),
        ("digests_total_since_heartbeat", none()),
        ("managed_bytes", 0.into()),
        ("spilled_bytes", Value::map([("memory", 0.into()), ("disk", 0.into())])),
        (
            "transfer",
            Value::map(
                [
                    "incoming_bytes",
                    "incoming_count",
                    "incoming_count_total",
                    "outgoing_bytes",
                    "outgoing_count",
                    "outgoing_count_total",
                ]
                .map(|name| (name, 0.into())),
            ),
        ),
        ("event_loop_interval", 0.02.into()),
        ("cpu", 1.0.into()),
        ("memory", 100_000_000.into()),
        ("time", now().into()),
        ("num_fds", 20.into()),
        ("host_net_io", Value::map([("read_bps", 0.0.into()), ("write_bps", 0.0.into())])),
        ("host_disk_io", Value::map([("read_bps", 0.0.into()), ("write_bps", 0.0.into())])),
    ])
}

/// Heartbeats as often as the scheduler wants them, as real workers send them.
async fn beat(pool: ConnectionPool, scheduler: Address, address: Address, first: f64) -> Result<(), CommError> {
    let mut seconds = first;
    loop {
        tokio::time::sleep(Duration::from_secs_f64(seconds.clamp(0.1, 60.0))).await;
        let request = HeartbeatWorker {
            address: address.clone(),
            now: Some(now()),
            metrics: metrics(),
            executing: Pairs(Vec::new()),
            extensions: Value::Map(Vec::new()),
            resolve_address: Some(false),
            stream: None,
        };
        let reply: HeartbeatWorkerReply = pool.call(&scheduler, "heartbeat_worker", &request).await?;
        seconds = reply.heartbeat_interval.unwrap_or(seconds);
    }
}

/// Answers everything that waits with one message.
async fn stream(comm: Comm) -> Result<(), CommError> {
    let (mut reader, mut writer) = comm.split();
    let mut answers = Vec::new();
    loop {
        let messages = reader.recv().await?.decode_stream::<SchedulerToWorker>()?;
        let now = now();
        for message in messages {
            if let Closing::Yes = answer(message, now, &mut answers) {
                return Ok(());
            }
        }
        if !answers.is_empty() {
            writer.send_batch(&answers).await?;
            answers.clear();
        }
    }
}

enum Closing {
    Yes,
    No,
}

fn answer(message: SchedulerToWorker, now: f64, answers: &mut Vec<WorkerToScheduler>) -> Closing {
    match message {
        SchedulerToWorker::ComputeTask(task) => answers.push(finished(task.key, task.run_id, task.stimulus_id, now)),
        SchedulerToWorker::FreeKeys(free) => release(free.keys.0, &free.stimulus_id, answers),
        SchedulerToWorker::RemoveReplicas(remove) => release(remove.keys.0, &remove.stimulus_id, answers),
        SchedulerToWorker::AcquireReplicas(acquire) => {
            let stimulus_id = acquire.stimulus_id;
            let one = |(key, _)| AddKeys { keys: vec![key].into(), stimulus_id: stimulus_id.clone() }.into();
            answers.extend(acquire.who_has.into_iter().map(one));
        }
        // Whatever is asked for was done when it arrived.
        SchedulerToWorker::StealRequest(steal) => {
            let (key, stimulus_id) = (steal.key, steal.stimulus_id);
            answers.push(StealResponse { key, state: Some("memory".to_owned()), stimulus_id }.into());
        }
        SchedulerToWorker::CancelCompute(_)
        | SchedulerToWorker::RefreshWhoHas(_)
        | SchedulerToWorker::WorkerStatusChange(_)
        | SchedulerToWorker::RemoveWorker(_)
        | SchedulerToWorker::ShuffleFail(_) => {}
        SchedulerToWorker::CloseWorker(_) | SchedulerToWorker::CloseStream(_) => return Closing::Yes,
    }
    Closing::No
}

fn finished(key: Key, run_id: i64, stimulus_id: StimulusId, now: f64) -> WorkerToScheduler {
    TaskFinished {
        key,
        run_id,
        nbytes: RESULT_BYTES,
        type_pickle: Some(Bytes::from_static(INT_TYPE)),
        typename: "int".into(),
        metadata: Value::Map(Vec::new()),
        thread: Value::Int(1),
        startstops: vec![StartStop { action: "compute".into(), start: now, stop: now + TASK_SECONDS, source: None }],
        value: None,
        status: "OK".into(),
        stimulus_id,
    }
    .into()
}

fn release(keys: Vec<Key>, stimulus_id: &StimulusId, answers: &mut Vec<WorkerToScheduler>) {
    let one = |key| ReleaseWorkerData { key, stimulus_id: stimulus_id.clone() }.into();
    answers.extend(keys.into_iter().map(one));
}

/// Calls from the scheduler and clients.
async fn serve(listener: Listener) {
    while let Ok(incoming) = listener.accept().await {
        tokio::spawn(async move { calls(incoming.handshake().await?).await });
    }
}

async fn calls(mut comm: Comm) -> Result<(), CommError> {
    loop {
        let request = Request::from_message(comm.recv().await?)?;
        match request.op() {
            "get_data" => {
                let keys = request.args::<GetData>()?.keys;
                let none = Arc::new(Payload::serialized_pickle(Bytes::from_static(NONE), Vec::new()));
                let keys = match &keys {
                    Value::Array(keys) | Value::Set(keys) => keys.as_slice(),
                    _ => &[],
                };
                let data = keys.iter().map(|key| (key.clone(), Value::Payload((*none).clone()))).collect();
                comm.send_value(&Value::map([("status", "OK".into()), ("data", Value::Map(data))])).await?;
                // The caller confirms.
                comm.recv().await?;
            }
            _ if request.reply => comm.send_value(&Value::Nil).await?,
            _ => {}
        }
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_an_address_of_its_own() {
        let hosts: std::collections::HashSet<Ipv4Addr> = (0..FAKES_MAX).map(host).collect();
        assert_eq!(hosts.len(), FAKES_MAX);
        assert!(hosts.iter().all(Ipv4Addr::is_loopback));
    }
}
