//! What workers say, as events.

use bytes::Bytes;
use dask_protocol::message::{
    AddKeys, Keys, LongRunning, ReleaseWorkerData, RequestRefreshWhoHas, Reschedule, RunId, StartStop, StealResponse,
    StimulusId, TaskErred, TaskFinished, WorkerStatus, WorkerStatusChange, WorkerToScheduler,
};
use dask_protocol::{Address, Key, Value};
use dask_scheduler::state::{Event, Seconds, WorkerHeartbeat};

fn from(worker: &Address, message: impl Into<WorkerToScheduler>) -> Event {
    Event::WorkerMessage { worker: worker.clone(), message: message.into() }
}

/// A run ends with a result of so many bytes, after so many seconds.
pub fn finished(worker: &Address, key: &Key, run_id: RunId, nbytes: i64, now: Seconds, seconds: Seconds) -> Event {
    let compute = StartStop { action: "compute".into(), start: now, stop: now + seconds, source: None };
    from(
        worker,
        TaskFinished {
            key: key.clone(),
            run_id,
            nbytes,
            type_pickle: Some(Bytes::from_static(b"type")),
            typename: "int".into(),
            metadata: Value::Map(Vec::new()),
            thread: Value::Int(1),
            startstops: vec![compute],
            value: None,
            status: "OK".into(),
            stimulus_id: "task-finished".into(),
        },
    )
}

/// A run raises.
pub fn erred(worker: &Address, key: &Key, run_id: RunId, exception: String) -> Event {
    from(
        worker,
        TaskErred {
            key: key.clone(),
            run_id,
            exception: Value::Str(exception.clone()),
            traceback: Value::Nil,
            exception_text: exception,
            traceback_text: String::new(),
            thread: Value::Nil,
            startstops: Vec::new(),
            status: "error".into(),
            stimulus_id: "task-erred".into(),
        },
    )
}

/// A worker has let go of a task that is to run elsewhere.
pub fn reschedule(worker: &Address, key: &Key) -> Event {
    from(worker, Reschedule { key: key.clone(), stimulus_id: "reschedule".into() })
}

/// A task left its thread pool.
pub fn long_running(worker: &Address, key: &Key, run_id: RunId, compute_duration: Option<Seconds>) -> Event {
    from(worker, LongRunning { key: key.clone(), run_id, compute_duration, stimulus_id: "long-running".into() })
}

/// A worker has got copies.
pub fn add_keys(worker: &Address, keys: Vec<Key>) -> Event {
    from(worker, AddKeys { keys: Keys(keys), stimulus_id: "gather-dep-success".into() })
}

/// A worker dropped a value.
pub fn release_worker_data(worker: &Address, key: &Key) -> Event {
    from(worker, ReleaseWorkerData { key: key.clone(), stimulus_id: "release-worker-data".into() })
}

/// A worker does not find what it needs.
pub fn refresh(worker: &Address, keys: Vec<Key>) -> Event {
    from(worker, RequestRefreshWhoHas { keys: Keys(keys), stimulus_id: "find-missing".into() })
}

/// A worker pauses, goes on, or is about to go.
pub fn status(worker: &Address, status: WorkerStatus) -> Event {
    from(worker, WorkerStatusChange { status, stimulus_id: "worker-status-change".into() })
}

/// What a worker says when a task is asked back: its state there, none if it is unknown.
pub fn steal_response(worker: &Address, key: &Key, state: Option<&str>, stimulus_id: StimulusId) -> Event {
    from(worker, StealResponse { key: key.clone(), state: state.map(str::to_owned), stimulus_id })
}

/// A worker's heartbeat; `memory` in bytes.
pub fn heartbeat(worker: &Address, executing: Vec<(Key, Seconds)>, bandwidth: Option<f64>, memory: u64) -> Event {
    Event::Heartbeat(Box::new(WorkerHeartbeat {
        worker: worker.clone(),
        executing,
        bandwidth,
        memory,
        spilled_memory: 0,
        spilled_disk: 0,
    }))
}
