//! Retiring workers: what they hold is copied elsewhere first, then they leave (`retire_workers`).

use dask_protocol::message::{CloseWorker, StimulusId, WorkerStatus, WorkerStatusChange};
use dask_protocol::{Address, Value};

use super::State;
use super::action::Action;
use super::amm::{Emptying, Round};
use super::event::Seconds;
use super::ids::{TaskId, WorkerId};

/// Shortest and longest time between two looks at a retiring worker, in seconds, and keys per second of it.
const CHECK_MIN: Seconds = 0.01;
const CHECK_MAX: Seconds = 0.5;
const KEYS_PER_SECOND: f64 = 400.0;

/// One worker on its way out.
#[derive(Debug)]
struct Retiring {
    worker: WorkerId,
    address: Address,
    status_before: WorkerStatus,
    emptying: Emptying,
}

/// One request to retire workers.
#[derive(Debug)]
pub(super) struct Retirement {
    token: u64,
    remove: bool,
    close: bool,
    stimulus_id: StimulusId,
    open: Vec<Retiring>,
    retired: Vec<Address>,
    kept: Vec<Address>,
    next_check: Seconds,
}

impl State {
    pub(super) fn retire_workers(&mut self, addresses: &[Address], remove: bool, close: bool, token: u64) {
        let mut retirement = Retirement {
            token,
            remove,
            close,
            stimulus_id: self.stimulus_id.clone(),
            open: Vec::new(),
            retired: Vec::new(),
            kept: Vec::new(),
            next_check: self.now,
        };
        for address in addresses {
            let Some(worker) = self.workers.id(address) else {
                continue;
            };
            let status_before = self.status_before_retiring(worker);
            self.worker_status_change(address, WorkerStatus::ClosingGracefully);
            let stimulus_id = self.stimulus_id.clone();
            self.send_worker(worker, WorkerStatusChange { status: WorkerStatus::ClosingGracefully, stimulus_id });
            let (address, emptying) = (address.clone(), Emptying::UnderWay);
            retirement.open.push(Retiring { worker, address, status_before, emptying });
        }
        self.retirements.push(retirement);
        // Not to wait for the next round of the memory manager.
        if self.timers.amm_running {
            self.run_active_memory_manager();
        } else {
            self.run_retirement_policies();
        }
        self.check_retirements();
    }

    /// What a worker is to be again if its retirement fails. A worker that only seems to be closing still owes us the
    /// answer to a roll-back: it would never run again if that were taken for what it was.
    fn status_before_retiring(&self, worker: WorkerId) -> WorkerStatus {
        let status = match self.workers[worker].status {
            WorkerStatus::ClosingGracefully => {
                let mut open = self.retirements.iter().flat_map(|retirement| &retirement.open);
                open.find(|other| other.worker == worker).map(|other| other.status_before)
            }
            status @ (WorkerStatus::Init
            | WorkerStatus::Running
            | WorkerStatus::Paused
            | WorkerStatus::Closing
            | WorkerStatus::Closed) => Some(status),
        };
        // One that is only starting would run by then.
        status.filter(|status| *status != WorkerStatus::Init).unwrap_or(WorkerStatus::Running)
    }

    /// The part of the active memory manager's round that empties retiring workers.
    pub(super) fn run_retirements(&mut self, round: &mut Round) {
        let mut retirements = std::mem::take(&mut self.retirements);
        for retiring in retirements.iter_mut().flat_map(|retirement| &mut retirement.open) {
            let open = retiring.emptying == Emptying::UnderWay;
            if open && self.workers.is_registered(retiring.worker) {
                retiring.emptying = self.empty_worker(retiring.worker, round);
            }
        }
        self.retirements = retirements;
    }

    /// When to look again whether retiring workers are done.
    pub(super) fn next_retirement_check(&self) -> Option<Seconds> {
        self.retirements.iter().map(|retirement| retirement.next_check).min_by(f64::total_cmp)
    }

    pub(super) fn retirement_worker_left(&mut self, _worker: WorkerId) {
        for retirement in &mut self.retirements {
            retirement.next_check = self.now;
        }
    }

