//! Names shared through the scheduler, between two Rust clients.

use std::time::Duration;

use dask::{Client, CoordinateError, LocalCluster};

#[dask::task]
fn double(n: i64) -> i64 {
    2 * n
}

const SOON: Option<Duration> = Some(Duration::from_millis(30));

async fn start() -> (LocalCluster, Client, Client) {
    let cluster = LocalCluster::builder().threads_per_worker(1).start().await.expect("starts");
    let (one, other) = (cluster.client().await.expect("connects"), cluster.client().await.expect("connects"));
    (cluster, one, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_hold_values_and_futures() {
    let (cluster, one, other) = start().await;
    let (set, seen) = (one.variable::<i64>("x"), other.variable::<i64>("x"));
    assert!(matches!(seen.get(SOON).await, Err(CoordinateError::Timeout { what: "variable", .. })));
    set.set(&5).await.expect("sets");
    assert_eq!(seen.get(None).await.expect("set").value().await, Ok(5));
    let future = one.submit(double(21));
    set.set_future(&future).await.expect("sets");
    drop(future);
    assert_eq!(seen.get(None).await.expect("set").value().await, Ok(42), "the variable keeps the result alive");
    let text = other.variable::<String>("x").get(None).await.expect("a future");
    assert!(text.value().await.is_err(), "it is a number");
    set.delete();
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_hand_over_in_order() {
    let (cluster, one, other) = start().await;
    let put = one.queue::<i64>("q", Some(3)).await.expect("made");
    let taken = other.queue::<i64>("q", None).await.expect("there");
    put.put(&1, None).await.expect("room");
    put.put_future(&one.submit(double(1)), None).await.expect("room");
    put.put(&3, None).await.expect("room");
    assert!(matches!(put.put(&4, SOON).await, Err(CoordinateError::Timeout { .. })), "it is full");
    assert_eq!(taken.len().await.expect("asked"), 3);
    assert_eq!(taken.get(None).await.expect("first").value().await, Ok(1));
    let rest = taken.drain().await.expect("two");
    for (item, expected) in rest.into_iter().zip([2, 3]) {
        assert_eq!(item.value().await, Ok(expected));
    }
    assert!(taken.is_empty().await.expect("asked"));
    assert!(matches!(taken.get(SOON).await, Err(CoordinateError::Timeout { .. })));
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_semaphores_and_events_bind_all_clients() {
    let (cluster, one, other) = start().await;
    let (mine, theirs) = (one.lock("l").await.expect("made"), other.lock("l").await.expect("there"));
    let held = mine.acquire(None).await.expect("asked").expect("free");
    assert!(theirs.acquire(SOON).await.expect("asked").is_none());
    held.release().await.expect("told");
    let held = theirs.acquire(None).await.expect("asked").expect("free again");
    drop(held);
    assert!(mine.acquire(Some(Duration::from_secs(20))).await.expect("asked").is_some(), "a dropped lease comes back");

    let two = one.semaphore("s", 2).await.expect("made");
    let leases = (two.acquire(None).await.expect("asked"), two.acquire(None).await.expect("asked"));
    assert_eq!(two.held().await.expect("asked"), 2);
    assert!(two.acquire(SOON).await.expect("asked").is_none());
    assert!(other.semaphore("s", 3).await.is_err(), "it has two leases");
    drop(leases);

    let (event, seen) = (one.event("e"), other.event("e"));
    assert!(!seen.wait(SOON).await.expect("asked"));
    event.set().await.expect("sets");
    assert!(seen.wait(None).await.expect("asked"));
    event.clear().await.expect("clears");
    assert!(!seen.is_set().await.expect("asked"));
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_futures_outlive_their_client() {
    let (cluster, one, other) = start().await;
    let futures = one.map((0..3).map(double));
    one.publish("numbers", &futures, false).await.expect("a free name");
    assert!(one.publish("numbers", &futures, false).await.is_err(), "the name is taken");
    drop(futures);
    one.close().await;
    assert_eq!(other.datasets().await.expect("asked"), ["numbers".into()]);
    let kept = other.dataset::<i64>("numbers").await.expect("published");
    assert_eq!(other.gather(&kept).await, Ok(vec![0, 2, 4]));
    other.unpublish("numbers").await.expect("asked");
    assert!(matches!(other.dataset::<i64>("numbers").await, Err(CoordinateError::Unknown { .. })));
    cluster.close().await;
}
