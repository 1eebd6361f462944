//! Transfers between workers over connections that break.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{ConnectedWorker, Heartbeats, Scheduler, finished, soon, start_worker, start_worker_with, value};
use bytes::Bytes;
use dask_protocol::comm::{CommConfig, ConnectionPool, Listener};
use dask_protocol::compression::Compression;
use dask_protocol::message::{AcquireReplicas, Message, Pairs, WorkerToScheduler};
use dask_protocol::native::{NativeArg, pack_value};
use dask_protocol::{Address, Key, Payload, Value};
use dask_worker::Worker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const MIB: usize = 1 << 20;

fn added(message: &WorkerToScheduler) -> Option<Vec<Key>> {
    match message {
        WorkerToScheduler::AddKeys(it) => Some(it.keys.0.clone()),
        _ => None,
    }
}

/// Passes connections on to a worker, and ends the first ones when so many bytes have come from it.
struct CuttingProxy {
    address: Address,
    passed: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl CuttingProxy {
    /// Callers and the worker seem to be on hosts of their own.
    async fn start(worker: &Address, cuts: &[usize]) -> CuttingProxy {
        let listener = TcpListener::bind("127.0.0.2:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let target = SocketAddr::from(([127, 0, 0, 1], worker.port().expect("a port")));
        let (passed, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (bytes, opened) = (Arc::clone(&passed), Arc::clone(&connections));
        let mut cuts: VecDeque<usize> = cuts.iter().copied().collect();
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                opened.fetch_add(1, Ordering::Relaxed);
                let cut = cuts.pop_front().unwrap_or(usize::MAX);
                tokio::spawn(pass(caller, target, cut, Arc::clone(&bytes)));
            }
        });
        let address = Address::from_parts(worker.scheme(), "127.0.0.2", port);
        CuttingProxy { address, passed, connections }
    }
}

async fn pass(caller: TcpStream, target: SocketAddr, mut left: usize, passed: Arc<AtomicUsize>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.3:0".parse().expect("an address")).expect("an address of this host");
    let worker = socket.connect(target).await.expect("the worker listens");
    let (mut from_caller, mut to_caller) = caller.into_split();
    let (mut from_worker, mut to_worker) = worker.into_split();
    let requests = async { tokio::io::copy(&mut from_caller, &mut to_worker).await.map(drop) };
    let answers = async {
        let mut buffer = vec![0; 64 << 10];
        while left > 0 {
            let room = left.min(buffer.len());
            let read = from_worker.read(&mut buffer[..room]).await?;
            if read == 0 {
                break;
            }
            to_caller.write_all(&buffer[..read]).await?;
            passed.fetch_add(read, Ordering::Relaxed);
            left -= read;
        }
        Ok::<_, std::io::Error>(())
    };
    tokio::select! { _ = requests => {}, _ = answers => {} }
}

/// Bytes that no compression makes smaller, between as many that it does.
fn data(seed: u64, bytes: usize, compressible: bool) -> Bytes {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()
    };
    (0..bytes.div_ceil(8)).flat_map(|word| if compressible && word % 8 < 4 { [0; 8] } else { next() }).collect()
}

async fn put(worker: &Address, key: &str, payload: Payload) {
    let pool = ConnectionPool::new(CommConfig::default());
    let args = Value::map([("data", Value::map([(key, payload.into())])), ("stimulus_id", "scatter".into())]);
    let reply: Value = soon("scatter", pool.call(worker, "update_data", &args)).await.expect("answered");
    assert_eq!(reply.get("status").and_then(Value::as_str), Some("OK"));
}

async fn get(worker: &Address, key: &str) -> Payload {
    let mut lease = ConnectionPool::new(CommConfig::default()).lease(worker).await.expect("connected");
    let request =
        Value::map([("op", "get_data".into()), ("keys", Value::Array(vec![key.into()])), ("reply", true.into())]);
    lease.send_value(&request).await.expect("sent");
    let reply: Value = soon("get_data", lease.recv()).await.expect("answered").decode().expect("a map");
    match reply.get("data").and_then(|data| data.get(key)) {
        Some(Value::Payload(payload)) => payload.clone(),
        other => panic!("expected a payload for {key}, got {other:?}"),
    }
}

