//! What the driver owns: the state, the peers' streams and the event log.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dask_protocol::comm::{BatchedSender, ConnectionPool};
use dask_protocol::message::{
    AdjustHeartbeatInterval, CloseStream, CloseWorker, RegisterWorker, SchedulerToClient, SchedulerToWorker,
    TopicEvent, WorkerToScheduler,
};
use dask_protocol::{Address, Key, Value};
use futures::future::BoxFuture;
use indexmap::IndexMap;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::clock::Clock;
use super::events::{EventLog, topics};
use super::identity;
use super::options::SchedulerOptions;
use super::peers::{ClientPeer, Outbox, Session, WorkerInfo, WorkerPeer, name_or_address, name_text};
use super::recent::RecentParts;
use super::recording::Recording;
use super::shuffles::Shuffles;
use super::sidecar::hooks::Hooks;
use super::task_stream::TaskStream;
use super::trackers::Trackers;
use super::worker_link::Link;
use crate::state::{
    Action, Actions, ClientId, Event, NewWorker, POST_MORTEM_TOPIC, Runtime, Seconds, State, WorkerHeartbeat,
};

/// Clients are told to call this many times less often than workers.
const CLIENT_HEARTBEAT_FACTOR: f64 = 10.0;

/// Who handed over what it held, and who could not (`retire_workers`).
pub(crate) type Retired = (Vec<Address>, Vec<Address>);

/// A cluster object that follows who comes and goes (`subscribe_worker_status`).
pub(crate) type StatusSender = BatchedSender<Value>;

/// Everything the driver task owns.
pub(crate) struct Core {
    pub(crate) state: State,
    pub(crate) clock: Clock,
    /// The connections to workers and nannies that [`super::Server`] opens.
    pool: ConnectionPool,
    pub(crate) clients: IndexMap<ClientId, ClientPeer>,
    pub(crate) workers: IndexMap<Address, WorkerPeer>,
    pub(crate) events: EventLog,
    pub(crate) totals: Totals,
    pub(crate) shuffles: Shuffles,
    pub(crate) task_stream: TaskStream,
    /// What tasks spent their time with, until the pages take it.
    pub(crate) recent: RecentParts,
    /// How long turns of the driver took.
    pub(crate) turns: Turns,
    /// What is computed, if that is to be run again elsewhere.
    pub(crate) recording: Option<Recording>,
    pub(super) trackers: Trackers,
    pub(super) hooks: Option<Hooks>,
    actions: Actions,
    retirements: HashMap<u64, oneshot::Sender<Retired>>,
    status_listeners: Vec<StatusSender>,
    unflushed_clients: Vec<ClientId>,
    unflushed_workers: Vec<Address>,
    next_number: u64,
    /// Topics of peers that left, and when to forget them.
    departed: VecDeque<(Seconds, Key)>,
    /// How long these are kept, in seconds.
    events_cleanup_delay: Seconds,
}

/// Counters that only grow, for `/metrics`.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) clients_added: u64,
    pub(crate) clients_removed: u64,
    pub(crate) workers_added: u64,
    pub(crate) workers_removed: u64,
}

/// Turns of the driver, for `/metrics` (`tick_count`, `tick_duration_maximum`).
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Turns {
    /// How many there were.
    pub(crate) count: u64,
    /// Seconds of the longest since this was last taken.
    pub(crate) longest: Seconds,
    /// Seconds spent in all of them.
    pub(crate) busy: Seconds,
}

impl Turns {
    /// A turn took this long, in seconds.
    pub(crate) fn add(&mut self, took: Seconds) {
        (self.count, self.busy) = (self.count + 1, self.busy + took);
        self.longest = self.longest.max(took);
    }
}

/// Why a worker may not register.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Refusal {
    /// Another worker has its address.
    DuplicateAddress,
    /// Another worker has its name.
    DuplicateName(String),
}

