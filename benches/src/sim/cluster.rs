//! A run: the scheduler, the workers and a client, from the first submission until everything wanted is done.

use dask_protocol::message::{SchedulerToClient, SchedulerToWorker, StimulusId, WorkerToScheduler};
use dask_protocol::{Address, Key};
use dask_scheduler::state::{Action, Config, Event, State, UpdateGraph};
use dask_worker::state as worker;
use dask_worker::state::GatherOutcome;
use rustc_hash::{FxHashMap, FxHashSet};
use slab::Slab;

use super::clock::{cpu_reading_cost, cpu_seconds};
use super::network::{Links, Network};
use super::outcome::{Outcome, Span};
use super::queue::Queue;
use super::shape::Shape;
use super::worker::{OUTGOING_MAX, SimWorker, success, task_of};
use super::workload::{TaskNo, Workload};

const CLIENT: &str = "Client-simulated";
/// Graphs that arrive within this many seconds of each other share a generation (dask's default).
const FIFO_TIMEOUT: f64 = 0.06;

/// What a run is made on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The workers.
    pub shape: Shape,
    /// The links between them.
    pub network: Network,
    /// The scheduler's settings, its policy among them.
    pub scheduler: Config,
    /// Feeds the workers' choices between equally good peers.
    pub seed: u64,
    /// Whether to keep every execution for a timeline.
    pub spans: bool,
}

impl Settings {
    /// Dask's defaults on this shape.
    pub fn new(shape: Shape) -> Settings {
        Settings { shape, network: Network::default(), scheduler: Config::default(), seed: 0, spans: false }
    }
}

/// Why a run came to no end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// A task failed; simulated tasks never do by themselves.
    #[error("{0:?} erred in the simulation")]
    Erred(Key),
    /// Nothing is going to happen any more.
    #[error("nothing happens any more, and {wanted} wanted results are missing, the first of them {first:?}")]
    Stuck {
        /// How many are missing.
        wanted: usize,
        /// One of them.
        first: Key,
    },
}

/// Something going to happen.
enum What {
    Submit(usize),
    ToScheduler(u32, WorkerToScheduler),
    ToWorker(u32, SchedulerToWorker),
    Executed(usize),
    Requested(usize),
    Arrived(usize),
    Busy(usize),
    Heartbeat(u32),
    WorkerTimeout(u32),
}

struct Execution {
    worker: u32,
    thread: u32,
    task: TaskNo,
    run_id: i64,
    start: f64,
    stimulus_id: StimulusId,
}

struct Transfer {
    from: u32,
    to: u32,
    keys: Vec<Key>,
    received: Vec<(TaskNo, u64)>,
    start: f64,
    nbytes: u64,
    stimulus_id: StimulusId,
}

struct Cluster<'a> {
    workload: &'a Workload,
    settings: &'a Settings,
    now: f64,
    state: State,
    actions: Vec<Action>,
    workers: Vec<SimWorker>,
    addresses: FxHashMap<Address, u32>,
    numbers: FxHashMap<Key, TaskNo>,
    links: Links,
    queue: Queue<What>,
    executions: Slab<Execution>,
    transfers: Slab<Transfer>,
    wanted: FxHashSet<TaskNo>,
    /// Submissions to come.
    submissions: usize,
    heartbeat_interval: f64,
    reading_cost: f64,
    memory: u64,
    computing: f64,
    outcome: Outcome,
    erred: Option<Key>,
    /// What the scheduler was told and when, if somebody wants to know.
    told: Option<Vec<(f64, Event)>>,
}

/// Runs a workload; `progress` is told how many tasks are done so far, from time to time.
///
/// # Errors
/// [`RunError`] when it cannot be finished.
pub fn run(workload: &Workload, settings: &Settings, progress: impl FnMut(u64)) -> Result<Outcome, RunError> {
    Ok(Cluster::new(workload, settings, None).run(progress)?.finish())
}

/// Runs a workload and returns everything the scheduler was told, and when.
///
/// # Errors
/// [`RunError`] when it cannot be finished.
pub fn record(
    workload: &Workload,
    settings: &Settings,
    progress: impl FnMut(u64),
) -> Result<(Outcome, Vec<(f64, Event)>), RunError> {
    let mut cluster = Cluster::new(workload, settings, Some(Vec::new())).run(progress)?;
    let told = cluster.told.take().unwrap_or_default();
    Ok((cluster.finish(), told))
}

