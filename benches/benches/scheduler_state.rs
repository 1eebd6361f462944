//! What the scheduler's state costs per task, for its whole life from update-graph to forgotten: CPU time of the driver's
//! thread, against workers that answer at once (their share, some hundred nanoseconds a task, is included).
//!
//! Budget: 2 us per trivial task, independent of the number of tasks and workers.

use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dask_counts::life::{Cluster, Graph, all_to_all, chain, merge, noop, tree};
use dask_counts::stealing::Unbalanced;

/// CPU time of this thread so far: other processes must not count.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with scheduler statistics");
    let on_cpu = stat.split_whitespace().next().expect("time on CPU comes first");
    Duration::from_nanos(on_cpu.parse().expect("nanoseconds"))
}

fn life(criterion: &mut Criterion, name: &str, workers: usize, count: usize, graph: fn(usize) -> Graph) {
    let mut group = criterion.benchmark_group("scheduler_state");
    group.sample_size(10).throughput(Throughput::Elements(count as u64));
    group.bench_function(format!("{name}/{count} tasks/{workers} workers"), |bencher| {
        let mut cluster = Cluster::new(workers);
        bencher.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| {
                    let (tasks, keys) = graph(count);
                    let begin = cpu_time();
                    cluster.live(tasks, keys);
                    cpu_time().saturating_sub(begin)
                })
                .sum()
        });
    });
    group.finish();
}

/// A worker has to be found for each task by what it holds; the number is of tasks on each side.
fn placement(criterion: &mut Criterion) {
    life(criterion, "all to all", 100, 100, all_to_all);
    life(criterion, "all to all", 100, 300, all_to_all);
}

fn stealing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stealing");
    for (workers, tasks) in [(10, 1_000), (100, 10_000)] {
        group.sample_size(10).throughput(Throughput::Elements(tasks as u64));
        group.bench_function(format!("a round/{tasks} tasks/{workers} workers"), |bencher| {
            bencher.iter_batched(|| Unbalanced::new(workers, tasks), Unbalanced::balance, BatchSize::LargeInput);
        });
    }
    group.finish();
}

fn all(criterion: &mut Criterion) {
    life(criterion, "noop", 100, 10_000, noop);
    life(criterion, "noop", 100, 100_000, noop);
    life(criterion, "noop", 1, 100_000, noop);
    life(criterion, "noop", 1_000, 100_000, noop);
    life(criterion, "chain", 100, 10_000, chain);
    life(criterion, "tree", 100, 100_000, tree);
    life(criterion, "merge", 100, 100_000, merge);
}

criterion_group!(benches, all, placement, stealing);
criterion_main!(benches);