/// What a worker that registered is told.
pub(crate) struct Registered {
    pub(crate) session: Session,
    pub(crate) removed: CancellationToken,
    /// When its stream may go on over another connection.
    pub(crate) link: Option<Arc<Link>>,
    pub(crate) time: f64,
    pub(crate) heartbeat_interval: f64,
}

impl Core {
    pub(crate) fn new(state: State, clock: Clock, pool: ConnectionPool, options: &SchedulerOptions) -> Core {
        let events = EventLog::new(state.transition_log_length());
        Core {
            state,
            clock,
            pool,
            clients: IndexMap::new(),
            workers: IndexMap::new(),
            events,
            totals: Totals::default(),
            shuffles: Shuffles::default(),
            task_stream: TaskStream::new(options.task_stream_length),
            recent: RecentParts::new(options.page_stream_length),
            turns: Turns::default(),
            trackers: Trackers::default(),
            hooks: None,
            recording: None,
            actions: Actions::new(),
            retirements: HashMap::new(),
            status_listeners: Vec::new(),
            unflushed_clients: Vec::new(),
            unflushed_workers: Vec::new(),
            next_number: 0,
            departed: VecDeque::new(),
            events_cleanup_delay: options.events_cleanup_delay.as_secs_f64(),
        }
    }

    /// Feeds one event to the state and does what it decides.
    pub(crate) fn handle(&mut self, event: Event) {
        if let Some(recording) = &mut self.recording {
            recording.note(self.clock.now(), &event);
        }
        if let Event::WorkerMessage { worker, message } = &event {
            self.recent.note(worker, message);
        }
        match event {
            Event::WorkerMessage { worker, message: WorkerToScheduler::KeepAlive(_) } => self.seen(&worker),
            Event::WorkerMessage { worker, message } if self.records_tasks() => {
                let record = self.record_task(&worker, &message);
                self.tell_state(Event::WorkerMessage { worker, message }, record);
            }
            event => {
                if let Event::UpdateGraph(graph) = &event {
                    self.trackers.graph(&graph.keys);
                    if let Some(hooks) = &self.hooks {
                        hooks.graph(graph);
                    }
                }
                self.tell_state(event, None);
            }
        }
    }

    /// `record` is what the event, if it ends a task, tells of it.
    fn tell_state(&mut self, event: Event, record: Option<(Key, Value)>) {
        let now = self.clock.now();
        self.state.handle(now, event, &mut self.actions);
        if self.is_followed() {
            self.tell_followers(record);
        }
        self.carry_out();
        self.follow_up_shuffles();
    }

    fn seen(&mut self, worker: &Address) {
        if let Some(peer) = self.workers.get_mut(worker) {
            peer.last_seen = self.clock.now();
        }
    }

    /// How long until the state wants to be called.
    pub(crate) fn next_wake(&self) -> Duration {
        self.state.next_timeout().map_or(Duration::MAX, |(moment, _)| self.clock.until(moment))
    }

    /// Calls the state when one of its timeouts has come.
    pub(crate) fn handle_due_timeouts(&mut self) {
        if self.state.next_timeout().is_some_and(|(moment, _)| moment <= self.clock.now()) {
            self.handle(Event::Timeout);
        }
    }

