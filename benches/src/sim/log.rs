//! A workload from the event log that `dask-scheduler --event-log FILE` writes.

use std::io::BufRead;

use dask_protocol::Key;
use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::workload::{SimTask, Submission, TaskNo, Workload, number};

/// Longest computation believed, in seconds: a day.
const SECONDS_MAX: f64 = 86_400.0;

/// A line of the log; `dask_scheduler`'s `server/recording.rs` lists the fields.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Line {
    Graph { at: f64, wanted: Vec<String> },
    Task { key: String, dependencies: Vec<String>, order: f64, source: bool },
    Finished { key: String, nbytes: u64, seconds: f64 },
    Worker {},
    WorkerLeft {},
}

/// Why a log cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be read.
    #[error("cannot read the event log: {0}")]
    Read(#[from] std::io::Error),
    /// A line is none of an event log.
    #[error("line {line} of the event log: {error}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// There is nothing to run.
    #[error("the event log holds no tasks")]
    Empty,
}

#[derive(Default)]
struct Reader {
    workload: Workload,
    numbers: FxHashMap<String, TaskNo>,
    /// What the graph being read is for.
    open: Option<Vec<String>>,
    finished: Vec<bool>,
}

/// Reads a log. Tasks that never finished are taken to last and weigh nothing, as are keys that no graph computes; and
/// of a key that comes twice the first counts.
///
/// # Errors
/// [`LogError`].
pub fn read(name: &str, log: impl BufRead) -> Result<Workload, LogError> {
    let mut reader = Reader::default();
    for (line, text) in (1..).zip(log.lines()) {
        let text = text?;
        if !text.trim().is_empty() {
            reader.line(serde_json::from_str(&text).map_err(|error| LogError::Line { line, error })?);
        }
    }
    reader.close_graph();
    let mut workload = reader.workload;
    let begin = workload.submissions.first().ok_or(LogError::Empty)?.at;
    if workload.tasks.is_empty() {
        return Err(LogError::Empty);
    }
    workload.submissions.iter_mut().for_each(|submission| submission.at = (submission.at - begin).max(0.0));
    workload.name = name.to_owned();
    Ok(workload)
}

impl Reader {
    fn line(&mut self, line: Line) {
        match line {
            Line::Graph { at, wanted } => {
                self.close_graph();
                let first = number(self.workload.tasks.len());
                self.workload.submissions.push(Submission { at, first, end: first, wanted: Vec::new() });
                self.open = Some(wanted);
            }
            Line::Task { key, dependencies, order, source } => self.task(key, &dependencies, order, source),
            Line::Finished { key, nbytes, seconds } => {
                if let Some(no) = self.numbers.get(&key) {
                    let task = &mut self.workload.tasks[*no as usize];
                    if !std::mem::replace(&mut self.finished[*no as usize], true) {
                        task.nbytes = nbytes;
                        task.seconds = if seconds > 0.0 { seconds.min(SECONDS_MAX) } else { 0.0 };
                    }
                }
            }
            Line::Worker {} | Line::WorkerLeft {} => {}
        }
    }

    /// Dependencies may come later in the graph: every key gets its number on first sight.
    fn task(&mut self, key: String, dependencies: &[String], order: f64, source: bool) {
        if self.open.is_none() {
            return;
        }
        let no = self.number(key);
        let dependencies: Vec<TaskNo> = dependencies.iter().map(|key| self.number(key.clone())).collect();
        let task = &mut self.workload.tasks[no as usize];
        if task.order < 0.0 {
            (task.dependencies, task.order, task.source) = (dependencies, order.max(0.0), source);
        }
    }

    fn number(&mut self, key: String) -> TaskNo {
        let tasks = &mut self.workload.tasks;
        let finished = &mut self.finished;
        *self.numbers.entry(key).or_insert_with_key(|key| {
            tasks.push(SimTask {
                key: Key::from(key.as_str()),
                dependencies: Vec::new(),
                seconds: 0.0,
                nbytes: 0,
                source: false,
                order: -1.0,
            });
            finished.push(false);
            number(tasks.len() - 1)
        })
    }

    fn close_graph(&mut self) {
        let Some(wanted) = self.open.take() else { return };
        let submission = self.workload.submissions.last_mut().expect("an open graph was submitted");
        submission.end = number(self.workload.tasks.len());
        submission.wanted = wanted.iter().filter_map(|key| self.numbers.get(key)).copied().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"{"type":"worker","at":9.0,"worker":"tcp://a:1","nthreads":2}
{"type":"graph","at":10.0,"tasks":2,"wanted":["y"]}
{"type":"task","key":"y","dependencies":["x"],"order":1.0,"priority":0.0,"source":false}
{"type":"task","key":"x","dependencies":[],"order":0.0,"priority":0.0,"source":true}
{"type":"finished","at":11.0,"key":"x","worker":"tcp://a:1","nbytes":800,"seconds":0.5}
{"type":"graph","at":12.5,"tasks":1,"wanted":["z"]}
{"type":"task","key":"z","dependencies":["y"],"order":0.0,"priority":0.0,"source":false}
{"type":"finished","at":13.0,"key":"y","worker":"tcp://a:1","nbytes":8,"seconds":0.25}
"#;

    #[test]
    fn a_log_becomes_a_workload() {
        let workload = read("log", LOG.as_bytes()).expect("a log");
        let task = |name: &str| workload.tasks.iter().find(|task| task.key == Key::from(name)).expect("it is there");
        assert_eq!((task("x").seconds, task("x").nbytes, task("x").source), (0.5, 800, true));
        assert_eq!(workload.tasks[task("y").dependencies[0] as usize].key, Key::from("x"));
        assert_eq!(workload.submissions.iter().map(|s| s.at).collect::<Vec<_>>(), [0.0, 2.5]);
        assert_eq!(workload.work(), 0.75);
    }

    #[test]
    fn other_files_are_refused() {
        assert!(matches!(read("log", &b""[..]), Err(LogError::Empty)));
        assert!(matches!(read("log", &b"{}\n"[..]), Err(LogError::Line { line: 1, .. })));
    }
}
