//! Clusters that change: more and fewer workers, by hand and by load, and what a dropped cluster leaves.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use dask::LocalCluster;

const PATIENCE: Duration = Duration::from_secs(60);

#[dask::task]
fn wait_ms(milliseconds: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(milliseconds));
    milliseconds
}

#[dask::task]
fn square(n: u64) -> u64 {
    n * n
}

#[dask::task(brief)]
fn thread_and_square(n: u64) -> (String, u64) {
    (format!("{:?}", std::thread::current().name()), n * n)
}

/// As in a program whose `main` is `#[tokio::main(flavor = "current_thread")]`.
#[tokio::test]
async fn brief_tasks_need_no_thread_but_that_of_the_cluster() {
    let cluster = LocalCluster::builder().workers(2).threads_per_worker(1).start().await.expect("starts");
    let client = cluster.client().await.expect("connects");
    let here = format!("{:?}", std::thread::current().name());
    let futures = client.map((0..100).map(thread_and_square));
    let expected: Vec<_> = (0..100).map(|n| (here.clone(), n * n)).collect();
    assert_eq!(client.gather(&futures).await, Ok(expected));
    client.close().await;
    cluster.close().await;
}

#[tokio::test]
async fn workers_apart_decide_on_threads_of_their_own() {
    let builder = LocalCluster::builder().workers(2).threads_per_worker(1).workers_apart();
    let cluster = builder.start().await.expect("starts");
    let client = cluster.client().await.expect("connects");
    let futures = client.map((0..100).map(thread_and_square));
    let mut threads: Vec<String> = Vec::new();
    for (n, (thread, square)) in (0..).zip(client.gather(&futures).await.expect("all run")) {
        assert_eq!(square, n * n);
        threads.push(thread);
    }
    threads.sort_unstable();
    threads.dedup();
    assert_eq!(threads, [r#"Some("dask-worker-0")"#, r#"Some("dask-worker-1")"#]);
    cluster.scale(1).await.expect("shrinks");
    assert_eq!(client.submit(square(9)).await, Ok(81));
    client.close().await;
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_down_keeps_results() {
    let cluster = LocalCluster::builder().workers(3).threads_per_worker(1).start().await.expect("starts");
    let client = cluster.client().await.expect("connects");
    let futures = client.map((0..60).map(square));
    client.wait(&futures).await.expect("all run");
    cluster.scale(1).await.expect("shrinks");
    assert_eq!(cluster.worker_addresses().await.len(), 1);
    assert_eq!(client.gather(&futures).await, Ok((0..60).map(|n| n * n).collect()));
    cluster.scale(2).await.expect("grows");
    assert_eq!(cluster.worker_addresses().await.len(), 2);
    assert_eq!(client.submit(square(9)).await, Ok(81));
    client.close().await;
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adapting_follows_the_load_up_and_down() {
    let mut cluster = LocalCluster::builder().workers(1).threads_per_worker(1).start().await.expect("starts");
    let client = cluster.client().await.expect("connects");
    cluster.adapt(1, 3);
    // The first tasks teach the scheduler what such a task takes: far more than one worker's five seconds.
    let futures = client.map((0..40).map(|_| wait_ms(400)));
    let since = Instant::now();
    while cluster.worker_addresses().await.len() < 3 {
        assert!(since.elapsed() < PATIENCE, "the load asks for more workers");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(futures);
    while cluster.worker_addresses().await.len() > 1 {
        assert!(since.elapsed() < PATIENCE, "nobody needs so many workers");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(client.submit(square(3)).await, Ok(9));
    client.close().await;
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_cluster_shuts_down() {
    let cluster = LocalCluster::builder().workers(1).start().await.expect("starts");
    let client = cluster.client().await.expect("connects");
    let address = cluster.address().clone();
    drop(cluster);
    let since = Instant::now();
    while client.scheduler_info().await.is_ok() {
        assert!(since.elapsed() < PATIENCE, "{address} still answers");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

static GATE: Mutex<bool> = Mutex::new(false);
static OPENED: Condvar = Condvar::new();
const GATED: u64 = 300;

/// Short, but for one that waits until somebody has seen the result of the one before it.
#[dask::task]
fn short_or_gated(n: u64) -> bool {
    if n != GATED {
        std::thread::sleep(Duration::from_micros(300));
        return true;
    }
    let gate = GATE.lock().expect("nobody panics");
    let (open, _) = OPENED.wait_timeout_while(gate, PATIENCE, |open| !*open).expect("nobody panics");
    *open
}

#[tokio::test]
async fn results_of_short_tasks_are_told_while_one_behind_them_takes_its_time() {
    let builder = LocalCluster::builder().workers(1).threads_per_worker(1).worker_saturation(f64::INFINITY);
    let cluster = builder.start().await.expect("starts");
    let client = cluster.client().await.expect("connects");
    let futures = client.map((0..2 * GATED).map(short_or_gated));
    let before = usize::try_from(GATED).expect("small") - 1;
    assert_eq!(futures[before].result().await, Ok(true));
    *GATE.lock().expect("nobody panics") = true;
    OPENED.notify_all();
    assert!(client.gather(&futures).await.expect("all run").into_iter().all(|told| told));
    client.close().await;
    cluster.close().await;
}