    fn carry_out(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::ToClient { client, message } => self.send_client(&client, message),
                Action::ToAllClients { message } => {
                    let clients: Vec<ClientId> = self.clients.keys().cloned().collect();
                    clients.iter().for_each(|client| self.send_client(client, message.clone()));
                }
                Action::ToWorker { worker, message } => self.send_worker(&worker, message),
                Action::WorkerRemoved { worker, name, last, stimulus_id } => {
                    self.worker_removed(&worker, &name, last, &stimulus_id);
                }
                Action::WorkersRetired { token, retired, kept } => {
                    if let Some(waiting) = self.retirements.remove(&token) {
                        let _ = waiting.send((retired, kept));
                    }
                }
                Action::ShuffleEnded { barrier, state } => self.shuffle_ended(&barrier, state),
                Action::LogEvent { topic, msg } => topics(&topic).iter().for_each(|t| self.log_event(t, msg.clone())),
            }
        }
        self.actions = actions;
    }

    /// Queues a message for a client, if it has a stream.
    pub(crate) fn send_client(&mut self, client: &ClientId, mut message: SchedulerToClient) {
        let Some(peer) = self.clients.get_mut(client) else { return };
        if let (false, SchedulerToClient::KeyInMemory(message)) = (peer.is_native, &mut message) {
            message.value = None;
        }
        if peer.outbox.push(message) {
            self.unflushed_clients.push(client.clone());
        }
    }

    /// Queues a message for a worker.
    pub(crate) fn send_worker(&mut self, worker: &Address, message: SchedulerToWorker) {
        let Some(peer) = self.workers.get_mut(worker) else { return };
        if peer.outbox.push(message) {
            self.unflushed_workers.push(worker.clone());
        }
    }

    /// Hands what this turn decided to the streams.
    pub(crate) fn flush(&mut self) {
        for client in self.unflushed_clients.drain(..) {
            if let Some(peer) = self.clients.get_mut(&client) {
                peer.outbox.flush();
            }
        }
        for worker in self.unflushed_workers.drain(..) {
            if let Some(peer) = self.workers.get_mut(&worker) {
                peer.outbox.flush();
            }
        }
    }

    fn clean_up_later(&mut self, topic: Key) {
        self.departed.push_back((self.clock.now() + self.events_cleanup_delay, topic));
    }

    /// Forgets the events of peers that left long ago and did not come back.
    pub(crate) fn clean_up_events(&mut self) {
        let now = self.clock.now();
        while self.departed.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, topic)) = self.departed.pop_front() else { return };
            let back = topic.as_str().is_some_and(|id| {
                self.clients.contains_key(id) || self.workers.keys().any(|address| address.as_str() == id)
            });
            if !back {
                self.events.truncate(&topic);
            }
        }
    }

    /// A number never given before in this process.
    pub(crate) fn fresh_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// A stimulus id that begins with `cause`.
    pub(crate) fn stimulus(&self, cause: &str) -> dask_protocol::message::StimulusId {
        dask_protocol::message::stimulus_at(cause, self.clock.now())
    }
}

/// Clients.
impl Core {
    /// A client registered, or came back; an earlier session under its id ends here. What is sent to it waits for
    /// [`Core::attach_client`].
    pub(crate) fn add_client(&mut self, client: &ClientId, is_native: bool) -> Session {
        let session = self.fresh_number();
        let last_seen = self.clock.now();
        let peer = ClientPeer { session, is_native, outbox: Outbox::waiting(), last_seen };
        if let Some(earlier) = self.clients.insert(client.clone(), peer) {
            drop(earlier.outbox.close());
            self.events.remove_listener(client);
        }
        self.totals.clients_added += 1;
        self.handle(Event::AddClient { client: client.clone() });
        self.hook("add_client", [("client", (&**client).into())]);
        session
    }

    /// The stream of a client that was told that it is registered is open, unless a newer session has taken its place.
    pub(crate) fn attach_client(
        &mut self,
        client: &ClientId,
        session: Session,
        sender: BatchedSender<SchedulerToClient>,
    ) {
        match self.clients.get_mut(client).filter(|peer| peer.session == session) {
            Some(peer) => peer.outbox.attach(sender),
            None => sender.close(),
        }
    }

    /// A client's stream ended. False when a newer session has taken its place.
    pub(crate) fn remove_client(&mut self, client: &ClientId, session: Session) -> bool {
        if self.clients.get(client).is_none_or(|peer| peer.session != session) {
            return false;
        }
        if let Some(peer) = self.clients.shift_remove(client) {
            drop(peer.outbox.close());
        }
        self.events.remove_listener(client);
        self.totals.clients_removed += 1;
        self.clean_up_later(Key::from(&**client));
        self.handle(Event::RemoveClient { client: client.clone() });
        self.hook("remove_client", [("client", (&**client).into())]);
        true
    }

