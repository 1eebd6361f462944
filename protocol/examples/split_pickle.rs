//! Splits pickled graphs for a Python process that checks the outcome (`tests/data/make_pickles.py`).
//!
//! Reads requests from standard input and writes replies to standard output, each a msgpack map behind its length in
//! four little-endian bytes.

use std::io::{self, Read, Write};
use std::time::Instant;

use bytes::Bytes;
use dask_protocol::Key;
use dask_protocol::pickle::{Graph, Intake, read_expression, read_task_dict};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Request {
    /// `expression` or `dict`.
    mode: String,
    pickle: Bytes,
    buffers: Vec<Bytes>,
}

#[derive(Serialize, Default)]
struct Reply {
    tasks: Vec<Task>,
    needs_python: Option<String>,
    error: Option<String>,
    seconds: f64,
}

#[derive(Serialize)]
struct Task {
    key: Key,
    dependencies: Vec<Key>,
    class: String,
    data_producer: bool,
    prefix: Bytes,
    body: Bytes,
    buffers: Vec<Bytes>,
}

fn answer(request: &Request) -> Reply {
    let start = Instant::now();
    let outcome = match request.mode.as_str() {
        "dict" => read_task_dict(&request.pickle, &request.buffers).map(Intake::Graph),
        _ => read_expression(&request.pickle, &request.buffers),
    };
    let seconds = start.elapsed().as_secs_f64();
    let reply = Reply { seconds, ..Reply::default() };
    match outcome {
        Ok(Intake::Graph(graph)) => Reply { tasks: tasks(graph), ..reply },
        Ok(Intake::NeedsPython(reason)) => Reply { needs_python: Some(reason), ..reply },
        Err(error) => Reply { error: Some(error.to_string()), ..reply },
    }
}

fn tasks(graph: Graph) -> Vec<Task> {
    let task = |task: dask_protocol::pickle::GraphTask| Task {
        key: task.key,
        dependencies: task.dependencies,
        class: format!("{:?}", task.class),
        data_producer: task.data_producer,
        prefix: task.spec.prefix,
        body: task.spec.body,
        buffers: task.spec.buffers,
    };
    graph.tasks.into_iter().map(task).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut len = [0; 4];
    while input.read_exact(&mut len).is_ok() {
        let mut request = vec![0; u32::from_le_bytes(len) as usize];
        input.read_exact(&mut request)?;
        let reply = rmp_serde::to_vec_named(&answer(&rmp_serde::from_slice(&request)?))?;
        output.write_all(&u32::try_from(reply.len())?.to_le_bytes())?;
        output.write_all(&reply)?;
        output.flush()?;
    }
    Ok(())
}
