//! Draws a scenario from a seed: what happens next is decided from what our state has asked for so far.

mod operations;

use std::collections::VecDeque;
use std::io;

use dask_protocol::message::{RunId, SchedulerToWorker, StimulusId, WorkerStatus};
use dask_protocol::{Address, Key, Value};
use dask_scheduler::state::{
    Action, ClientId, Config, Event, NewWorker, Policy, Runtime, State, TaskState, UpdateGraph,
};
use indexmap::{IndexMap, IndexSet};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use self::operations::{Operation, Operations};
use super::graphs::{self, Extras};
use super::messages;
use super::record::Recorder;

/// Workers at most at a time.
const WORKERS_MAX: usize = 8;
/// Steps in which everything that still runs is finished at the end.
const FINAL_STEPS_MAX: usize = 400;

/// One in so many scenarios also checks every invariant of our state, as the simulator always does.
const VALIDATED: u64 = 8;

/// From this seed on scenarios have what operators and the scheduler itself do, too; all others stay as they were.
pub const OPERATIONS_FROM: u64 = 1_000_000;

/// What kind of trouble a scenario has: the weights of what may happen.
#[derive(Debug, Clone, Copy)]
struct Profile {
    steps: usize,
    /// Runs that end well.
    finishing: u32,
    extras: Extras,
    /// Workers that come, go, pause.
    membership: u32,
    /// Messages that were overtaken by others.
    races: u32,
    /// Tasks that raise, secede, ask to run elsewhere.
    failures: u32,
    /// Clients that come, go, release, desire.
    clients: u32,
    /// Clients that cancel and retry.
    second_thoughts: u32,
    /// Scattered values, lost and found replicas.
    data: u32,
    operations: Operations,
}

/// One `compute-task` and what became of it.
#[derive(Debug, Clone)]
struct Run {
    key: Key,
    worker: Address,
    run_id: RunId,
    /// The scheduler has called it off; the worker may have sent its end before.
    freed: bool,
    seceded: bool,
}

/// A worker as far as the plan has to know it.
#[derive(Debug, Default)]
struct Model {
    name: String,
    held: IndexSet<Key>,
    /// Values to be dropped, on the scheduler's word.
    dropping: Vec<Key>,
    /// Copies to be fetched, on the scheduler's word.
    acquiring: Vec<Key>,
    /// Answers to requests for tasks, on their way: they arrive before anything else that the worker says.
    answers: VecDeque<(Key, Option<&'static str>, StimulusId)>,
    /// What it is to be, on the scheduler's word.
    status: Option<WorkerStatus>,
    /// It was told to close.
    closing: bool,
}

struct Plan<'a> {
    rng: SmallRng,
    profile: Profile,
    recorder: Recorder<'a>,
    workers: IndexMap<Address, Model>,
    runs: Vec<Run>,
    clients: Vec<ClientId>,
    graphs: u32,
    incarnations: u16,
    retirements: u64,
    places: Vec<String>,
}

/// Draws scenario `seed` and writes its lines.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_scenario(seed: u64, out: &mut dyn io::Write) -> io::Result<()> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut profile = draw_profile(&mut rng);
    let operations = seed >= OPERATIONS_FROM;
    if operations {
        profile.operations = Operations::draw(&mut rng);
    }
    if profile.operations.stealing() {
        // Workers that have nothing to do join those that have much.
        (profile.finishing, profile.membership, profile.steps) = (12, 5, 2 * profile.steps);
    }
    let often_unlimited = [f64::INFINITY, f64::INFINITY, f64::INFINITY, f64::INFINITY, 1.1, 1.0, 2.0];
    let seldom_unlimited = [f64::INFINITY, 1.1, 1.1, 1.1, 1.0, 2.0, 0.1];
    let saturations = if profile.operations.stealing() { often_unlimited } else { seldom_unlimited };
    let config = Config {
        policy: Policy::Upstream,
        worker_saturation: saturations[rng.random_range(0..saturations.len())],
        allowed_failures: rng.random_range(0..=3),
        // When rounds take place is the scenario's choice.
        work_stealing: operations,
        work_stealing_interval: 0.0,
        amm_start: operations,
        amm_interval: f64::INFINITY,
        validate: seed.is_multiple_of(VALIDATED),
        ..Config::default()
    };
    let recorder = Recorder::begin(seed, config, out)?;
    let mut plan = Plan {
        rng,
        profile,
        recorder,
        workers: IndexMap::new(),
        runs: Vec::new(),
        clients: Vec::new(),
        graphs: 0,
        incarnations: 0,
        retirements: 0,
        places: vec!["nowhere".to_owned()],
    };
    plan.run()?;
    plan.recorder.end(seed)
}

