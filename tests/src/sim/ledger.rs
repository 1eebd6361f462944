//! Who ran what, in runs without faults: nothing that is stored is computed again, and nothing runs twice at once.

use dask_protocol::Key;
use indexmap::{IndexMap, IndexSet};

use super::step::WorkerNo;

/// The book of executions.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Whether it is kept, and its rules hold.
    strict: bool,
    /// Keys whose results the scheduler has had, while somebody wanted them.
    stored: IndexSet<Key>,
    /// Where each key started last.
    started: IndexMap<Key, WorkerNo>,
    /// When each worker registered, and when it started its first task.
    workers: IndexMap<WorkerNo, (f64, Option<f64>)>,
}

impl Ledger {
    /// One whose rules hold; otherwise it is not kept.
    pub fn new(strict: bool) -> Ledger {
        Ledger { strict, ..Ledger::default() }
    }

    /// A worker registered.
    pub fn registered(&mut self, worker: WorkerNo, now: f64) {
        if self.strict {
            self.workers.insert(worker, (now, None));
        }
    }

    /// The scheduler has a result.
    pub fn stored(&mut self, key: &Key) {
        if self.strict {
            self.stored.insert(key.clone());
        }
    }

    /// Interest ended: what was stored may be computed anew from now on.
    pub fn let_go(&mut self) {
        *self = Ledger::default();
    }

    /// The scheduler sends a task out.
    ///
    /// # Errors
    /// When its result was stored already.
    pub fn sent(&self, key: &Key) -> Result<(), String> {
        if self.stored.contains(key) { Err(format!("{key:?} was stored and is computed again")) } else { Ok(()) }
    }

    /// A worker starts a task; `is_there` tells whether the scheduler still counts on a worker.
    ///
    /// # Errors
    /// When another worker that is still there started it before.
    pub fn starts(
        &mut self,
        worker: WorkerNo,
        key: &Key,
        now: f64,
        is_there: impl Fn(WorkerNo) -> bool,
    ) -> Result<(), String> {
        if !self.strict {
            return Ok(());
        }
        if let Some((_, first)) = self.workers.get_mut(&worker) {
            first.get_or_insert(now);
        }
        match self.started.insert(key.clone(), worker) {
            Some(before) if is_there(before) => Err(format!("{key:?} runs on {worker} after it ran on {before}")),
            Some(_) | None => Ok(()),
        }
    }

    /// Workers that never ran anything.
    pub fn idle(&self) -> Vec<WorkerNo> {
        self.workers.iter().filter(|(_, (_, first))| first.is_none()).map(|(worker, _)| *worker).collect()
    }

    /// Seconds from the last registration until every worker had started something.
    pub fn seconds_to_full_use(&self) -> Option<f64> {
        let last = self.workers.values().map(|(registered, _)| *registered).fold(0.0, f64::max);
        let firsts: Option<Vec<f64>> = self.workers.values().map(|(_, first)| *first).collect();
        Some((firsts?.into_iter().fold(0.0, f64::max) - last).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_not_computed_again() {
        let mut ledger = Ledger::new(true);
        assert_eq!(ledger.sent(&"x".into()), Ok(()));
        ledger.stored(&"x".into());
        assert!(ledger.sent(&"x".into()).is_err());
        ledger.let_go();
        assert_eq!(ledger.sent(&"x".into()), Ok(()));
    }

    #[test]
    fn a_task_starts_again_only_after_its_worker_has_left() {
        let mut ledger = Ledger::new(true);
        assert_eq!(ledger.starts(1, &"x".into(), 0.0, |_| true), Ok(()));
        assert_eq!(ledger.starts(2, &"x".into(), 0.0, |worker| worker != 1), Ok(()));
        assert!(ledger.starts(3, &"x".into(), 0.0, |_| true).is_err());
    }

    #[test]
    fn full_use_is_counted_from_the_last_arrival() {
        let mut ledger = Ledger::new(true);
        ledger.registered(1, 0.0);
        ledger.registered(2, 5.0);
        let start = |ledger: &mut Ledger, worker, key: &str, now| ledger.starts(worker, &key.into(), now, |_| false);
        assert_eq!(start(&mut ledger, 1, "x", 1.0), Ok(()));
        assert_eq!((ledger.idle(), ledger.seconds_to_full_use()), (vec![2], None));
        assert_eq!(start(&mut ledger, 2, "y", 6.5), Ok(()));
        assert_eq!((ledger.idle(), ledger.seconds_to_full_use()), (vec![], Some(1.5)));
    }
}
