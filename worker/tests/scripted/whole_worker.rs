//! What a worker does for its scheduler and its peers.

use crate::common::{Heartbeats, Scheduler, finished, soon, start_worker, start_worker_with, value};
use dask_protocol::comm::{CommConfig, ConnectionPool};
use dask_protocol::message::{
    CloseWorker, FreeKeys, RUNTIMES_EXTRA, RemoveWorker, StealRequest, WorkerStatus, WorkerToScheduler,
};
use dask_protocol::native::{NativeArg, pack_value, unpack_value};
use dask_protocol::{Address, Payload, Value};
use dask_worker::End;
use serde_json::json;

fn erred(message: &WorkerToScheduler, key: &str) -> Option<String> {
    match message {
        WorkerToScheduler::TaskErred(it) if it.key == key.into() => Some(it.exception_text.clone()),
        _ => None,
    }
}

async fn call(worker: &Address, op: &str, args: serde_json::Value) -> Value {
    let pool = ConnectionPool::new(CommConfig::default());
    soon(op, pool.call(worker, op, &args)).await.expect("answered")
}

async fn get_data(worker: &Address, keys: &[&str]) -> Value {
    let pool = ConnectionPool::new(CommConfig::default());
    let mut lease = soon("connect", pool.lease(worker)).await.expect("connected");
    let request = json!({"op": "get_data", "keys": keys, "who": null, "reply": true});
    lease.send_value(&request).await.expect("sent");
    let reply: Value = soon("get_data", lease.recv()).await.expect("answered").decode().expect("a map");
    if reply.get("status").and_then(Value::as_str) == Some("OK") {
        lease.send_value("OK").await.expect("sent");
        lease.release();
    }
    reply
}

fn number(reply: &Value, key: &str) -> i64 {
    match reply.get("data").and_then(|data| data.get(key)) {
        Some(Value::Payload(payload)) => unpack_value(payload).expect("a number"),
        other => panic!("expected a payload for {key}, got {other:?}"),
    }
}

#[tokio::test]
async fn registers_as_init_and_then_reports_running() {
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    let (worker, mut connected) = start_worker(&mut scheduler).await;
    assert_eq!(connected.registration.status, WorkerStatus::Init);
    assert_eq!(connected.registration.address, *worker.address());
    assert_eq!(connected.registration.nthreads, 2);
    for field in ["task_counts", "bandwidth", "memory", "spilled_bytes", "digests_total_since_heartbeat", "transfer"] {
        assert!(connected.registration.metrics.get(field).is_some(), "metrics lack {field}");
    }
    let runtimes = connected.registration.extra.get(RUNTIMES_EXTRA).and_then(Value::as_items).expect("listed").to_vec();
    assert_eq!(runtimes, [Value::from("native")]);
    let status = connected.expect("status", |message| match message {
        WorkerToScheduler::WorkerStatusChange(it) => Some(it.status),
        _ => None,
    });
    assert_eq!(status.await, WorkerStatus::Running);
}

#[tokio::test]
async fn runs_native_tasks_and_serves_their_results() {
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    let (worker, mut connected) = start_worker(&mut scheduler).await;
    let run_id = connected.compute("x", "add", vec![value(&1_i64), value(&2_i64)], Vec::new());
    assert_eq!(connected.expect("x", |m| finished(m, "x")).await, run_id);
    let here = vec![("x".into(), vec![worker.address().clone()])];
    connected.compute("y", "add", vec![NativeArg::Future("x".into()), value(&10_i64)], here);
    connected.expect("y", |m| finished(m, "y")).await;
    let reply = get_data(worker.address(), &["x", "y", "unknown"]).await;
    assert_eq!((number(&reply, "x"), number(&reply, "y")), (3, 13));
    assert!(reply.get("data").expect("data").get("unknown").is_none());
}

#[tokio::test]
async fn brief_tasks_run_on_the_workers_thread_unless_they_are_not_brief() {
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    let (worker, mut connected) = start_worker(&mut scheduler).await;
    let here = vec![("x".into(), vec![worker.address().clone()])];
    connected.compute("x", "brief-add", vec![value(&1_i64), value(&2_i64)], Vec::new());
    connected.expect("x", |m| finished(m, "x")).await;
    connected.compute("y", "brief-add", vec![NativeArg::Future("x".into()), value(&10_i64)], here);
    connected.expect("y", |m| finished(m, "y")).await;
    assert_eq!(number(&get_data(worker.address(), &["y"]).await, "y"), 13);
    for (key, on_a_thread_of_its_own) in [("first", false), ("second", true)] {
        connected.compute(key, "long", Vec::new(), Vec::new());
        connected.expect(key, |m| finished(m, key)).await;
        let reply = get_data(worker.address(), &[key]).await;
        let Some(Value::Payload(payload)) = reply.get("data").and_then(|data| data.get(key)) else {
            panic!("expected a payload, got {reply:?}")
        };
        let thread: String = unpack_value(payload).expect("a name");
        assert_eq!(thread.starts_with("dask-native-"), on_a_thread_of_its_own, "{key} ran on {thread}");
    }
}

