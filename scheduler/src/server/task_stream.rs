//! Records of tasks that ran, for `get_task_stream`.

use std::collections::VecDeque;

use dask_protocol::message::{StartStop, TaskErred, TaskFinished, WorkerToScheduler};
use dask_protocol::{Address, Key, Value};

use super::packed::Packed;
use crate::state::Seconds;

/// Bytes of records kept: so many for each, where one has some 500 unless its task raised.
const BYTES_PER_RECORD: usize = 1 << 10;

/// A ring of records. It is empty until somebody asks for the first time.
pub(crate) struct TaskStream {
    enabled: bool,
    /// Records kept (`scheduler.dashboard.tasks.task-stream-length`).
    length: usize,
    records: VecDeque<Kept>,
    bytes: usize,
    /// Records made so far.
    index: u64,
}

struct Kept {
    stop: Seconds,
    fields: Packed,
}

/// One task that finished or erred.
pub(crate) struct Record {
    /// Its key.
    pub(crate) key: Key,
    stop: Seconds,
    /// What the worker told, by upstream's names.
    pub(crate) fields: Value,
}

impl Record {
    /// What a worker's message tells of a task that it ends; none for other messages.
    pub(crate) fn of(worker: &Address, message: &WorkerToScheduler) -> Option<Record> {
        let (key, mut fields, startstops) = match message {
            WorkerToScheduler::TaskFinished(finished) => {
                (&finished.key, finished_fields(finished), &finished.startstops)
            }
            WorkerToScheduler::TaskErred(erred) => (&erred.key, erred_fields(erred), &erred.startstops),
            _ => return None,
        };
        let stop = startstops.iter().map(|part| part.stop).fold(f64::NEG_INFINITY, f64::max);
        fields.push(("worker", worker.as_str().into()));
        fields.push(("startstops", Value::Array(startstops.iter().map(start_stop).collect())));
        Some(Record { key: key.clone(), stop, fields: Value::map(fields) })
    }
}

/// Which records are wanted; names as the arguments of `get_task_stream`.
#[derive(Debug, Default, Clone)]
pub(crate) struct Wanted {
    pub(crate) start: Option<Seconds>,
    pub(crate) stop: Option<Seconds>,
    pub(crate) count: Option<usize>,
    pub(crate) start_index: Option<u64>,
}

impl TaskStream {
    /// Keeps so many, from the first question on.
    pub(crate) fn new(length: usize) -> TaskStream {
        TaskStream { enabled: false, length, records: VecDeque::new(), bytes: 0, index: 0 }
    }

    /// How many records were made so far; from the first call on they are.
    pub(crate) fn index(&mut self) -> u64 {
        self.enabled = true;
        self.index
    }

    /// Whether somebody has asked, so that records are kept.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Keeps a record, if somebody has asked for any.
    pub(crate) fn add(&mut self, record: &Record) {
        if !self.enabled {
            return;
        }
        let kept = Kept { stop: record.stop, fields: Packed::new(&record.fields) };
        self.bytes += kept.fields.len();
        self.records.push_back(kept);
        self.index += 1;
        while self.records.len() > self.length || self.bytes > self.length.saturating_mul(BYTES_PER_RECORD) {
            self.bytes -= self.records.pop_front().map_or(0, |oldest| oldest.fields.len());
        }
    }

    /// The records asked for, oldest first.
    pub(crate) fn collect(&mut self, wanted: &Wanted) -> Vec<Value> {
        let (len, gone) = (self.records.len(), self.index() - self.records.len() as u64);
        if let Some(index) = wanted.start_index {
            let from = usize::try_from(index.saturating_sub(gone)).unwrap_or(len).min(len);
            return self.records.range(from..).map(|record| record.fields.unpack()).collect();
        }
        let at = |moment: Seconds| self.records.partition_point(|record| record.stop < moment);
        let (start, stop) = (wanted.start.map(at), wanted.stop.map(at));
        let (start, stop) = match (start, stop, wanted.count) {
            (None, None, Some(count)) => (len.saturating_sub(count), len),
            (None, Some(stop), Some(count)) => (stop.saturating_sub(count), stop),
            (Some(start), None, Some(count)) => (start, start.saturating_add(count)),
            (start, stop, _) => (start.unwrap_or(0), stop.unwrap_or(len)),
        };
        let stop = stop.min(len);
        self.records.range(start.min(stop)..stop).map(|record| record.fields.unpack()).collect()
    }
}

