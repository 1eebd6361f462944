//! Random events against small clusters of faithful fake workers. Messages travel in order per worker and direction, but
//! arrive whenever the random script says so. In the end, once everything has arrived and enough workers are there,
//! every key a client still wants is in memory or erred, and after its release nothing is left.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dask_protocol::message::{
    AddKeys, ReleaseWorkerData, RequestRefreshWhoHas, RunId, SchedulerToClient, SchedulerToWorker, StealResponse,
    WorkerStatus, WorkerStatusChange, WorkerToScheduler,
};
use dask_protocol::{Address, Key};
use proptest::prelude::*;

use super::super::testing::{annotated, erred, finished, long_running, reschedule, task, worker};
use super::super::{Action, Config, Event, NewTask, NewWorker, Runtime, State, TaskState, UpdateGraph};

const CLIENTS: [&str; 2] = ["Client-1", "Client-2"];
const KEYS: usize = 12;

/// A task a fake worker was given.
#[derive(Debug, Clone)]
struct Run {
    run_id: RunId,
    inputs: BTreeMap<Key, Vec<Address>>,
    started: bool,
}

/// A worker that does what it is told, late.
#[derive(Debug)]
struct FakeWorker {
    inbox: VecDeque<SchedulerToWorker>,
    outbox: VecDeque<WorkerToScheduler>,
    tasks: BTreeMap<Key, Run>,
    data: BTreeSet<Key>,
    closing: bool,
}

struct Cluster {
    state: State,
    now: f64,
    workers: BTreeMap<Address, FakeWorker>,
    wants: BTreeMap<&'static str, BTreeSet<Key>>,
    next_worker: usize,
}

fn key(i: usize) -> Key {
    Key::from(format!("t{}-{i}", i % 3))
}

/// The same graph every time: each key reads up to three smaller ones.
fn dependencies(i: usize) -> Vec<usize> {
    [i.wrapping_sub(1), i / 2, i / 3]
        .into_iter()
        .filter(|dep| *dep < i && (i + dep) % 4 != 1)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn new_task(i: usize) -> NewTask {
    let task = NewTask {
        dependencies: dependencies(i).into_iter().map(key).collect(),
        order: i as f64,
        data_producer: i.is_multiple_of(4),
        runtime: if i % 5 == 4 { Runtime::Native } else { Runtime::Python },
        ..task(key(i))
    };
    annotated(task, |a| {
        a.retries = u32::from(i.is_multiple_of(3));
        if i % 6 == 5 {
            a.workers = vec!["w1".to_owned()];
            a.allow_other_workers = true;
        }
    })
}

/// Keys needed for `i`, itself included; those in `cut` are left out of the graph.
fn closure(i: usize, cut: usize) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut stack = vec![i];
    while let Some(i) = stack.pop() {
        if i != cut && seen.insert(i) {
            stack.extend(dependencies(i));
        }
    }
    seen
}

impl Cluster {
    fn new(saturation: f64) -> Cluster {
        let config = Config { validate: true, worker_saturation: saturation, ..Config::default() };
        let state = State::new(config, 1000.0);
        let mut cluster =
            Cluster { state, now: 1000.0, workers: BTreeMap::new(), wants: BTreeMap::new(), next_worker: 1 };
        for client in CLIENTS {
            cluster.handle(Event::AddClient { client: client.into() });
        }
        cluster.add_worker(WorkerStatus::Running, true);
        cluster.add_worker(WorkerStatus::Running, false);
        cluster
    }

    fn handle(&mut self, event: Event) {
        self.now += 0.01;
        let mut actions = Vec::new();
        self.state.handle(self.now, event, &mut actions);
        for action in actions {
            match action {
                Action::ToWorker { worker, message } => {
                    if let Some(worker) = self.workers.get_mut(&worker) {
                        worker.inbox.push_back(message);
                    }
                }
                Action::ToClient { client, message } => self.tell(&client, &message),
                Action::ToAllClients { message } => CLIENTS.iter().for_each(|client| self.tell(client, &message)),
                Action::WorkerRemoved { worker, .. } => {
                    self.workers.remove(&worker);
                }
                Action::WorkersRetired { .. } | Action::ShuffleEnded { .. } | Action::LogEvent { .. } => {}
            }
        }
    }

    fn tell(&mut self, client: &str, message: &SchedulerToClient) {
        if let SchedulerToClient::CancelledKeys(message) = message
            && let Some(wants) = self.wants.get_mut(client)
        {
            for key in message.keys.iter() {
                wants.remove(key);
            }
        }
    }

