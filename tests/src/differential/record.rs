//! Takes events through our state and writes down what came of each.

use std::io::{self, Write};

use dask_protocol::message::{Priority, SchedulerToClient, SchedulerToWorker};
use dask_protocol::{Address, Key};
use dask_scheduler::state::{Action, Actions, Config, Event, Seconds, State};
use indexmap::IndexMap;
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::events::{self, Runs};
use super::messages;
use super::snapshot::{self, TaskSnapshot, Totals, WorkerSnapshot};

/// When every scenario begins, in seconds since the epoch.
pub const START: Seconds = 1_700_000_000.0;

/// Resident memory of a worker that just registered, in bytes.
pub const MEMORY: u64 = 100_000_000;

/// Our state, and the lines it leaves.
pub struct Recorder<'a> {
    /// Our scheduler.
    pub state: State,
    /// Time, in seconds since the epoch.
    pub now: Seconds,
    /// What the last event led to.
    pub actions: Actions,
    out: &'a mut dyn Write,
    runs: Runs,
    tasks: IndexMap<String, TaskSnapshot>,
    workers: IndexMap<String, WorkerSnapshot>,
    totals: Option<Totals>,
}

/// Tasks that were sent to workers, in order.
type Placed = Vec<(String, Address)>;
/// Messages per receiver and key, in order.
type Sent = IndexMap<String, Vec<Json>>;

/// What one event came to.
#[derive(Serialize)]
struct Line<'a> {
    at: Seconds,
    event: Json,
    placed: Placed,
    sent: Sent,
    transitions: Vec<(String, &'static str, &'static str)>,
    tasks: IndexMap<&'a str, &'a TaskSnapshot>,
    gone: Vec<String>,
    workers: IndexMap<&'a str, &'a WorkerSnapshot>,
    left: Vec<String>,
    /// Retirements that ended: token, and who handed everything over.
    retired: Vec<(u64, Vec<Address>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    totals: Option<&'a Totals>,
}

