//! A task's whole life in the scheduler's state, from update-graph to forgotten, against workers that answer at once.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use dask_protocol::message::{
    ReleaseWorkerData, SchedulerToWorker, StartStop, TaskFinished, WorkerStatus, WorkerToScheduler,
};
use dask_protocol::{Address, Key, Payload, Value};
use dask_scheduler::state::{
    Action, Annotations, Config, Event, NewTask, NewWorker, Runtime, State, TaskSpec, UpdateGraph,
};

const CLIENT: &str = "Client-bench";
const THREADS_PER_WORKER: u32 = 2;

/// Tasks, and the keys that are wanted.
pub type Graph = (Vec<NewTask>, Vec<Key>);

/// A scheduler's state with workers.
pub struct Cluster {
    /// The state itself.
    pub state: State,
    /// Seconds; each event takes a microsecond.
    pub now: f64,
    replies: VecDeque<(Address, WorkerToScheduler)>,
    actions: Vec<Action>,
}

impl Cluster {
    /// With so many workers of two threads.
    pub fn new(workers: usize) -> Cluster {
        Cluster::configured(Config::default(), workers)
    }

    /// The same with a configuration of its own.
    pub fn configured(config: Config, workers: usize) -> Cluster {
        let state = State::new(config, 0.0);
        let mut cluster = Cluster { state, now: 0.0, replies: VecDeque::new(), actions: Vec::new() };
        cluster.handle(Event::AddClient { client: CLIENT.into() });
        (0..workers).for_each(|number| cluster.add_worker(number));
        cluster
    }

    /// One more worker.
    pub fn add_worker(&mut self, number: usize) {
        self.handle(Event::AddWorker(Box::new(NewWorker {
            address: Address::from(format!("tcp://10.0.{}.{}:4000", number / 256, number % 256)),
            name: Value::from(number),
            server_id: format!("Worker-{number}"),
            status: WorkerStatus::Running,
            nthreads: THREADS_PER_WORKER,
            memory_limit: 0,
            resources: Default::default(),
            nanny: None,
            runtimes: vec![Runtime::Python],
            stimulus_id: "register".into(),
        })));
    }

    /// One event, and the workers' answers to it, which wait until they are taken.
    pub fn handle(&mut self, event: Event) {
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
                        typename: "int".into(),
                        metadata: Value::Nil,
                        thread: Value::Nil,
                        startstops: vec![StartStop { action: "compute".into(), start: 0.0, stop: 0.001, source: None }],
                        value: None,
                        status: "OK".into(),
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

    /// What a client submits.
    pub fn submit(&mut self, (tasks, keys): Graph) {
        self.handle(Event::UpdateGraph(Box::new(UpdateGraph {
            client: CLIENT.into(),
            tasks,
            keys,
            submitting_task: None,
            fifo_timeout: 0.1,
            stimulus_id: "update-graph".into(),
        })));
    }

    /// Submits, computes everything, releases.
    ///
    /// # Panics
    /// When a task stays.
    pub fn live(&mut self, tasks: Vec<NewTask>, keys: Vec<Key>) {
        self.submit((tasks, keys.clone()));
        self.drain();
        self.handle(Event::ClientReleasesKeys { client: CLIENT.into(), keys });
        self.drain();
        assert_eq!(self.state.task_count(), 0, "every task was computed and forgotten");
    }

    fn drain(&mut self) {
        while let Some((worker, message)) = self.replies.pop_front() {
            self.handle(Event::WorkerMessage { worker, message });
        }
    }

    /// Forgets the workers' answers, as if they were still busy, and counts them.
    pub fn take_replies(&mut self) -> usize {
        let count = self.replies.len();
        self.replies.clear();
        count
    }
}

type Shared = (TaskSpec, Arc<Annotations>);

fn task(name: &str, index: usize, dependencies: Vec<Key>, shared: &Shared) -> NewTask {
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

fn shared() -> Shared {
    (TaskSpec::Payload(Payload::pickled(Bytes::from_static(b"spec"), Vec::new())), Arc::default())
}

/// Independent tasks, all wanted.
pub fn noop(count: usize) -> Graph {
    let shared = shared();
    let tasks = (0..count).map(|i| task("noop", i, Vec::new(), &shared)).collect();
    (tasks, (0..count).map(|i| key("noop", i)).collect())
}

/// Each task reads the one before.
pub fn chain(count: usize) -> Graph {
    let shared = shared();
    let previous = |i: usize| i.checked_sub(1).map(|i| key("chain", i)).into_iter().collect();
    let tasks = (0..count).map(|i| task("chain", i, previous(i), &shared)).collect();
    (tasks, vec![key("chain", count - 1)])
}

/// A binary reduction: task i reads 2i+1 and 2i+2.
pub fn tree(count: usize) -> Graph {
    let shared = shared();
    let children =
        |i: usize| [2 * i + 1, 2 * i + 2].into_iter().filter(|c| *c < count).map(|c| key("tree", c)).collect();
    let node = |i: usize| NewTask { order: (count - i) as f64, ..task("tree", i, children(i), &shared) };
    ((0..count).map(node).collect(), vec![key("tree", 0)])
}

/// Many tasks read by one.
pub fn merge(count: usize) -> Graph {
    let shared = shared();
    let mut tasks: Vec<NewTask> = (0..count).map(|i| task("part", i, Vec::new(), &shared)).collect();
    tasks.push(task("merge", count, (0..count).map(|i| key("part", i)).collect(), &shared));
    (tasks, vec![key("merge", count)])
}

/// So many tasks, and as many that each read all of them: a worker has to be found for each by what it holds.
pub fn all_to_all(width: usize) -> Graph {
    let shared = shared();
    let all: Vec<Key> = (0..width).map(|i| key("from", i)).collect();
    let from = (0..width).map(|i| task("from", i, Vec::new(), &shared));
    let to = (0..width).map(|i| NewTask { order: (width + i) as f64, ..task("to", i, all.clone(), &shared) });
    (from.chain(to).collect(), (0..width).map(|i| key("to", i)).collect())
}
