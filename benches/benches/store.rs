//! What a worker's store costs: each result goes in, is found by peers and by tasks, and goes out.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dask_protocol::{Key, Payload};
use dask_worker::store::{Store, Stored};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VALUES: usize = 10_000;
const BYTES: i64 = 28;

fn keys() -> Vec<Key> {
    (0..VALUES).map(|i| Key::from(format!("part-0123456789abcdef0123456789abcdef-{i}"))).collect()
}

fn value() -> Stored {
    Stored::python(BYTES, Some(Payload::serialized_pickle(Bytes::from_static(b"\x80\x05K\x01."), Vec::new())))
}

fn filled(make: fn() -> Store, keys: &[Key]) -> Store {
    let (store, value) = (make(), value());
    keys.iter().for_each(|key| store.insert(key.clone(), value.clone()));
    store
}

fn store(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(VALUES as u64));
    let keys = keys();
    for (kind, make) in [("in memory", Store::default as fn() -> Store), ("may spill", Store::with_recency)] {
        group.bench_function(format!("insert/{kind}"), |b| b.iter(|| filled(make, black_box(&keys))));
        let store = filled(make, &keys);
        group.bench_function(format!("get/{kind}"), |b| {
            b.iter(|| keys.iter().filter(|key| store.get(black_box(key)).is_some()).count());
        });
        group.bench_function(format!("remove/{kind}"), |b| {
            let remove = |store: Store| keys.iter().filter(|key| store.remove(key)).count();
            b.iter_batched(|| filled(make, &keys), remove, BatchSize::LargeInput);
        });
    }
    group.finish();
}

criterion_group!(benches, store);
criterion_main!(benches);