#[tokio::test]
async fn a_failing_task_tells_what_and_where() {
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    let (_worker, mut connected) = start_worker(&mut scheduler).await;
    for function in ["panic", "brief-panic"] {
        connected.compute(function, function, Vec::new(), Vec::new());
        let text = connected.expect(function, |m| erred(m, function)).await;
        assert!(text.contains("the sky fell") && text.contains("common.rs"), "{text}");
    }
    connected.compute("r", "refuse", Vec::new(), Vec::new());
    assert!(connected.expect("r", |m| erred(m, "r")).await.contains("not today"));
    connected.compute("u", "nonsense", Vec::new(), Vec::new());
    assert!(connected.expect("u", |m| erred(m, "u")).await.contains("nonsense"));
}

#[tokio::test]
async fn a_pickled_task_without_python_fails_clearly() {
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    let (_worker, mut connected) = start_worker(&mut scheduler).await;
    connected.compute_spec("py", Payload::pickled(bytes::Bytes::from_static(b"\x80\x04N."), Vec::new()));
    let text = connected.expect("py", |m| erred(m, "py")).await;
    assert!(text.contains("needs Python"), "{text}");
}

#[tokio::test]
async fn fetches_dependencies_from_a_peer() {
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    let (one, mut first) = start_worker(&mut scheduler).await;
    let (_two, mut second) = start_worker(&mut scheduler).await;
    first.compute("x", "add", vec![value(&20_i64)], Vec::new());
    first.expect("x", |m| finished(m, "x")).await;
    let there = vec![("x".into(), vec![one.address().clone()])];
    second.compute("y", "add", vec![NativeArg::Future("x".into()), value(&1_i64)], there);
    second.expect("y", |m| finished(m, "y")).await;
    let added = second.expect("add-keys", |message| match message {
        WorkerToScheduler::AddKeys(it) => Some(it.keys.0.clone()),
        _ => None,
    });
    assert_eq!(added.await, ["x".into()]);
}

#[tokio::test]
async fn a_transfer_from_a_worker_that_left_is_given_up_at_once() {
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    // No handshake is ever answered, so only the scheduler's word can end the transfer before its timeout.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let gone = Address::new(format!("tcp://{}", silent.local_addr().expect("bound")));
    let timeout = std::time::Duration::from_secs(3600);
    let patient = |options: &mut dask_worker::WorkerOptions| {
        options.comm.connect_timeout = timeout;
        options.comm.handshake_timeout = timeout;
    };
    let (_worker, mut connected) = start_worker_with(&mut scheduler, patient).await;
    let there = vec![("x".into(), vec![gone.clone()])];
    connected.compute("y", "add", vec![NativeArg::Future("x".into())], there);
    let _held = soon("the transfer begins", silent.accept()).await.expect("a connection");
    connected.send(RemoveWorker { worker: gone, stimulus_id: "gone".into() });
    let asked = connected.expect("request-refresh-who-has", |message| match message {
        WorkerToScheduler::RequestRefreshWhoHas(it) => Some(it.keys.0.clone()),
        _ => None,
    });
    assert_eq!(asked.await, ["x".into()]);
}

#[tokio::test]
async fn freed_keys_are_dropped_and_reported() {
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    let (worker, mut connected) = start_worker(&mut scheduler).await;
    connected.compute("x", "add", vec![value(&1_i64)], Vec::new());
    connected.expect("x", |m| finished(m, "x")).await;
    connected.send(FreeKeys { keys: vec!["x".into()].into(), stimulus_id: "free".into() });
    let released = connected.expect("release", |message| match message {
        WorkerToScheduler::ReleaseWorkerData(it) => Some(it.key.clone()),
        _ => None,
    });
    assert_eq!(released.await, "x".into());
    assert_eq!(call(worker.address(), "keys", json!({})).await, Value::Array(Vec::new()));
}

