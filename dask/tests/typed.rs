//! What `#[dask::task]` takes and gives: collections of futures, shares, context, asynchronous functions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dask::{Client, GraphBuilder, LocalCluster, TaskContext, TaskError, join};

#[dask::task]
fn number(n: i64) -> i64 {
    n
}

#[dask::task]
fn name(n: i64) -> String {
    format!("n{n}")
}

#[dask::task]
fn pair(both: (i64, String)) -> String {
    format!("{} {}", both.0, both.1)
}

#[dask::task]
fn lookup(names: &BTreeMap<String, i64>, key: &str) -> Option<i64> {
    names.get(key).copied()
}

#[dask::task]
fn count(of: HashMap<String, i64>) -> i64 {
    of.values().sum()
}

#[dask::task]
fn or_zero(n: Option<i64>) -> i64 {
    n.unwrap_or(0)
}

#[dask::task]
fn big(n: usize) -> Arc<Vec<f64>> {
    Arc::new(vec![0.5; n])
}

/// Where its arguments are in memory.
#[dask::task]
fn places(one: Arc<Vec<f64>>, many: &[Arc<Vec<f64>>]) -> Vec<usize> {
    std::iter::once(&one).chain(many).map(|it| Arc::as_ptr(it) as usize).collect()
}

#[dask::task]
fn place(of: &Vec<f64>) -> usize {
    std::ptr::from_ref(of) as usize
}

#[dask::task]
async fn add_later(a: i64, b: &i64) -> i64 {
    tokio::time::sleep(Duration::from_millis(5)).await;
    a + b
}

static DROPPED: AtomicBool = AtomicBool::new(false);

/// Notes that it was dropped.
struct Noted;
impl Drop for Noted {
    fn drop(&mut self) {
        DROPPED.store(true, Ordering::SeqCst);
    }
}

#[dask::task]
async fn never() {
    let _noted = Noted;
    std::future::pending::<()>().await;
}

#[dask::task]
fn whereabouts(context: &TaskContext, n: i64) -> (String, String, i64) {
    (context.key().to_string(), context.worker().to_string(), n)
}

#[dask::task]
fn calls(context: &TaskContext) -> Result<usize, dask::BoxError> {
    let calls: Arc<std::sync::Mutex<Vec<String>>> = context.worker_state(std::sync::Mutex::default)?;
    let mut calls = calls.lock().expect("no task panics with it");
    calls.push(context.key().to_string());
    Ok(calls.len())
}

/// Computes a Fibonacci number by submitting tasks, each waiting for two others.
#[dask::task]
async fn fibonacci(context: TaskContext, n: u64) -> Result<u64, dask::BoxError> {
    if n < 2 {
        return Ok(n);
    }
    let client = context.client().await?;
    let (a, b) = (client.submit(fibonacci(n - 1)), client.submit(fibonacci(n - 2)));
    context.secede()?;
    let (a, b) = join((&a, &b)).await?;
    Ok(a + b)
}

#[dask::task]
fn spin(context: &TaskContext) -> Result<(), String> {
    while !context.is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Err("told to stop".to_owned())
}

async fn start(threads: u32) -> (LocalCluster, Client) {
    let cluster = LocalCluster::builder().workers(1).threads_per_worker(threads).start().await.expect("starts");
    let client = cluster.client().await.expect("connects");
    (cluster, client)
}