type Fields = Vec<(&'static str, Value)>;

fn finished_fields(finished: &TaskFinished) -> Fields {
    vec![
        ("key", Value::from(&finished.key)),
        ("stimulus_id", (*finished.stimulus_id).into()),
        ("status", finished.status.as_str().into()),
        ("nbytes", finished.nbytes.into()),
        ("type", finished.type_pickle.clone().into()),
        ("typename", finished.typename.as_str().into()),
        ("metadata", finished.metadata.clone()),
        ("thread", finished.thread.clone()),
        ("run_id", finished.run_id.into()),
    ]
}

fn erred_fields(erred: &TaskErred) -> Fields {
    vec![
        ("key", Value::from(&erred.key)),
        ("stimulus_id", (*erred.stimulus_id).into()),
        ("status", erred.status.as_str().into()),
        ("cause", Value::from(&erred.key)),
        ("exception", erred.exception.clone()),
        ("traceback", erred.traceback.clone()),
        ("exception_text", erred.exception_text.as_str().into()),
        ("traceback_text", erred.traceback_text.as_str().into()),
        ("thread", erred.thread.clone()),
        ("run_id", erred.run_id.into()),
    ]
}

fn start_stop(part: &StartStop) -> Value {
    let mut fields =
        vec![("action", part.action.as_str().into()), ("start", part.start.into()), ("stop", part.stop.into())];
    fields.extend(part.source.as_ref().map(|source| ("source", source.as_str().into())));
    Value::map(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(i: u32) -> WorkerToScheduler {
        let start_stop =
            StartStop { action: "compute".into(), start: f64::from(i), stop: f64::from(i) + 0.5, source: None };
        WorkerToScheduler::TaskFinished(TaskFinished {
            key: i64::from(i).into(),
            run_id: 0,
            nbytes: 1,
            type_pickle: None,
            typename: "int".into(),
            metadata: Value::Nil,
            thread: Value::Nil,
            startstops: vec![start_stop],
            value: None,
            status: "OK".into(),
            stimulus_id: "s".into(),
        })
    }

    const LENGTH: usize = 100;

    fn record(i: u32) -> Record {
        Record::of(&"tcp://h:1".into(), &finished(i)).expect("it ends a task")
    }

    #[test]
    fn nothing_is_wanted_before_the_first_question() {
        let mut stream = TaskStream::new(LENGTH);
        stream.add(&record(0));
        assert_eq!(stream.index(), 0);
        stream.add(&record(0));
        assert_eq!(stream.index(), 1);
    }

    #[test]
    fn records_are_found_by_index_time_and_count() {
        let mut stream = TaskStream::new(LENGTH);
        stream.index();
        (0..10).for_each(|i| stream.add(&record(i)));
        let keys = |stream: &mut TaskStream, wanted: Wanted| -> Vec<i64> {
            stream.collect(&wanted).iter().filter_map(|record| record.get("key")?.as_i64()).collect()
        };
        assert_eq!(keys(&mut stream, Wanted { start_index: Some(8), ..Wanted::default() }), [8, 9]);
        assert_eq!(keys(&mut stream, Wanted { count: Some(2), ..Wanted::default() }), [8, 9]);
        assert_eq!(keys(&mut stream, Wanted { start: Some(7.0), ..Wanted::default() }), [7, 8, 9]);
        let between = Wanted { start: Some(2.0), stop: Some(4.0), ..Wanted::default() };
        assert_eq!(keys(&mut stream, between), [2, 3]);
        assert_eq!(keys(&mut stream, Wanted { start_index: Some(99), ..Wanted::default() }), [0_i64; 0]);
    }
}
