//! Takes in graphs for a Python process that checks the outcome (`python/check_intake.py`).
//!
//! Reads requests from standard input and writes replies to standard output, each a msgpack map behind its length in four
//! little-endian bytes. The Python of the helpers is found as the scheduler finds it: `DASK_PYTHON`, ...

use std::io::{self, Read, Write};
use std::time::Instant;

use bytes::Bytes;
use dask_protocol::message::{Keys, UpdateGraph};
use dask_protocol::{Key, Payload, PayloadKind, Value};
use dask_scheduler::graph::helper::HelperOptions;
use dask_scheduler::graph::intake::Intake;
use dask_scheduler::state::NewTask;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Request {
    header: Bytes,
    frames: Vec<Bytes>,
    keys: Keys,
    annotations: Bytes,
}

#[derive(Serialize, Default)]
struct Reply {
    tasks: Vec<Task>,
    error: Option<String>,
    exception: Value,
    seconds: f64,
    barriers: Vec<(Key, u64, usize)>,
}

#[derive(Serialize)]
struct Task {
    key: Key,
    dependencies: Vec<Key>,
    order: f64,
    data_producer: bool,
    is_task: bool,
    pickle: Bytes,
    buffers: Vec<Bytes>,
    priority: f64,
    retries: u32,
    workers: Vec<String>,
    resources: Vec<(String, f64)>,
    annotations: String,
}

fn task(task: NewTask) -> Result<Task, Box<dyn std::error::Error>> {
    let payload = task.spec.to_payload();
    let pickle = payload.sub_header()?.pickled_obj.ok_or("a task without a pickle")?;
    Ok(Task {
        key: task.key,
        dependencies: task.dependencies,
        order: task.order,
        data_producer: task.data_producer,
        is_task: task.is_task,
        pickle,
        buffers: payload.frames().to_vec(),
        priority: task.annotations.priority,
        retries: task.annotations.retries,
        workers: task.annotations.workers.clone(),
        resources: task.annotations.resources.clone(),
        annotations: format!("{:?}", task.annotations.echoed),
    })
}

async fn answer(intake: &Intake, request: Request) -> Result<Reply, Box<dyn std::error::Error>> {
    let message = UpdateGraph {
        expr_ser: Payload::from_raw(PayloadKind::Serialized, request.header, request.frames).into(),
        keys: request.keys,
        internal_priority: None,
        submitting_task: None,
        fifo_timeout: "60s".into(),
        actors: Value::Nil,
        code: Value::Nil,
        annotations: Payload::pickled(request.annotations, Vec::new()).into(),
        span_metadata: Value::Nil,
        client: None,
        user_priority: None,
    };
    let start = Instant::now();
    match intake.materialize("Client-example".into(), message, "example".into()).await {
        Ok(graph) => {
            let seconds = start.elapsed().as_secs_f64();
            let barriers = graph.barriers.into_iter().map(|(key, facts)| (key, facts.count, facts.partitions.len()));
            let barriers = barriers.collect();
            let tasks = graph.update.tasks.into_iter().map(task).collect::<Result<_, _>>()?;
            Ok(Reply { tasks, seconds, barriers, ..Reply::default() })
        }
        Err(error) => {
            let info = error.to_error_info();
            Ok(Reply { error: Some(info.exception_text.to_string()), exception: info.exception, ..Reply::default() })
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let intake = Intake::new(HelperOptions::default());
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut length = [0; 4];
    while input.read_exact(&mut length).is_ok() {
        let mut packed = vec![0; u32::from_le_bytes(length) as usize];
        input.read_exact(&mut packed)?;
        let request: Request = rmp_serde::from_slice(&packed)?;
        let reply = rmp_serde::to_vec_named(&runtime.block_on(answer(&intake, request))?)?;
        output.write_all(&u32::try_from(reply.len())?.to_le_bytes())?;
        output.write_all(&reply)?;
        output.flush()?;
    }
    Ok(())
}
