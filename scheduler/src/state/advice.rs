//! How many workers there should be (`adaptive_target`), and why.
//!
//! The momentary figure follows dask's formula and jumps with the load. [`State::scaling_advice`] is the figure to act on:
//! more workers at once, fewer only after they would have been enough for a while, and not soon after one has come.

use std::fmt;

use super::State;
use super::event::Seconds;
use super::scaling::WorkersToClose;

/// Tasks whose durations stand for all tasks that wait for a worker.
const SAMPLE: usize = 100;
/// Share of memory in use from which on twice the workers are asked for.
const MEMORY_USED_MAX: f64 = 0.6;
/// After a worker has come, none is let go for so long: work has to find it first.
const COOL_DOWN: Seconds = 5.0;

/// Why so many workers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ScalingReason {
    /// Nothing is to be done, and what is held needs nobody.
    NoWork,
    /// So many seconds of work are to be done in the time wanted.
    Work {
        /// Seconds, for one thread.
        seconds: Seconds,
    },
    /// More workers than there are tasks have nothing to do.
    Tasks {
        /// Tasks that run or could.
        tasks: usize,
    },
    /// Results take a large share of the memory.
    Memory,
    /// Fewer workers would do for the work, but not for what they hold.
    Data,
    /// Fewer workers have been enough, but not for long enough.
    Waiting {
        /// For how long they were.
        seconds: Seconds,
    },
    /// A worker has come only now.
    CoolingDown,
}

impl fmt::Display for ScalingReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScalingReason::NoWork => f.write_str("there is nothing to do"),
            ScalingReason::Work { seconds } => write!(f, "there are {seconds:.1} s of work for one thread"),
            ScalingReason::Tasks { tasks } => write!(f, "{tasks} tasks can run"),
            ScalingReason::Memory => {
                write!(f, "results take more than {:.0} % of the workers' memory", 100.0 * MEMORY_USED_MAX)
            }
            ScalingReason::Data => f.write_str("the results need the memory of so many, or the others are busy"),
            ScalingReason::Waiting { seconds } => write!(f, "fewer were enough for only {seconds:.1} s"),
            ScalingReason::CoolingDown => write!(f, "a worker has come within the last {COOL_DOWN:.0} s"),
        }
    }
}

/// What to do about the number of workers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScalingAdvice {
    /// How many there should be.
    pub workers: usize,
    /// How many would suit the load of this moment.
    pub momentary: usize,
    /// How many there are.
    pub present: usize,
    /// Why [`ScalingAdvice::workers`].
    pub reason: ScalingReason,
}

/// What earlier advice found.
#[derive(Debug, Default)]
pub(super) struct ScalingHistory {
    /// When a worker came last.
    pub(super) joined: Option<Seconds>,
    low: Option<Low>,
}

/// A time in which fewer workers were enough. The figures of one to two holding times are kept, as the most of each half.
#[derive(Debug)]
struct Low {
    since: Seconds,
    half: Seconds,
    before: usize,
    now: usize,
}

impl State {
    /// How many workers would finish the present work in `target_duration` seconds (`Scheduler.adaptive_target`).
    pub fn adaptive_target(&self, target_duration: Seconds) -> usize {
        self.momentary_target(target_duration).0
    }

    /// How many workers there should be at the time `now`, and why.
    pub fn scaling_advice(&mut self, now: Seconds) -> ScalingAdvice {
        let now = now.max(self.now);
        let (momentary, reason) = self.momentary_target(self.config.adaptive_target_duration);
        let (present, hold) = (self.workers.len(), self.config.adaptive_hold);
        let advice = |workers, reason| ScalingAdvice { workers, momentary, present, reason };
        if momentary >= present {
            self.scaling.low = None;
            return advice(momentary, reason);
        }
        let begin = || Low { since: now, half: now, before: momentary, now: momentary };
        let low = self.scaling.low.get_or_insert_with(begin);
        if now - low.half >= hold {
            (low.before, low.now, low.half) = (low.now, momentary, now);
        }
        low.now = low.now.max(momentary);
        if self.scaling.joined.is_some_and(|joined| now < joined + COOL_DOWN) {
            return advice(present, ScalingReason::CoolingDown);
        }
        let seconds = now - low.since;
        if seconds < hold {
            return advice(present, ScalingReason::Waiting { seconds });
        }
        let enough = low.before.max(low.now).min(present);
        advice(enough, if enough > momentary { ScalingReason::Waiting { seconds: now - low.half } } else { reason })
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate; casts saturate"
    )]
    fn momentary_target(&self, target_duration: Seconds) -> (usize, ScalingReason) {
        let waiting = self.queue.iter().chain(self.unrunnable.iter().copied());
        let mut occupancy: Seconds = waiting.take(SAMPLE).map(|id| self.prefix_duration(self.tasks[id].prefix)).sum();
        let ready = self.queue.len() + self.unrunnable.len();
        if ready > SAMPLE {
            occupancy *= ready as f64 / SAMPLE as f64;
        }
        let seconds = self.total_occupancy_seconds() + occupancy;
        let by_work = (seconds / target_duration).ceil() as usize;
        let tasks = ready + self.total_processing;
        let mut reason = if by_work > tasks { ScalingReason::Tasks { tasks } } else { ScalingReason::Work { seconds } };
        let mut cpu = by_work.min(tasks);
        let count = self.workers.len();
        if count > 0 {
            cpu = (cpu as f64 / self.total_nthreads.max(1) as f64 * count as f64).ceil() as usize;
        } else if ready > 0 {
            cpu = cpu.max(1);
        }
        let limit: u128 = self.workers.iter().map(|(_, worker)| u128::from(worker.memory_limit)).sum();
        let used: u128 = self.workers.iter().map(|(_, worker)| worker.nbytes).sum();
        let memory = if limit > 0 && used as f64 > MEMORY_USED_MAX * limit as f64 { 2 * count } else { 0 };
        if memory > cpu {
            reason = ScalingReason::Memory;
        }
        let target = cpu.max(memory);
        if target >= count {
            return (target, if target == 0 { ScalingReason::NoWork } else { reason });
        }
        let alone = |address: &dask_protocol::Address| address.as_str().to_owned();
        let kept = count - self.workers_to_close(&WorkersToClose::default(), alone).len();
        match kept {
            0 => (0, ScalingReason::NoWork),
            kept if kept > target => (kept, ScalingReason::Data),
            kept => (kept, reason),
        }
    }
}
