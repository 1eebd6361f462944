//! What is known about workers that died: how, with how much memory, at what, and what they said last.
//!
//! A worker whose Python process dies tells of it itself; of its own end only its nanny can. Either comes as an event of
//! the topic [`TOPIC`], before or after the worker's removal.

use std::fmt::{self, Display, Formatter};

use dask_protocol::{Address, Key, Value};
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use super::State;
use super::errors::format_bytes;
use super::event::Seconds;
use super::explain::Incident;
use super::ids::WorkerId;

/// The topic of events with which workers and nannies tell of a death.
pub const TOPIC: &str = "worker-post-mortem";

/// Deaths remembered.
const DEATHS_MAX: usize = 100;
/// Figures of memory kept for each.
pub(super) const SAMPLES_MAX: usize = 20;
/// Keys kept for each.
const KEYS_MAX: usize = 10;
/// Lines of its log kept for each, and characters of one.
const LINES_MAX: usize = 20;
const LINE_CHARACTERS_MAX: usize = 500;

/// How one worker ended.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PostMortem {
    /// When it was removed.
    pub at: Option<Seconds>,
    /// How its process ended, in words, once it is told.
    pub exit: Option<String>,
    /// Bytes of memory it used, and when, oldest first.
    pub memory: Vec<(Seconds, u64)>,
    /// Its limit, in bytes; 0 for none.
    pub memory_limit: u64,
    /// What it ran.
    pub executing: Vec<Key>,
    /// How many tasks it had been given.
    pub processing: usize,
    /// The last lines of its log.
    pub log: Vec<String>,
}

impl PostMortem {
    /// Takes in what a peer tells. Fields that are absent or of another type are left alone.
    fn learn(&mut self, report: &Value) {
        // Who tells first was closest to it: the worker itself, of what its nanny sees as the worker's end.
        if let (None, Some(exit)) = (&self.exit, report.get("exit").and_then(Value::as_str)) {
            self.exit = Some(exit.chars().take(LINE_CHARACTERS_MAX).collect());
        }
        let items = |name| report.get(name).and_then(Value::as_items).unwrap_or_default();
        let memory = items("memory").iter().filter_map(|sample| {
            let [at, bytes] = sample.as_items()? else { return None };
            Some((at.as_f64()?, u64::try_from(bytes.as_i64()?).ok()?))
        });
        let memory: Vec<_> = memory.collect();
        if !memory.is_empty() {
            self.memory = memory[memory.len().saturating_sub(SAMPLES_MAX)..].to_vec();
        }
        let executing: Vec<Key> = items("executing").iter().filter_map(Value::to_key).take(KEYS_MAX).collect();
        if !executing.is_empty() {
            self.executing = executing;
        }
        let log = items("log");
        if !log.is_empty() {
            let last = log[log.len().saturating_sub(LINES_MAX)..].iter().filter_map(Value::as_str);
            self.log = last.map(|line| line.chars().take(LINE_CHARACTERS_MAX).collect()).collect();
        }
    }
}

impl Display for PostMortem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.exit.as_deref().unwrap_or("ended in a way that nobody has told yet"))?;
        if !self.executing.is_empty() {
            let keys: Vec<String> = self.executing.iter().map(Key::to_string).collect();
            write!(f, "; it was executing {}", keys.join(", "))?;
        }
        if self.processing > self.executing.len() {
            write!(f, " ({} tasks had been sent to it)", self.processing)?;
        }
        if let (Some((_, last)), Some(peak)) = (self.memory.last(), self.memory.iter().map(|(_, bytes)| bytes).max()) {
            write!(f, "\nmemory: {} at the end, {} at most", human(*last), human(*peak))?;
            if self.memory_limit > 0 {
                write!(f, ", limit {}", human(self.memory_limit))?;
            }
            let end = self.at.or(self.memory.last().map(|(at, _)| *at)).unwrap_or_default();
            let curve = self.memory.iter().map(|(at, bytes)| format!("{} at {:+.1} s", human(*bytes), at - end));
            write!(f, "\n  {}", curve.collect::<Vec<_>>().join(", "))?;
        }
        if !self.log.is_empty() {
            write!(f, "\nits last log lines:")?;
            self.log.iter().try_for_each(|line| write!(f, "\n  {}", line.replace('\n', "\n    ")))?;
        }
        Ok(())
    }
}

fn human(bytes: u64) -> String {
    format_bytes(u128::from(bytes))
}

/// The latest deaths, by address, oldest first.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    by_worker: IndexMap<Address, PostMortem, FxBuildHasher>,
}

impl Deaths {
    fn of(&mut self, worker: &Address) -> &mut PostMortem {
        if !self.by_worker.contains_key(worker) && self.by_worker.len() >= DEATHS_MAX {
            self.by_worker.shift_remove_index(0);
        }
        self.by_worker.entry(worker.clone()).or_default()
    }
}

impl State {
    /// Somebody tells how a worker ended.
    pub(super) fn take_post_mortem(&mut self, worker: &Address, report: &Value) {
        let death = self.deaths.of(worker);
        death.learn(report);
        tracing::warn!(target: "distributed.scheduler", "Worker {worker} {death}");
    }

    /// A worker leaves without having said so: what is known of it is kept.
    pub(super) fn note_death(&mut self, id: WorkerId) {
        let worker = &self.workers[id];
        let keys = worker.processing.iter().take(KEYS_MAX).filter_map(|task| Some(self.tasks.get(task)?.key.clone()));
        let keys: Vec<Key> = keys.collect();
        let death = self.deaths.of(&worker.address);
        death.at = Some(self.now);
        death.memory_limit = worker.memory_limit;
        death.processing = worker.processing.len();
        // With one task for each thread at most, these are what it ran.
        if death.executing.is_empty() && death.processing <= worker.nthreads as usize {
            death.executing = keys;
        }
        if death.memory.is_empty() {
            death.memory = worker.memory_curve.iter().copied().collect();
        }
    }

    /// What is known of the workers that died with a task, `last` among them, as its exception tells it.
    pub(super) fn post_mortems_of(&self, key: &Key, last: &Address) -> Vec<String> {
        let mut workers: Vec<Address> = self.died_with(key);
        if !workers.contains(last) {
            workers.push(last.clone());
        }
        let told = |worker: &Address| Some(format!("Worker {worker} {}", self.deaths.by_worker.get(worker)?));
        workers.iter().filter_map(told).collect()
    }

    /// Workers that died while they had a task, oldest first.
    pub(super) fn died_with(&self, key: &Key) -> Vec<Address> {
        let died = |incident: Incident| match incident {
            Incident::WorkerLeft { worker, expected: false, .. } => Some(worker),
            _ => None,
        };
        self.incidents.about(key).into_iter().filter_map(|(_, incident)| died(incident)).collect()
    }

    /// What is known of a worker that died.
    pub fn post_mortem(&self, worker: &Address) -> Option<&PostMortem> {
        self.deaths.by_worker.get(worker)
    }

    /// The latest deaths, newest first.
    pub fn post_mortems(&self) -> impl Iterator<Item = (&Address, &PostMortem)> {
        self.deaths.by_worker.iter().rev()
    }
}
