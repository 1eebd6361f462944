//! The simulated cluster: real states, pretended shells and network. Steps come in, effects come out; no chance here.

use std::collections::VecDeque;

use dask_protocol::message::{
    CloseWorker, SchedulerToClient, SchedulerToWorker, StimulusId, WorkerStatus, WorkerStatusChange, WorkerToScheduler,
};
use dask_protocol::{Address, Key};
use dask_scheduler::state as sched;
use indexmap::IndexMap;

use super::case::Case;
use super::client::SimClient;
use super::ledger::Ledger;
use super::step::{Arrival, ClientNo, Link, Step, WorkerNo};
use super::worker::SimWorker;

/// What a step set off: the plan decides when each comes about.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A message was put on this stream.
    Sent(Link),
    /// An execution started.
    Started {
        /// Where.
        worker: WorkerNo,
        /// Which task.
        key: Key,
        /// Which run.
        run: i64,
        /// Whether the state would like it to end early.
        interrupted: bool,
    },
    /// A request for data was sent.
    Asked {
        /// By whom.
        to: WorkerNo,
        /// To whom.
        from: WorkerNo,
    },
    /// The request was served; the reply is on its way.
    Served {
        /// To whom.
        to: WorkerNo,
        /// By whom.
        from: WorkerNo,
    },
    /// Values were put on a worker; the scheduler is to be told.
    Stored {
        /// Where.
        worker: WorkerNo,
        /// What, and its size in bytes.
        data: Vec<(String, i64)>,
    },
    /// A worker registered.
    Registered {
        /// Which.
        worker: WorkerNo,
    },
    /// A worker process of this slot ended.
    Died {
        /// The slot.
        slot: u32,
    },
}

/// A message on a stream, or its end.
#[derive(Debug)]
enum Message {
    ToWorker(SchedulerToWorker),
    FromWorker(WorkerToScheduler),
    ToClient(SchedulerToClient),
    /// What the scheduler's shell makes of a client's message.
    FromClient(sched::Event),
    End,
}

/// The cluster.
pub struct World {
    /// The case.
    pub case: Case,
    /// Virtual time.
    pub now: f64,
    /// The scheduler.
    pub scheduler: sched::State,
    /// Live worker processes.
    pub workers: IndexMap<WorkerNo, SimWorker>,
    /// Clients, connected or not.
    pub clients: Vec<SimClient>,
    links: IndexMap<Link, VecDeque<Message>>,
    /// Workers the scheduler knows, by address.
    registered: IndexMap<Address, WorkerNo>,
    next_worker: WorkerNo,
    steps: u64,
    retirements: u64,
    /// Who ran what.
    pub ledger: Ledger,
    /// Effects since the last take.
    pub effects: Vec<Effect>,
    /// Everything the states decided, when tracing.
    pub trace: Option<String>,
    /// A hash of everything the states decided.
    pub digest: u64,
    /// The first rule of the simulation that was broken.
    pub violation: Option<String>,
}

/// The states of clusters of up to so many slots are checked after every event; larger ones now and then.
const SLOTS_CHECKED_MAX: usize = 25;
/// Steps between two checks of a large cluster.
const STEPS_UNCHECKED: u64 = 100;

/// The address of an incarnation.
fn address(case: &Case, slot: u32, worker: WorkerNo) -> Address {
    Address::new(format!("tcp://{}:{}", case.slots[slot as usize].host, 1000 + worker))
}

impl World {
    /// A cluster without workers and with all clients connected.
    pub fn new(case: Case) -> World {
        let config = sched::Config {
            worker_saturation: case.saturation.unwrap_or(f64::INFINITY),
            work_stealing: case.stealing,
            amm_start: case.amm,
            allowed_failures: case.allowed_failures,
            validate: case.slots.len() <= SLOTS_CHECKED_MAX,
            policy: if case.native { sched::Policy::Native } else { sched::Policy::Upstream },
            ..sched::Config::default()
        };
        let now = 0.0;
        let clients = (0..case.clients).map(SimClient::new).collect();
        World {
            scheduler: sched::State::new(config, now),
            ledger: Ledger::new(case.scenario.is_some()),
            case,
            now,
            workers: IndexMap::new(),
            clients,
            links: IndexMap::new(),
            registered: IndexMap::new(),
            next_worker: 0,
            steps: 0,
            retirements: 0,
            effects: Vec::new(),
            trace: None,
            digest: 0,
            violation: None,
        }
    }

