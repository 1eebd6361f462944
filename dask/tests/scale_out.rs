//! From 8 to 100 workers while a job runs, on real sockets.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dask::{LocalCluster, Value};

const BEFORE: usize = 8;
const AFTER: usize = 100;
const TASKS: usize = 600;

/// How often each task ran; the workers are in this process.
static RUNS: [AtomicU32; TASKS] = [const { AtomicU32::new(0) }; TASKS];
/// Whether all workers have come.
static OPEN: AtomicBool = AtomicBool::new(false);

/// Holds its worker until all have come, so that there is work for each.
#[dask::task]
fn hold(n: u64) -> u64 {
    const PATIENCE: Duration = Duration::from_secs(60);
    let since = Instant::now();
    let index = usize::try_from(n).expect("small");
    RUNS[index].fetch_add(1, Ordering::Relaxed);
    while !OPEN.load(Ordering::Relaxed) && since.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
    n
}

/// How many workers hold a result or compute one.
async fn workers_in_use(cluster: &LocalCluster) -> usize {
    let pool = dask_protocol::comm::ConnectionPool::new(Default::default());
    let mut used = std::collections::BTreeSet::new();
    for op in ["processing", "has_what"] {
        let answer: Value = pool.call(cluster.address(), op, &()).await.expect("answers");
        let Value::Map(workers) = answer else { panic!("{op} is a map") };
        let busy = workers.into_iter().filter(|(_, keys)| keys.as_items().is_some_and(|keys| !keys.is_empty()));
        used.extend(busy.filter_map(|(worker, _)| worker.as_str().map(str::to_owned)));
    }
    used.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_workers_share_a_running_job_and_nothing_runs_twice() {
    let cluster =
        LocalCluster::builder().workers(BEFORE).threads_per_worker(1).start().await.expect("the first workers start");
    let client = cluster.client().await.expect("connects");
    let futures = client.map((0..TASKS as u64).map(hold));
    let since = Instant::now();
    cluster.grow(AFTER - BEFORE).await.expect("the others start");
    let grown = since.elapsed();
    while workers_in_use(&cluster).await < AFTER {
        assert!(since.elapsed() < Duration::from_secs(60), "{} workers have work", workers_in_use(&cluster).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{} workers joined in {grown:.2?}; all had work {:.2?} later", AFTER - BEFORE, since.elapsed() - grown);
    OPEN.store(true, Ordering::Relaxed);
    assert_eq!(client.gather(&futures).await, Ok((0..TASKS as u64).collect::<Vec<_>>()));
    let twice = RUNS.iter().position(|runs| runs.load(Ordering::Relaxed) != 1);
    assert_eq!(twice, None, "a task that ran twice, or never");
    client.close().await;
    cluster.close().await;
}