/// Has a worker fetch values from a place, and waits until it has.
async fn acquire(connected: &mut ConnectedWorker, place: &Address, keys: &[&str]) {
    let who_has = keys.iter().map(|&key| (key.into(), vec![place.clone()])).collect();
    let nbytes = keys.iter().map(|&key| (key.into(), 8)).collect();
    connected.send(AcquireReplicas { who_has: Pairs(who_has), nbytes: Pairs(nbytes), stimulus_id: "acquire".into() });
    let mut missing: Vec<Key> = keys.iter().map(|&key| key.into()).collect();
    while !missing.is_empty() {
        let here = connected.expect("add-keys", added).await;
        missing.retain(|key| !here.contains(key));
    }
}

/// Two workers of this address and compression: the first one, and the other as its scheduler sees it.
async fn two_workers(
    listen: &str,
    compression: Option<Compression>,
) -> ((Worker, ConnectedWorker), (Worker, ConnectedWorker)) {
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    let mut workers = Vec::new();
    for _ in 0..2 {
        let change = |options: &mut dask_worker::WorkerOptions| {
            options.listen_address = listen.into();
            options.comm.compression = compression;
        };
        workers.push(start_worker_with(&mut scheduler, change).await);
    }
    let (two, one) = (workers.pop().expect("two"), workers.pop().expect("two"));
    (one, two)
}

#[tokio::test]
async fn a_large_value_goes_on_where_it_was_cut() {
    for (listen, compression) in [
        ("tcp://127.0.0.1:0", None),
        ("ws://127.0.0.1:0", None),
        ("tcp://127.0.0.1:0", Some(Compression::Lz4)),
        ("tcp://127.0.0.1:0", Some(Compression::Zstd)),
    ] {
        let ((one, _first), (two, mut second)) = two_workers(listen, compression).await;
        let buffers = (1..4).map(|seed| data(seed, 5 * MIB, compression.is_some())).collect();
        let payload = Payload::serialized_pickle(Bytes::from_static(b"N."), buffers);
        put(one.address(), "x", payload.clone()).await;
        let proxy = CuttingProxy::start(one.address(), &[2 * MIB, MIB + MIB / 2, 3 * MIB + 1]).await;
        acquire(&mut second, &proxy.address, &["x"]).await;
        let arrived = get(two.address(), "x").await;
        assert_eq!(arrived.logical_frames().expect("readable"), payload.frames(), "{listen} {compression:?}");
        assert_eq!(proxy.connections.load(Ordering::Relaxed), 4);
        let whole = if compression.is_some() { payload.len() * 6 / 10 } else { payload.len() };
        // Apart from some that was on its way when the proxy ended the connection, nothing comes twice.
        let passed = proxy.passed.load(Ordering::Relaxed);
        assert!(passed < whole + MIB, "{passed} bytes passed for {whole}: {listen} {compression:?}");
    }
}

#[tokio::test]
async fn values_that_came_before_a_cut_are_not_sent_again() {
    let ((one, _first), (two, mut second)) = two_workers("tcp://127.0.0.1:0", None).await;
    let names: Vec<String> = (0..20).map(|number| format!("x{number}")).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    for (seed, key) in (1..).zip(&keys) {
        put(
            one.address(),
            key,
            Payload::serialized_pickle(Bytes::from_static(b"N."), vec![data(seed, MIB / 2, false)]),
        )
        .await;
    }
    let cuts: Vec<usize> = vec![MIB; 8];
    let proxy = CuttingProxy::start(one.address(), &cuts).await;
    acquire(&mut second, &proxy.address, &keys).await;
    for (seed, key) in (1..).zip(&keys) {
        assert_eq!(get(two.address(), key).await.frames()[1], data(seed, MIB / 2, false));
    }
    let passed = proxy.passed.load(Ordering::Relaxed);
    // Of each cut a value of half a MiB, which is less than is asked for in part.
    assert!(passed < (10 + 5) * MIB, "{passed} bytes passed");
}