#[tokio::test]
async fn scattered_values_are_stored_and_sized() {
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    let (worker, mut connected) = start_worker(&mut scheduler).await;
    let pool = ConnectionPool::new(CommConfig::default());
    let payload = pack_value(&41_i64).expect("packs");
    let args = Value::map([("data", Value::map([("s", payload.into())])), ("stimulus_id", "scatter".into())]);
    let reply: Value = soon("scatter", pool.call(worker.address(), "update_data", &args)).await.expect("answered");
    assert_eq!(reply.get("status").and_then(Value::as_str), Some("OK"));
    assert!(reply.get("nbytes").and_then(|sizes| sizes.get("s")).and_then(Value::as_i64).expect("sized") > 0);
    let here = vec![("s".into(), vec![worker.address().clone()])];
    connected.compute("t", "add", vec![NativeArg::Future("s".into()), value(&1_i64)], here);
    connected.expect("t", |m| finished(m, "t")).await;
    assert_eq!(number(&get_data(worker.address(), &["t"]).await, "t"), 42);
}

#[tokio::test]
async fn answers_a_steal_request_for_a_task_it_does_not_know() {
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    let (_worker, mut connected) = start_worker(&mut scheduler).await;
    connected.send(StealRequest { key: "nobody".into(), stimulus_id: "steal-1".into() });
    let answer = connected.expect("steal-response", |message| match message {
        WorkerToScheduler::StealResponse(it) => Some((it.state.clone(), it.stimulus_id.clone())),
        _ => None,
    });
    assert_eq!(answer.await, (None, "steal-1".into()));
}

#[tokio::test]
async fn an_unknown_call_raises_and_leaves_the_worker_well() {
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    let (worker, _connected) = start_worker(&mut scheduler).await;
    let pool = ConnectionPool::new(CommConfig::default());
    let answer: Result<Value, _> = soon("call", pool.call(worker.address(), "make_coffee", &json!({}))).await;
    assert!(answer.expect_err("no such call").to_string().contains("make_coffee"));
    let answer: Result<Value, _> = soon("call", pool.call(worker.address(), "run", &json!({"function": "f"}))).await;
    assert!(answer.expect_err("no Python").to_string().contains("native tasks only"));
    assert_eq!(call(worker.address(), "ping", json!({})).await, Value::Bin(bytes::Bytes::from_static(b"pong")));
}

#[tokio::test]
async fn closes_when_the_scheduler_says_so_and_removes_its_directory() {
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    let (worker, connected) = start_worker(&mut scheduler).await;
    let directory = std::path::PathBuf::from(&connected.registration.local_directory);
    assert!(directory.is_dir());
    connected.send(CloseWorker { reason: "scheduler-close".to_owned() });
    let closed = soon("close", worker.closed()).await;
    assert_eq!((closed.reason.as_str(), closed.end), ("scheduler-close", End::Leaving));
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_broken_stream_ends_the_worker_for_good() {
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    let (worker, connected) = start_worker(&mut scheduler).await;
    connected.abort();
    drop(connected);
    let closed = soon("close", worker.closed()).await;
    assert_eq!(closed.reason, "worker-handle-scheduler-connection-broken");
    assert_eq!(closed.end, End::Leaving);
}

#[tokio::test]
async fn a_worker_the_scheduler_does_not_know_leaves() {
    let mut scheduler = Scheduler::start(Heartbeats::Missing).await;
    let (worker, _connected) = start_worker(&mut scheduler).await;
    assert_eq!(soon("close", worker.closed()).await.reason, "worker-heartbeat-missing");
}

#[tokio::test]
async fn a_worker_over_its_memory_limit_pauses() {
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    // Any process is larger than this.
    let (_worker, mut connected) = start_worker_with(&mut scheduler, |options| options.memory_limit = Some(1)).await;
    connected
        .expect("paused", |message| match message {
            WorkerToScheduler::WorkerStatusChange(it) if it.status == WorkerStatus::Paused => Some(()),
            _ => None,
        })
        .await;
}

#[tokio::test]
async fn http_serves_health_and_metrics() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    let dashboard =
        |options: &mut dask_worker::WorkerOptions| options.dashboard_address = Some("127.0.0.1:0".to_owned());
    let (_worker, connected) = start_worker_with(&mut scheduler, dashboard).await;
    let port = connected.registration.services.get("dashboard").and_then(Value::as_i64).expect("a port");
    for (path, expected) in [("/health", "ok"), ("/metrics", "dask_worker_threads 2"), ("/status", "Dask worker")] {
        let mut stream = soon("http", tokio::net::TcpStream::connect(format!("127.0.0.1:{port}"))).await.expect("open");
        let request = format!("GET {path} HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        soon("answer", stream.read_to_string(&mut answer)).await.expect("text");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(expected), "{path}: {answer}");
    }
}