    /// `heartbeat-client`.
    pub(crate) fn client_heartbeat(&mut self, client: &ClientId) {
        let interval = CLIENT_HEARTBEAT_FACTOR * heartbeat_interval(self.clients.len());
        let now = self.clock.now();
        if let Some(peer) = self.clients.get_mut(client) {
            peer.last_seen = now;
        }
        self.send_client(client, AdjustHeartbeatInterval { interval }.into());
    }
}

/// Workers.
impl Core {
    /// `register-worker`: the worker is known from here on; what is sent to it waits for [`Core::attach_worker`].
    pub(crate) fn register_worker(
        &mut self,
        registration: RegisterWorker,
        address: &Address,
    ) -> Result<Registered, Refusal> {
        let info = WorkerInfo::new(&registration, address);
        self.remove_predecessor(&info);
        if self.workers.contains_key(address) {
            return Err(Refusal::DuplicateAddress);
        }
        if self.workers.values().any(|peer| peer.info.name == info.name) {
            return Err(Refusal::DuplicateName(name_text(&info.name)));
        }
        let (session, removed) = (self.fresh_number(), CancellationToken::new());
        let link = Link::asked_for(&registration).map(Arc::new);
        let name = info.name.clone();
        let time = self.clock.now();
        let peer = WorkerPeer {
            session,
            outbox: Outbox::waiting(),
            info,
            metrics: registration.metrics.clone(),
            last_seen: time,
            removed: removed.clone(),
            link: link.clone(),
            away: None,
            disagreements: 0,
        };
        self.workers.insert(address.clone(), peer);
        self.totals.workers_added += 1;
        let heartbeat = first_heartbeat(&registration, address);
        self.handle(Event::AddWorker(Box::new(new_worker(registration, address))));
        self.handle(Event::Heartbeat(Box::new(heartbeat)));
        info!(target: "distributed.scheduler", "Register worker addr: {address} name: {}", name_text(&name));
        self.announce_worker(address);
        self.hook("add_worker", [("worker", address.as_str().into())]);
        let heartbeat_interval = heartbeat_interval(self.workers.len());
        Ok(Registered { session, removed, link, time, heartbeat_interval })
    }

    /// A worker that is away does not come back when another process has its address or its name.
    fn remove_predecessor(&mut self, info: &WorkerInfo) {
        let taken = |peer: &WorkerPeer| peer.info.address == info.address || peer.info.name == info.name;
        let gone = self.workers.iter().filter(|(_, peer)| peer.away.is_some() && taken(peer));
        let gone: Vec<Address> = gone.map(|(address, _)| address.clone()).collect();
        for gone in gone {
            let stimulus_id = self.stimulus("worker-replaced");
            self.remove_worker(&gone, false, false, stimulus_id);
        }
    }

    /// The registration reply is written: the worker's stream begins.
    pub(crate) fn attach_worker(
        &mut self,
        address: &Address,
        session: Session,
        sender: BatchedSender<SchedulerToWorker>,
    ) {
        match self.workers.get_mut(address).filter(|peer| peer.session == session) {
            Some(peer) => peer.outbox.attach(sender),
            None => sender.close(),
        }
    }

    /// A worker's stream ended. Nothing happens when the worker was removed before.
    pub(crate) fn worker_stream_ended(&mut self, address: &Address, session: Session) {
        if self.workers.get(address).is_some_and(|peer| peer.session == session) {
            let stimulus_id = self.stimulus("handle-worker-cleanup");
            self.remove_worker(address, false, false, stimulus_id);
        }
    }

    /// Removes a worker; its tasks go elsewhere. False when it is not known.
    pub(crate) fn remove_worker(
        &mut self,
        address: &Address,
        expected: bool,
        close: bool,
        stimulus_id: dask_protocol::message::StimulusId,
    ) -> bool {
        let known = self.workers.contains_key(address);
        if known {
            self.handle(Event::RemoveWorker { worker: address.clone(), expected, close, stimulus_id });
        }
        known
    }

