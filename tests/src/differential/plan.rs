//! Draws a scenario from a seed: what happens next is decided from what our state has asked for so far.

mod clients;
mod operations;
mod workers;

use std::collections::VecDeque;
use std::io;

use dask_protocol::message::{RunId, SchedulerToWorker, StimulusId, WorkerStatus};
use dask_protocol::{Address, Key};
use dask_scheduler::state::{Action, ClientId, Config, Event, Policy, State};
use indexmap::{IndexMap, IndexSet};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use self::operations::{Operation, Operations};
use super::graphs::Extras;
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
}