impl<'a> Cluster<'a> {
    fn run(mut self, mut progress: impl FnMut(u64)) -> Result<Cluster<'a>, RunError> {
        /// Tasks between two reports of progress.
        const PROGRESS: u64 = 1000;
        let mut reported = 0;
        while !self.is_done() {
            self.step()?;
            if self.outcome.tasks >= reported + PROGRESS {
                reported = self.outcome.tasks;
                progress(reported);
            }
        }
        Ok(self)
    }

    fn new(workload: &'a Workload, settings: &'a Settings, told: Option<Vec<(f64, Event)>>) -> Cluster<'a> {
        let nthreads = settings.shape.nthreads();
        let workers: Vec<SimWorker> = nthreads
            .iter()
            .enumerate()
            .map(|(number, threads)| SimWorker::new(number, *threads, settings.seed))
            .collect();
        let addresses = workers.iter().zip(0..).map(|(worker, number)| (worker.address.clone(), number)).collect();
        let numbers = workload.tasks.iter().zip(0..).map(|(task, number)| (task.key.clone(), number)).collect();
        let mut cluster = Cluster {
            workload,
            settings,
            now: 0.0,
            state: State::new(settings.scheduler.clone(), 0.0),
            actions: Vec::new(),
            links: Links::new(settings.network, workers.len()),
            heartbeat_interval: heartbeat_interval(workers.len()),
            workers,
            addresses,
            numbers,
            queue: Queue::default(),
            executions: Slab::new(),
            transfers: Slab::new(),
            wanted: FxHashSet::default(),
            submissions: workload.submissions.len(),
            reading_cost: cpu_reading_cost(),
            memory: 0,
            computing: 0.0,
            outcome: Outcome::default(),
            erred: None,
            told,
        };
        cluster.begin();
        cluster
    }

    /// Workers register, then their heartbeats begin, spread over one interval.
    #[expect(clippy::cast_precision_loss, reason = "counts of workers are small")]
    fn begin(&mut self) {
        self.tell_scheduler(Event::AddClient { client: CLIENT.into() });
        for number in 0..self.workers.len() {
            let registration = self.workers[number].registration(number);
            self.tell_scheduler(Event::AddWorker(Box::new(registration)));
            let share = (number + 1) as f64 / self.workers.len() as f64;
            self.queue.push(share * self.heartbeat_interval, What::Heartbeat(worker_number(number)));
        }
        self.outcome.events = 0;
        self.outcome.scheduler_cpu = 0.0;
        for (number, submission) in self.workload.submissions.iter().enumerate() {
            self.queue.push(submission.at, What::Submit(number));
        }
    }

    fn is_done(&self) -> bool {
        self.submissions == 0 && self.wanted.is_empty()
    }

    /// The next thing happens.
    fn step(&mut self) -> Result<(), RunError> {
        if let Some(key) = self.erred.take() {
            return Err(RunError::Erred(key));
        }
        let next = self.queue.next_time();
        let due = self.state.next_timeout().map(|(time, _)| time);
        if let Some(due) = due.filter(|due| next.is_none_or(|next| *due <= next)) {
            self.now = self.now.max(due);
            self.tell_scheduler(Event::Timeout);
            return Ok(());
        }
        let Some((time, what)) = self.queue.pop() else {
            return Err(self.stuck());
        };
        self.now = time;
        match what {
            What::Submit(number) => self.submit(number),
            What::ToScheduler(worker, message) => {
                let worker = self.workers[worker as usize].address.clone();
                self.tell_scheduler(Event::WorkerMessage { worker, message });
            }
            What::ToWorker(worker, message) => self.tell_worker(worker, worker::Event::Scheduler(message)),
            What::Executed(slot) => self.executed(slot),
            What::Requested(slot) => self.requested(slot),
            What::Arrived(slot) => self.arrived(slot),
            What::Busy(slot) => self.refused(slot),
            What::Heartbeat(worker) => return self.heartbeat(worker),
            What::WorkerTimeout(worker) => {
                self.workers[worker as usize].timeout = None;
                self.tell_worker(worker, worker::Event::Timeout);
            }
        }
        Ok(())
    }

    fn submit(&mut self, number: usize) {
        let submission = &self.workload.submissions[number];
        let (tasks, keys) = self.workload.graph(submission);
        self.wanted.extend(&submission.wanted);
        self.submissions -= 1;
        self.tell_scheduler(Event::UpdateGraph(Box::new(UpdateGraph {
            client: CLIENT.into(),
            tasks,
            keys,
            submitting_task: None,
            fifo_timeout: FIFO_TIMEOUT,
            stimulus_id: "update-graph".into(),
        })));
    }

    /// An event for the scheduler, and what it decides.
    fn tell_scheduler(&mut self, event: Event) {
        if let Some(told) = &mut self.told {
            told.push((self.now, event.clone()));
        }
        let mut actions = std::mem::take(&mut self.actions);
        let begin = cpu_seconds();
        self.state.handle(self.now, event, &mut actions);
        self.outcome.scheduler_cpu += (cpu_seconds() - begin - self.reading_cost).max(0.0);
        self.outcome.events += 1;
        let arrival = self.now + self.settings.network.latency;
        for action in actions.drain(..) {
            match action {
                Action::ToWorker { worker, message } => {
                    if matches!(message, SchedulerToWorker::StealRequest(_)) {
                        self.outcome.steal_requests += 1;
                    }
                    let number = self.addresses[&worker];
                    self.queue.push_message(arrival, What::ToWorker(number, message));
                }
                Action::ToClient { message, .. } => self.tell_client(message),
                Action::ToAllClients { message } => self.tell_client(message),
                Action::WorkerRemoved { .. }
                | Action::WorkersRetired { .. }
                | Action::ShuffleEnded { .. }
                | Action::LogEvent { .. } => {}
            }
        }
        self.actions = actions;
    }

    fn tell_client(&mut self, message: SchedulerToClient) {
        match message {
            SchedulerToClient::KeyInMemory(message) => {
                let was_awaited = self.wanted.remove(&task_of(&self.numbers, &message.key));
                if was_awaited {
                    self.outcome.makespan = self.now + self.settings.network.latency;
                }
            }
            SchedulerToClient::ClientTaskErred(message) => self.erred = Some(message.key),
            _ => {}
        }
    }

    /// An event for a worker, and what it decides.
    fn tell_worker(&mut self, number: u32, event: worker::Event) {
        let (now, index) = (self.now, number as usize);
        self.workers[index].handle(now, event);
        let mut actions = std::mem::take(&mut self.workers[index].actions);
        for action in actions.drain(..) {
            self.carry_out(number, action);
        }
        let worker = &mut self.workers[index];
        worker.actions = actions;
        if let Some((due, _)) = worker.state.next_timeout()
            && worker.timeout.is_none_or(|arranged| due < arranged)
        {
            worker.timeout = Some(due);
            self.queue.push(due.max(now), What::WorkerTimeout(number));
        }
    }

    fn carry_out(&mut self, number: u32, action: worker::Action) {
        let (now, latency) = (self.now, self.settings.network.latency);
        match action {
            worker::Action::Send(message) => self.queue.push_message(now + latency, What::ToScheduler(number, message)),
            worker::Action::Execute { key, run_id, stimulus_id, .. } => {
                let task = task_of(&self.numbers, &key);
                // Thread and start are known when it begins.
                let execution = Execution { worker: number, thread: 0, task, run_id, start: now, stimulus_id };
                let slot = self.executions.insert(execution);
                let next = self.workers[number as usize].add_execution(slot);
                self.begin_execution(next);
            }
            worker::Action::Gather { worker, keys, stimulus_id, .. } => {
                let from = self.addresses[&worker];
                let received = Vec::new();
                let transfer = Transfer { from, to: number, keys, received, start: now, nbytes: 0, stimulus_id };
                let slot = self.transfers.insert(transfer);
                self.queue.push_message(now + latency, What::Requested(slot));
            }
            worker::Action::DropData { key } => {
                let task = task_of(&self.numbers, &key);
                self.memory -= self.workers[number as usize].drop_value(task);
                self.note_memory();
            }
            worker::Action::Illegal { reason } => panic!("the scheduler sent what it must not: {reason}"),
            // Nobody cancels, and no task here has a limit.
            worker::Action::CancelExecution { .. }
            | worker::Action::InterruptExecution { .. }
            | worker::Action::ReplaceExecutor { .. }
            | worker::Action::Close { .. } => {}
        }
    }

    fn begin_execution(&mut self, next: Option<(usize, u32)>) {
        let Some((slot, thread)) = next else { return };
        let execution = &mut self.executions[slot];
        (execution.thread, execution.start) = (thread, self.now);
        let stop = self.now + self.workload.tasks[execution.task as usize].seconds;
        self.queue.push(stop, What::Executed(slot));
    }

    fn executed(&mut self, slot: usize) {
        let Execution { worker, thread, task, run_id, start, stimulus_id } = self.executions.remove(slot);
        let SimTaskView { key, nbytes } = self.view(task);
        self.outcome.tasks += 1;
        self.computing += self.now - start;
        if self.settings.spans {
            self.outcome.spans.push(Span { worker, thread, task, start, stop: self.now });
        }
        let next = self.workers[worker as usize].free_thread(thread);
        self.begin_execution(next);
        self.store(worker, task, nbytes);
        let outcome = success(nbytes, start, self.now);
        self.tell_worker(worker, worker::Event::ExecuteDone { key, run_id, outcome, stimulus_id });
    }

    fn view(&self, task: TaskNo) -> SimTaskView {
        let task = &self.workload.tasks[task as usize];
        SimTaskView { key: task.key.clone(), nbytes: task.nbytes }
    }

    fn store(&mut self, worker: u32, task: TaskNo, nbytes: u64) {
        let worker = &mut self.workers[worker as usize];
        self.memory += worker.put(task, nbytes);
        self.outcome.peak_worker_memory = self.outcome.peak_worker_memory.max(worker.held);
        self.outcome.peak_memory = self.outcome.peak_memory.max(self.memory);
        self.note_memory();
    }

    fn note_memory(&mut self) {
        if !self.settings.spans {
            return;
        }
        match self.outcome.memory.last_mut() {
            Some((time, bytes)) if *time >= self.now => *bytes = self.memory,
            Some(_) | None => self.outcome.memory.push((self.now, self.memory)),
        }
    }

    /// A request has come to the worker that holds the data.
    fn requested(&mut self, slot: usize) {
        let (now, latency) = (self.now, self.settings.network.latency);
        let transfer = &mut self.transfers[slot];
        let holder = &mut self.workers[transfer.from as usize];
        if holder.outgoing >= OUTGOING_MAX {
            self.queue.push_message(now + latency, What::Busy(slot));
            return;
        }
        holder.outgoing += 1;
        let tasks = transfer.keys.iter().map(|key| task_of(&self.numbers, key));
        transfer.received = tasks.filter_map(|task| Some((task, *holder.store.get(&task)?))).collect();
        transfer.nbytes = transfer.received.iter().map(|(_, nbytes)| nbytes).sum();
        let there = self.links.transfer(now, transfer.from as usize, transfer.to as usize, transfer.nbytes);
        self.queue.push(there + latency, What::Arrived(slot));
    }

    fn arrived(&mut self, slot: usize) {
        let Transfer { from, to, keys, received, start, nbytes, stimulus_id } = self.transfers.remove(slot);
        self.workers[from as usize].outgoing -= 1;
        self.outcome.bytes_moved += nbytes;
        self.outcome.transfers += 1;
        for (task, nbytes) in &received {
            self.store(to, *task, *nbytes);
        }
        self.workers[to as usize].observe_transfer(nbytes, self.now - start);
        let named = received.iter().map(|(task, nbytes)| {
            let nbytes = i64::try_from(*nbytes).unwrap_or(i64::MAX);
            (self.workload.tasks[*task as usize].key.clone(), nbytes)
        });
        let (received, outcome) = (named.collect(), GatherOutcome::Answered);
        let (worker, stop) = (self.workers[from as usize].address.clone(), self.now);
        self.tell_worker(to, worker::Event::GatherDone { worker, keys, received, outcome, start, stop, stimulus_id });
    }

    fn refused(&mut self, slot: usize) {
        let Transfer { from, to, keys, start, stimulus_id, .. } = self.transfers.remove(slot);
        let (worker, stop) = (self.workers[from as usize].address.clone(), self.now);
        let (received, outcome) = (Vec::new(), GatherOutcome::Busy);
        self.tell_worker(to, worker::Event::GatherDone { worker, keys, received, outcome, start, stop, stimulus_id });
    }

    fn heartbeat(&mut self, number: u32) -> Result<(), RunError> {
        // Heartbeats alone finish nothing.
        if self.executions.is_empty() && self.transfers.is_empty() && self.submissions == 0 && self.only_heartbeats() {
            return Err(self.stuck());
        }
        let heartbeat = self.workers[number as usize].heartbeat(self.now);
        self.tell_scheduler(Event::Heartbeat(Box::new(heartbeat)));
        self.queue.push(self.now + self.heartbeat_interval, What::Heartbeat(number));
        Ok(())
    }

    /// Whether nothing else is in the queue: this worker's heartbeat has just been taken out.
    fn only_heartbeats(&self) -> bool {
        self.queue.len() + 1 == self.workers.len()
    }

    fn stuck(&self) -> RunError {
        let first = self.wanted.iter().min().copied().unwrap_or(0);
        RunError::Stuck { wanted: self.wanted.len(), first: self.workload.tasks[first as usize].key.clone() }
    }

    fn finish(mut self) -> Outcome {
        let threads = f64::from(self.settings.shape.threads());
        self.outcome.utilisation = self.computing / (threads * self.outcome.makespan.max(f64::MIN_POSITIVE));
        self.outcome
    }
}