    fn add_worker(&mut self, status: WorkerStatus, native: bool) {
        let n = self.next_worker;
        self.next_worker += 1;
        let runtimes = if native { vec![Runtime::Python, Runtime::Native] } else { vec![Runtime::Python] };
        let new = NewWorker { status, runtimes, ..worker(n, 1 + u32::from(native)) };
        let fake = FakeWorker {
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            tasks: BTreeMap::new(),
            data: BTreeSet::new(),
            closing: false,
        };
        self.workers.insert(new.address.clone(), fake);
        self.handle(Event::AddWorker(Box::new(new)));
    }

    fn nth_worker(&self, n: u8) -> Option<Address> {
        self.workers.keys().nth(usize::from(n) % self.workers.len().max(1)).cloned()
    }

    /// One step of the script.
    fn step(&mut self, (op, a, b): (u8, u8, u8)) {
        let client = CLIENTS[usize::from(a) % CLIENTS.len()];
        let i = usize::from(b) % KEYS;
        let worker = self.nth_worker(a);
        match (op % 32, worker) {
            (0..=3, _) => self.submit(client, i, KEYS),
            (4, _) => self.submit(client, i, usize::from(a) % KEYS),
            (5, _) => self.release(client, i),
            (6, _) => {
                let (force, reason) = (a & 2 == 0, None);
                self.handle(Event::CancelKeys { client: client.into(), keys: vec![key(i)], force, reason, msg: None });
            }
            (7, _) => self.handle(Event::Retry { keys: vec![key(i)], stimulus_id: "retry".into() }),
            (8, _) if self.workers.len() < 5 => self.add_worker(WorkerStatus::Running, a & 2 == 0),
            (9, Some(worker)) => self.lose(&worker, false),
            (10, Some(worker)) => {
                let status = if b & 1 == 0 { WorkerStatus::Paused } else { WorkerStatus::Running };
                self.say(&worker, WorkerStatusChange { status, stimulus_id: "status".into() });
            }
            (11, Some(worker)) => self.handle(Event::RetireWorkers {
                workers: vec![worker],
                remove: true,
                close: true,
                token: 0,
                stimulus_id: "retire".into(),
            }),
            (12, _) => {
                self.now += f64::from(a);
                self.handle(Event::Timeout);
            }
            (13, Some(worker)) => self.drop_data(&worker, b),
            (14, Some(worker)) => self.scatter(client, &worker, i),
            (15, _) if a == 0 => self.handle(Event::Restart { stimulus_id: "restart".into() }),
            (16..=21, Some(worker)) => self.receive(&worker),
            (22..=26, Some(worker)) => self.work(&worker, b),
            (_, Some(worker)) => self.deliver(&worker),
            (_, None) => {}
        }
        if op % 32 == 15 && a == 0 {
            self.wants.clear();
        }
    }

    fn submit(&mut self, client: &'static str, i: usize, cut: usize) {
        let tasks = closure(i, cut).into_iter().map(new_task).collect();
        self.wants.entry(client).or_default().insert(key(i));
        self.handle(Event::UpdateGraph(Box::new(UpdateGraph {
            client: client.into(),
            tasks,
            keys: vec![key(i)],
            submitting_task: None,
            fifo_timeout: 0.0,
            stimulus_id: "update-graph".into(),
        })));
    }

    fn release(&mut self, client: &'static str, i: usize) {
        self.wants.entry(client).or_default().remove(&key(i));
        self.handle(Event::ClientReleasesKeys { client: client.into(), keys: vec![key(i)] });
    }

    fn lose(&mut self, worker: &Address, expected: bool) {
        self.workers.remove(worker);
        let (worker, stimulus_id) = (worker.clone(), "lost".into());
        self.handle(Event::RemoveWorker { worker, expected, close: false, stimulus_id });
    }

    fn scatter(&mut self, client: &'static str, worker: &Address, i: usize) {
        // Scattered data must not replace what a graph defines with dependencies; use names of its own.
        let key = Key::from(format!("scattered-{i}"));
        self.workers.get_mut(worker).expect("listed").data.insert(key.clone());
        self.wants.entry(client).or_default().insert(key.clone());
        self.handle(Event::UpdateData {
            data: vec![(key, vec![worker.clone()], 10)],
            client: Some(client.into()),
            stimulus_id: "update-data".into(),
        });
    }

