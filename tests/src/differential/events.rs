//! Events as JSON, for upstream to follow.

use dask_protocol::message::{RunId, StimulusId, WorkerToScheduler};
use dask_protocol::{Address, Key, Value};
use dask_scheduler::state::{Event, NewTask, UpdateGraph};
use rustc_hash::FxHashMap;
use serde_json::{Map, Value as Json, json};

/// The runs of each task so far, oldest first, and likewise what its workers were asked for it back by.
#[derive(Debug, Default)]
pub struct Runs {
    /// By their numbers.
    pub computed: FxHashMap<Key, Vec<RunId>>,
    /// By the requests' ids.
    pub asked_back: FxHashMap<Key, Vec<StimulusId>>,
}

fn keys<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Json {
    keys.into_iter().map(|key| key.to_string().into()).collect::<Vec<Json>>().into()
}

fn amounts<'a>(amounts: impl IntoIterator<Item = (&'a String, &'a f64)>) -> Json {
    let entries: Map<String, Json> = amounts.into_iter().map(|(name, amount)| (name.clone(), json!(amount))).collect();
    entries.into()
}

/// An event as a JSON object; `None` for what upstream has no counterpart of.
pub fn event(event: &Event, runs: &Runs) -> Option<Json> {
    Some(match event {
        Event::AddClient { client } => json!({"op": "add-client", "client": &**client}),
        Event::RemoveClient { client } => json!({"op": "remove-client", "client": &**client}),
        Event::UpdateGraph(graph) => update_graph(graph),
        Event::ClientReleasesKeys { client, keys: released } => {
            json!({"op": "client-releases-keys", "client": &**client, "keys": keys(released)})
        }
        Event::ClientDesiresKeys { client, keys: desired } => {
            json!({"op": "client-desires-keys", "client": &**client, "keys": keys(desired)})
        }
        Event::CancelKeys { client, keys: cancelled, force, .. } => {
            json!({"op": "cancel-keys", "client": &**client, "keys": keys(cancelled), "force": force})
        }
        Event::ReportKey { client, key } => json!({"op": "report-key", "client": &**client, "key": key.to_string()}),
        Event::UpdateData { data, client, .. } => {
            let data: Vec<Json> = data
                .iter()
                .map(|(key, on, nbytes)| {
                    json!([key.to_string(), on.iter().map(|a| a.as_str()).collect::<Vec<_>>(), nbytes])
                })
                .collect();
            json!({"op": "update-data", "data": data, "client": client.as_deref()})
        }
        Event::Retry { keys: retried, .. } => json!({"op": "retry", "keys": keys(retried)}),
        Event::AddWorker(worker) => json!({
            "op": "add-worker", "worker": worker.address.as_str(), "name": worker.name.as_str(),
            "nthreads": worker.nthreads, "memory_limit": worker.memory_limit, "status": worker.status.name(),
            "resources": amounts(worker.resources.iter().map(|(name, amount)| (name, amount))),
        }),
        Event::RemoveWorker { worker, expected, close, .. } => {
            json!({"op": "remove-worker", "worker": worker.as_str(), "expected": expected, "close": close})
        }
        // Upstream knows no such event.
        Event::PostMortem { .. } => return None,
        Event::Heartbeat(heartbeat) => json!({
            "op": "heartbeat", "worker": heartbeat.worker.as_str(), "bandwidth": heartbeat.bandwidth,
            "memory": heartbeat.memory,
            "executing": heartbeat.executing.iter().map(|(key, s)| json!([key.to_string(), s])).collect::<Vec<_>>(),
        }),
        Event::WorkerMessage { worker, message } => {
            let mut json = worker_message(message, runs)?;
            json["worker"] = worker.as_str().into();
            json
        }
        Event::SetResources { worker, resources } => json!({
            "op": "set-resources", "worker": worker.as_str(),
            "resources": amounts(resources.iter().map(|(name, amount)| (name, amount))),
        }),
        Event::SetWorkerStatus { worker, status, .. } => {
            json!({"op": "worker-status-change", "worker": worker.as_str(), "status": status.name()})
        }
        Event::Restart { .. } => json!({"op": "restart"}),
        Event::RetireWorkers { workers, remove, close, token, .. } => json!({
            "op": "retire-workers", "workers": workers.iter().map(Address::as_str).collect::<Vec<_>>(),
            "remove": remove, "close": close, "token": token,
        }),
        Event::RunActiveMemoryManager => json!({"op": "run-amm"}),
        // A round of stealing, and a look at who retires.
        Event::Timeout => json!({"op": "timeout"}),
        Event::UpdateGraphFailed { .. }
        | Event::ReplicasAdded { .. }
        | Event::ReplicasRemoved { .. }
        | Event::DropReplicas { .. }
        | Event::SetRestrictions { .. }
        | Event::RestartShuffle { .. }
        | Event::ShuffleStarted { .. }
        | Event::SetActiveMemoryManager { .. } => return None,
    })
}