    fn worker_removed(&mut self, address: &Address, name: &Value, last: bool, stimulus_id: &str) {
        info!(
            target: "distributed.scheduler",
            "Remove worker addr: {address} name: {} (stimulus_id='{stimulus_id}')", name_text(name)
        );
        if let Some(mut peer) = self.workers.shift_remove(address) {
            if peer.link.is_some() {
                // It would take the end of the connection for a cut, and try to go on over another one.
                let _ = peer.outbox.push(CloseStream::default().into());
            }
            drop(peer.outbox.close());
            peer.removed.cancel();
            // Idle connections would stay for ever.
            for gone in [Some(address), peer.info.nanny.as_ref()].into_iter().flatten() {
                self.pool.remove(gone);
            }
        }
        self.totals.workers_removed += 1;
        self.shuffles.worker_left(address);
        self.clean_up_later(Key::from(address.as_str()));
        self.hook("remove_worker", [("worker", address.as_str().into()), ("stimulus_id", stimulus_id.into())]);
        let gone = Value::Array(vec!["remove".into(), address.as_str().into()]);
        self.status_listeners.retain(|listener| listener.send(gone.clone()));
        if last {
            info!(target: "distributed.scheduler", "Lost all workers");
        }
    }

    /// `heartbeat_worker`; `None` for a worker that is not registered and must close.
    pub(crate) fn heartbeat(&mut self, heartbeat: WorkerHeartbeat, metrics: Value) -> Option<(f64, f64)> {
        let now = self.clock.now();
        let Some(peer) = self.workers.get_mut(&heartbeat.worker) else {
            warn!(target: "distributed.scheduler", "Received heartbeat from unregistered worker '{}'.", heartbeat.worker);
            return None;
        };
        peer.last_seen = now;
        peer.metrics = metrics;
        self.handle(Event::Heartbeat(Box::new(heartbeat)));
        Some((now, heartbeat_interval(self.workers.len())))
    }

    /// `retire_workers`: the answer comes when every one has handed over what it holds, or cannot.
    pub(crate) fn retire(&mut self, workers: Vec<Address>, remove: bool, close: bool) -> oneshot::Receiver<Retired> {
        let (done, waiting) = oneshot::channel();
        let token = self.fresh_number();
        self.retirements.insert(token, done);
        let stimulus_id = self.stimulus("retire-workers");
        self.handle(Event::RetireWorkers { workers, remove, close, token, stimulus_id });
        waiting
    }

    /// `subscribe_worker_status`.
    pub(crate) fn follow_workers(&mut self, listener: StatusSender) {
        self.status_listeners.push(listener);
    }

    fn announce_worker(&mut self, address: &Address) {
        if self.status_listeners.is_empty() {
            return;
        }
        let Some(identity) = identity::worker(self, address) else { return };
        let workers = Value::Map(vec![(Value::from(address.as_str()), identity::without_metrics(identity))]);
        let came = Value::Array(vec!["add".into(), Value::map([("workers", workers)])]);
        self.status_listeners.retain(|listener| listener.send(came.clone()));
    }

    /// Tells every worker to close and ends all streams, at the scheduler's own end. The futures complete when what they
    /// still had to say is sent.
    pub(crate) fn close_streams(&mut self) -> Vec<BoxFuture<'static, ()>> {
        let mut ends = Vec::with_capacity(self.workers.len() + self.clients.len());
        for (_, mut peer) in self.workers.drain(..) {
            for farewell in [CloseWorker { reason: "scheduler-close".to_owned() }.into(), CloseStream {}.into()] {
                // Closing flushes.
                let _ = peer.outbox.push(farewell);
            }
            ends.push(peer.outbox.close());
        }
        ends.extend(self.clients.drain(..).map(|(_, peer)| peer.outbox.close()));
        self.status_listeners.drain(..).for_each(|listener| listener.close());
        ends
    }
}

