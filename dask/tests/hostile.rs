//! Clients that say nothing, say it slowly, or say what is too much: none of them holds up a running graph.
//!
//! `.ci/run hostile` runs it with many more of them and prints figures for docs/operations.md.

use std::time::{Duration, Instant};

use dask::{Address, Client, LocalCluster};
use dask_protocol::comm::Comm;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Connections of each kind, unless `DASK_TEST_HOSTILE` says otherwise.
const EACH: usize = 60;
/// How long the slow may take where this test waits for them: the scheduler closes what is too large at once.
const PATIENCE: Duration = Duration::from_secs(120);
const ROUNDS: usize = 9;
const TASKS: u64 = 200;

#[dask::task]
fn double(n: u64) -> u64 {
    2 * n
}

/// The median time of one graph, in several that are computed one after the other.
async fn graphs(client: &Client, first: u64) -> Duration {
    let mut times = Vec::new();
    for round in 0..ROUNDS as u64 {
        let begin = first + round * TASKS;
        let since = Instant::now();
        let futures = client.map((begin..begin + TASKS).map(double));
        let expected: Vec<u64> = (begin..begin + TASKS).map(|n| 2 * n).collect();
        assert_eq!(client.gather(&futures).await, Ok(expected));
        times.push(since.elapsed());
    }
    times.sort();
    times[ROUNDS / 2]
}

async fn connect(scheduler: &Address) -> TcpStream {
    let port = scheduler.port().expect("a port");
    TcpStream::connect((scheduler.host(), port)).await.expect("accepted")
}

/// The head of a message with so many frames, as a hostile peer writes it.
fn head(frames: u64) -> [u8; 16] {
    let mut head = [0; 16];
    head[8..].copy_from_slice(&frames.to_le_bytes());
    head
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_connections_do_not_hold_up_a_graph() {
    let each = std::env::var("DASK_TEST_HOSTILE").ok().and_then(|n| n.parse().ok()).unwrap_or(EACH);
    let cluster = LocalCluster::builder().workers(2).threads_per_worker(1).start().await.expect("starts");
    let client = cluster.client().await.expect("connects");
    let scheduler = cluster.address().clone();
    graphs(&client, 0).await;
    let alone = graphs(&client, 100_000).await;

    // They introduce themselves properly and then say nothing.
    let mut idle = Vec::new();
    for _ in 0..each {
        idle.push(Comm::connect(&scheduler, &Default::default()).await.expect("a handshake"));
    }
    // They say nothing at all, or one byte of a handshake after the other.
    let (mut silent, mut slow) = (Vec::new(), Vec::new());
    for _ in 0..each {
        silent.push(connect(&scheduler).await);
        slow.push(connect(&scheduler).await);
    }
    let trickle = tokio::spawn(async move {
        for byte in head(1) {
            for connection in &mut slow {
                // The scheduler may have lost its patience.
                let _ = connection.write_all(&[byte]).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        slow
    });
    // They announce more than there can be.
    let mut greedy = Vec::new();
    for _ in 0..each {
        let mut connection = connect(&scheduler).await;
        connection.write_all(&head(u64::MAX / 16)).await.expect("written");
        greedy.push(connection);
    }

    let beset = graphs(&client, 200_000).await;
    for mut connection in greedy {
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "a connection that announces too much stays open");
    }
    println!(
        "{TASKS} tasks: {alone:.2?} alone, {beset:.2?} beside {} hostile connections, ratio {:.2}",
        4 * each,
        beset.as_secs_f64() / alone.as_secs_f64()
    );
    trickle.abort();
    drop((idle, silent));
    client.close().await;
    cluster.close().await;
}
