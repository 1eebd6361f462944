//! A recording of what a cluster computed, as JSON lines, for `dask-sim run --log` to run again.
//!
//! Each line is an object; the field `type` says what it is:
//!
//! | type | fields |
//! |---|---|
//! | `worker` | `at`, `worker` (address), `nthreads` |
//! | `worker-left` | `at`, `worker` |
//! | `graph` | `at`, `tasks` (how many `task` lines follow), `wanted` (keys) |
//! | `task` | `key`, `dependencies` (keys), `order`, `priority` (the user's), `source` (whether it is a data producer) |
//! | `finished` | `at`, `key`, `worker`, `nbytes`, `seconds` (of computing) |
//!
//! `at` is in seconds since the epoch; keys are written as Python prints them. The driver hands over what it has at hand;
//! a thread of its own writes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use dask_protocol::message::WorkerToScheduler;
use dask_protocol::{Address, Key};
use serde_json::json;
use tracing::{error, info};

use crate::state::{Event, Seconds, UpdateGraph};

/// Most records that wait to be written: about 20 MB. A disk that falls further behind ends the recording.
const RECORDS_WAITING_MAX: usize = 100_000;

/// What is written.
enum Record {
    Worker { at: Seconds, worker: Address, nthreads: u32 },
    WorkerLeft { at: Seconds, worker: Address },
    Graph { at: Seconds, tasks: Vec<Task>, wanted: Vec<Key> },
    Finished { at: Seconds, key: Key, worker: Address, nbytes: i64, seconds: Seconds },
}

struct Task {
    key: Key,
    dependencies: Vec<Key>,
    order: f64,
    priority: f64,
    source: bool,
}

/// A recording under way. It ends when it is dropped.
pub(crate) struct Recording {
    records: Option<SyncSender<Record>>,
}

impl Recording {
    /// Creates the file, and the thread that writes to it.
    ///
    /// # Errors
    /// When the file or the thread cannot be made.
    pub(crate) fn start(path: &Path) -> io::Result<Recording> {
        let file = BufWriter::new(File::create(path)?);
        let (sender, receiver) = sync_channel(RECORDS_WAITING_MAX);
        let name = path.display().to_string();
        std::thread::Builder::new().name("event-log".to_owned()).spawn(move || {
            if let Err(error) = write_all(file, &receiver) {
                error!(target: "distributed.scheduler", "Cannot write the event log {name}: {error}");
            }
        })?;
        info!(target: "distributed.scheduler", "Event log: {}", path.display());
        Ok(Recording { records: Some(sender) })
    }

    /// Takes down an event that the state is about to handle.
    pub(crate) fn note(&mut self, at: Seconds, event: &Event) {
        let record = match event {
            Event::UpdateGraph(graph) => graph_record(at, graph),
            Event::AddWorker(worker) => {
                Record::Worker { at, worker: worker.address.clone(), nthreads: worker.nthreads }
            }
            Event::RemoveWorker { worker, .. } => Record::WorkerLeft { at, worker: worker.clone() },
            Event::WorkerMessage { worker, message: WorkerToScheduler::TaskFinished(finished) } => {
                let computing = finished.startstops.iter().filter(|part| part.action == "compute");
                let seconds = computing.map(|part| part.stop - part.start).sum();
                let (key, worker) = (finished.key.clone(), worker.clone());
                Record::Finished { at, key, worker, nbytes: finished.nbytes, seconds }
            }
            _ => return,
        };
        let Some(records) = &self.records else { return };
        if let Err(refused) = records.try_send(record) {
            let why = match refused {
                TrySendError::Full(_) => "the disk is too slow",
                TrySendError::Disconnected(_) => "its writer has ended",
            };
            error!(target: "distributed.scheduler", "The event log ends here: {why}");
            self.records = None;
        }
    }
}

fn graph_record(at: Seconds, graph: &UpdateGraph) -> Record {
    let task = |task: &crate::state::NewTask| Task {
        key: task.key.clone(),
        dependencies: task.dependencies.clone(),
        order: task.order,
        priority: task.annotations.priority,
        source: task.data_producer,
    };
    Record::Graph { at, tasks: graph.tasks.iter().map(task).collect(), wanted: graph.keys.clone() }
}

fn write_all(mut file: impl Write, records: &Receiver<Record>) -> io::Result<()> {
    while let Ok(record) = records.recv() {
        write_record(&mut file, record)?;
        for record in records.try_iter() {
            write_record(&mut file, record)?;
        }
        file.flush()?;
    }
    Ok(())
}

