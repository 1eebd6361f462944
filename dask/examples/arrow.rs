//! Arrow arrays: shared by Rust tasks, and through pyarrow and back within one graph.
//!
//! An array's buffer travels as `Bytes`. Tasks of one worker get the buffer itself; Python gets a `bytes` object, around
//! which pyarrow builds an array. The worker needs a Python with dask.distributed and pyarrow (`DASK_PYTHON`).
//!
//! ```console
//! cargo run --release -p dask --example arrow
//! ```

use arrow_array::Float64Array;
use arrow_buffer::Buffer;
use dask::worker::PythonChoice;
use dask::{Bytes, GraphBuilder, LocalCluster, python};

const LENGTH: u32 = 100_000;

/// The array's values, without a copy.
fn into_bytes(array: &Float64Array) -> Bytes {
    Bytes::from_owner(array.values().inner().clone())
}

/// The array in these bytes: without a copy, unless they came in a message in which they are not aligned.
fn array_of(bytes: Bytes) -> Float64Array {
    let buffer = Buffer::from(bytes);
    let aligned = buffer.as_ptr().align_offset(align_of::<f64>()) == 0;
    let buffer = if aligned { buffer } else { Buffer::from(buffer.as_slice()) };
    Float64Array::new(buffer.into(), None)
}

/// 0, 1, 2 and so on.
#[dask::task]
fn ramp(n: u32) -> Bytes {
    into_bytes(&(0..n).map(f64::from).collect())
}

/// Where an array's values are in this process, and their sum.
#[dask::task]
fn place_and_sum(values: Bytes) -> (u64, f64) {
    let array = array_of(values);
    (array.values().as_ptr() as u64, array.values().iter().sum())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interpreter =
        std::env::var_os("DASK_PYTHON").map_or(PythonChoice::Auto, |path| PythonChoice::Path(path.into()));
    let cluster = LocalCluster::builder().workers(1).threads_per_worker(2).python(interpreter).start().await?;
    let client = cluster.client().await?;
    let expected = f64::from(LENGTH) * f64::from(LENGTH - 1) / 2.0;

    // Rust to Rust: the same memory in every task, and here, as this is the worker's process.
    let values = client.submit(ramp(LENGTH));
    let found = client.gather(&client.map((0..3).map(|_| place_and_sum(&values)))).await?;
    let here = array_of(values.bytes().await?);
    let place = here.values().as_ptr() as u64;
    if found.iter().any(|(there, sum)| (*there, *sum) != (place, expected)) {
        return Err(format!("expected {expected} at {place:#x} from all: {found:x?}").into());
    }
    println!("three tasks read the {LENGTH} values where the first one left them");

    // Rust, pyarrow on its buffer, Rust on pyarrow's.
    let mut graph = GraphBuilder::new("arrow");
    let made = graph.add(ramp(LENGTH))?;
    let buffer = graph.add(python("pyarrow:py_buffer").arg(&made).returns::<Bytes>())?;
    let no_nulls: Vec<Option<u8>> = vec![None];
    let buffers = python("operator:add").arg(no_nulls).arg_as::<Vec<Bytes>>([buffer]).returns::<Vec<Bytes>>();
    let buffers = graph.add(buffers)?;
    let kind = graph.add(python("pyarrow:float64").returns::<()>())?;
    let array =
        graph.add(python("pyarrow:Array.from_buffers").arg(&kind).arg(LENGTH).arg(&buffers).returns::<Vec<f64>>())?;
    let doubled = graph.add(python("pyarrow.compute:multiply").arg(&array).arg(2.0).returns::<Vec<f64>>())?;
    let parts = graph.add(python("pyarrow:Array.buffers").arg(&doubled).returns::<Vec<Bytes>>())?;
    let part = graph.add(python("operator:getitem").arg(&parts).arg(1).returns::<Bytes>())?;
    let back = graph.add(python("pyarrow:Buffer.to_pybytes").arg(&part).returns::<Bytes>())?;
    let sum = graph.add(place_and_sum(back))?;
    let (_, sum) = client.compute(graph, &[sum])?.remove(0).result().await?;
    if sum != 2.0 * expected {
        return Err(format!("pyarrow doubled {expected} to {sum}").into());
    }
    println!("pyarrow doubled them: {sum}");
    client.close().await;
    cluster.close().await;
    Ok(())
}
