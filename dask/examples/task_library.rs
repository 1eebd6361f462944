//! Tasks in a shared library, which the stock `dask-worker` loads:
//!
//! ```console
//! cargo build --release -p dask --example task_library
//! dask-worker tcp://scheduler:8786 --preload target/release/examples/libtask_library.so
//! ```
//!
//! A crate of its own says `crate-type = ["cdylib"]` under `[lib]`.

use std::sync::Arc;

use dask::{BoxError, Bytes, TaskContext};

dask::task_library!();

/// Points of a line, as tasks of this library share them.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct Track {
    points: Vec<(f64, f64)>,
}

/// A walk of `n` steps.
#[dask::task]
pub fn library_walk(n: u32) -> Track {
    let at = |step: u32| (f64::from(step) * 3.0, f64::from(step) * 4.0);
    Track { points: (0..=n).map(at).collect() }
}

/// How long it is; and where it lies in memory, which is the same for all tasks that are given it on one worker.
#[dask::task]
pub fn library_length(track: Arc<Track>) -> (f64, u64) {
    let steps = track.points.windows(2).map(|pair| (pair[1].0 - pair[0].0).hypot(pair[1].1 - pair[0].1));
    (steps.sum(), Arc::as_ptr(&track) as u64)
}

/// The lengths of all, added.
#[dask::task]
pub fn library_total(lengths: Vec<(f64, u64)>) -> f64 {
    lengths.iter().map(|(length, _)| length).sum()
}

/// Bytes, backwards.
#[dask::task]
pub fn library_reverse(bytes: Bytes) -> Bytes {
    bytes.iter().rev().copied().collect()
}

/// A task that tells where it runs, submits another one and waits for it.
#[dask::task]
pub async fn library_asks(context: &TaskContext) -> Result<String, BoxError> {
    let client = context.client().await?;
    let other = client.submit(library_total(vec![(2.0, 0), (3.0, 0)]));
    context.secede()?;
    context.log_event("library", "waits")?;
    Ok(format!("{} on {} got {}", context.key(), context.worker(), other.result().await?))
}

/// A task that ends when it is cancelled, and says so in a file.
#[dask::task]
pub fn library_waits(mark: &str) -> Result<(), BoxError> {
    std::fs::write(mark, "started")?;
    while !dask::is_cancelled() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    std::fs::write(mark, "cancelled")?;
    Err("cancelled".into())
}

/// A task that panics.
#[dask::task]
pub fn library_panics(n: u32) -> u32 {
    panic!("{n} is out of luck")
}