async fn end(cluster: LocalCluster, client: Client) {
    client.close().await;
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn futures_stand_inside_collections() {
    let (cluster, client) = start(2).await;
    let seven = client.submit(number(7));
    let text = client.submit(name(7));
    let later = client.submit(pair((seven.clone(), text.clone())));
    let mixed = client.submit(pair((seven.clone(), "x".to_owned())));
    assert_eq!(join((&later, &mixed)).await, Ok(("7 n7".to_owned(), "7 x".to_owned())));
    let map = BTreeMap::from([("a".to_owned(), seven.clone())]);
    assert_eq!(client.submit(lookup(map, "a")).await, Ok(Some(7)));
    let map: HashMap<String, _> = [("a".to_owned(), seven.clone()), ("b".to_owned(), client.submit(number(1)))].into();
    assert_eq!(client.submit(count(map)).await, Ok(8));
    assert_eq!(client.submit(or_zero(Some(seven.clone()))).await, Ok(7));
    assert_eq!(client.submit(or_zero(None::<i64>)).await, Ok(0));
    assert_eq!(seven.then(|seven| or_zero(Some(seven.clone()))).await, Ok(7));
    let names = BTreeMap::from([("b".to_owned(), 2)]);
    assert_eq!(client.submit(lookup(&names, "b")).await, Ok(Some(2)), "a reference to a value");
    end(cluster, client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_are_shared_by_reference_on_their_worker() {
    let (cluster, client) = start(2).await;
    let data = client.submit(big(1000));
    let place_of_data = client.submit(place(&data)).await.expect("runs");
    let seen = client.submit(places(&data, vec![data.clone(), data.clone()])).await.expect("runs");
    assert_eq!(seen, [place_of_data; 3]);
    assert_eq!(data.result().await.expect("fetched").len(), 1000);
    end(cluster, client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asynchronous_tasks_run_and_are_dropped_where_they_wait_when_cancelled() {
    let (cluster, client) = start(1).await;
    let three = client.submit(add_later(1, 2));
    assert_eq!(client.submit(add_later(three, 10)).await, Ok(13));
    let waits = client.submit(never());
    // It is running once the next one is not.
    while client.submit(number(1)).try_result().await == Ok(Some(1)) {}
    waits.cancel();
    assert_eq!(client.submit(number(2)).await, Ok(2), "the thread is free again");
    assert!(DROPPED.load(Ordering::SeqCst));
    end(cluster, client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_knows_itself_and_shares_with_others_of_its_worker() {
    let (cluster, client) = start(1).await;
    let future = client.submit(whereabouts(5));
    let (key, worker, n) = future.result().await.expect("runs");
    assert_eq!((key, n), (future.key().to_string(), 5));
    assert_eq!(worker, cluster.worker_addresses().await[0].to_string());
    let first = client.submit(calls()).await.expect("runs");
    assert_eq!(client.submit(calls()).await, Ok(first + 1));
    end(cluster, client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_submit_tasks_and_wait_for_them_on_one_thread() {
    let (cluster, client) = start(1).await;
    assert_eq!(client.submit(fibonacci(7)).await, Ok(13));
    end(cluster, client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_ends_a_task_and_names_the_limit() {
    let (cluster, client) = start(1).await;
    let late = client.submit(spin().timeout(Duration::from_millis(50)));
    let error = late.result().await.expect_err("too long").to_string();
    assert!(error.contains("TimeoutError") && error.contains("0.05"), "{error}");
    assert_eq!(client.submit(number(1)).await, Ok(1));
    end(cluster, client).await;
}

#[dask::task]
fn explode() -> i64 {
    inner_cause()
}

#[inline(never)]
fn inner_cause() -> i64 {
    panic!("a wire was cut")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_comes_back_with_its_place_and_calls() {
    let (cluster, client) = start(1).await;
    let error = client.submit(explode()).await.expect_err("panics");
    let TaskError::Failed { exception, backtrace: Some(backtrace), .. } = error else { panic!("{error}") };
    assert!(exception.contains("a wire was cut") && exception.contains("typed.rs"), "{exception}");
    assert!(backtrace.contains("inner_cause"), "{backtrace}");
    assert_eq!(client.submit(number(1)).await, Ok(1), "the worker goes on");
    end(cluster, client).await;
}

#[test]
fn results_can_be_waited_for_without_a_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let (cluster, client) = runtime.block_on(start(1));
    let future = client.submit(number(3));
    assert_eq!(future.blocking_result(), Ok(3));
    assert!(future.is_done());
    assert_eq!(runtime.block_on(future.try_result()), Ok(Some(3)));
    runtime.block_on(end(cluster, client));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn annotations_of_a_graph_reach_its_tasks() {
    let (cluster, client) = start(1).await;
    let mut graph = GraphBuilder::new("g");
    let a = graph.add(number(1).priority(5.0)).expect("new");
    let both = graph.add(pair((a, "x".to_owned())).retries(1)).expect("new");
    let nowhere = graph.add(number(2).resource("GPU", 1.0)).expect("new");
    let futures = client.compute(graph, &[both]).expect("no cycle");
    assert_eq!(futures[0].result().await, Ok("1 x".to_owned()));
    drop(nowhere);
    end(cluster, client).await;
}