struct SimTaskView {
    key: Key,
    nbytes: u64,
}

fn worker_number(number: usize) -> u32 {
    u32::try_from(number).expect("a shape has at most WORKERS_MAX workers")
}

/// Seconds between two heartbeats of a worker, by the number of workers, as dask's.
#[expect(clippy::cast_precision_loss, reason = "counts of workers are small")]
fn heartbeat_interval(workers: usize) -> f64 {
    match workers {
        0..=10 => 0.5,
        11..50 => 1.0,
        50..200 => 2.0,
        more => 1.0 + more as f64 / 100.0,
    }
}

#[cfg(test)]
mod tests {
    use dask_scheduler::state::Policy;

    use super::super::graphs::Graph;
    use super::super::workload::Builder;
    use super::*;

    fn under(policy: Policy, workload: &Workload, shape: Shape) -> Outcome {
        let mut settings = Settings::new(shape);
        settings.scheduler.policy = policy;
        Outcome { scheduler_cpu: 0.0, ..run(workload, &settings, |_| {}).expect("it ends") }
    }

    #[test]
    fn the_same_input_gives_the_same_run() {
        let workload = Graph::find("join").expect("a graph").build(1);
        for policy in Policy::ALL {
            let first = under(policy, &workload, Shape::even(3, 2));
            assert_eq!(first, under(policy, &workload, Shape::even(3, 2)));
            assert_eq!(first.tasks, workload.tasks.len() as u64);
        }
    }