    /// Lets go of workers that have handed everything over; ends retirements whose workers are all settled.
    pub(super) fn check_retirements(&mut self) {
        let retirements = std::mem::take(&mut self.retirements);
        for mut retirement in retirements {
            if retirement.next_check <= self.now {
                self.check_retirement(&mut retirement);
            }
            if retirement.open.is_empty() {
                self.end_retirement(retirement);
            } else {
                self.retirements.push(retirement);
            }
        }
    }

    fn check_retirement(&mut self, retirement: &mut Retirement) {
        self.stimulus_id = retirement.stimulus_id.clone();
        let open = std::mem::take(&mut retirement.open);
        for mut retiring in open {
            if !self.is_emptied(&retiring) {
                // Also one that was done, and finished something since: upstream lets that result go.
                retiring.emptying = Emptying::UnderWay;
                retirement.open.push(retiring);
            } else if retiring.emptying == Emptying::NoRecipients {
                self.abort_retirement(&retiring);
                retirement.kept.push(retiring.address);
            } else {
                self.finish_retirement(&retiring, retirement.remove, retirement.close);
                retirement.retired.push(retiring.address);
            }
        }
        retirement.next_check = self.now + self.retirement_interval(retirement);
    }

    #[expect(clippy::cast_precision_loss, reason = "an interval")]
    fn retirement_interval(&self, retirement: &Retirement) -> Seconds {
        let keys = |retiring: &Retiring| self.workers.get(retiring.worker).map_or(0, |worker| worker.has_what.len());
        let least = retirement.open.iter().map(keys).min().unwrap_or(0);
        (least as f64 / KEYS_PER_SECOND).clamp(CHECK_MIN, CHECK_MAX)
    }

    fn is_emptied(&self, retiring: &Retiring) -> bool {
        if retiring.emptying == Emptying::NoRecipients {
            return true;
        }
        let is_safe = |id: &TaskId| self.tasks[*id].who_has.len() > 1 || self.tasks[*id].actor;
        self.workers.get(retiring.worker).is_none_or(|worker| worker.has_what.iter().all(is_safe))
    }

    fn abort_retirement(&mut self, retiring: &Retiring) {
        if !self.workers.is_registered(retiring.worker) {
            return;
        }
        let (status, stimulus_id) = (retiring.status_before, self.stimulus_id.clone());
        // The worker answers with its new status, and only then counts as running here.
        self.send_worker(retiring.worker, WorkerStatusChange { status, stimulus_id });
        tracing::warn!(
            target: "distributed.scheduler",
            "Could not retire worker '{}': unique data could not be moved to any other worker (stimulus_id='{}')",
            retiring.address, self.stimulus_id
        );
    }

    fn finish_retirement(&mut self, retiring: &Retiring, remove: bool, close: bool) {
        if self.workers.is_registered(retiring.worker) {
            if remove {
                self.remove_worker(&retiring.address, true, close);
            } else if close {
                self.send_worker(retiring.worker, CloseWorker { reason: "scheduler-close-worker".to_owned() });
            }
        }
        tracing::info!(
            target: "distributed.scheduler",
            "Retired worker '{}' (stimulus_id='{}')", retiring.address, self.stimulus_id
        );
    }

    fn end_retirement(&mut self, retirement: Retirement) {
        let Retirement { token, retired, kept, stimulus_id, .. } = retirement;
        let list = |addresses: &[Address]| -> Value {
            Value::Array(addresses.iter().map(|address| address.as_str().into()).collect())
        };
        let msg = Value::map([
            ("action", "retire-workers".into()),
            ("retired", list(&retired)),
            ("could-not-retire", list(&kept)),
            ("stimulus_id", (&*stimulus_id).into()),
        ]);
        self.out.push(Action::LogEvent { topic: "all".into(), msg });
        for (addresses, action) in [(&retired, "retired"), (&kept, "could-not-retire")] {
            for address in addresses {
                let msg = Value::map([("action", action.into()), ("stimulus_id", (&*stimulus_id).into())]);
                self.out.push(Action::LogEvent { topic: address.as_str().into(), msg });
            }
        }
        self.out.push(Action::WorkersRetired { token, retired, kept });
    }
}
