//! The Rust client on a cluster inside the test's process: real sockets, real threads, native tasks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dask::explain::ReasonKind;
use dask::{Bytes, Client, GraphBuilder, GraphError, LocalCluster, Status, TaskError, Value, as_completed};
use futures::StreamExt;

#[dask::task]
fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[dask::task]
fn total(parts: &[i64]) -> i64 {
    parts.iter().sum()
}

#[dask::task]
fn shout(text: &str) -> String {
    text.to_uppercase()
}

#[dask::task]
fn divide(a: i64, b: i64) -> Result<i64, String> {
    a.checked_div(b).ok_or_else(|| format!("cannot divide {a} by {b}"))
}

#[dask::task]
fn explode(message: &str) -> i64 {
    panic!("{message}")
}

#[dask::task(name = "sleep_ms")]
fn sleep(milliseconds: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(milliseconds));
    milliseconds
}

struct Fixture {
    cluster: LocalCluster,
    client: Client,
}

impl Fixture {
    async fn new(workers: usize) -> Fixture {
        let cluster = LocalCluster::builder().workers(workers).threads_per_worker(1).start().await.expect("starts");
        let client = cluster.client().await.expect("connects");
        Fixture { cluster, client }
    }

    async fn end(self) {
        self.client.close().await;
        self.cluster.close().await;
    }

