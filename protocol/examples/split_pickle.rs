//! Splits pickled graphs for a Python process that checks the outcome (`tests/data/make_pickles.py`).
//!
//! Reads requests from standard input and writes replies to standard output, each a msgpack map behind its length in
//! four little-endian bytes.

use std::io::{self, Read, Write};
use std::time::Instant;

use bytes::Bytes;
use dask_protocol::Key;
use dask_protocol::pickle::{
    Graph, Intake, KilledWorker, NoValidWorkerError, NoWorkerError, builtin_exception, dumps_plain, loads_plain,
    read_expression, read_task_dict, timeout_error, write_exception,
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Request {
    /// `expression` or `dict` to split, `plain` to read and write back, `exceptions` for one of each kind.
    mode: String,
    pickle: Bytes,
    buffers: Vec<Bytes>,
}

#[derive(Serialize, Default)]
struct Reply {
    tasks: Vec<Task>,
    needs_python: Option<String>,
    error: Option<String>,
    /// Pickles, each with what it should print as.
    pickles: Vec<(String, Bytes)>,
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
        "plain" => return plain(request),
        "exceptions" => return exceptions(),
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

fn plain(request: &Request) -> Reply {
    match loads_plain(&request.pickle, &request.buffers) {
        Ok(value) => Reply { pickles: vec![(String::new(), dumps_plain(&value))], ..Reply::default() },
        Err(error) => Reply { error: Some(error.to_string()), ..Reply::default() },
    }
}

fn exceptions() -> Reply {
    let key = Key::tuple([Key::from("x"), Key::from(1)]);
    let resources = [("GPU".to_owned(), 1.0)].into_iter().collect();
    let all = [
        KilledWorker { task: &key, last_worker: "tcp://127.0.0.1:1", allowed_failures: 3, notes: &[] }.pickled(),
        NoWorkerError { task: &key, timeout: 1.5 }.pickled(),
        NoValidWorkerError {
            task: &key,
            host_restrictions: &["h".to_owned()],
            worker_restrictions: &[],
            resource_restrictions: &resources,
            timeout: 1.5,
        }
        .pickled(),
        builtin_exception("MemoryError", "it's \"big\""),
        timeout_error("late"),
    ];
    let noted = write_exception("builtins", "ValueError", &["no".into(), 1.into()], &["a note"]);
    let pickles = all.into_iter().map(|exception| (exception.text, exception.pickle));
    Reply { pickles: pickles.chain([("ValueError('no', 1)".to_owned(), noted)]).collect(), ..Reply::default() }
}

fn tasks(graph: Graph) -> Vec<Task> {
    let task = |task: dask_protocol::pickle::GraphTask| Task {
        key: task.key,
        dependencies: task.dependencies,
        class: format!("{:?}", task.class),
        data_producer: task.data_producer,
        prefix: Bytes::copy_from_slice(task.spec.prefix()),
        body: task.spec.body().clone(),
        buffers: task.spec.buffers().to_vec(),
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