    /// Lets one thing happen. Steps that make no sense any more (a replay was shortened, or a fix changed the run) do
    /// nothing.
    pub fn apply(&mut self, at: f64, step: &Step) {
        self.now = self.now.max(at);
        self.note(|| format!("{at:.6} {step:?}"));
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_UNCHECKED) {
            self.scheduler.check();
        }
        match step {
            Step::Deliver(link) => self.deliver(*link),
            Step::Finish { worker, key, run, outcome } => {
                self.with_worker(*worker, |w, now| w.finish(now, &Key::from(key.as_str()), *run, *outcome));
            }
            Step::Secede { worker, key } => self.with_worker(*worker, |w, now| w.secede(now, &key.as_str().into())),
            Step::Serve { to, from, busy } => self.serve(*to, *from, *busy),
            Step::Arrive { to, from, arrival } => self.arrive(*to, *from, *arrival),
            Step::SchedulerTimeout => self.tell_scheduler(sched::Event::Timeout),
            Step::WorkerTimeout(worker) => self.with_worker(*worker, SimWorker::timeout),
            Step::Start { slot } => self.start(*slot),
            Step::Kill { worker, kept } => self.kill(*worker, *kept),
            Step::Cut { worker } => self.cut(*worker),
            Step::ExecutorDies { worker, lost } => {
                // Scattered values are spared until the scheduler knows of them: dask's protocol has no way to tell it
                // that they are lost by the time it hears of them.
                let known = |key: &Key| self.scheduler.task_state(key).is_some();
                let lost: Vec<Key> = lost.iter().map(|k| k.as_str().into()).filter(known).collect();
                self.with_worker(*worker, |w, now| w.executor_dies(now, &lost));
            }
            Step::Pause(worker) => self.with_worker(*worker, |w, now| w.set_paused(now, true)),
            Step::Unpause(worker) => self.with_worker(*worker, |w, now| w.set_paused(now, false)),
            Step::Heartbeat(worker) => self.heartbeat(*worker),
            Step::Connect(client) => self.connect(*client),
            Step::Disconnect(client) => self.disconnect(*client),
            Step::Submit { client, tasks, wants } => {
                let now = self.now;
                self.act_as_client(*client, |c| c.submit(now, tasks, wants));
            }
            Step::Release { client, keys } => self.act_as_client(*client, |c| c.release(keys)),
            Step::Cancel { client, keys, force } => self.act_as_client(*client, |c| c.cancel(keys, *force)),
            Step::Retry { client, keys } => self.retry(*client, keys),
            Step::Scatter { worker, data } => self.scatter(*worker, data),
            Step::Scattered { client, worker, data } => self.scattered(*client, *worker, data),
            Step::Retire { workers } => self.retire(workers),
            Step::Remove(worker) => self.remove(*worker),
            Step::Restart => self.restart(),
        }
        if self.case.slots.len() <= SLOTS_CHECKED_MAX
            && let Err(difference) = self.digests_agree()
        {
            self.violate(difference);
        }
    }

    /// When the scheduler or a worker wants to be called back next.
    pub fn next_timeout(&self) -> Option<(f64, Step)> {
        let scheduler = self.scheduler.next_timeout().map(|(at, _)| (at, Step::SchedulerTimeout));
        let workers = self.workers.iter().filter_map(|(no, worker)| {
            let (at, _) = worker.state.next_timeout()?;
            Some((at, Step::WorkerTimeout(*no)))
        });
        scheduler.into_iter().chain(workers).min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// Whether any message is under way or any work is going on.
    pub fn is_quiet(&self) -> bool {
        self.links.iter().all(|(_, queue)| queue.is_empty()) && self.workers.values().all(SimWorker::is_quiet)
    }

    /// Messages waiting on a stream.
    pub fn queued(&self, link: Link) -> usize {
        self.links.get(&link).map_or(0, VecDeque::len)
    }

    /// Records a broken rule; the first one counts.
    pub fn violate(&mut self, text: impl Into<String>) {
        self.violation.get_or_insert(text.into());
    }

    /// Adds what happened to the tasks that a failure names to the trace.
    pub fn tell_stories(&mut self, failure: &str) {
        let keys: Vec<Key> = self.scheduler.tasks().map(|task| task.key.clone()).collect();
        for key in keys.into_iter().filter(|key| failure.contains(&key.to_string())) {
            for row in self.scheduler.story(&[(&key).into()]) {
                self.note(|| format!("  story {row:?}"));
            }
            for (no, worker) in &self.workers {
                let rows: Vec<String> = worker
                    .state
                    .story(std::slice::from_ref(&key), &[])
                    .map(|row| format!("  worker {no} {row:?}"))
                    .collect();
                if let Some(trace) = &mut self.trace {
                    trace.push_str(&rows.join("\n"));
                    trace.push('\n');
                }
            }
        }
    }

    fn note(&mut self, line: impl Fn() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push_str(&line());
            trace.push('\n');
        }
    }

    fn note_action(&mut self, who: &str, action: &dyn std::fmt::Debug) {
        if self.trace.is_some() {
            let line = format!("{who} {action:?}");
            let mut hasher = rustc_hash::FxHasher::default();
            std::hash::Hash::hash(&(self.digest, &line), &mut hasher);
            self.digest = std::hash::Hasher::finish(&hasher);
            self.note(|| format!("    {line}"));
        }
    }

    fn push(&mut self, link: Link, message: Message) {
        self.links.entry(link).or_default().push_back(message);
        self.effects.push(Effect::Sent(link));
    }

    fn deliver(&mut self, link: Link) {
        let Some(message) = self.links.get_mut(&link).and_then(VecDeque::pop_front) else { return };
        match (link, message) {
            (Link::ToWorker(no), Message::ToWorker(message)) => {
                self.with_worker(no, |worker, now| worker.scheduler(now, message));
            }
            (Link::ToWorker(no), Message::End) => self.kill(no, usize::MAX),
            (Link::FromWorker(no), Message::FromWorker(message)) => self.handle_worker_message(no, message),
            (Link::FromWorker(no), Message::End) => self.stream_ended(no),
            (Link::ToClient(no), Message::ToClient(message)) => self.clients[no as usize].hear(message),
            (Link::FromClient(_), Message::FromClient(event)) => self.tell_scheduler(event),
            (link, message) => self.violate(format!("{message:?} on {link:?}")),
        }
    }

    fn handle_worker_message(&mut self, no: WorkerNo, message: WorkerToScheduler) {
        let Some(worker) = self.address_of(no) else { return };
        let finished = match &message {
            WorkerToScheduler::TaskFinished(message) => Some(message.key.clone()),
            _ => None,
        };
        self.tell_scheduler(sched::Event::WorkerMessage { worker, message });
        if let Some(key) = finished.filter(|key| self.scheduler.task_state(key) == Some(sched::TaskState::Memory)) {
            self.ledger.stored(&key);
        }
    }

    fn stream_ended(&mut self, no: WorkerNo) {
        let Some(worker) = self.address_of(no) else { return };
        let stimulus_id = self.stimulus("handle-worker-cleanup");
        self.tell_scheduler(sched::Event::RemoveWorker { worker, expected: false, close: false, stimulus_id });
    }

    /// Whether the scheduler knows a worker of this address.
    pub(super) fn is_registered(&self, address: &Address) -> bool {
        self.registered.contains_key(address)
    }

    fn address_of(&self, no: WorkerNo) -> Option<Address> {
        self.registered.iter().find(|(_, n)| **n == no).map(|(address, _)| address.clone())
    }

    /// The number of the process at an address, dead or alive.
    fn number_of(&self, address: &Address) -> WorkerNo {
        address.port().map_or(0, |port| WorkerNo::from(port) - 1000)
    }

    fn stimulus(&self, what: &str) -> StimulusId {
        format!("{what}-{}", self.now).into()
    }

    /// Feeds the scheduler and carries out what it decides.
    fn tell_scheduler(&mut self, event: sched::Event) {
        let mut actions = sched::Actions::new();
        self.scheduler.handle(self.now, event, &mut actions);
        for action in actions {
            self.note_action("scheduler", &action);
            self.act_for_scheduler(action);
        }
    }

    fn act_for_scheduler(&mut self, action: sched::Action) {
        match action {
            sched::Action::ToClient { client, message } => {
                if let Some(no) = self.clients.iter().position(|c| c.connected && c.id == client) {
                    self.push(Link::ToClient(no as ClientNo), Message::ToClient(message));
                }
            }
            sched::Action::ToAllClients { message } => {
                for no in 0..self.clients.len() {
                    if self.clients[no].connected {
                        self.push(Link::ToClient(no as ClientNo), Message::ToClient(message.clone()));
                    }
                }
            }
            sched::Action::ToWorker { worker, message } => match self.registered.get(&worker) {
                Some(no) => {
                    let no = *no;
                    if let SchedulerToWorker::ComputeTask(message) = &message
                        && let Err(text) = self.ledger.sent(&message.key)
                    {
                        self.violate(text);
                    }
                    self.push(Link::ToWorker(no), Message::ToWorker(message));
                }
                None => self.violate(format!("message to unknown worker {worker:?}: {message:?}")),
            },
            sched::Action::WorkerRemoved { worker, .. } => {
                if let Some(no) = self.registered.shift_remove(&worker) {
                    self.push(Link::ToWorker(no), Message::End);
                } else {
                    self.violate(format!("removed a worker that is not registered: {worker:?}"));
                }
            }
            sched::Action::WorkersRetired { .. }
            | sched::Action::ShuffleEnded { .. }
            | sched::Action::LogEvent { .. } => {}
        }
    }

    /// Lets something happen in a worker process, and carries out what its state decides.
    fn with_worker(&mut self, no: WorkerNo, f: impl FnOnce(&mut SimWorker, f64)) {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&no) else { return };
        f(worker, now);
        let actions = std::mem::take(&mut worker.actions);
        for action in actions {
            self.note_action(&format!("worker {no}"), &action);
            self.act_for_worker(no, action);
        }
        if let Some(Err(text)) = self.workers.get(&no).map(SimWorker::check) {
            self.violate(format!("worker {no}: {text}"));
        }
    }

    fn act_for_worker(&mut self, no: WorkerNo, action: dask_worker::state::Action) {
        use dask_worker::state::Action;
        let Some(worker) = self.workers.get_mut(&no) else { return };
        match action {
            Action::Send(message) => self.push(Link::FromWorker(no), Message::FromWorker(message)),
            Action::Gather { worker: peer, keys, .. } => {
                worker.requests.insert(peer.clone(), keys);
                let from = self.number_of(&peer);
                self.effects.push(Effect::Asked { to: no, from });
            }
            Action::Execute { key, run_id, dependencies, .. } => {
                if let Err(text) = worker.start(&key, run_id, &dependencies) {
                    self.violate(format!("worker {no}: {text}"));
                }
                let there = |no: WorkerNo| self.registered.values().any(|other| *other == no);
                if let Err(text) = self.ledger.starts(no, &key, self.now, there) {
                    self.violate(text);
                }
                self.effects.push(Effect::Started { worker: no, key, run: run_id, interrupted: false });
            }
            Action::CancelExecution { key, run_id }
            | Action::InterruptExecution { key, run_id, .. }
            | Action::ReplaceExecutor { key, run_id, .. } => {
                self.effects.push(Effect::Started { worker: no, key, run: run_id, interrupted: true });
            }
            Action::DropData { key } => {
                worker.store.swap_remove(&key);
            }
            Action::Illegal { reason } => self.violate(format!("worker {no} was told something illegal: {reason}")),
            Action::Close { .. } => self.kill(no, usize::MAX),
        }
    }

    fn serve(&mut self, to: WorkerNo, from: WorkerNo, busy: bool) {
        let address = self.workers.get(&to).and_then(|w| w.request_to(from));
        let Some((address, keys)) = address else { return };
        let reply = self.workers.get(&from).filter(|w| w.address == address).map(|w| w.serve(&keys, busy));
        if let Some(worker) = self.workers.get_mut(&to) {
            worker.replies.insert(address, reply);
        }
        self.effects.push(Effect::Served { to, from });
    }

    fn arrive(&mut self, to: WorkerNo, from: WorkerNo, arrival: Arrival) {
        self.with_worker(to, |worker, now| worker.arrive(now, from, arrival));
    }

    fn start(&mut self, slot: u32) {
        let no = self.next_worker;
        self.next_worker += 1;
        let address = address(&self.case, slot, no);
        let worker = SimWorker::new(&self.case, slot, no, address.clone(), self.now);
        let stimulus_id = self.stimulus("worker-connect");
        let registration = worker.registration(&self.case, stimulus_id.clone());
        self.workers.insert(no, worker);
        self.registered.insert(address, no);
        self.ledger.registered(no, self.now);
        self.tell_scheduler(sched::Event::AddWorker(Box::new(registration)));
        let running = WorkerStatusChange { status: WorkerStatus::Running, stimulus_id };
        self.push(Link::FromWorker(no), Message::FromWorker(running.into()));
        self.effects.push(Effect::Registered { worker: no });
    }

    /// The process ends: what it sent is still under way, what was sent to it is lost.
    fn kill(&mut self, no: WorkerNo, kept: usize) {
        let Some(worker) = self.workers.shift_remove(&no) else { return };
        self.links.entry(Link::FromWorker(no)).or_default().truncate(kept);
        self.links.entry(Link::ToWorker(no)).or_default().clear();
        self.push(Link::FromWorker(no), Message::End);
        self.effects.push(Effect::Died { slot: worker.slot });
    }

    fn cut(&mut self, no: WorkerNo) {
        if self.workers.contains_key(&no) {
            for link in [Link::FromWorker(no), Link::ToWorker(no)] {
                let queue = self.links.entry(link).or_default();
                queue.clear();
                self.push(link, Message::End);
            }
        }
    }

    fn heartbeat(&mut self, no: WorkerNo) {
        let Some(worker) = self.workers.get(&no) else { return };
        if self.registered.contains_key(&worker.address) {
            let heartbeat = worker.heartbeat(self.now);
            self.tell_scheduler(sched::Event::Heartbeat(Box::new(heartbeat)));
        }
    }

    fn connect(&mut self, no: ClientNo) {
        let client = &mut self.clients[no as usize];
        if !client.connected {
            client.connected = true;
            let id = client.id.clone();
            self.tell_scheduler(sched::Event::AddClient { client: id });
        }
    }

    fn disconnect(&mut self, no: ClientNo) {
        let client = &mut self.clients[no as usize];
        if client.connected {
            client.connected = false;
            client.futures.clear();
            let id = client.id.clone();
            self.links.entry(Link::FromClient(no)).or_default().clear();
            self.links.entry(Link::ToClient(no)).or_default().clear();
            self.tell_scheduler(sched::Event::RemoveClient { client: id });
        }
    }

    fn act_as_client(&mut self, no: ClientNo, f: impl FnOnce(&mut SimClient) -> Vec<sched::Event>) {
        let client = &mut self.clients[no as usize];
        if client.connected {
            for event in f(client) {
                self.push(Link::FromClient(no), Message::FromClient(event));
            }
        }
    }

    fn retry(&mut self, no: ClientNo, keys: &[String]) {
        let client = &mut self.clients[no as usize];
        if client.connected {
            let keys: Vec<Key> = keys.iter().map(|k| k.as_str().into()).collect();
            let stimulus_id = self.stimulus("client-retry");
            self.tell_scheduler(sched::Event::Retry { keys, stimulus_id });
        }
    }

    fn scatter(&mut self, no: WorkerNo, data: &[(String, i64)]) {
        if self.workers.contains_key(&no) {
            self.with_worker(no, |worker, now| worker.scatter(now, data));
            self.effects.push(Effect::Stored { worker: no, data: data.to_vec() });
        }
    }

    /// The scatter call returned: the scheduler registers the values for the client.
    fn scattered(&mut self, no: ClientNo, worker: WorkerNo, data: &[(String, i64)]) {
        let client = &mut self.clients[no as usize];
        let Some(address) = self.registered.iter().find(|(_, n)| **n == worker).map(|(address, _)| address) else {
            return;
        };
        let data: Vec<_> = data.iter().map(|(k, n)| (k.as_str().into(), vec![address.clone()], *n)).collect();
        if client.connected {
            client.want(data.iter().map(|(key, _, _)| key));
        }
        let (client, stimulus_id) = (Some(client.id.clone()), self.stimulus("scatter"));
        self.tell_scheduler(sched::Event::UpdateData { data, client, stimulus_id });
    }

    fn retire(&mut self, workers: &[WorkerNo]) {
        let workers: Vec<Address> = workers.iter().filter_map(|no| self.address_of(*no)).collect();
        if workers.is_empty() {
            return;
        }
        self.retirements += 1;
        let (token, stimulus_id) = (self.retirements, self.stimulus("retire-workers"));
        let event = sched::Event::RetireWorkers { workers, remove: true, close: true, token, stimulus_id };
        self.tell_scheduler(event);
    }

    fn remove(&mut self, no: WorkerNo) {
        let Some(worker) = self.address_of(no) else { return };
        let stimulus_id = self.stimulus("worker-ttl");
        self.tell_scheduler(sched::Event::RemoveWorker { worker, expected: false, close: true, stimulus_id });
    }

    fn restart(&mut self) {
        let stimulus_id = self.stimulus("restart");
        self.tell_scheduler(sched::Event::Restart { stimulus_id });
        let close: SchedulerToWorker = CloseWorker { reason: "restart".to_owned() }.into();
        // Nannies kill their workers, one after the other.
        for no in self.workers.keys().copied().collect::<Vec<_>>() {
            self.push(Link::ToWorker(no), Message::ToWorker(close.clone()));
        }
    }
}