fn write_record(file: &mut impl Write, record: Record) -> io::Result<()> {
    let names = |keys: &[Key]| keys.iter().map(Key::to_string).collect::<Vec<_>>();
    match record {
        Record::Worker { at, worker, nthreads } => {
            writeln!(file, "{}", json!({"type": "worker", "at": at, "worker": worker.as_str(), "nthreads": nthreads}))
        }
        Record::WorkerLeft { at, worker } => {
            writeln!(file, "{}", json!({"type": "worker-left", "at": at, "worker": worker.as_str()}))
        }
        Record::Graph { at, tasks, wanted } => {
            let graph = json!({"type": "graph", "at": at, "tasks": tasks.len(), "wanted": names(&wanted)});
            writeln!(file, "{graph}")?;
            tasks.iter().try_for_each(|task| {
                let task = json!({
                    "type": "task", "key": task.key.to_string(), "dependencies": names(&task.dependencies),
                    "order": task.order, "priority": task.priority, "source": task.source,
                });
                writeln!(file, "{task}")
            })
        }
        Record::Finished { at, key, worker, nbytes, seconds } => {
            let finished = json!({
                "type": "finished", "at": at, "key": key.to_string(), "worker": worker.as_str(), "nbytes": nbytes,
                "seconds": seconds,
            });
            writeln!(file, "{finished}")
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dask_protocol::message::{StartStop, TaskFinished};
    use dask_protocol::{Payload, Value};

    use super::*;
    use crate::state::{NewTask, Runtime, TaskSpec};

    fn task(key: &str, dependencies: &[&str]) -> NewTask {
        NewTask {
            key: key.into(),
            dependencies: dependencies.iter().map(|key| Key::from(*key)).collect(),
            spec: TaskSpec::Payload(Payload::pickled(Bytes::new(), Vec::new())),
            runtime: Runtime::Python,
            data_producer: dependencies.is_empty(),
            is_task: true,
            is_barrier: false,
            order: 0.0,
            actor: false,
            annotations: Default::default(),
        }
    }

    fn finished(key: &str) -> Event {
        let part = |action: &str, stop| StartStop { action: action.into(), start: 1.0, stop, source: None };
        let message = TaskFinished {
            key: key.into(),
            run_id: 1,
            nbytes: 800,
            type_pickle: None,
            typename: "int".into(),
            metadata: Value::Nil,
            thread: Value::Nil,
            startstops: vec![part("transfer", 9.0), part("compute", 1.5)],
            value: None,
            status: "OK".into(),
            stimulus_id: "s".into(),
        };
        Event::WorkerMessage { worker: "tcp://a:1".into(), message: message.into() }
    }

    #[test]
    fn graphs_and_results_become_lines() {
        let graph = UpdateGraph {
            client: "c".into(),
            tasks: vec![task("x", &[]), task("y", &["x"])],
            keys: vec!["y".into()],
            submitting_task: None,
            fifo_timeout: 0.0,
            stimulus_id: "s".into(),
        };
        let (sender, receiver) = sync_channel(10);
        let mut recording = Recording { records: Some(sender) };
        recording.note(1.0, &Event::UpdateGraph(Box::new(graph)));
        recording.note(2.0, &Event::AddClient { client: "c".into() });
        recording.note(3.0, &finished("x"));
        drop(recording);
        let mut file = Vec::new();
        write_all(&mut file, &receiver).expect("memory can be written");
        let text = String::from_utf8(file).expect("JSON is text");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("each line is an object")).collect();
        let types: Vec<&str> = lines.iter().filter_map(|line| line["type"].as_str()).collect();
        assert_eq!(types, ["graph", "task", "task", "finished"]);
        assert_eq!(lines[2]["dependencies"], json!(["x"]));
        assert_eq!((&lines[3]["nbytes"], &lines[3]["seconds"]), (&json!(800), &json!(0.5)));
    }

    #[test]
    fn a_writer_that_falls_behind_ends_the_recording() {
        let (sender, receiver) = sync_channel(1);
        let mut recording = Recording { records: Some(sender) };
        for _ in 0..3 {
            recording.note(3.0, &finished("x"));
        }
        assert!(recording.records.is_none());
        assert_eq!(receiver.iter().count(), 1);
    }
}