impl<'a> Recorder<'a> {
    /// Begins a scenario.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn begin(scenario: u64, config: Config, out: &'a mut dyn Write) -> io::Result<Recorder<'a>> {
        let saturation = config.worker_saturation.is_finite().then_some(config.worker_saturation);
        let header = json!({
            "scenario": scenario, "saturation": saturation, "allowed_failures": config.allowed_failures,
            "operations": config.work_stealing,
        });
        writeln!(out, "{header}")?;
        let mut state = State::new(config, START);
        state.observe_transitions(true);
        Ok(Recorder {
            state,
            now: START,
            actions: Actions::new(),
            out,
            runs: Runs::default(),
            tasks: IndexMap::new(),
            workers: IndexMap::new(),
            totals: None,
        })
    }

    /// Ends the scenario.
    ///
    /// # Errors
    /// When the lines cannot be written.
    pub fn end(self, scenario: u64) -> io::Result<()> {
        writeln!(self.out, "{}", json!({"end": scenario}))
    }

    /// Takes one event through our state and writes its line.
    ///
    /// # Errors
    /// When the line cannot be written.
    ///
    /// # Panics
    /// When upstream has no such event: then it is no part of a scenario.
    pub fn handle(&mut self, event: Event) -> io::Result<()> {
        let json = events::event(&event, &self.runs).expect("a scenario has only events that upstream knows");
        self.actions.clear();
        let joined = if let Event::AddWorker(worker) = &event { Some(worker.address.clone()) } else { None };
        self.state.handle(self.now, event, &mut self.actions);
        if let Some(worker) = joined {
            // A registration brings the first heartbeat along.
            let heartbeat = messages::heartbeat(&worker, Vec::new(), None, MEMORY);
            self.state.handle(self.now, heartbeat, &mut self.actions);
        }
        let (placed, sent) = self.describe_actions();
        let retired = self.actions.iter().filter_map(retired).collect();
        let transitions = self.state.take_observed().into_iter();
        let transitions = transitions.map(|t| (t.key.to_string(), t.start.name(), t.finish.name())).collect();
        let tasks = self.state.tasks().map(|task| (task.key.to_string(), snapshot::task(&task))).collect();
        let tasks_before = std::mem::replace(&mut self.tasks, tasks);
        let (tasks, gone) = changes(&tasks_before, &self.tasks);
        let workers = self.state.workers();
        let workers = workers.map(|w| (w.address.as_str().to_owned(), snapshot::worker(&self.state, &w))).collect();
        let workers_before = std::mem::replace(&mut self.workers, workers);
        let (workers, left) = changes(&workers_before, &self.workers);
        let totals_before = self.totals.replace(snapshot::totals(&self.state));
        let totals = self.totals.as_ref().filter(|totals| totals_before.as_ref() != Some(*totals));
        let line =
            Line { at: self.now, event: json, placed, sent, transitions, tasks, gone, workers, left, retired, totals };
        serde_json::to_writer(&mut *self.out, &line)?;
        writeln!(self.out)
    }

    fn describe_actions(&mut self) -> (Placed, Sent) {
        let mut placed = Placed::new();
        let mut sent = Sent::new();
        for action in &self.actions {
            match action {
                Action::ToWorker { worker, message } => {
                    if let SchedulerToWorker::ComputeTask(message) = message {
                        placed.push((message.key.to_string(), worker.clone()));
                        self.runs.computed.entry(message.key.clone()).or_default().push(message.run_id);
                    }
                    if let SchedulerToWorker::StealRequest(message) = message {
                        let asked = self.runs.asked_back.entry(message.key.clone()).or_default();
                        asked.push(message.stimulus_id.clone());
                    }
                    for (about, message) in to_worker(message) {
                        sent.entry(format!("{}|{about}", worker.as_str())).or_default().push(message);
                    }
                }
                Action::ToClient { client, message } => {
                    for (about, message) in to_client(message) {
                        sent.entry(format!("{client}|{about}")).or_default().push(message);
                    }
                }
                Action::ToAllClients { message } => {
                    for (about, message) in to_client(message) {
                        sent.entry(format!("*|{about}")).or_default().push(message);
                    }
                }
                // Compared on its own.
                Action::WorkersRetired { .. } => {}
                // Upstream has no messages for these.
                Action::WorkerRemoved { .. } | Action::ShuffleEnded { .. } | Action::LogEvent { .. } => {}
            }
        }
        (placed, sent)
    }
}

fn retired(action: &Action) -> Option<(u64, Vec<Address>)> {
    match action {
        Action::WorkersRetired { token, retired, .. } => Some((*token, retired.clone())),
        Action::ToClient { .. }
        | Action::ToAllClients { .. }
        | Action::ToWorker { .. }
        | Action::WorkerRemoved { .. }
        | Action::ShuffleEnded { .. }
        | Action::LogEvent { .. } => None,
    }
}

/// What is new or changed, and what is gone.
fn changes<'a, T: PartialEq>(
    before: &IndexMap<String, T>,
    now: &'a IndexMap<String, T>,
) -> (IndexMap<&'a str, &'a T>, Vec<String>) {
    let gone = before.keys().filter(|name| !now.contains_key(*name)).cloned().collect();
    let changed = now.iter().filter(|(name, snapshot)| before.get(*name) != Some(*snapshot));
    (changed.map(|(name, snapshot)| (name.as_str(), snapshot)).collect(), gone)
}

fn each<'a>(op: &'a str, keys: &'a [Key]) -> impl Iterator<Item = (String, Json)> + 'a {
    keys.iter().map(move |key| (key.to_string(), json!([op])))
}

fn sorted_addresses(addresses: &[Address]) -> Vec<&str> {
    let mut addresses: Vec<&str> = addresses.iter().map(Address::as_str).collect();
    addresses.sort_unstable();
    addresses
}

