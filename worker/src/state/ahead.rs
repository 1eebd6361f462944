//! Tasks so short that handing them over one by one would cost more than they do: the next ones are handed over before the
//! last are done.

use dask_protocol::{Key, Value};
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use super::State;
use super::event::{ExecuteOutcome, Seconds};
use super::task::{Computation, TaskId};

/// As many tasks may wait at their executor as take this long, for each thread ...
const AHEAD_SECONDS: Seconds = 0.005;
/// ... and no more than so many, ...
const AHEAD_TASKS_MAX: u32 = 16;
/// ... unless one of their kind took this long lately: those behind it could have run elsewhere.
const AHEAD_TASK_SECONDS_MAX: Seconds = 0.05;
/// What is left of the longest of the last durations after one more task: half of it after 700.
const LONGEST_KEPT: f64 = 0.999;
/// Kinds that are remembered; beyond, one of them is forgotten for each new one.
const KINDS_MAX: usize = 1024;

/// How long tasks of one kind took lately.
#[derive(Debug, Clone, Copy)]
struct Kind {
    average: Seconds,
    longest: Seconds,
}

/// What is known of each kind of tasks, by dask's `key_split`.
#[derive(Debug, Default)]
pub(crate) struct Kinds(IndexMap<String, Kind, FxBuildHasher>);

impl Kinds {
    fn learn(&mut self, key: &Key, seconds: Seconds) {
        let name = key.prefix();
        if let Some(kind) = self.0.get_mut(&*name) {
            kind.average = 0.5 * (kind.average + seconds);
            kind.longest = seconds.max(LONGEST_KEPT * kind.longest);
            return;
        }
        if self.0.len() >= KINDS_MAX {
            self.0.swap_remove_index(0);
        }
        self.0.insert(name.into_owned(), Kind { average: seconds, longest: seconds });
    }

    /// How many tasks of this one's kind may wait for each thread.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float to int casts saturate")]
    fn ahead(&self, key: &Key) -> u32 {
        let kind = self.0.get(&*key.prefix()).filter(|kind| kind.longest < AHEAD_TASK_SECONDS_MAX);
        kind.map_or(0, |kind| ((AHEAD_SECONDS / kind.average) as u32).min(AHEAD_TASKS_MAX))
    }
}

impl State {
    /// How many tasks like this one may wait for each thread.
    pub(crate) fn ahead(&self, id: TaskId) -> u32 {
        let task = self.task(id);
        let plain = task.computation.as_deref().is_some_and(is_plain);
        if plain { self.kinds.ahead(&task.key) } else { 0 }
    }

    /// Remembers how long a task took.
    pub(crate) fn learn_duration(&mut self, key: &Key, outcome: &ExecuteOutcome) {
        let (ExecuteOutcome::Success { startstops, .. } | ExecuteOutcome::Failure { startstops, .. }) = outcome else {
            return;
        };
        let seconds = startstops.iter().filter(|it| it.action == "compute").map(|it| it.stop - it.start).sum::<f64>();
        if seconds.is_finite() {
            self.kinds.learn(key, seconds.max(0.0));
        }
    }
}

/// Whether nothing about a task asks for a moment, or a place, of its own.
pub(crate) fn is_plain(computation: &Computation) -> bool {
    let unannotated = match &computation.annotations {
        Value::Nil => true,
        Value::Map(entries) => entries.is_empty(),
        _ => false,
    };
    unannotated && computation.resources.is_empty() && !computation.actor
}
