//! A client as the simulation sees it: what it wants, and what it was told about that.

use std::sync::Arc;

use bytes::Bytes;
use dask_protocol::message::SchedulerToClient;
use dask_protocol::{Key, Payload};
use dask_scheduler::state as sched;
use indexmap::IndexMap;

use super::step::{ClientNo, TaskDef};

/// What a client believes of a future.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Future {
    /// Nothing yet, or it was lost.
    Pending,
    /// The value is there.
    Finished,
    /// It raised.
    Erred,
    /// It was cancelled.
    Cancelled,
}

/// A client.
pub struct SimClient {
    /// Its id.
    pub id: sched::ClientId,
    /// Whether its stream is open.
    pub connected: bool,
    /// What it wants.
    pub futures: IndexMap<Key, Future>,
}

impl SimClient {
    /// A client that has not connected yet.
    pub fn new(no: ClientNo) -> SimClient {
        SimClient { id: format!("Client-{no}").into(), connected: false, futures: IndexMap::new() }
    }

    /// New futures of keys that have none.
    pub fn want<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>) {
        for key in keys {
            let future = self.futures.entry(key.clone()).or_insert(Future::Pending);
            if *future == Future::Cancelled {
                *future = Future::Pending;
            }
        }
    }

    /// Submits a graph.
    pub fn submit(&mut self, now: f64, tasks: &[TaskDef], wants: &[String]) -> Vec<sched::Event> {
        let keys: Vec<Key> = wants.iter().map(|k| k.as_str().into()).collect();
        self.want(&keys);
        let tasks = tasks.iter().zip(0..).map(|(def, n)| new_task(def, f64::from(n))).collect();
        vec![sched::Event::UpdateGraph(Box::new(sched::UpdateGraph {
            client: self.id.clone(),
            tasks,
            keys,
            submitting_task: None,
            fifo_timeout: 0.1,
            stimulus_id: format!("update-graph-{now}").into(),
        }))]
    }

    /// Gives up keys.
    pub fn release(&mut self, keys: &[String]) -> Vec<sched::Event> {
        let keys = self.drop_futures(keys);
        vec![sched::Event::ClientReleasesKeys { client: self.id.clone(), keys }]
    }

    /// Cancels keys.
    pub fn cancel(&mut self, keys: &[String], force: bool) -> Vec<sched::Event> {
        let keys = self.drop_futures(keys);
        let client = self.id.clone();
        vec![sched::Event::CancelKeys { client, keys, force, reason: None, msg: None }]
    }

    fn drop_futures(&mut self, keys: &[String]) -> Vec<Key> {
        let keys: Vec<Key> = keys.iter().map(|k| Key::from(k.as_str())).collect();
        for key in &keys {
            self.futures.shift_remove(key);
        }
        keys
    }

    /// Hears a message.
    pub fn hear(&mut self, message: SchedulerToClient) {
        match message {
            SchedulerToClient::KeyInMemory(m) => self.set(&m.key, Future::Finished),
            SchedulerToClient::ClientTaskErred(m) => self.set(&m.key, Future::Erred),
            SchedulerToClient::LostData(m) => self.set(&m.key, Future::Pending),
            SchedulerToClient::TaskRetried(m) => self.set(&m.key, Future::Pending),
            SchedulerToClient::CancelledKeys(m) => m.keys.iter().for_each(|key| self.set(key, Future::Cancelled)),
            SchedulerToClient::Restart(_) => self.futures.clear(),
            SchedulerToClient::StreamStart(_)
            | SchedulerToClient::TopicEvent(_)
            | SchedulerToClient::AdjustHeartbeatInterval(_)
            | SchedulerToClient::StreamClosed(_) => {}
        }
    }

    fn set(&mut self, key: &Key, future: Future) {
        // A cancelled future stays so, whatever is still under way or reported of its key; only wanting it again helps.
        if let Some(slot) = self.futures.get_mut(key).filter(|slot| **slot != Future::Cancelled) {
            *slot = future;
        }
    }
}

fn new_task(def: &TaskDef, order: f64) -> sched::NewTask {
    let annotations = sched::Annotations {
        priority: f64::from(def.priority),
        retries: def.retries,
        workers: def.host.iter().cloned().collect(),
        allow_other_workers: def.loose,
        resources: if def.gpus == 0 { Vec::new() } else { vec![("GPU".to_owned(), f64::from(def.gpus))] },
        ..sched::Annotations::default()
    };
    sched::NewTask {
        key: def.key.as_str().into(),
        dependencies: def.deps.iter().map(|k| k.as_str().into()).collect(),
        spec: sched::TaskSpec::Payload(Payload::pickled(Bytes::copy_from_slice(def.key.as_bytes()), Vec::new())),
        runtime: sched::Runtime::Python,
        data_producer: def.data_producer,
        is_task: true,
        is_barrier: false,
        order,
        actor: def.actor,
        annotations: Arc::new(annotations),
    }
}