    fn say(&mut self, worker: &Address, message: impl Into<WorkerToScheduler>) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.outbox.push_back(message.into());
        }
    }

    /// A worker loses a copy on its own account.
    fn drop_data(&mut self, worker: &Address, n: u8) {
        let fake = self.workers.get_mut(worker).expect("listed");
        let Some(key) = fake.data.iter().nth(usize::from(n) % fake.data.len().max(1)).cloned() else {
            return;
        };
        fake.data.remove(&key);
        self.say(worker, ReleaseWorkerData { key, stimulus_id: "dropped".into() });
    }

    /// The scheduler hears one message of a worker.
    fn deliver(&mut self, worker: &Address) {
        let fake = self.workers.get_mut(worker).expect("listed");
        if let Some(message) = fake.outbox.pop_front() {
            self.handle(Event::WorkerMessage { worker: worker.clone(), message });
        } else if fake.closing {
            self.lose(worker, true);
        }
    }

    /// A worker hears one message of the scheduler.
    fn receive(&mut self, address: &Address) {
        let Some(message) = self.workers.get_mut(address).and_then(|fake| fake.inbox.pop_front()) else {
            return;
        };
        let fake = self.workers.get_mut(address).expect("listed");
        match message {
            SchedulerToWorker::ComputeTask(message) => {
                assert!(message.who_has.iter().all(|(_, holders)| !holders.is_empty()), "inputs have holders");
                let inputs = message.who_has.into_iter().collect();
                let already = fake.data.contains(&message.key);
                fake.tasks.insert(message.key.clone(), Run { run_id: message.run_id, inputs, started: already });
            }
            SchedulerToWorker::FreeKeys(message) => {
                for key in message.keys {
                    fake.tasks.remove(&key);
                    if fake.data.remove(&key) {
                        let stimulus_id = message.stimulus_id.clone();
                        fake.outbox.push_back(ReleaseWorkerData { key, stimulus_id }.into());
                    }
                }
            }
            SchedulerToWorker::RemoveReplicas(message) => {
                for key in message.keys {
                    let needed = fake.tasks.values().any(|run| run.inputs.contains_key(&key));
                    let stimulus_id = message.stimulus_id.clone();
                    if needed && fake.data.contains(&key) {
                        let keys = vec![key].into();
                        fake.outbox.push_back(AddKeys { keys, stimulus_id }.into());
                    } else if fake.data.remove(&key) {
                        fake.outbox.push_back(ReleaseWorkerData { key, stimulus_id }.into());
                    }
                }
            }
            SchedulerToWorker::AcquireReplicas(message) => {
                for (key, holders) in message.who_has {
                    self.fetch(address, &key, &holders);
                }
            }
            SchedulerToWorker::StealRequest(message) => {
                let (key, stimulus_id) = (message.key, message.stimulus_id);
                let state = match fake.tasks.get(&key) {
                    Some(run) if run.started => Some("executing"),
                    Some(_) => Some("ready"),
                    None if fake.data.contains(&key) => Some("memory"),
                    None => None,
                };
                if state == Some("ready") {
                    fake.tasks.remove(&key);
                }
                let state = state.map(str::to_owned);
                fake.outbox.push_back(StealResponse { key, state, stimulus_id }.into());
            }
            SchedulerToWorker::RefreshWhoHas(message) => {
                for (key, holders) in message.who_has {
                    for run in fake.tasks.values_mut() {
                        run.inputs.entry(key.clone()).and_modify(|known| known.clone_from(&holders));
                    }
                }
            }
            SchedulerToWorker::WorkerStatusChange(message) => {
                fake.outbox.push_back(message.into());
            }
            SchedulerToWorker::CloseWorker(_) => fake.closing = true,
            SchedulerToWorker::CancelCompute(_)
            | SchedulerToWorker::RemoveWorker(_)
            | SchedulerToWorker::ShuffleFail(_)
            | SchedulerToWorker::CloseStream(_) => {}
        }
    }

    /// Copies a key from a peer that really has it.
    fn fetch(&mut self, address: &Address, key: &Key, holders: &[Address]) -> bool {
        if self.workers[address].data.contains(key) {
            return true;
        }
        let found = holders.iter().any(|peer| self.workers.get(peer).is_some_and(|peer| peer.data.contains(key)));
        let fake = self.workers.get_mut(address).expect("listed");
        if found {
            fake.data.insert(key.clone());
            let keys = vec![key.clone()].into();
            fake.outbox.push_back(AddKeys { keys, stimulus_id: "gathered".into() }.into());
        } else {
            let keys = vec![key.clone()].into();
            fake.outbox.push_back(RequestRefreshWhoHas { keys, stimulus_id: "missing".into() }.into());
        }
        found
    }

    /// A worker goes on with one of its tasks; `how` decides how it ends.
    fn work(&mut self, address: &Address, how: u8) {
        let fake = &self.workers[address];
        let Some((key, run)) = fake.tasks.iter().nth(usize::from(how) % fake.tasks.len().max(1)) else {
            return;
        };
        let (key, run) = (key.clone(), run.clone());
        let inputs: Vec<(Key, Vec<Address>)> = run.inputs.iter().map(|(key, who)| (key.clone(), who.clone())).collect();
        // Every input, even if the first is missing.
        let fetched = inputs.iter().filter(|(key, holders)| self.fetch(address, key, holders)).count();
        if fetched < inputs.len() {
            return;
        }
        let name = key.as_str().expect("text keys only").to_owned();
        let fake = self.workers.get_mut(address).expect("listed");
        if !run.started && how % 16 == 3 {
            fake.tasks.get_mut(&key).expect("listed").started = true;
            fake.outbox.push_back(long_running(&name, run.run_id).into());
            return;
        }
        fake.tasks.remove(&key);
        match how % 16 {
            0 => fake.outbox.push_back(erred(&name, run.run_id).into()),
            1 => fake.outbox.push_back(reschedule(&name).into()),
            _ => {
                fake.data.insert(key);
                let nbytes = i64::from(how) * 1000;
                fake.outbox.push_back(finished(&name, run.run_id, nbytes, f64::from(how) / 100.0).into());
            }
        }
    }

    /// Lets everything arrive and every task succeed.
    fn settle(&mut self) {
        /// Far more rounds than any of these graphs needs.
        const ROUNDS_MAX: usize = 400;
        for native in [true, false] {
            self.add_worker(WorkerStatus::Running, native);
        }
        for round in 0..ROUNDS_MAX {
            let workers: Vec<Address> = self.workers.keys().cloned().collect();
            let mut quiet = true;
            for worker in workers {
                while self.workers.get(&worker).is_some_and(|fake| !fake.inbox.is_empty()) {
                    self.receive(&worker);
                    quiet = false;
                }
                let tasks = self.workers.get(&worker).map_or(0, |fake| fake.tasks.len());
                for _ in 0..tasks {
                    // 2 finishes; and moves through the tasks.
                    self.work(&worker, 2 + 16 * u8::try_from(round % 15).expect("small"));
                    quiet = false;
                }
                while self.workers.get(&worker).is_some_and(|fake| !fake.outbox.is_empty()) {
                    self.deliver(&worker);
                    quiet = false;
                }
            }
            if quiet {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    fn check_wanted(&self) {
        for (client, keys) in &self.wants {
            for key in keys {
                let state = self.state.task_state(key);
                assert!(
                    matches!(state, Some(TaskState::Memory | TaskState::Erred)),
                    "{key} of {client} is {state:?}; story: {:#?}",
                    self.state.story(&[key.into()])
                );
                assert!(self.state.wants_what(client).contains(key), "{client} is known to want {key}");
            }
        }
        let active = [TaskState::Waiting, TaskState::Processing, TaskState::Queued, TaskState::NoWorker];
        let counts = self.state.state_counts();
        assert!(active.iter().all(|state| counts.get(*state) == 0), "nothing is left to do: {counts:?}");
    }

    fn leave(&mut self) {
        for client in CLIENTS {
            self.handle(Event::RemoveClient { client: client.into() });
        }
        assert_eq!(self.state.task_count(), 0, "nothing outlives its clients");
    }
}

/// Half of proptest's default, which `PROPTEST_CASES` sets.
fn cases() -> u32 {
    ProptestConfig::default().cases / 2
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_wanted_keys_end_in_memory_or_erred(
        queuing in any::<bool>(),
        script in proptest::collection::vec(any::<(u8, u8, u8)>(), 0..300),
    ) {
        let mut cluster = Cluster::new(if queuing { 1.1 } else { f64::INFINITY });
        for step in script {
            cluster.step(step);
        }
        cluster.settle();
        cluster.check_wanted();
        cluster.leave();
    }
}