/// The event log.
impl Core {
    /// Appends to a topic and sends to those who listen.
    pub(crate) fn log_event(&mut self, topic: &Key, msg: Value) {
        let now = self.clock.now();
        if topic.as_str() == Some(POST_MORTEM_TOPIC)
            && let Some(worker) = msg.get("worker").and_then(Value::as_str)
        {
            self.handle(Event::PostMortem { worker: worker.into(), report: msg.clone() });
        }
        let listeners = self.events.append(topic, now, &msg);
        if self.has_hook("log_event") {
            self.hook("log_event", [("topic", topic.into()), ("msg", msg.clone())]);
        }
        for client in listeners {
            let event = TopicEvent { topic: Value::from(topic), event: (now, msg.clone()) };
            self.send_client(&client, event.into());
        }
    }
}

/// Seconds between two heartbeats when `count` peers call, as upstream spreads them.
#[expect(clippy::cast_precision_loss, reason = "counts of peers are far below 2^52")]
pub(crate) fn heartbeat_interval(count: usize) -> f64 {
    match count {
        0..=10 => 0.5,
        11..50 => 1.0,
        50..200 => 2.0,
        many => many as f64 / 200.0 + 1.0,
    }
}

fn new_worker(registration: RegisterWorker, address: &Address) -> NewWorker {
    let runtimes = match registration.runtimes() {
        None => vec![Runtime::Python],
        Some(listed) => {
            let known = [("python", Runtime::Python), ("native", Runtime::Native)];
            known.into_iter().filter(|(name, _)| listed.contains(name)).map(|(_, runtime)| runtime).collect()
        }
    };
    let stimulus_id = registration.stimulus_id.unwrap_or_else(|| "worker-connect".into());
    NewWorker {
        address: address.clone(),
        name: name_or_address(&registration.name, address),
        server_id: registration.server_id,
        status: registration.status,
        nthreads: registration.nthreads,
        memory_limit: registration.memory_limit.unwrap_or(0),
        resources: registration.resources.unwrap_or_default(),
        nanny: registration.nanny,
        runtimes,
        stimulus_id,
    }
}

fn first_heartbeat(registration: &RegisterWorker, address: &Address) -> WorkerHeartbeat {
    heartbeat_of(address.clone(), Vec::new(), &registration.metrics)
}

/// What the state needs of a heartbeat.
pub(crate) fn heartbeat_of(worker: Address, executing: Vec<(Key, f64)>, metrics: &Value) -> WorkerHeartbeat {
    let bytes = |value: Option<&Value>| value.and_then(Value::as_f64).map_or(0, whole_bytes);
    WorkerHeartbeat {
        worker,
        executing,
        bandwidth: metrics.get("bandwidth").and_then(|b| b.get("total")).and_then(Value::as_f64),
        memory: bytes(metrics.get("memory")),
        spilled_memory: bytes(metrics.get("spilled_bytes").and_then(|spilled| spilled.get("memory"))),
        spilled_disk: bytes(metrics.get("spilled_bytes").and_then(|spilled| spilled.get("disk"))),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, and maps NaN to 0")]
fn whole_bytes(bytes: f64) -> u64 {
    bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_spread_with_the_number_of_peers() {
        assert_eq!(
            [0, 10, 11, 49, 50, 199, 200, 1000].map(heartbeat_interval),
            [0.5, 0.5, 1.0, 1.0, 2.0, 2.0, 2.0, 6.0]
        );
    }

    #[test]
    fn odd_metrics_of_a_worker_are_harmless() {
        let metrics = Value::map([
            ("memory", Value::Float(f64::NAN)),
            ("spilled_bytes", Value::map([("disk", (-5_i64).into())])),
        ]);
        let heartbeat = heartbeat_of(Address::from("tcp://h:1"), Vec::new(), &metrics);
        assert_eq!((heartbeat.memory, heartbeat.spilled_disk, heartbeat.bandwidth), (0, 0, None));
    }
}
