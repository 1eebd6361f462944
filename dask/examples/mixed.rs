//! Rust and Python in one graph: Rust makes numbers, Python's `statistics` looks at them, Rust sums up.
//!
//! Needs a Python with `dask` and `distributed`; say which with `DASK_PYTHON`, else the first of the usual places counts.
//!
//! ```console
//! DASK_PYTHON=.venv/bin/python cargo run --release -p dask --example mixed
//! ```

use dask::worker::PythonChoice;
use dask::{Future, GraphBuilder, LocalCluster, python};

#[dask::task]
fn samples(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 24)
    };
    (0..n).map(|_| next()).collect()
}

#[dask::task]
fn report(medians: &[f64], spread: f64) -> String {
    format!("{} medians around 0.5, standard deviation {spread:.4}", medians.len())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let choice = std::env::var_os("DASK_PYTHON").map_or(PythonChoice::Auto, |path| PythonChoice::Path(path.into()));
    let cluster = LocalCluster::builder().threads_per_worker(2).python(choice).start().await?;
    let client = cluster.client().await?;

    let mut graph = GraphBuilder::new("mixed");
    let mut medians = Vec::new();
    for seed in 0..20 {
        let values = graph.add(samples(seed * 977 + 13, 501))?;
        medians.push(graph.add(python("statistics:median").arg(&values).returns::<f64>())?);
    }
    let spread = graph.add(python("statistics:pstdev").arg_as::<Vec<f64>>(&medians[..]).returns::<f64>())?;
    let text = graph.add(report(medians, spread))?;
    let text: Future<String> = client.compute(graph, &[text])?.remove(0);
    println!("{}", text.await?);

    let upper = client.submit(python("builtins:str.upper").arg("and back again").returns::<String>());
    println!("{}", upper.await?);
    client.close().await;
    cluster.close().await;
    Ok(())
}
