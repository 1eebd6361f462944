//! Counts the words of many files: one task for each file, then a tree of merges.
//!
//! ```console
//! cargo run --release -p dask --example word_count              # makes some files and counts them
//! cargo run --release -p dask --example word_count -- *.txt     # or counts those given
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dask::{Future, LocalCluster};

type Counts = BTreeMap<String, u64>;

#[dask::task]
fn count_file(path: &str) -> std::io::Result<Counts> {
    let mut counts = Counts::new();
    for word in std::fs::read_to_string(path)?.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_lowercase()).or_insert(0) += 1;
    }
    Ok(counts)
}

/// The parts are shared with the worker's memory, not copied.
#[dask::task]
fn merge(parts: &[std::sync::Arc<Counts>]) -> Counts {
    let mut total = Counts::new();
    for (word, n) in parts.iter().flat_map(|part| part.iter()) {
        *total.entry(word.clone()).or_insert(0) += n;
    }
    total
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let home = tempfile::tempdir()?;
    let mut files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let made = files.is_empty();
    if made {
        files = make_files(home.path(), 40)?;
    }
    let cluster = LocalCluster::builder().workers(2).threads_per_worker(2).start().await?;
    let client = cluster.client().await?;

    let mut level: Vec<Future<Counts>> =
        client.map(files.iter().map(|file| count_file(file.to_string_lossy().as_ref())));
    while level.len() > 1 {
        level = client.map(level.chunks(8).map(merge));
    }
    let counts = level.pop().ok_or("no files")?.await?;
    let mut most: Vec<(&String, &u64)> = counts.iter().collect();
    most.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    println!(
        "{} files, {} different words; most frequent: {:?}",
        files.len(),
        counts.len(),
        &most[..most.len().min(3)]
    );

    client.close().await;
    cluster.close().await;
    if made && counts["line"] != 40 * 100 {
        return Err(format!("expected 4000 lines, counted {}", counts["line"]).into());
    }
    Ok(())
}

fn make_files(home: &Path, n: usize) -> std::io::Result<Vec<PathBuf>> {
    let text = |file: usize| (0..100).map(|line| format!("line {line} of file {file}\n")).collect::<String>();
    let make = |file| {
        let path = home.join(format!("{file}.txt"));
        std::fs::write(&path, text(file)).map(|()| path)
    };
    (0..n).map(make).collect()
}