    #[test]
    fn nothing_ends_before_the_lower_bound() {
        let workload = Graph::find("rechunk").expect("a graph").build(0);
        for (policy, shape) in [(Policy::Upstream, Shape::even(1, 4)), (Policy::Native, Shape::even(5, 3))] {
            let bound = workload.lower_bound(shape.threads());
            let makespan = under(policy, &workload, shape).makespan;
            assert!(makespan >= bound, "{makespan} < {bound}");
        }
    }

    #[test]
    fn native_moves_less_of_what_is_used_in_pairs() {
        let mut builder = Builder::new(0);
        let source = builder.source("open", 0.4, 64_000_000);
        let add = builder.layer("add", 0.2, 1_000);
        let wanted = (0..200)
            .map(|i| {
                let inputs = [builder.add(&source, &[i, 0], &[]), builder.add(&source, &[i, 1], &[])];
                builder.add(&add, &[i], &inputs)
            })
            .collect();
        builder.submit(0.0, wanted);
        let workload = builder.build("pairs");
        let [upstream, native] = Policy::ALL.map(|policy| under(policy, &workload, Shape::even(5, 2)));
        assert!(10 * native.bytes_moved < upstream.bytes_moved, "{native:?} {upstream:?}");
        assert!(native.makespan <= upstream.makespan);
    }
}
