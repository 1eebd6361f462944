//! Typed tasks, futures as arguments, and a tree reduction.
//!
//! ```console
//! cargo run --release -p dask --example quickstart                         # a cluster inside this process
//!
//! dask-scheduler &                                                         # or a real one: any machine
//! cargo run --release -p dask --example quickstart -- worker 127.0.0.1:8786 &
//! cargo run --release -p dask --example quickstart -- client 127.0.0.1:8786
//! ```
//!
//! The worker is this executable again, so that it has the tasks below: `dask::worker::main_from` is all it takes.

use std::collections::BTreeMap;
use std::process::ExitCode;

use dask::{Client, LocalCluster};

/// Counts the words of a text.
#[dask::task]
fn count_words(text: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word.to_lowercase()).or_insert(0) += 1;
    }
    counts
}

/// Adds up counts of several texts.
#[dask::task]
fn merge(parts: &[BTreeMap<String, u64>]) -> BTreeMap<String, u64> {
    let mut total = BTreeMap::new();
    for (word, count) in parts.iter().flatten() {
        *total.entry(word.clone()).or_insert(0) += count;
    }
    total
}

/// A task that fails, to show what its caller sees.
#[dask::task]
fn most_frequent(counts: &BTreeMap<String, u64>) -> Result<String, String> {
    counts.iter().max_by_key(|(_, n)| **n).map(|(w, n)| format!("{w} ({n})")).ok_or("no words at all".to_owned())
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = || tokio::runtime::Runtime::new().expect("threads can be started");
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["worker", ..] => return dask::worker::main_from(std::env::args_os().skip(1)),
        ["client", scheduler] => runtime().block_on(on_cluster(scheduler)),
        [] => runtime().block_on(in_process()),
        other => Err(format!("expected nothing, `client ADDRESS` or `worker ADDRESS`, got {other:?}").into()),
    };
    done.map_or_else(
        |failure| {
            eprintln!("quickstart failed: {failure}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

async fn in_process() -> Result<(), Failure> {
    let cluster = LocalCluster::builder().workers(2).threads_per_worker(2).start().await?;
    let client = cluster.client().await?;
    count(&client).await?;
    client.close().await;
    cluster.close().await;
    Ok(())
}

async fn on_cluster(scheduler: &str) -> Result<(), Failure> {
    let client = Client::connect(scheduler).await?;
    count(&client).await?;
    client.close().await;
    Ok(())
}

async fn count(client: &Client) -> Result<(), Failure> {
    let lines = ["the quick brown fox", "jumps over the lazy dog", "and the dog does not care", "the end"];
    let counts = client.map(lines.map(count_words));
    let total = client.submit(merge(counts));
    let winner = client.submit(most_frequent(&total));
    println!("{} distinct words, most frequent: {}", total.result().await?.len(), winner.result().await?);

    let nothing = client.submit(most_frequent(client.submit(count_words(""))));
    let error = nothing.result().await.expect_err("an empty text has no most frequent word");
    println!("as expected: {error}");
    if winner.result().await? == "the (4)" { Ok(()) } else { Err("the count is wrong".into()) }
}
