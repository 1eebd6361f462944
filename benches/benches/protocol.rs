//! What the wire costs: packing and reading the messages that dominate a run, taking pickled graphs apart and putting tasks in order.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dask_counts::{codec, graphs};
use dask_protocol::Key;
use dask_protocol::message::{Keys, Message, Pairs};

fn streams(c: &mut Criterion) {
    let mut group = c.benchmark_group("streams");
    group.throughput(Throughput::Elements(codec::BATCH.unsigned_abs()));
    let batch = codec::compute_tasks();
    group.bench_function("pack compute-task", |b| b.iter(|| codec::pack(black_box(&batch))));
    let packed = codec::pack(&batch);
    group.bench_function("read compute-task", |b| b.iter(|| codec::read_by_worker(black_box(&packed))));
    let batch = codec::tasks_finished();
    group.bench_function("pack task-finished", |b| b.iter(|| codec::pack(black_box(&batch))));
    let packed = codec::pack(&batch);
    group.bench_function("read task-finished", |b| b.iter(|| codec::read_by_scheduler(black_box(&packed))));
    group.finish();
}

fn pickles(c: &mut Criterion) {
    let mut group = c.benchmark_group("pickles");
    for (name, pickle) in [("split map", graphs::MAP), ("split dict", graphs::DICT)] {
        group.throughput(Throughput::Elements(graphs::split(pickle).tasks.len() as u64));
        group.bench_function(name, |b| b.iter(|| graphs::split(black_box(pickle))));
    }
    group.finish();
}

fn order(c: &mut Criterion) {
    let mut group = c.benchmark_group("order");
    for side in [10, 100] {
        let graph = graphs::Ordered::new(side);
        let tasks = graph.order().len();
        group.sample_size(20).throughput(Throughput::Elements(tasks as u64));
        group.bench_function(format!("x + x.T and its sum/{tasks} tasks"), |b| b.iter(|| black_box(&graph).order()));
    }
    group.finish();
}

fn keys(c: &mut Criterion) {
    let keys: Vec<Key> = (0..1000).map(|i| Key::tuple([Key::from("sum-0123456789abcdef"), Key::from(i)])).collect();
    let packed = Message::encode(&Pairs(vec![("keys", Keys(keys.clone()))])).expect("packs");
    let mut group = c.benchmark_group("keys");
    group.throughput(Throughput::Elements(keys.len() as u64));
    group.bench_function("read", |b| b.iter(|| black_box(&packed).decode::<Pairs<String, Keys>>()));
    group.bench_function("prefix and group", |b| {
        b.iter(|| keys.iter().map(|key| key.prefix().len() + usize::from(key.group() == *key)).sum::<usize>());
    });
    group.bench_function("into a set", |b| {
        b.iter_batched(
            || keys.clone(),
            |keys| keys.into_iter().collect::<std::collections::HashSet<_>>(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, streams, keys, pickles, order);
criterion_main!(benches);
