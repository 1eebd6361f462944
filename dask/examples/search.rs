//! A parallel search that stops at the first hit: results are looked at as they come, and the rest is cancelled.
//!
//! ```console
//! cargo run --release -p dask --example search
//! ```

use dask::{LocalCluster, TaskContext, as_completed};
use futures::StreamExt;

/// Looks for `n` with a property in a range; asks now and then whether anybody still wants to know.
#[dask::task]
fn search(context: &TaskContext, from: u64, to: u64) -> Result<Option<u64>, String> {
    for n in from..to {
        if n % 1024 == 0 && context.is_cancelled() {
            return Err("nobody wants it any more".to_owned());
        }
        if is_hit(n) {
            return Ok(Some(n));
        }
    }
    Ok(None)
}

/// Whether a number is a palindrome and its square, too, among numbers of six digits.
fn is_hit(n: u64) -> bool {
    let is_palindrome = |n: u64| {
        let digits = n.to_string();
        digits.bytes().eq(digits.bytes().rev())
    };
    n > 100_000 && is_palindrome(n) && is_palindrome(n * n)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = LocalCluster::builder().threads_per_worker(2).start().await?;
    let client = cluster.client().await?;
    const STEP: u64 = 20_000;
    let futures = client.map((0..100).map(|part| search(part * STEP, (part + 1) * STEP)));

    let mut results = as_completed(futures.clone());
    let mut found = None;
    while let Some(future) = results.next().await {
        found = future.await?;
        if found.is_some() {
            break;
        }
    }
    client.cancel(&futures, false);
    let n = found.ok_or("nothing found")?;
    println!("{n} and its square {} read the same backwards; the other searches are cancelled", n * n);
    client.close().await;
    cluster.close().await;
    if is_hit(n) { Ok(()) } else { Err("that is no hit".into()) }
}
