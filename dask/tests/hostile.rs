//! Clients that say nothing, say it slowly, or say what is too much: none of them holds up a running graph.
//!
//! `.ci/run hostile` runs it with many more of them and prints figures for docs/operations.md.

use std::process::Stdio;
use std::time::{Duration, Instant};

use dask::worker::{PythonChoice, Worker, WorkerOptions};
use dask::{Address, Client};
use dask_protocol::comm::Comm;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// Connections that introduce themselves and then say nothing, unless `DASK_TEST_HOSTILE` says otherwise.
const IDLE: usize = 60;
/// Connections of each other kind: as many as there are idle ones, divided by this, but not fewer than [`IDLE`].
const OTHERS: usize = 10;
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

/// A scheduler in a process of its own, as each process may have but so many files: its address, and that of its pages.
async fn scheduler() -> (Child, Address, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dask-scheduler"));
    command.args(["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]);
    let mut process = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().expect("starts");
    let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines();
    let mut last_word_after = async |text: &str| loop {
        let line = lines.next_line().await.expect("text").expect("a line that tells where it listens");
        if line.contains(text) {
            return line.split_whitespace().last().expect("the line ends in an address").to_owned();
        }
    };
    let address = last_word_after("Scheduler at:").await;
    let dashboard = last_word_after("dashboard at:").await;
    // What it says later must go somewhere.
    tokio::spawn(async move { while matches!(lines.next_line().await, Ok(Some(_))) {} });
    let dashboard = dashboard.trim_start_matches("http://").trim_end_matches("/status").to_owned();
    (process, Address::from(address.as_str()), dashboard)
}

/// The answer to a request for a page.
async fn page(dashboard: &str, head: &str) -> String {
    let mut connection = TcpStream::connect(dashboard).await.expect("accepted");
    connection.write_all(head.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    // It is reset where the server did not want to read all of it.
    let _ = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut answer)).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends bytes one by one, for ever.
fn trickle(mut connections: Vec<TcpStream>, bytes: Vec<u8>) -> JoinHandle<()> {
    tokio::spawn(async move {
        for byte in bytes.into_iter().cycle() {
            for connection in &mut connections {
                // The scheduler may have lost its patience.
                let _ = connection.write_all(&[byte]).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_connections_do_not_hold_up_a_graph() {
    let idle_wanted = std::env::var("DASK_TEST_HOSTILE").ok().and_then(|n| n.parse().ok()).unwrap_or(IDLE);
    let each = (idle_wanted / OTHERS).max(IDLE);
    let (mut process, scheduler, dashboard) = scheduler().await;
    let mut workers = Vec::new();
    for _ in 0..2 {
        let options = WorkerOptions {
            nthreads: 1,
            python: PythonChoice::Off,
            ..WorkerOptions::new(scheduler.clone()).expect("an address")
        };
        workers.push(Worker::start(options).await.expect("registers"));
    }
    let client = Client::connect(scheduler.as_str()).await.expect("connects");
    graphs(&client, 0).await;
    let alone = graphs(&client, 100_000).await;

    // They introduce themselves properly and then say nothing.
    let mut idle = Vec::new();
    for _ in 0..idle_wanted {
        idle.push(Comm::connect(&scheduler, &Default::default()).await.expect("a handshake"));
    }
    // They say nothing at all, or one byte of a handshake after the other, or of a request for a page.
    let (mut silent, mut slow, mut lorises) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..each {
        silent.push(connect(&scheduler).await);
        slow.push(connect(&scheduler).await);
        lorises.push(TcpStream::connect(&dashboard).await.expect("accepted"));
    }
    let trickles = [trickle(slow, head(1).to_vec()), trickle(lorises, b"GET /status HTTP/1.1\r\nX-A: a".to_vec())];
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
    let asked = Instant::now();
    let health = page(&dashboard, "GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert!(health.starts_with("HTTP/1.1 200") && health.ends_with("ok"), "{health}");
    let answered = asked.elapsed();
    let long = format!("GET /health HTTP/1.1\r\nHost: h\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20));
    let refused = page(&dashboard, &long).await;
    assert!(!refused.starts_with("HTTP/1.1 200"), "{refused}");
    println!(
        "{TASKS} tasks: {alone:.2?} alone, {beset:.2?} beside {idle_wanted} idle connections and {} hostile ones, ratio \
         {:.2}; /health answered in {answered:.2?}",
        4 * each,
        beset.as_secs_f64() / alone.as_secs_f64()
    );
    trickles.iter().for_each(JoinHandle::abort);
    drop((idle, silent));
    client.close().await;
    for worker in workers {
        worker.close("the test is over").await;
    }
    process.kill().await.expect("it runs");
}