fn draw_profile(rng: &mut SmallRng) -> Profile {
    let some = |rng: &mut SmallRng, chance: f64, weight: u32| if rng.random_bool(chance) { weight } else { 0 };
    Profile {
        steps: rng.random_range(20..90),
        finishing: 40,
        extras: Extras {
            annotations: rng.random_bool(0.4),
            places: rng.random_bool(0.25),
            resources: rng.random_bool(0.2),
            actors: rng.random_bool(0.1),
            producers: rng.random_bool(0.3),
        },
        membership: some(rng, 0.6, 4),
        races: some(rng, 0.4, 4),
        failures: some(rng, 0.5, 5),
        clients: some(rng, 0.7, 6),
        second_thoughts: some(rng, 0.3, 4),
        data: some(rng, 0.4, 5),
        operations: Operations::default(),
    }
}

/// What may happen next.
#[derive(Debug, Clone, Copy)]
enum Move {
    Finish,
    Submit,
    Err,
    Reschedule,
    Secede,
    LateNews,
    Join,
    Leave,
    Status,
    Heartbeat,
    SetResources,
    AddClient,
    RemoveClient,
    Release,
    Desire,
    Report,
    Cancel,
    Retry,
    Scatter,
    Drop,
    Lose,
    Copy,
    Refresh,
    /// See [`operations`].
    Operation(Operation),
}

