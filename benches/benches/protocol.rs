//! What the wire costs: packing and reading the messages that dominate a run, and taking pickled graphs apart.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dask_protocol::message::{
    ComputeTask, Keys, Message, Nbytes, Pairs, Priority, SchedulerToWorker, StartStop, TaskFinished, WhoHas,
    WorkerToScheduler,
};
use dask_protocol::{Address, Key, Payload, Value};

/// As many messages as one drain of a busy driver sends to a worker.
const BATCH: u64 = 100;

fn compute_task(i: i64) -> SchedulerToWorker {
    let dependency = Key::tuple([Key::from("load-0123456789abcdef"), Key::from(i)]);
    ComputeTask {
        key: Key::tuple([Key::from("process-0123456789abcdef"), Key::from(i)]),
        run_id: i,
        priority: Priority::new(0.0, 1.0, 17.0),
        stimulus_id: "compute-task-1700000000.25".into(),
        who_has: WhoHas::from_iter([(dependency.clone(), vec![Address::from("tcp://127.0.0.1:40001")])]),
        nbytes: Nbytes::from_iter([(dependency, 28)]),
        run_spec: Payload::pickled(Bytes::from(vec![b'x'; 150]), vec![]),
        resource_restrictions: None,
        actor: false,
        annotations: Value::Map(vec![]),
        span_id: None,
    }
    .into()
}

fn task_finished(i: i64) -> WorkerToScheduler {
    TaskFinished {
        key: Key::tuple([Key::from("process-0123456789abcdef"), Key::from(i)]),
        run_id: i,
        nbytes: 28,
        type_pickle: Some(Bytes::from_static(b"\x80\x05\x8c\x08builtins\x94\x8c\x03int\x94\x93\x94.")),
        typename: "int".to_owned(),
        metadata: Value::Map(vec![]),
        thread: Value::Int(140_000_000_000),
        startstops: vec![StartStop { action: "compute".to_owned(), start: 1.0, stop: 2.0, source: None }],
        status: "OK".to_owned(),
        stimulus_id: "task-finished-1700000000.25".into(),
    }
    .into()
}

fn streams(c: &mut Criterion) {
    let mut group = c.benchmark_group("streams");
    group.throughput(Throughput::Elements(BATCH));
    let batch: Vec<_> = (0..BATCH).map(|i| compute_task(i64::try_from(i).expect("small"))).collect();
    group.bench_function("pack compute-task", |b| b.iter(|| Message::encode(black_box(&batch))));
    let packed = Message::encode(&batch).expect("packs");
    group.bench_function("read compute-task", |b| b.iter(|| black_box(&packed).decode_stream::<SchedulerToWorker>()));
    let batch: Vec<_> = (0..BATCH).map(|i| task_finished(i64::try_from(i).expect("small"))).collect();
    group.bench_function("pack task-finished", |b| b.iter(|| Message::encode(black_box(&batch))));
    let packed = Message::encode(&batch).expect("packs");
    group.bench_function("read task-finished", |b| b.iter(|| black_box(&packed).decode_stream::<WorkerToScheduler>()));
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

criterion_group!(benches, streams, keys);
criterion_main!(benches);
