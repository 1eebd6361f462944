//! What the scheduler's state costs per task, for its whole life from update-graph to forgotten: CPU time of the driver's
//! thread, against workers that answer at once (their share, some hundred nanoseconds a task, is included).
//!
//! Budget: 2 us per trivial task, independent of the number of tasks and workers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dask_protocol::message::{
    ReleaseWorkerData, SchedulerToWorker, StartStop, TaskFinished, WorkerStatus, WorkerToScheduler,
};
use dask_protocol::{Address, Key, Payload, Value};
use dask_scheduler::state::{
    Action, Annotations, Config, Event, NewTask, NewWorker, Runtime, State, TaskSpec, UpdateGraph,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CLIENT: &str = "Client-bench";
const THREADS_PER_WORKER: u32 = 2;

/// CPU time of this thread so far: other processes must not count.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with scheduler statistics");
    let on_cpu = stat.split_whitespace().next().expect("time on CPU comes first");
    Duration::from_nanos(on_cpu.parse().expect("nanoseconds"))
}

struct Bench {
    state: State,
    now: f64,
    replies: VecDeque<(Address, WorkerToScheduler)>,
    actions: Vec<Action>,
}

impl Bench {
    fn new(workers: usize) -> Bench {
        let state = State::new(Config::default(), 0.0);
        let mut bench = Bench { state, now: 0.0, replies: VecDeque::new(), actions: Vec::new() };
        bench.handle(Event::AddClient { client: CLIENT.into() });
        for n in 0..workers {
            bench.handle(Event::AddWorker(Box::new(NewWorker {
                address: Address::from(format!("tcp://10.0.{}.{}:4000", n / 256, n % 256)),
                name: Value::from(n),
                server_id: format!("Worker-{n}"),
                status: WorkerStatus::Running,
                nthreads: THREADS_PER_WORKER,
                memory_limit: 0,
                resources: Default::default(),
                nanny: None,
                runtimes: vec![Runtime::Python],
                stimulus_id: "register".into(),
            })));
        }
        bench
    }

    /// One event, and the workers' answers to it.
    fn handle(&mut self, event: Event) {
        self.now += 1e-6;
        self.state.handle(self.now, event, &mut self.actions);
        for action in self.actions.drain(..) {
            let Action::ToWorker { worker, message } = action else { continue };
            match message {
                SchedulerToWorker::ComputeTask(message) => {
                    let finished = TaskFinished {
                        key: message.key,
                        run_id: message.run_id,
                        nbytes: 28,
                        type_pickle: None,
                        typename: "int".to_owned(),
                        metadata: Value::Nil,
                        thread: Value::Nil,
                        startstops: vec![StartStop {
                            action: "compute".to_owned(),
                            start: 0.0,
                            stop: 0.001,
                            source: None,
                        }],
                        status: "OK".to_owned(),
                        stimulus_id: message.stimulus_id,
                    };
                    self.replies.push_back((worker, finished.into()));
                }
                SchedulerToWorker::FreeKeys(message) => {
                    for key in message.keys {
                        let stimulus_id = message.stimulus_id.clone();
                        self.replies.push_back((worker.clone(), ReleaseWorkerData { key, stimulus_id }.into()));
                    }
                }
                _ => {}
            }
        }
    }

    /// Submits, computes everything, releases; returns the CPU time it took.
    fn life(&mut self, tasks: Vec<NewTask>, keys: Vec<Key>) -> Duration {
        let begin = cpu_time();
        self.handle(Event::UpdateGraph(Box::new(UpdateGraph {
            client: CLIENT.into(),
            tasks,
            keys: keys.clone(),
            submitting_task: None,
            fifo_timeout: 0.1,
            stimulus_id: "update-graph".into(),
        })));
        self.drain();
        self.handle(Event::ClientReleasesKeys { client: CLIENT.into(), keys });
        self.drain();
        assert_eq!(self.state.task_count(), 0, "every task was computed and forgotten");
        cpu_time().saturating_sub(begin)
    }

    fn drain(&mut self) {
        while let Some((worker, message)) = self.replies.pop_front() {
            self.handle(Event::WorkerMessage { worker, message });
        }
    }
}

fn task(name: &str, index: usize, dependencies: Vec<Key>, shared: &(TaskSpec, Arc<Annotations>)) -> NewTask {
    NewTask {
        key: key(name, index),
        dependencies,
        spec: shared.0.clone(),
        runtime: Runtime::Python,
        data_producer: false,
        is_task: true,
        is_barrier: false,
        order: index as f64,
        actor: false,
        annotations: shared.1.clone(),
    }
}

fn key(name: &str, index: usize) -> Key {
    Key::from(format!("{name}-{index:032x}"))
}

fn shared() -> (TaskSpec, Arc<Annotations>) {
    (TaskSpec::Payload(Payload::pickled(Bytes::from_static(b"spec"), Vec::new())), Arc::default())
}

/// Independent tasks, all wanted.
fn noop(count: usize) -> (Vec<NewTask>, Vec<Key>) {
    let shared = shared();
    let tasks = (0..count).map(|i| task("noop", i, Vec::new(), &shared)).collect();
    (tasks, (0..count).map(|i| key("noop", i)).collect())
}

/// Each task reads the one before.
fn chain(count: usize) -> (Vec<NewTask>, Vec<Key>) {
    let shared = shared();
    let previous = |i: usize| i.checked_sub(1).map(|i| key("chain", i)).into_iter().collect();
    let tasks = (0..count).map(|i| task("chain", i, previous(i), &shared)).collect();
    (tasks, vec![key("chain", count - 1)])
}

/// A binary reduction: task i reads 2i+1 and 2i+2.
fn tree(count: usize) -> (Vec<NewTask>, Vec<Key>) {
    let shared = shared();
    let children =
        |i: usize| [2 * i + 1, 2 * i + 2].into_iter().filter(|c| *c < count).map(|c| key("tree", c)).collect();
    let node = |i: usize| NewTask { order: (count - i) as f64, ..task("tree", i, children(i), &shared) };
    ((0..count).map(node).collect(), vec![key("tree", 0)])
}

/// Many tasks read by one.
fn merge(count: usize) -> (Vec<NewTask>, Vec<Key>) {
    let shared = shared();
    let mut tasks: Vec<NewTask> = (0..count).map(|i| task("part", i, Vec::new(), &shared)).collect();
    tasks.push(task("merge", count, (0..count).map(|i| key("part", i)).collect(), &shared));
    (tasks, vec![key("merge", count)])
}

fn life(
    criterion: &mut Criterion,
    name: &str,
    workers: usize,
    count: usize,
    graph: fn(usize) -> (Vec<NewTask>, Vec<Key>),
) {
    let mut group = criterion.benchmark_group("scheduler_state");
    group.sample_size(10).throughput(Throughput::Elements(count as u64));
    group.bench_function(format!("{name}/{count} tasks/{workers} workers"), |bencher| {
        let mut bench = Bench::new(workers);
        bencher.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| {
                    let (tasks, keys) = graph(count);
                    bench.life(tasks, keys)
                })
                .sum()
        });
    });
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

criterion_group!(benches, all);
criterion_main!(benches);