/// A message to a worker, one entry for each key it is about: upstream may send in several what goes in one here.
fn to_worker(message: &SchedulerToWorker) -> Vec<(String, Json)> {
    let holders = |who_has: &dask_protocol::message::WhoHas| -> Map<String, Json> {
        who_has.iter().map(|(key, on)| (key.to_string(), sorted_addresses(on).into())).collect()
    };
    match message {
        SchedulerToWorker::ComputeTask(m) => {
            let nbytes: Map<String, Json> = m.nbytes.iter().map(|(key, n)| (key.to_string(), (*n).into())).collect();
            let resources: Map<String, Json> = m
                .resource_restrictions
                .iter()
                .flat_map(|r| r.iter())
                .map(|(n, amount)| (n.clone(), json!(amount)))
                .collect();
            let Priority(priority) = &m.priority;
            let about = json!(["compute-task", priority.as_slice(), holders(&m.who_has), nbytes, resources, m.actor]);
            vec![(m.key.to_string(), about)]
        }
        SchedulerToWorker::FreeKeys(m) => each("free-keys", &m.keys).collect(),
        SchedulerToWorker::RemoveReplicas(m) => each("remove-replicas", &m.keys).collect(),
        SchedulerToWorker::RefreshWhoHas(m) => m
            .who_has
            .iter()
            .map(|(key, on)| (key.to_string(), json!(["refresh-who-has", sorted_addresses(on)])))
            .collect(),
        SchedulerToWorker::RemoveWorker(m) => vec![(m.worker.as_str().to_owned(), json!(["remove-worker"]))],
        SchedulerToWorker::CloseWorker(_) => vec![(String::new(), json!(["close"]))],
        SchedulerToWorker::StealRequest(m) => vec![(m.key.to_string(), json!(["steal-request"]))],
        SchedulerToWorker::AcquireReplicas(m) => {
            let sizes: Map<String, Json> = m.nbytes.iter().map(|(key, n)| (key.to_string(), json!(n))).collect();
            let about = |(key, on): &(Key, Vec<Address>)| {
                let key = key.to_string();
                let message = json!(["acquire-replicas", sorted_addresses(on), sizes.get(&key)]);
                (key, message)
            };
            m.who_has.iter().map(about).collect()
        }
        SchedulerToWorker::WorkerStatusChange(m) => {
            vec![(String::new(), json!(["worker-status-change", m.status.name()]))]
        }
        SchedulerToWorker::CancelCompute(_) | SchedulerToWorker::ShuffleFail(_) | SchedulerToWorker::CloseStream(_) => {
            vec![(String::new(), json!(["unexpected", format!("{message:?}")]))]
        }
    }
}

fn to_client(message: &SchedulerToClient) -> Vec<(String, Json)> {
    match message {
        SchedulerToClient::KeyInMemory(m) => {
            let on = m.workers.as_deref().map(sorted_addresses);
            vec![(m.key.to_string(), json!(["key-in-memory", m.type_pickle.is_some(), on]))]
        }
        SchedulerToClient::ClientTaskErred(m) => {
            vec![(m.key.to_string(), json!(["task-erred", events::text(&m.exception)]))]
        }
        SchedulerToClient::LostData(m) => vec![(m.key.to_string(), json!(["lost-data"]))],
        SchedulerToClient::TaskRetried(m) => vec![(m.key.to_string(), json!(["task-retried"]))],
        SchedulerToClient::CancelledKeys(m) => {
            m.keys.iter().map(|key| (key.to_string(), json!(["cancelled-keys", m.reason]))).collect()
        }
        // Warnings to users are an extension (`docs/compatibility.md`).
        SchedulerToClient::TopicEvent(_) => Vec::new(),
        SchedulerToClient::Restart(_) => vec![(String::new(), json!(["restart"]))],
        SchedulerToClient::StreamStart(_)
        | SchedulerToClient::AdjustHeartbeatInterval(_)
        | SchedulerToClient::StreamClosed(_) => vec![(String::new(), json!(["unexpected", format!("{message:?}")]))],
    }
}