fn update_graph(graph: &UpdateGraph) -> Json {
    json!({
        "op": "update-graph", "client": &*graph.client, "keys": keys(&graph.keys),
        "tasks": graph.tasks.iter().map(task).collect::<Vec<_>>(),
        "submitting_task": graph.submitting_task.as_ref().map(ToString::to_string),
        "fifo_timeout": graph.fifo_timeout,
    })
}

fn task(task: &NewTask) -> Json {
    let annotations = &task.annotations;
    json!({
        "key": task.key.to_string(), "deps": keys(&task.dependencies), "order": task.order, "actor": task.actor,
        "data_producer": task.data_producer, "literal": !task.is_task, "priority": annotations.priority,
        "retries": annotations.retries, "workers": annotations.workers, "loose": annotations.allow_other_workers,
        "resources": amounts(annotations.resources.iter().map(|(name, amount)| (name, amount))),
    })
}

fn worker_message(message: &WorkerToScheduler, runs: &Runs) -> Option<Json> {
    let back = |key: &Key, run: RunId| {
        let runs = runs.computed.get(key).map_or(&[][..], Vec::as_slice);
        runs.iter().rev().position(|other| *other == run)
    };
    let requests = |key: &Key| runs.asked_back.get(key).map_or(&[][..], Vec::as_slice);
    Some(match message {
        WorkerToScheduler::TaskFinished(m) => json!({
            "op": "task-finished", "key": m.key.to_string(), "back": back(&m.key, m.run_id)?, "nbytes": m.nbytes,
            "typename": m.typename,
            "startstops": m.startstops.iter().map(|s| json!([s.action, s.start, s.stop])).collect::<Vec<_>>(),
        }),
        WorkerToScheduler::TaskErred(m) => json!({
            "op": "task-erred", "key": m.key.to_string(), "back": back(&m.key, m.run_id)?, "exception": text(&m.exception),
        }),
        WorkerToScheduler::ReleaseWorkerData(m) => json!({"op": "release-worker-data", "key": m.key.to_string()}),
        WorkerToScheduler::AddKeys(m) => json!({"op": "add-keys", "keys": keys(m.keys.iter())}),
        WorkerToScheduler::LongRunning(m) => json!({
            "op": "long-running", "key": m.key.to_string(), "back": back(&m.key, m.run_id)?,
            "compute_duration": m.compute_duration,
        }),
        WorkerToScheduler::Reschedule(m) => json!({"op": "reschedule", "key": m.key.to_string()}),
        WorkerToScheduler::RequestRefreshWhoHas(m) => {
            json!({"op": "request-refresh-who-has", "keys": keys(m.keys.iter())})
        }
        WorkerToScheduler::WorkerStatusChange(m) => json!({"op": "worker-status-change", "status": m.status.name()}),
        WorkerToScheduler::StealResponse(m) => json!({
            "op": "steal-response", "key": m.key.to_string(), "state": m.state,
            "back": requests(&m.key).iter().rev().position(|other| *other == m.stimulus_id)?,
        }),
        WorkerToScheduler::LogEvent(_) | WorkerToScheduler::KeepAlive(_) | WorkerToScheduler::CloseStream(_) => {
            return None;
        }
    })
}

/// An exception as it is compared: the scenario's own by their text, those of the scheduler as such.
pub fn text(exception: &Value) -> String {
    match exception {
        Value::Str(text) => text.clone(),
        Value::Nil => "none".to_owned(),
        _ => "the scheduler's".to_owned(),
    }
}
