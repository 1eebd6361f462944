//! A tree reduction with typed errors, retries and a published result.
//!
//! ```console
//! cargo run --release -p dask --example tree_reduction
//! ```

use dask::{Future, LocalCluster};
use serde::{Deserialize, Serialize};

/// Count, mean and sum of squared differences, which can be merged (Chan's method).
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Moments {
    n: f64,
    mean: f64,
    squares: f64,
}

#[dask::task]
fn measure(part: u32, size: u32) -> Moments {
    let values: Vec<f64> = (0..size).map(|i| f64::from((part * size + i) % 1000)).collect();
    let n = f64::from(size);
    let mean = values.iter().sum::<f64>() / n;
    Moments { n, mean, squares: values.iter().map(|x| (x - mean).powi(2)).sum() }
}

#[dask::task]
fn merge(a: &Moments, b: &Moments) -> Moments {
    let (n, difference) = (a.n + b.n, b.mean - a.mean);
    Moments {
        n,
        mean: a.mean + difference * b.n / n,
        squares: a.squares + b.squares + difference * difference * a.n * b.n / n,
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = LocalCluster::builder().workers(2).threads_per_worker(1).start().await?;
    let client = cluster.client().await?;
    let mut level: Vec<Future<Moments>> = client.map((0..256).map(|part| measure(part, 1000).retries(2)));
    while level.len() > 1 {
        // Those of the level below are released as soon as this one has them.
        level = client.map(level.chunks(2).map(|pair| merge(&pair[0], &pair[1])));
    }
    client.publish("moments", &level, false).await?;
    drop(level);

    let kept = client.dataset::<Moments>("moments").await?.remove(0).await?;
    println!("{} values, mean {:.3}, standard deviation {:.3}", kept.n, kept.mean, (kept.squares / kept.n).sqrt());
    client.close().await;
    cluster.close().await;
    if (kept.mean - 499.5).abs() < 1e-9 { Ok(()) } else { Err("the mean is wrong".into()) }
}
