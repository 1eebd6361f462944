//! `benchmark_disk`, `benchmark_memory`, `benchmark_network`: how fast this machine is, in bytes per second by size.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dask_protocol::comm::ConnectionPool;
use dask_protocol::native::pack_value;
use dask_protocol::{Address, CommError, Value};
use rand::RngCore;

/// How long each size is measured.
const DURATION: Duration = Duration::from_millis(200);
/// Files that are written in turn.
const FILES: usize = 100;
/// Longer data repeats itself after this many bytes: randomness takes time.
const RANDOM_BYTES_MAX: usize = 64 * KIB;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// The sizes upstream measures, by the names it gives them.
const DISK_SIZES: [(&str, usize); 5] =
    [("1 kiB", KIB), ("100 kiB", 100 * KIB), ("1 MiB", MIB), ("10 MiB", 10 * MIB), ("100 MiB", 100 * MIB)];
const MEMORY_SIZES: [(&str, usize); 5] =
    [("2 kiB", 2 * KIB), ("10 kiB", 10 * KIB), ("100 kiB", 100 * KIB), ("1 MiB", MIB), ("10 MiB", 10 * MIB)];
const NETWORK_SIZES: [(&str, usize); 6] = [
    ("1 kiB", KIB),
    ("10 kiB", 10 * KIB),
    ("100 kiB", 100 * KIB),
    ("1 MiB", MIB),
    ("10 MiB", 10 * MIB),
    ("50 MiB", 50 * MIB),
];

/// Appends to files below `directory`, which are gone afterwards, and waits for the disk. Blocks.
pub(crate) fn disk(directory: &Path) -> io::Result<Value> {
    let folder = tempfile::Builder::new().prefix("benchmark-").tempdir_in(directory)?;
    let mut speeds = Vec::with_capacity(DISK_SIZES.len());
    for (name, size) in DISK_SIZES {
        let data = random(size);
        let mut turns = 0..;
        let speed = measure(size, || {
            let file = folder.path().join((turns.next().unwrap_or_default() % FILES).to_string());
            let mut file = OpenOptions::new().create(true).append(true).open(file)?;
            file.write_all(&data)?;
            file.sync_all()
        })?;
        speeds.push((name, speed.into()));
    }
    Ok(Value::map(speeds))
}

/// Copies. Blocks.
pub(crate) fn memory() -> Value {
    let speed = |(name, size)| {
        let data = random(size);
        let copied = measure(size, || {
            std::hint::black_box(data[..size - 1].to_vec());
            Ok::<_, std::convert::Infallible>(())
        });
        let speed = match copied {
            Ok(speed) => speed,
            Err(never) => match never {},
        };
        (name, speed.into())
    };
    Value::map(MEMORY_SIZES.map(speed))
}

/// Sends to another worker and back.
///
/// # Errors
/// [`CommError`] when the other worker does not answer.
pub(crate) async fn network(pool: &ConnectionPool, peer: &Address) -> Result<Value, CommError> {
    let mut speeds = Vec::with_capacity(NETWORK_SIZES.len());
    for (name, size) in NETWORK_SIZES {
        // Serialised data travels in frames of its own, which nobody copies.
        let data = pack_value(&Value::Bin(Bytes::from(random(size)))).expect("bytes always pack");
        let data = Value::map([("data", data.into())]);
        let (began, mut moved) = (Instant::now(), 0);
        while began.elapsed() < DURATION {
            let _echoed: Value = pool.call(peer, "echo", &data).await?;
            moved += 2 * size;
        }
        speeds.push((name, per_second(moved, began).into()));
    }
    Ok(Value::map(speeds))
}

/// Data that no file system or network makes smaller by noticing zeros.
fn random(size: usize) -> Vec<u8> {
    let mut block = vec![0; size.min(RANDOM_BYTES_MAX)];
    rand::rng().fill_bytes(&mut block);
    let mut data = block.repeat(size.div_ceil(block.len()));
    data.truncate(size);
    data
}

/// Bytes per second of doing something to `size` bytes over and over.
fn measure<E>(size: usize, mut once: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let (began, mut moved) = (Instant::now(), 0);
    while began.elapsed() < DURATION {
        once()?;
        moved += size;
    }
    Ok(per_second(moved, began))
}

#[expect(clippy::cast_precision_loss, reason = "a speed is rough anyway")]
fn per_second(bytes: usize, began: Instant) -> f64 {
    bytes as f64 / began.elapsed().as_secs_f64()
}
