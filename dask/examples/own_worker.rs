//! A program that is its own worker: two worker processes under nannies, and one of them dies.
//!
//! ```console
//! cargo run --release -p dask --example own_worker
//! ```

use std::collections::BTreeSet;
use std::process::ExitCode;

use dask::{LocalCluster, TaskContext};

/// The process that it runs in.
#[dask::task]
fn process_id(context: &TaskContext, n: u32) -> (u32, String) {
    std::thread::sleep(std::time::Duration::from_millis(u64::from(n % 5)));
    (std::process::id(), context.worker().to_string())
}

/// A task that takes its worker with it, the first time.
#[dask::task]
fn crash_once(mark: &str) -> String {
    if std::fs::remove_file(mark).is_ok() {
        std::process::abort();
    }
    format!("survived in process {}", std::process::id())
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("worker") {
        return dask::worker::main_from(std::env::args_os().skip(1));
    }
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    match runtime.block_on(run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("own_worker failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let builder = LocalCluster::builder().workers(2).threads_per_worker(1).processes(["worker"]);
    let cluster = builder.start().await?;
    let client = cluster.client().await?;
    let places = client.gather(&client.map((0..40).map(process_id))).await?;
    let processes: BTreeSet<u32> = places.iter().map(|(process, _)| *process).collect();
    println!("40 tasks ran in the processes {processes:?}; this one is {}", std::process::id());
    if processes.len() != 2 || processes.contains(&std::process::id()) {
        return Err("expected two processes besides this one".into());
    }

    let mark = tempfile::NamedTempFile::new()?.into_temp_path();
    println!("{}", client.submit(crash_once(mark.to_string_lossy().as_ref())).await?);
    client.close().await;
    cluster.close().await;
    Ok(())
}