    /// Keys in memory anywhere, by asking the scheduler.
    async fn keys_in_memory(&self) -> usize {
        let info = self.client.scheduler_info().await.expect("answers");
        let Some(Value::Map(workers)) = info.get("workers") else { panic!("identity names workers: {info:?}") };
        let in_memory = |w: &Value| {
            w.get("metrics").and_then(|m| m.get("task_counts")).and_then(|c| c.get("memory")).and_then(Value::as_i64)
        };
        workers.iter().map(|(_, w)| usize::try_from(in_memory(w).unwrap_or(0)).expect("a count")).sum()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn futures_are_arguments() {
    let f = Fixture::new(2).await;
    let three = f.client.submit(add(1, 2));
    let thirteen = f.client.submit(add(&three, 10));
    let sum = f.client.submit(total(vec![three.clone(), thirteen.clone()]));
    assert_eq!(sum.result().await, Ok(16));
    assert_eq!(three.status(), Status::Finished);
    assert_eq!(f.client.submit(shout("quiet")).result().await, Ok("QUIET".to_owned()));
    f.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn map_and_gather_keep_the_order() {
    let f = Fixture::new(2).await;
    let futures = f.client.map((0..1000).map(|i| add(i, 1)));
    let expected: Vec<i64> = (1..=1000).collect();
    assert_eq!(f.client.gather(&futures).await, Ok(expected));
    f.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graph_runs_and_gives_what_was_asked_for() {
    let f = Fixture::new(2).await;
    let mut graph = GraphBuilder::new("sums");
    let leaves: Vec<_> = (0..100).map(|i| graph.add(add(i, i)).expect("new key")).collect();
    let root = graph.add(total(leaves)).expect("new key");
    let futures = f.client.compute(graph, &[root]).expect("no cycle");
    assert_eq!(f.client.gather(&futures).await, Ok(vec![2 * (0..100).sum::<i64>()]));

    let mut circle = GraphBuilder::new("circle");
    let a = circle.add(add(1, 1)).expect("new key");
    let b = circle.add(add(&a, 1)).expect("new key");
    circle.after(&a, &b).expect("both there");
    assert!(matches!(f.client.compute(circle, &[b]), Err(GraphError::Cycle { .. })));
    f.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn futures_given_away_live_until_their_reader_has_them() {
    let f = Fixture::new(2).await;
    for _ in 0..20 {
        let sum = f.client.submit(total(f.client.map((0..10).map(|i| add(i, 0)))));
        let mut graph = GraphBuilder::new(sum.key().to_string());
        let doubled = graph.add(add(f.client.submit(add(sum.clone(), 0)), sum)).expect("new key");
        let futures = f.client.compute(graph, &[doubled]).expect("no cycle");
        assert_eq!(f.client.gather(&futures).await, Ok(vec![90]));
    }
    f.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_carry_their_remote_cause() {
    let f = Fixture::new(1).await;
    let failed = f.client.submit(divide(1, 0));
    let text = failed.result().await.expect_err("fails").to_string();
    assert!(text.contains("cannot divide 1 by 0"), "{text}");

    let dependent = f.client.submit(add(&failed, 1));
    let text = dependent.result().await.expect_err("its input failed").to_string();
    assert!(text.contains("cannot divide 1 by 0"), "{text}");

    let panicked = f.client.submit(explode("on purpose")).result().await.expect_err("panics").to_string();
    assert!(panicked.contains("on purpose") && panicked.contains("client.rs"), "{panicked}");

    let unknown = dask::TaskCall::<i64>::new("no_such_task", vec![]);
    let text = f.client.submit(unknown).result().await.expect_err("not registered").to_string();
    assert!(text.contains("no_such_task") && text.contains("sleep_ms"), "{text}");

    let wrong = dask::TaskCall::<i64>::new(
        "add",
        vec![dask::IntoArg::<String>::into_arg("one"), dask::IntoArg::<i64>::into_arg(1)],
    );
    let text = f.client.submit(wrong).result().await.expect_err("a text is no number").to_string();
    assert!(text.contains("i64"), "{text}");

    assert_eq!(f.client.submit(add(1, 1)).result().await, Ok(2), "the worker goes on");
    f.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_of_another_type_is_named() {
    let f = Fixture::new(1).await;
    let text: dask::Future<i64> =
        f.client.submit(dask::TaskCall::new("shout", vec![dask::IntoArg::<String>::into_arg("x")]));
    assert!(matches!(text.result().await, Err(TaskError::Type { expected: "i64", .. })));
    f.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_last_future_releases_the_key() {
    let f = Fixture::new(1).await;
    let future = f.client.submit(add(1, 2));
    let clone = future.clone();
    assert_eq!(future.result().await, Ok(3));
    drop(future);
    assert_eq!(clone.result().await, Ok(3), "a clone keeps it");
    drop(clone);
    let mut tries = 0;
    while f.keys_in_memory().await > 0 {
        tries += 1;
        assert!(tries < 500, "the key is still in memory");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    f.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_tasks_do_not_run() {
    let f = Fixture::new(1).await;
    let slow = f.client.submit(sleep(300));
    let waiting = f.client.submit(add(1, 1));
    waiting.cancel();
    assert!(matches!(waiting.result().await, Err(TaskError::Cancelled { .. })));
    assert_eq!(slow.result().await, Ok(300));
    f.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scattered_values_are_arguments_too() {
    let f = Fixture::new(2).await;
    let numbers = f.client.scatter(&vec![1_i64, 2, 3], true).await.expect("scatters");
    assert_eq!(f.client.submit(total(&numbers)).result().await, Ok(6));
    assert_eq!(numbers.result().await, Ok(vec![1, 2, 3]));
    f.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scheduler_explains_tasks() {
    let f = Fixture::new(1).await;
    let three = f.client.submit(add(1, 2));
    three.wait().await.expect("adds");
    let told = f.client.explain(three.key()).await.expect("answers");
    assert_eq!((&told.key, told.state.as_deref()), (three.key(), Some("memory")));
    let worker = f.cluster.worker_addresses().await.remove(0);
    assert!(
        matches!(&told.reason.kind, ReasonKind::InMemory { holders, copies: 1, nbytes: Some(1) } if *holders == [worker]),
        "{:?}",
        told.reason
    );
    assert!(told.placement.is_some() && !told.to_string().is_empty());

    let slow = f.client.submit(sleep(300));
    let waits = f.client.submit(sleep(&slow));
    let told = f.client.explain(waits.key()).await.expect("answers");
    match told.reason.kind {
        ReasonKind::WaitsFor { inputs, missing: 1, of: 1, .. } => assert_eq!(&inputs[0].key, slow.key()),
        // It is asked over a connection of its own, so the tasks may not be there yet, or be done.
        ReasonKind::Unknown | ReasonKind::Processing { .. } | ReasonKind::InMemory { .. } => {}
        other => panic!("{other:?}"),
    }
    let impossible = f.client.submit(add(1, 1).resource("unobtainium", 1.0));
    let failed = f.client.submit(divide(1, 0));
    assert!(failed.result().await.is_err());
    let told = f.client.explain(failed.key()).await.expect("answers");
    assert!(matches!(&told.reason.kind, ReasonKind::Erred { cause, .. } if cause == failed.key()), "{:?}", told.reason);
    // The stream is in order, and this was submitted before the one that failed.
    let told = f.client.explain(impossible.key()).await.expect("answers");
    assert!(matches!(&told.reason.kind, ReasonKind::NoSuitableWorker { workers: 1, .. }), "{:?}", told.reason);
    f.end().await;
}

#[dask::task]
fn ones(length: usize) -> Bytes {
    vec![1_u8; length].into()
}

#[dask::task]
fn place_of(data: &Bytes) -> u64 {
    data.as_ptr() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_within_a_process_are_never_copied() {
    let f = Fixture::new(2).await;
    let data = f.client.submit(ones(1_000_000));
    let fetched = data.bytes().await.expect("made");
    assert_eq!(fetched, vec![1_u8; 1_000_000]);
    // On either worker: one made them, the other one is sent them.
    for worker in f.cluster.worker_addresses().await {
        let place = f.client.submit(place_of(&data).workers([worker.as_str()]).key(format!("place-{worker}")));
        assert_eq!(place.result().await, Ok(fetched.as_ptr() as u64), "{worker}");
    }
    f.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_results_come_with_the_news_and_need_no_worker_any_more() {
    let f = Fixture::new(1).await;
    let mut graph = GraphBuilder::new("told");
    let node = graph.add(add(20, 22)).expect("a new key");
    let in_graph = f.client.compute(graph, &[node]).expect("no cycle").remove(0);
    let (sum, text) = (f.client.submit(add(1, 2)), f.client.submit(shout("abc")));
    let wrong = f.client.future::<Vec<i64>>(sum.key().clone());
    let (bytes, large) = (f.client.submit(ones(10)), f.client.submit(shout("x".repeat(5_000))));
    assert_eq!(
        f.client.gather(&[large.clone(), text.clone()]).await.expect("one told, one fetched"),
        [&"X".repeat(5_000), "ABC"]
    );
    assert_eq!(bytes.result().await, Ok(Bytes::from(vec![1_u8; 10])));
    f.client.wait(&[sum.clone(), in_graph.clone()]).await.expect("done");
    f.cluster.close().await;
    assert_eq!((sum.result().await, in_graph.result().await), (Ok(3), Ok(42)));
    assert_eq!(text.try_result().await, Ok(Some("ABC".to_owned())));
    assert!(matches!(wrong.result().await, Err(TaskError::Type { .. })));
    assert!(large.result().await.is_err(), "what was fetched is not kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completed_futures_stream_out_as_they_finish() {
    let f = Fixture::new(2).await;
    let slow = f.client.submit(sleep(400));
    let fast = f.client.submit(sleep(1));
    let order: Vec<_> = as_completed([slow.clone(), fast.clone()]).map(|future| future.key().clone()).collect().await;
    assert_eq!(order, [fast.key().clone(), slow.key().clone()]);
    f.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_makes_no_more_calls_than_may_be_in_flight() {
    const IN_FLIGHT: usize = 8;
    let f = Fixture::new(2).await;
    let made = AtomicUsize::new(0);
    let calls = (0..100_i64).map(|n| {
        made.fetch_add(1, Ordering::Relaxed);
        add(n, 1)
    });
    let mut stream = std::pin::pin!(f.client.stream(calls, IN_FLIGHT));
    let mut sums = Vec::new();
    while let Some(future) = stream.next().await {
        sums.push(future.result().await.expect("adds"));
        assert!(made.load(Ordering::Relaxed) < sums.len() + IN_FLIGHT, "after {} results", sums.len());
    }
    sums.sort_unstable();
    assert_eq!(sums, (1..=100).collect::<Vec<_>>());
    f.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_run_a_failing_task_again() {
    let f = Fixture::new(1).await;
    let error = f.client.submit(divide(1, 0).retries(2)).result().await.expect_err("fails every time");
    assert!(error.to_string().contains("cannot divide"), "{error}");
    f.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_scheduler_fails_what_is_pending() {
    let Fixture { cluster, client } = Fixture::new(1).await;
    let slow = client.submit(sleep(60_000));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let closing = tokio::spawn(async move { cluster.close().await });
    let error = tokio::time::timeout(Duration::from_secs(30), slow.result()).await.expect("does not hang");
    assert!(matches!(error, Err(TaskError::ConnectionLost { .. } | TaskError::Cancelled { .. })), "{error:?}");
    closing.abort();
}