#[tokio::test]
async fn a_value_that_is_another_after_the_cut_comes_whole() {
    let ((one, _first), (two, mut second)) = two_workers("tcp://127.0.0.1:0", None).await;
    let payload = |seed| Payload::serialized_pickle(Bytes::from_static(b"N."), vec![data(seed, 8 * MIB, false)]);
    put(one.address(), "x", payload(1)).await;
    let proxy = CuttingProxy::start(one.address(), &[4 * MIB, usize::MAX]).await;
    // The connection that was cut is made again once the value is another.
    let gate = TcpListener::bind("127.0.0.2:0").await.expect("a free port");
    let place = Address::from_parts("tcp", "127.0.0.2", gate.local_addr().expect("bound").port());
    let (target, source) = (proxy.address.clone(), one.address().clone());
    tokio::spawn(async move {
        for attempt in 0.. {
            let (caller, _) = gate.accept().await.expect("a caller");
            if attempt == 1 {
                put(&source, "x", payload(2)).await;
            }
            let target = SocketAddr::from(([127, 0, 0, 2], target.port().expect("a port")));
            tokio::spawn(pass(caller, target, usize::MAX, Arc::default()));
        }
    });
    acquire(&mut second, &place, &["x"]).await;
    assert_eq!(get(two.address(), "x").await.frames()[1], data(2, 8 * MIB, false));
    assert_eq!(proxy.connections.load(Ordering::Relaxed), 2);
}

/// A peer that holds 20 as `x`, and of its first answers sends a part each before it ends the connection.
async fn cutting_peer(mut cuts: usize) -> Address {
    let listener = Listener::bind(&"tcp://127.0.0.1:0".into(), &CommConfig::default()).await.expect("a free port");
    let address = listener.contact_address();
    let data = Value::map([("x", Value::Payload(pack_value(&20_i64).expect("packs")))]);
    let reply = Message::encode(&Value::map([("status", "OK".into()), ("data", data)])).expect("packs");
    tokio::spawn(async move {
        while let Ok(incoming) = listener.accept().await {
            let mut comm = incoming.handshake().await.expect("a worker");
            comm.recv().await.expect("a request");
            if cuts == 0 {
                comm.send(&reply).await.expect("sent");
                comm.recv().await.expect("an acknowledgement");
                continue;
            }
            cuts -= 1;
            let lengths: Vec<usize> = reply.frames().iter().map(bytes::Bytes::len).collect();
            comm.begin(&lengths).await.expect("begun");
            comm.write_part(reply.body().clone()).await.expect("sent");
        }
    });
    address
}

#[tokio::test]
async fn a_transfer_that_is_cut_begins_again() {
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    let (_worker, mut connected) = start_worker(&mut scheduler).await;
    let there = vec![("x".into(), vec![cutting_peer(2).await])];
    let run_id = connected.compute("y", "add", vec![NativeArg::Future("x".into()), value(&1_i64)], there);
    assert_eq!(connected.expect("y", |m| finished(m, "y")).await, run_id);
}

#[tokio::test]
async fn a_peer_that_always_ends_inside_a_value_is_one_that_left() {
    let mut scheduler = Scheduler::start(Heartbeats::Known).await;
    let (_worker, mut connected) = start_worker(&mut scheduler).await;
    let there = vec![("x".into(), vec![cutting_peer(usize::MAX).await])];
    connected.compute("y", "add", vec![NativeArg::Future("x".into()), value(&1_i64)], there);
    let asked = connected.expect("request-refresh-who-has", |message| match message {
        WorkerToScheduler::RequestRefreshWhoHas(it) => Some(it.keys.0.clone()),
        WorkerToScheduler::TaskErred(it) => panic!("the task failed: {}", it.exception_text),
        _ => None,
    });
    assert_eq!(asked.await, ["x".into()]);
}
