//! The two messages that every task needs, packed and read.

use bytes::Bytes;
use dask_protocol::message::{
    ComputeTask, Message, Nbytes, Priority, SchedulerToWorker, StartStop, TaskFinished, WhoHas, WorkerToScheduler,
};
use dask_protocol::{Address, Key, Payload, Value};

/// As many messages as one drain of a busy driver sends to a worker.
pub const BATCH: i64 = 100;

/// A batch of `compute-task` with one dependency each.
pub fn compute_tasks() -> Vec<SchedulerToWorker> {
    (0..BATCH).map(compute_task).collect()
}

/// A batch of `task-finished`.
pub fn tasks_finished() -> Vec<WorkerToScheduler> {
    (0..BATCH).map(task_finished).collect()
}

/// Packs a batch into one message.
///
/// # Panics
/// When it cannot be packed.
pub fn pack<T: serde::Serialize>(batch: &[T]) -> Message {
    Message::encode(batch).expect("messages of ours can be packed")
}

/// Reads what a scheduler sent.
///
/// # Panics
/// When it cannot be read.
pub fn read_by_worker(message: &Message) -> Vec<SchedulerToWorker> {
    message.decode_stream().expect("messages of ours can be read")
}

/// Reads what a worker sent.
///
/// # Panics
/// When it cannot be read.
pub fn read_by_scheduler(message: &Message) -> Vec<WorkerToScheduler> {
    message.decode_stream().expect("messages of ours can be read")
}

fn compute_task(i: i64) -> SchedulerToWorker {
    let dependency = Key::tuple([Key::from("load-0123456789abcdef"), Key::from(i)]);
    ComputeTask {
        key: Key::tuple([Key::from("process-0123456789abcdef"), Key::from(i)]),
        run_id: i,
        priority: Priority::new(0.0, 1.0, 17.0),
        stimulus_id: "compute-task-1700000000.25".into(),
        who_has: WhoHas::from_iter([(dependency.clone(), vec![Address::from("tcp://127.0.0.1:40001")])]),
        nbytes: Nbytes::from_iter([(dependency, 28)]),
        run_spec: Payload::pickled(Bytes::from(vec![b'x'; 150]), vec![]),
        resource_restrictions: None,
        actor: false,
        annotations: Value::Map(vec![]),
        span_id: None,
    }
    .into()
}

fn task_finished(i: i64) -> WorkerToScheduler {
    TaskFinished {
        key: Key::tuple([Key::from("process-0123456789abcdef"), Key::from(i)]),
        run_id: i,
        nbytes: 28,
        type_pickle: Some(Bytes::from_static(b"\x80\x05\x8c\x08builtins\x94\x8c\x03int\x94\x93\x94.")),
        typename: "int".into(),
        metadata: Value::Map(vec![]),
        thread: Value::Int(140_000_000_000),
        startstops: vec![StartStop { action: "compute".into(), start: 1.0, stop: 2.0, source: None }],
        value: None,
        status: "OK".into(),
        stimulus_id: "task-finished-1700000000.25".into(),
    }
    .into()
}
