//! The scheduler as its peers see it on the wire.

mod common;
mod explain;
mod gather;
mod pages;

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use common::{
    call, call_on, client, client_with, connect, in_memory, in_time, message, register, registration, scheduler,
    scheduler_with, send_garbage, worker,
};
use dask_protocol::comm::CommConfig;
use dask_protocol::message::{ClientReleasesKeys, Keys, SchedulerToClient, SchedulerToWorker};
use dask_protocol::native::{RELEASE, TOLD_BYTES_MAX};
use dask_protocol::{Key, Payload, Value};
use dask_scheduler::SchedulerOptions;

#[tokio::test]
async fn a_graph_runs_and_its_result_is_relayed_untouched() {
    in_time(async {
        let scheduler = scheduler().await;
        let mut worker = worker(scheduler.address(), "w").await;
        let mut client = client(scheduler.address(), "Client-1").await;
        client.submit(&[("x", &[]), ("y", &["x"])]).await;
        assert_eq!(worker.finish_next().await, Key::from("x"));
        let y = worker.next_task().await;
        assert_eq!(y.who_has.0, [(Key::from("x"), vec![worker.address.clone()])]);
        assert_eq!(client.find(in_memory).await, Key::from("x"));

        let value = Payload::from_raw(
            dask_protocol::PayloadKind::Serialized,
            message(&[("serializer", "odd".into()), ("num-sub-frames", 2_i64.into())]).body().clone(),
            vec![vec![1_u8; 100].into(), Default::default()],
        );
        let keys = Value::from(vec!["x"]);
        let args = [("keys", keys)];
        let (gathered, ()) = tokio::join!(call(scheduler.address(), "gather", &args), worker.serve_data(&value));
        assert_eq!(gathered.get("status").and_then(Value::as_str), Some("OK"));
        assert_eq!(gathered.get("data").and_then(|data| data.get("x")), Some(&Value::Payload(value)));

        client.send(ClientReleasesKeys { keys: Keys(vec!["x".into(), "y".into()]), client: None }).await;
        let freed = worker.stream.find(|message| match message {
            SchedulerToWorker::FreeKeys(free) => Some(free.keys.0),
            _ => None,
        });
        assert!(!freed.await.is_empty());
        scheduler.close("test").await;
    })
    .await;
}