impl Plan<'_> {
    fn run(&mut self) -> io::Result<()> {
        for _ in 0..self.rng.random_range(1..=2) {
            self.take(Move::AddClient)?;
        }
        for _ in 0..self.rng.random_range(0..=5) {
            self.take(Move::Join)?;
        }
        for _ in 0..self.profile.steps {
            let next = self.choose();
            self.take(next)?;
        }
        self.settle()
    }

    /// Everything that runs comes to its end, then all interest does.
    fn settle(&mut self) -> io::Result<()> {
        if self.workers.is_empty() {
            self.take(Move::Join)?;
        }
        for _ in 0..FINAL_STEPS_MAX {
            if !self.take(Move::Finish)? && !self.settle_operations()? {
                break;
            }
        }
        for client in std::mem::take(&mut self.clients) {
            self.tell(Event::RemoveClient { client })?;
        }
        Ok(())
    }

    fn choose(&mut self) -> Move {
        let p = self.profile;
        let usual = [
            (Move::Finish, p.finishing),
            (Move::Submit, 8),
            (Move::Err, 2 * p.failures),
            (Move::Reschedule, p.failures),
            (Move::Secede, p.failures),
            (Move::LateNews, 2 * p.races),
            (Move::Join, p.membership.max(1)),
            (Move::Leave, p.membership),
            (Move::Status, p.membership),
            (Move::Heartbeat, 1),
            (Move::SetResources, u32::from(p.extras.resources)),
            (Move::AddClient, p.clients / 3),
            (Move::RemoveClient, p.clients / 4),
            (Move::Release, p.clients),
            (Move::Desire, p.clients / 4),
            (Move::Report, p.clients / 4),
            (Move::Cancel, p.second_thoughts),
            (Move::Retry, p.second_thoughts),
            (Move::Scatter, p.data),
            (Move::Drop, 6),
            (Move::Lose, p.data / 3),
            (Move::Copy, p.data),
            (Move::Refresh, p.races),
        ];
        let operations = p.operations.weighted().map(|(operation, weight)| (Move::Operation(operation), weight));
        let weighted = usual.into_iter().chain(operations);
        let total: u32 = weighted.clone().map(|(_, weight)| weight).sum();
        let mut drawn = self.rng.random_range(0..total);
        for (next, weight) in weighted {
            match drawn.checked_sub(weight) {
                Some(rest) => drawn = rest,
                None => return next,
            }
        }
        Move::Finish
    }

    /// Lets it happen, if it can; false if it cannot.
    fn take(&mut self, next: Move) -> io::Result<bool> {
        let event = match next {
            Move::Finish => self.finish()?,
            Move::Submit => self.submit(),
            Move::Err => self.err(),
            Move::Reschedule => self.reschedule(),
            Move::Secede => self.secede(),
            Move::LateNews => self.late_news(),
            Move::Join => self.join(),
            Move::Leave => self.leave(),
            Move::Status => self.status(),
            Move::Heartbeat => self.heartbeat(),
            Move::SetResources => self.set_resources(),
            Move::AddClient => self.add_client(),
            Move::RemoveClient => self.remove_client(),
            Move::Release => self.release(),
            Move::Desire => self.desire(),
            Move::Report => self.report(),
            Move::Cancel => self.cancel(),
            Move::Retry => self.retry(),
            Move::Scatter => self.scatter(),
            Move::Drop => self.drop_value(),
            Move::Lose => self.lose_value(),
            Move::Copy => self.copy(),
            Move::Refresh => self.refresh(),
            Move::Operation(operation) => self.operate(operation)?,
        };
        match event {
            Some(event) => self.tell(event).map(|()| true),
            None => Ok(false),
        }
    }

    fn tell(&mut self, event: Event) -> io::Result<()> {
        if let Event::WorkerMessage { worker, .. } = &event {
            self.answer_first(&worker.clone())?;
        }
        let pause = if self.rng.random_bool(0.02) { 70.0 } else { self.rng.random_range(0.0005..0.2) };
        self.recorder.now += pause;
        self.recorder.handle(event)?;
        self.observe();
        Ok(())
    }

    /// What the workers make of what they were just told.
    fn observe(&mut self) {
        for action in &self.recorder.actions {
            if let Action::WorkerRemoved { worker, .. } = action {
                self.workers.shift_remove(worker);
                self.runs.retain(|run| run.worker != *worker);
            }
            let Action::ToWorker { worker, message } = action else { continue };
            match message {
                SchedulerToWorker::ComputeTask(m) => {
                    let (key, worker, run_id) = (m.key.clone(), worker.clone(), m.run_id);
                    self.runs.push(Run { key, worker, run_id, freed: false, seceded: false });
                }
                SchedulerToWorker::FreeKeys(m) => {
                    let Some(model) = self.workers.get_mut(worker) else { continue };
                    for key in m.keys.iter() {
                        for run in self.runs.iter_mut().filter(|run| run.worker == *worker && run.key == *key) {
                            run.freed = true;
                        }
                        if model.held.shift_remove(key) {
                            model.dropping.push(key.clone());
                        }
                    }
                }
                SchedulerToWorker::RemoveReplicas(m) => {
                    let Some(model) = self.workers.get_mut(worker) else { continue };
                    model.dropping.extend(m.keys.iter().filter(|key| model.held.shift_remove(*key)).cloned());
                }
                SchedulerToWorker::AcquireReplicas(m) => {
                    let Some(model) = self.workers.get_mut(worker) else { continue };
                    model.acquiring.extend(m.who_has.iter().map(|(key, _)| key.clone()));
                }
                SchedulerToWorker::StealRequest(m) => {
                    let Some(model) = self.workers.get_mut(worker) else { continue };
                    let state = operations::give_back(&mut self.rng, model, &mut self.runs, worker, &m.key);
                    model.answers.push_back((m.key.clone(), state, m.stimulus_id.clone()));
                }
                SchedulerToWorker::WorkerStatusChange(m) => {
                    let Some(model) = self.workers.get_mut(worker) else { continue };
                    model.status = Some(m.status);
                }
                SchedulerToWorker::CloseWorker(_) => {
                    let Some(model) = self.workers.get_mut(worker) else { continue };
                    model.closing = true;
                }
                SchedulerToWorker::CancelCompute(_)
                | SchedulerToWorker::RefreshWhoHas(_)
                | SchedulerToWorker::RemoveWorker(_)
                | SchedulerToWorker::ShuffleFail(_)
                | SchedulerToWorker::CloseStream(_) => {}
            }
        }
    }

    fn state(&self) -> &State {
        &self.recorder.state
    }

    fn any<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        (!items.is_empty()).then(|| items[self.rng.random_range(0..items.len())].clone())
    }

    fn any_worker(&mut self) -> Option<Address> {
        let workers: Vec<Address> = self.workers.keys().cloned().collect();
        self.any(&workers)
    }

    fn any_client(&mut self) -> Option<ClientId> {
        let clients = self.clients.clone();
        self.any(&clients)
    }

    fn any_keys(&mut self, keys: &[Key]) -> Vec<Key> {
        let most = keys.len().min(6);
        let count = if most == 0 { 0 } else { self.rng.random_range(1..=most) };
        let mut chosen = IndexSet::new();
        for _ in 0..count {
            chosen.extend(self.any(keys));
        }
        chosen.into_iter().collect()
    }

    /// Takes a run that goes on from the list.
    fn take_run(&mut self, freed: bool) -> Option<Run> {
        let fit: Vec<usize> = (0..self.runs.len()).filter(|n| self.runs[*n].freed == freed).collect();
        let chosen = self.any(&fit)?;
        Some(self.runs.remove(chosen))
    }

    fn nbytes(&mut self) -> i64 {
        match self.rng.random_range(0..10u32) {
            0 => 0,
            1..=4 => self.rng.random_range(8..2000),
            5..=7 => self.rng.random_range(10_000..50_000_000),
            8 => 28,
            _ => self.rng.random_range(100_000_000..2_000_000_000),
        }
    }

    fn seconds(&mut self) -> f64 {
        match self.rng.random_range(0..6u32) {
            0 => 0.0,
            1 => 0.5,
            2 => self.rng.random_range(1.0..20.0),
            _ => self.rng.random_range(0.000_1..1.0),
        }
    }

    /// A run ends well. The worker may have fetched what it reads before.
    fn finish(&mut self) -> io::Result<Option<Event>> {
        let Some(run) = self.take_run(false) else { return Ok(None) };
        if let Some(fetched) = self.fetched_inputs(&run) {
            self.tell(messages::add_keys(&run.worker, fetched))?;
            if self.runs_contain_freed(&run) {
                return Ok(None);
            }
        }
        Ok(Some(self.finished(&run)))
    }

    fn runs_contain_freed(&self, run: &Run) -> bool {
        self.state().task(&run.key).is_none_or(|task| task.processing_on != Some(&run.worker))
    }

    fn finished(&mut self, run: &Run) -> Event {
        let (nbytes, seconds) = (self.nbytes(), self.seconds());
        if let Some(model) = self.workers.get_mut(&run.worker) {
            model.held.insert(run.key.clone());
        }
        messages::finished(&run.worker, &run.key, run.run_id, nbytes, self.recorder.now, seconds)
    }

    fn fetched_inputs(&mut self, run: &Run) -> Option<Vec<Key>> {
        let inputs = self.state().task(&run.key)?.dependencies.into_iter().cloned().collect::<Vec<Key>>();
        let model = self.workers.get_mut(&run.worker)?;
        let missing: Vec<Key> = inputs.into_iter().filter(|key| !model.held.contains(key)).collect();
        if missing.is_empty() || self.rng.random_bool(0.3) {
            return None;
        }
        model.held.extend(missing.iter().cloned());
        Some(missing)
    }

    fn err(&mut self) -> Option<Event> {
        let run = self.take_run(false)?;
        let exception = format!("{} of {} failed", run.run_id, run.key);
        Some(messages::erred(&run.worker, &run.key, run.run_id, exception))
    }

    fn reschedule(&mut self) -> Option<Event> {
        let run = self.take_run(false)?;
        Some(messages::reschedule(&run.worker, &run.key))
    }

    fn secede(&mut self) -> Option<Event> {
        let run = self.take_run(false)?;
        let compute_duration = self.rng.random_bool(0.7).then(|| self.seconds());
        let event = messages::long_running(&run.worker, &run.key, run.run_id, compute_duration);
        let again = run.seceded;
        self.runs.push(Run { seceded: true, ..run });
        (!again).then_some(event)
    }

    /// The end of a run that the scheduler has called off meanwhile.
    fn late_news(&mut self) -> Option<Event> {
        let run = self.take_run(true)?;
        if self.rng.random_bool(0.7) {
            return Some(self.finished(&run));
        }
        let exception = format!("{} of {} failed late", run.run_id, run.key);
        Some(messages::erred(&run.worker, &run.key, run.run_id, exception))
    }

    fn join(&mut self) -> Option<Event> {
        if self.workers.len() >= WORKERS_MAX {
            return None;
        }
        let taken = |name: &str| self.workers.values().any(|model| model.name == name);
        let name = (1..=WORKERS_MAX).map(|n| format!("w{n}")).find(|name| !taken(name))?;
        if self.incarnations == 0 || self.rng.random_bool(0.7) {
            self.incarnations += 1;
        }
        let host = self.rng.random_range(1..=4);
        let address = Address::new(format!("tcp://10.0.0.{host}:{}", 4000 + self.incarnations));
        if self.workers.contains_key(&address) {
            return None;
        }
        self.places.extend([name.clone(), address.as_str().to_owned(), address.host().to_owned()]);
        let mut resources = Vec::new();
        if self.profile.extras.resources && self.rng.random_bool(0.6) {
            resources.push(("GPU".to_owned(), f64::from(self.rng.random_range(1..=2))));
            resources.push(("FPGA".to_owned(), 1.0));
        }
        let limits = [0, 0, 0, 1_000_000_000, 20_000_000];
        let worker = NewWorker {
            address: address.clone(),
            name: Value::from(name.clone()),
            server_id: format!("Worker-{name}-{}", self.recorder.now),
            status: if self.rng.random_bool(0.9) { WorkerStatus::Running } else { WorkerStatus::Paused },
            nthreads: self.rng.random_range(1..=4),
            memory_limit: limits[self.rng.random_range(0..limits.len())],
            resources: resources.into_iter().collect(),
            nanny: None,
            runtimes: vec![Runtime::Python],
            stimulus_id: "worker-connect".into(),
        };
        self.workers.insert(address, Model { name, ..Model::default() });
        Some(Event::AddWorker(Box::new(worker)))
    }

    fn leave(&mut self) -> Option<Event> {
        let worker = self.any_worker()?;
        self.workers.shift_remove(&worker);
        self.runs.retain(|run| run.worker != worker);
        let (expected, close) = (self.rng.random_bool(0.3), self.rng.random_bool(0.5));
        Some(Event::RemoveWorker { worker, expected, close, stimulus_id: "handle-worker-cleanup".into() })
    }

    fn status(&mut self) -> Option<Event> {
        let worker = self.any_worker()?;
        let running = self.state().worker(&worker).is_some_and(|view| view.status == WorkerStatus::Running);
        let status = match (running, self.rng.random_bool(0.8)) {
            (true, true) => WorkerStatus::Paused,
            (true, false) => WorkerStatus::ClosingGracefully,
            (false, _) => WorkerStatus::Running,
        };
        Some(messages::status(&worker, status))
    }

    fn heartbeat(&mut self) -> Option<Event> {
        let worker = self.any_worker()?;
        let running: Vec<Key> =
            self.runs.iter().filter(|run| run.worker == worker).map(|run| run.key.clone()).collect();
        // A worker says each key once.
        let executing: IndexMap<Key, f64> = running.into_iter().map(|key| (key, self.seconds())).collect();
        let executing = executing.into_iter().collect();
        let bandwidth = if self.rng.random_bool(0.5) { 1e8 } else { self.rng.random_range(1e6..1e9) };
        let memory = self.memory();
        Some(messages::heartbeat(&worker, executing, Some(bandwidth), memory))
    }

    fn set_resources(&mut self) -> Option<Event> {
        let worker = self.any_worker()?;
        let resources = [("GPU".to_owned(), f64::from(self.rng.random_range(0..=3)))].into_iter().collect();
        Some(Event::SetResources { worker, resources })
    }

    fn add_client(&mut self) -> Option<Event> {
        let client: ClientId =
            (1..=3).map(|n| ClientId::from(format!("Client-{n}"))).find(|c| !self.clients.contains(c))?;
        self.clients.push(client.clone());
        Some(Event::AddClient { client })
    }

    fn remove_client(&mut self) -> Option<Event> {
        let client = self.any_client()?;
        self.clients.retain(|other| *other != client);
        Some(Event::RemoveClient { client })
    }

    fn submit(&mut self) -> Option<Event> {
        let client = self.any_client()?;
        self.graphs += 1;
        let threads = self.state().total_nthreads();
        let (mut tasks, keys) = graphs::draw(&mut self.rng, self.profile.extras, &self.places, threads);
        let known: Vec<Key> = self.state().tasks().map(|task| task.key.clone()).collect();
        if self.rng.random_bool(0.15) {
            // Reads a future.
            let first = &mut tasks[0];
            if first.key.as_str().is_some_and(|key| key.starts_with("any")) {
                let mine = |key: &&Key| !key.as_str().is_some_and(|key| key.starts_with("any"));
                let others: Vec<Key> = known.iter().filter(mine).cloned().collect();
                let read = if others.is_empty() { None } else { Some(self.rng.random_range(0..others.len())) };
                first.dependencies.extend(read.map(|n| others[n].clone()));
            }
        }
        if self.rng.random_bool(0.02) {
            tasks[0].dependencies.push("nobody-knows-it".into());
        }
        let running: Vec<Key> = self.runs.iter().map(|run| run.key.clone()).collect();
        let submitting_task = if self.rng.random_bool(0.05) { self.any(&running) } else { None };
        let fifo_timeout = [0.0, 0.0, 0.1, 60.0][self.rng.random_range(0..4)];
        let stimulus_id = format!("update-graph-{}", self.graphs).into();
        Some(Event::UpdateGraph(Box::new(UpdateGraph {
            client,
            tasks,
            keys,
            submitting_task,
            fifo_timeout,
            stimulus_id,
        })))
    }

    fn release(&mut self) -> Option<Event> {
        let client = self.any_client()?;
        let wanted = self.state().wants_what(&client);
        let keys = self.any_keys(&wanted);
        (!keys.is_empty()).then_some(Event::ClientReleasesKeys { client, keys })
    }

    fn desire(&mut self) -> Option<Event> {
        let client = self.any_client()?;
        let known: Vec<Key> = self.state().tasks().map(|task| task.key.clone()).collect();
        let keys = self.any_keys(&known);
        (!keys.is_empty()).then_some(Event::ClientDesiresKeys { client, keys })
    }

    fn report(&mut self) -> Option<Event> {
        let client = self.any_client()?;
        let known: Vec<Key> = self.state().tasks().map(|task| task.key.clone()).collect();
        let key = self.any(&known)?;
        Some(Event::ReportKey { client, key })
    }

    fn cancel(&mut self) -> Option<Event> {
        let client = self.any_client()?;
        let wanted = self.state().wants_what(&client);
        let keys = self.any_keys(&wanted);
        let force = self.rng.random_bool(0.3);
        (!keys.is_empty()).then_some(Event::CancelKeys { client, keys, force, reason: None, msg: None })
    }

    fn retry(&mut self) -> Option<Event> {
        let erred = |task: &dask_scheduler::state::TaskView<'_>| task.state == TaskState::Erred;
        let erred: Vec<Key> = self.state().tasks().filter(erred).map(|task| task.key.clone()).collect();
        let keys = self.any_keys(&erred);
        (!keys.is_empty()).then(|| Event::Retry { keys, stimulus_id: "stimulus-retry".into() })
    }

    fn scatter(&mut self) -> Option<Event> {
        let client = self.any_client();
        let mut data = Vec::new();
        for _ in 0..self.rng.random_range(1..=3) {
            let key = Key::from(format!("data-{}", self.rng.random_range(0..30)));
            let computed = self.state().run_spec(&key).is_some();
            let twice = data.iter().any(|(other, _, _): &(Key, Vec<Address>, i64)| *other == key);
            let on: IndexSet<Address> = (0..2).filter_map(|_| self.any_worker()).collect();
            if !computed && !twice && !on.is_empty() {
                for address in &on {
                    self.workers[address].held.insert(key.clone());
                }
                data.push((key, on.into_iter().collect(), self.nbytes()));
            }
        }
        let stimulus_id = "scatter".into();
        (!data.is_empty()).then_some(Event::UpdateData { data, client, stimulus_id })
    }

    /// A worker says that it dropped what it was told to drop.
    fn drop_value(&mut self) -> Option<Event> {
        let with: Vec<Address> =
            self.workers.iter().filter(|(_, model)| !model.dropping.is_empty()).map(|(a, _)| a.clone()).collect();
        let worker = self.any(&with)?;
        let key = self.workers[&worker].dropping.remove(0);
        Some(messages::release_worker_data(&worker, &key))
    }

    /// A worker drops a value on its own.
    fn lose_value(&mut self) -> Option<Event> {
        let worker = self.any_worker()?;
        let held: Vec<Key> = self.workers[&worker].held.iter().cloned().collect();
        let key = self.any(&held)?;
        self.workers[&worker].held.shift_remove(&key);
        Some(messages::release_worker_data(&worker, &key))
    }

    /// A worker says that it has got copies; some of them nobody needs any more.
    fn copy(&mut self) -> Option<Event> {
        let worker = self.any_worker()?;
        let known: Vec<Key> = self.state().tasks().filter(|t| !t.actor).map(|task| task.key.clone()).collect();
        let keys = self.any_keys(&known);
        if keys.is_empty() {
            return None;
        }
        self.workers[&worker].held.extend(keys.iter().cloned());
        Some(messages::add_keys(&worker, keys))
    }

    fn refresh(&mut self) -> Option<Event> {
        let worker = self.any_worker()?;
        let mut known: Vec<Key> = self.state().tasks().map(|task| task.key.clone()).collect();
        known.push("long-gone".into());
        let keys = self.any_keys(&known);
        Some(messages::refresh(&worker, keys))
    }
}