#[tokio::test]
async fn a_small_result_comes_with_the_news_to_clients_that_know_such_news() {
    in_time(async {
        let scheduler = scheduler().await;
        let mut worker = worker(scheduler.address(), "w").await;
        let mut python = client(scheduler.address(), "Client-1").await;
        let mut rust = client_with(scheduler.address(), "rust", Value::map([("dask-rs", RELEASE.into())])).await;
        let told = |message| match message {
            SchedulerToClient::KeyInMemory(message) => Some((message.key, message.value)),
            _ => None,
        };
        let small = Bytes::from_static(b"\x2a");
        let large = Bytes::from(vec![0; TOLD_BYTES_MAX + 1]);
        for (name, value, expected) in [("x", &small, Some(&small)), ("y", &large, None)] {
            let key = Key::from(name);
            python.submit(&[(name, &[])]).await;
            let task = worker.next_task().await;
            // Behind this one, so that both want the first before it is done.
            let after = format!("after-{name}");
            rust.submit(&[(name, &[]), (&after, &[])]).await;
            worker.next_task().await;
            worker.finish_with(task, Some(value.clone())).await;
            assert_eq!(rust.find(told).await, (key.clone(), expected.cloned()));
            assert_eq!(python.find(told).await, (key, None));
        }
        scheduler.close("test").await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_for_a_while_keeps_its_connection() {
    /// More than the buffers of a connection hold.
    const KEYS: usize = 60_000;
    in_time(async {
        let comm = CommConfig { tcp_timeout: Duration::from_secs(1), ..CommConfig::default() };
        let scheduler = scheduler_with(SchedulerOptions { comm, ..SchedulerOptions::default() }).await;
        let worker = worker(scheduler.address(), "w").await;
        let mut busy = client(scheduler.address(), "Client-1").await;
        let keys: Vec<String> = (0..KEYS).map(|n| format!("{}-{n}", "x".repeat(250))).collect();
        let holders = Value::Array(vec![worker.address.as_str().into()]);
        let who_has = Value::map(keys.iter().map(|key| (key.as_str(), holders.clone())));
        let nbytes = Value::map(keys.iter().map(|key| (key.as_str(), 8_i64.into())));
        let args = [("who_has", who_has), ("nbytes", nbytes), ("client", "Client-1".into())];
        call(scheduler.address(), "update_data", &args).await;
        // What TCP would have given up by now.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut told = HashSet::new();
        while told.len() < KEYS {
            told.insert(busy.find(in_memory).await);
        }
        scheduler.close("test").await;
    })
    .await;
}

#[tokio::test]
async fn gather_names_keys_that_nobody_has() {
    in_time(async {
        let scheduler = scheduler().await;
        let gathered = call(scheduler.address(), "gather", &[("keys", Value::from(vec!["nowhere"]))]).await;
        assert_eq!(gathered.get("status").and_then(Value::as_str), Some("error"));
        assert_eq!(gathered.get("keys"), Some(&Value::from(vec!["nowhere"])));
        scheduler.close("test").await;
    })
    .await;
}

#[tokio::test]
async fn identity_has_the_shape_that_clients_read() {
    in_time(async {
        let scheduler = scheduler().await;
        let worker = worker(scheduler.address(), "w").await;
        let identity = call(scheduler.address(), "identity", &[("n_workers", (-1_i64).into())]).await;
        assert_eq!(identity.get("type").and_then(Value::as_str), Some("Scheduler"));
        assert_eq!(identity.get("address").and_then(Value::as_str), Some(scheduler.address().as_str()));
        for field in ["id", "services", "started", "n_workers", "total_threads", "total_memory"] {
            assert!(identity.get(field).is_some(), "{field}");
        }
        let shown = identity.get("workers").and_then(|all| all.get(worker.address.as_str())).expect("the worker");
        assert_eq!(shown.get("name").and_then(Value::as_str), Some("w"));
        assert_eq!(shown.get("status").and_then(Value::as_str), Some("running"));
        assert_eq!(shown.get("nthreads").and_then(Value::as_i64), Some(2));
        let none = call(scheduler.address(), "identity", &[("n_workers", 0_i64.into())]).await;
        assert_eq!(none.get("workers"), Some(&Value::Map(Vec::new())));
        scheduler.close("test").await;
    })
    .await;
}

#[tokio::test]
async fn a_taken_name_is_refused_and_so_is_a_taken_address() {
    in_time(async {
        let scheduler = scheduler().await;
        let first = worker(scheduler.address(), "w").await;
        let (reply, _) = register(scheduler.address(), &registration(&"tcp://127.0.0.1:1".into(), "w")).await;
        assert_eq!((reply.status.as_str(), reply.message.as_deref()), ("error", Some("name taken, w")));
        let (reply, _) = register(scheduler.address(), &registration(&first.address, "other")).await;
        assert_eq!(reply.status, "uncaught-error");
        scheduler.close("test").await;
    })
    .await;
}

#[tokio::test]
async fn garbage_closes_only_its_own_connection() {
    in_time(async {
        let scheduler = scheduler().await;
        let mut comm = connect(scheduler.address()).await;
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0; 64], &(1_u64 << 60).to_le_bytes().repeat(4)] {
            send_garbage(scheduler.address(), garbage).await;
        }
        let mut bad = connect(scheduler.address()).await;
        bad.send_value(&Value::from(vec![1_i64])).await.expect("sends");
        assert!(bad.recv().await.is_err(), "a request must be a map");
        assert_eq!(call_on(&mut comm, "echo", &[("data", 5_i64.into())]).await, Value::Int(5));
        scheduler.close("test").await;
    })
    .await;
}

#[tokio::test]
async fn an_unknown_operation_is_named_and_the_connection_stays() {
    in_time(async {
        let scheduler = scheduler().await;
        let mut comm = connect(scheduler.address()).await;
        let answer = call_on(&mut comm, "no_such_thing", &[]).await;
        assert_eq!(answer.get("status").and_then(Value::as_str), Some("uncaught-error"));
        assert!(
            answer.get("exception_text").and_then(Value::as_str).is_some_and(|text| text.contains("no_such_thing"))
        );
        let wrong = call_on(&mut comm, "gather", &[("keys", 5_i64.into())]).await;
        assert!(wrong.get("exception_text").and_then(Value::as_str).is_some_and(|text| text.starts_with("TypeError")));
        assert_eq!(call_on(&mut comm, "echo", &[("data", 5_i64.into())]).await, Value::Int(5));
        scheduler.close("test").await;
    })
    .await;
}

#[tokio::test]
async fn an_unregistered_worker_is_told_that_it_is_missing() {
    in_time(async {
        let scheduler = scheduler().await;
        let args = [("address", "tcp://127.0.0.1:1".into()), ("metrics", Value::Map(Vec::new()))];
        let answer = call(scheduler.address(), "heartbeat_worker", &args).await;
        assert_eq!(answer.get("status").and_then(Value::as_str), Some("missing"));
        scheduler.close("test").await;
    })
    .await;
}

#[tokio::test]
async fn tasks_of_a_worker_that_leaves_run_elsewhere() {
    in_time(async {
        let scheduler = scheduler().await;
        let mut first = worker(scheduler.address(), "a").await;
        let mut client = client(scheduler.address(), "Client-1").await;
        client.submit(&[("x", &[])]).await;
        first.next_task().await;
        drop(first);
        let mut second = worker(scheduler.address(), "b").await;
        assert_eq!(second.finish_next().await, Key::from("x"));
        assert_eq!(client.find(in_memory).await, Key::from("x"));
        scheduler.close("test").await;
    })
    .await;
}

#[tokio::test]
async fn closing_tells_workers_and_ends_all_streams() {
    in_time(async {
        let scheduler = scheduler().await;
        let mut worker = worker(scheduler.address(), "w").await;
        let mut client = client(scheduler.address(), "Client-1").await;
        let handle = scheduler.clone();
        tokio::spawn(async move { handle.close("because").await });
        let reason = worker.stream.find(|message| match message {
            SchedulerToWorker::CloseWorker(close) => Some(close.reason),
            _ => None,
        });
        assert_eq!(reason.await, "scheduler-close");
        assert!(matches!(worker.stream.next().await, Some(SchedulerToWorker::CloseStream(_))));
        while client.next().await.is_some() {}
        assert_eq!(scheduler.closed().await, "because");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_returns_under_its_id_is_a_new_session() {
    in_time(async {
        let scheduler = scheduler().await;
        let mut worker = worker(scheduler.address(), "w").await;
        let mut first = client(scheduler.address(), "Client-1").await;
        first.submit(&[("x", &[])]).await;
        worker.finish_next().await;
        assert_eq!(first.find(in_memory).await, Key::from("x"));
        let mut second = client(scheduler.address(), "Client-1").await;
        while first.next().await.is_some() {}
        second.submit(&[("y", &[])]).await;
        assert_eq!(worker.finish_next().await, Key::from("y"));
        assert_eq!(
            second.find(in_memory).await,
            Key::from("y"),
            "the end of the first stream takes nothing from the second"
        );
        scheduler.close("test").await;
    })
    .await;
}

#[tokio::test]
async fn events_reach_those_who_subscribed() {
    in_time(async {
        let scheduler = scheduler().await;
        let mut client = client(scheduler.address(), "Client-1").await;
        client.send(dask_protocol::message::SubscribeTopic { topic: "t".into() }).await;
        client.send(dask_protocol::message::HeartbeatClient {}).await;
        let answered = |message| matches!(message, SchedulerToClient::AdjustHeartbeatInterval(_)).then_some(());
        client.find(answered).await;
        call(scheduler.address(), "log_event", &[("topic", "t".into()), ("msg", 7_i64.into())]).await;
        let event = client.find(|message| match message {
            SchedulerToClient::TopicEvent(event) => Some(event.event.1),
            _ => None,
        });
        assert_eq!(event.await, Value::Int(7));
        scheduler.close("test").await;
    })
    .await;
}

#[tokio::test]
async fn a_lock_is_not_given_to_a_caller_that_left() {
    in_time(async {
        let scheduler = scheduler().await;
        let address = scheduler.address();
        let lock = |lease: &str| [("name", Value::from("l")), ("lease_id", lease.into())];
        call(address, "semaphore_register", &[("name", "l".into()), ("max_leases", 1_i64.into())]).await;
        assert_eq!(call(address, "semaphore_acquire", &lock("first")).await, Value::Bool(true));
        let mut waiting = connect(address).await;
        let ask = [("op", Value::from("semaphore_acquire")), ("name", "l".into()), ("lease_id", "gone".into())];
        waiting.send(&message(&ask)).await.expect("sends");
        drop(waiting);
        call(address, "semaphore_release", &lock("first")).await;
        // The waiter may win the race for the lock before its end is noticed only if it was still connected.
        let timeout = [("name", "l".into()), ("lease_id", "second".into()), ("timeout", 20_i64.into())];
        assert_eq!(call(address, "semaphore_acquire", &timeout).await, Value::Bool(true));
        scheduler.close("test").await;
    })
    .await;
}

#[tokio::test]
async fn queues_and_variables_hand_values_over() {
    in_time(async {
        let scheduler = scheduler().await;
        let address = scheduler.address();
        let name = ("name", Value::from("q"));
        call(address, "queue_create", &[name.clone(), ("maxsize", 1_i64.into())]).await;
        call(address, "queue_put", &[name.clone(), ("data", 5_i64.into())]).await;
        let full = [name.clone(), ("data", 6_i64.into()), ("timeout", Value::Float(0.01))];
        let late = call(address, "queue_put", &full).await;
        assert_eq!(late.get("status").and_then(Value::as_str), Some("uncaught-error"));
        let got = call(address, "queue_get", std::slice::from_ref(&name)).await;
        assert_eq!(got.get("value"), Some(&Value::Int(5)));
        let args = [name.clone()];
        let data = [name.clone(), ("data", 8_i64.into())];
        let (got, _) = tokio::join!(call(address, "variable_get", &args), call(address, "variable_set", &data));
        assert_eq!(got.get("value"), Some(&Value::Int(8)));
        scheduler.close("test").await;
    })
    .await;
}
