//! The nanny's decisions: given events and the time, which processes to start, stop and announce.
//!
//! ```text
//! nanny:    Init -> Starting -> Running -> ClosingGracefully -> Closing -> Closed
//!                       `----> Failed         (the worker leaves for good)
//! process:  Absent -> Starting -> Running -> Stopping -> Unregistering -> Starting ...
//!                                    `-- exits by itself ---^    `-> Waiting (back-off) -^
//! ```

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::path::PathBuf;
use std::time::Duration;

use dask_protocol::Address;
use tracing::{error, info, warn};

use crate::event::{Action, Event, Exit, Outcome, Signal, Waiter};

/// A worker that lived shorter than this died quickly.
pub const QUICK_DEATH: Duration = Duration::from_secs(10);
/// So many quick deaths in a row are answered with an immediate restart, as upstream answers every death.
pub const QUICK_DEATHS_FREE: u32 = 3;
/// The first pause between restarts, doubled with each further quick death.
pub const BACK_OFF_MIN: Duration = Duration::from_secs(1);
/// The longest pause between restarts.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// The part of a stop's timeout that the worker may use to close before it is killed.
pub const STOP_SHARE: f64 = 0.8;
/// Longest stop timeout a caller can ask for, in seconds.
pub const STOP_SECONDS_MAX: f64 = 86_400.0;
/// Timeout of the close that follows a failed start, in seconds (upstream's default of `Nanny.close`).
const CLOSE_SECONDS: f64 = 5.0;
/// After SIGKILL a process ends at once, unless it hangs in the kernel; then the nanny leaves without it.
pub const KILLED_WAIT: Duration = Duration::from_secs(5);

/// A killed worker that is still there after this long is not counted on any more.
const DISOWN_AFTER: Duration = Duration::from_secs(2);

/// What the state needs to know from the start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The nanny's own address, for the log.
    pub address: Address,
    /// The scheduler's address, for the log.
    pub scheduler: Address,
    /// How long a worker may take to register; for ever when absent (`--death-timeout`).
    pub death_timeout: Option<Duration>,
    /// Bytes the worker's processes may use together.
    pub memory_limit: Option<u64>,
    /// Which part of the limit ends the worker (`distributed.worker.memory.terminate`); never when absent.
    pub terminate_fraction: Option<f64>,
}

/// The nanny's status, as `distributed.core.Status` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not registered yet.
    Init,
    /// The first worker is starting.
    Starting,
    /// Keeps a worker running.
    Running,
    /// Will end with its worker.
    ClosingGracefully,
    /// Ends its worker, then itself.
    Closing,
    /// Ended as asked.
    Closed,
    /// Ended because the first worker could not start.
    Failed,
}

impl Status {
    /// Its name on the wire and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Status::Init => "init",
            Status::Starting => "starting",
            Status::Running => "running",
            Status::ClosingGracefully => "closing_gracefully",
            Status::Closing => "closing",
            Status::Closed => "closed",
            Status::Failed => "failed",
        }
    }

    /// Whether a worker that exits is replaced.
    fn restarts(self) -> bool {
        match self {
            Status::Starting | Status::Running => true,
            Status::Init | Status::ClosingGracefully | Status::Closing | Status::Closed | Status::Failed => false,
        }
    }
}

/// The worker process.
#[derive(Debug, Clone, PartialEq)]
enum Process {
    Absent,
    /// Died too often; the next start is at `until`.
    Waiting {
        until: Duration,
    },
    /// Spawned, not registered with the scheduler yet.
    Starting {
        since: Duration,
        failure: Option<String>,
    },
    Running {
        since: Duration,
        worker: Worker,
        ending: Ending,
    },
    /// Asked to close. `kill_at` is past once it was killed; then `give_up_at` counts.
    Stopping {
        worker: Option<Worker>,
        kill_at: Option<Duration>,
        give_up_at: Duration,
    },
    /// Exited; the scheduler is being told before the next one starts, so that it may take the same name.
    Unregistering {
        pause: Duration,
    },
}

/// How far it is with the end of a worker that used too much memory.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ending {
    No,
    /// It used too much when it was last looked at, and less than its limit.
    Suspected,
    Terminated,
    Killed {
        at: Duration,
    },
    /// Nobody counts on it any more.
    Disowned,
}

/// A registered worker.
#[derive(Debug, Clone, PartialEq)]
struct Worker {
    address: Address,
    local_directory: PathBuf,
}

/// Decides; see the module.
#[derive(Debug)]
pub struct State {
    config: Config,
    status: Status,
    process: Process,
    quick_deaths: u32,
    /// Callers to answer when the process has exited.
    kills: Vec<Waiter>,
    /// Callers to answer when a worker is running again.
    starts: Vec<Waiter>,
    /// What the nanny's end will be called, once it is certain.
    failure: Option<String>,
}

impl State {
    /// A nanny that has not started anything yet.
    pub fn new(config: Config) -> State {
        State {
            config,
            status: Status::Init,
            process: Process::Absent,
            quick_deaths: 0,
            kills: Vec::new(),
            starts: Vec::new(),
            failure: None,
        }
    }

    /// The nanny's status.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The contact address of the running worker.
    pub fn worker_address(&self) -> Option<&Address> {
        self.worker().map(|worker| &worker.address)
    }

    fn worker(&self) -> Option<&Worker> {
        match &self.process {
            Process::Running { worker, .. } | Process::Stopping { worker: Some(worker), .. } => Some(worker),
            Process::Absent
            | Process::Waiting { .. }
            | Process::Starting { .. }
            | Process::Stopping { worker: None, .. }
            | Process::Unregistering { .. } => None,
        }
    }

    /// When to send [`Event::Timeout`], at the latest.
    pub fn next_timeout(&self) -> Option<Duration> {
        match &self.process {
            Process::Waiting { until } => Some(*until),
            Process::Starting { since, .. } => self.config.death_timeout.map(|timeout| *since + timeout),
            Process::Stopping { kill_at, give_up_at, .. } => Some(kill_at.unwrap_or(*give_up_at)),
            Process::Absent | Process::Running { .. } | Process::Unregistering { .. } => None,
        }
    }

    /// Takes one event; `now` counts from any fixed moment and never goes back.
    pub fn handle(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Start => {
                self.status = Status::Starting;
                info!(target: "distributed.nanny", "        Start Nanny at: '{}'", self.config.address);
                self.spawn(now, actions);
            }
            Event::WorkerStarted { address, local_directory } => {
                self.handle_worker_started(Worker { address, local_directory }, actions);
            }
            Event::WorkerFailed { text } => self.handle_worker_failed(text),
            Event::WorkerClosing { reason } | Event::CloseGracefully { reason } => {
                self.handle_close_gracefully(&reason, actions);
            }
            Event::WorkerExited { pid, exit } => self.handle_worker_exited(now, pid, exit, actions),
            Event::SpawnFailed { text } => {
                error!(target: "distributed.nanny", "Nanny failed to start process: {text}");
                self.handle_worker_gone(now, &text, actions);
            }
            Event::Unregistered => self.handle_unregistered(now, actions),
            Event::Kill { timeout, reason, waiter } => {
                self.kills.push(waiter);
                self.stop(now, timeout, &reason, actions);
            }
            Event::Restart { timeout, reason, waiter } => self.handle_restart(now, timeout, &reason, waiter, actions),
            Event::Instantiate { waiter } => self.handle_instantiate(now, waiter, actions),
            Event::Close { timeout, reason } => self.close(now, timeout, &reason, actions),
            Event::Memory { pid, rss } => self.handle_memory(now, pid, rss, actions),
            Event::Timeout => self.handle_timeout(now, actions),
        }
    }

    fn spawn(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.process = Process::Starting { since: now, failure: None };
        actions.push(Action::Spawn);
    }

    fn handle_worker_started(&mut self, worker: Worker, actions: &mut Vec<Action>) {
        match &mut self.process {
            Process::Starting { since, .. } => {
                self.process = Process::Running { since: *since, worker, ending: Ending::No };
                if self.status == Status::Starting {
                    self.status = Status::Running;
                    actions.push(Action::AnnounceStarted { ok: true });
                }
                self.answer_starts(&Outcome::Ok, actions);
            }
            // It registered just as it was told to stop: remember what to clean up.
            Process::Stopping { worker: known, .. } => *known = Some(worker),
            // Its exit overtook the news.
            Process::Absent | Process::Waiting { .. } | Process::Running { .. } | Process::Unregistering { .. } => {}
        }
    }

    fn handle_worker_failed(&mut self, text: String) {
        error!(target: "distributed.nanny", "Worker failed to start: {text}");
        if let Process::Starting { failure, .. } = &mut self.process {
            *failure = Some(text);
        }
    }

    fn handle_close_gracefully(&mut self, reason: &str, actions: &mut Vec<Action>) {
        match self.status {
            Status::Init | Status::Starting | Status::Running => {
                info!(
                    target: "distributed.nanny",
                    "Closing Nanny gracefully at '{}'. Reason: {reason}", self.config.address
                );
                if self.status == Status::Starting {
                    self.failure = Some(format!("the worker left before it was running: {reason}"));
                }
                self.status = Status::ClosingGracefully;
                match self.process {
                    Process::Starting { .. } | Process::Running { .. } | Process::Stopping { .. } => {}
                    Process::Absent | Process::Waiting { .. } | Process::Unregistering { .. } => self.finish(actions),
                }
            }
            Status::ClosingGracefully | Status::Closing | Status::Closed | Status::Failed => {}
        }
    }

    fn handle_worker_exited(&mut self, now: Duration, pid: u32, exit: Exit, actions: &mut Vec<Action>) {
        match exit {
            Exit::Code(0) => {}
            Exit::Code(code) => {
                info!(target: "distributed.nanny", "Worker process {pid} exited with status {code}");
            }
            Exit::Signal(signal) => {
                info!(target: "distributed.nanny", "Worker process {pid} was killed by signal {signal}");
            }
        }
        if let (Process::Running { worker, .. }, true) = (&self.process, exit != Exit::Code(0)) {
            actions.push(Action::ReportDeath { address: worker.address.clone(), pid, exit });
        }
        self.handle_worker_gone(now, &format!("the worker process {exit} while starting"), actions);
    }

    /// There is no process any more; `why` is what to say when it never registered.
    fn handle_worker_gone(&mut self, now: Duration, why: &str, actions: &mut Vec<Action>) {
        let process = std::mem::replace(&mut self.process, Process::Absent);
        let (worker, lived, failure) = match process {
            Process::Starting { since, failure } => (None, Some(now.saturating_sub(since)), Some(failure)),
            Process::Running { since, worker, .. } => (Some(worker), Some(now.saturating_sub(since)), None),
            Process::Stopping { worker, .. } => (worker, None, None),
            // Given up on after SIGKILL.
            Process::Absent | Process::Waiting { .. } | Process::Unregistering { .. } => return,
        };
        if let Some(worker) = &worker {
            actions.push(Action::RemoveDirectory { path: worker.local_directory.clone() });
        }
        for waiter in self.kills.drain(..) {
            actions.push(Action::Answer { waiter, outcome: Outcome::Ok });
        }
        match (self.status, failure) {
            (Status::Starting, failure) => {
                let text = failure.flatten().unwrap_or_else(|| why.to_owned());
                self.fail(now, text, "nanny-start-failed", actions);
            }
            (Status::Running, _) => self.replace(worker, lived, actions),
            (Status::ClosingGracefully, _) => {
                self.close(now, CLOSE_SECONDS, "nanny-close-gracefully", actions);
            }
            (Status::Closing, _) => self.finish(actions),
            (Status::Init | Status::Closed | Status::Failed, _) => {}
        }
    }

    /// Tells the scheduler and starts another worker, later when the last ones died too soon. `lived` is absent when
    /// the nanny itself ended the worker.
    fn replace(&mut self, worker: Option<Worker>, lived: Option<Duration>, actions: &mut Vec<Action>) {
        match lived {
            None => {}
            Some(lived) if lived < QUICK_DEATH => self.quick_deaths += 1,
            Some(_) => self.quick_deaths = 0,
        }
        let pause = self.decide_pause();
        if !pause.is_zero() {
            warn!(
                target: "distributed.nanny",
                "Worker died {} times in a row within {} s of its start; next start in {} s",
                self.quick_deaths,
                QUICK_DEATH.as_secs(),
                pause.as_secs()
            );
        }
        info!(target: "distributed.nanny", "Unregistering worker (status=Status.{})", self.status.name());
        self.process = Process::Unregistering { pause };
        actions.push(Action::Unregister { address: worker.map(|worker| worker.address) });
    }

    fn decide_pause(&self) -> Duration {
        match self.quick_deaths.checked_sub(QUICK_DEATHS_FREE + 1) {
            None => Duration::ZERO,
            Some(further) => BACK_OFF_MIN.saturating_mul(1 << further.min(16)).min(BACK_OFF_MAX),
        }
    }

    fn handle_unregistered(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Process::Unregistering { pause } = self.process else { return };
        if pause.is_zero() || !self.starts.is_empty() {
            self.start_again(now, actions);
        } else {
            self.process = Process::Waiting { until: now + pause };
        }
    }

    fn start_again(&mut self, now: Duration, actions: &mut Vec<Action>) {
        warn!(target: "distributed.nanny", "Restarting worker (status=Status.{})", self.status.name());
        self.spawn(now, actions);
    }

    fn handle_restart(&mut self, now: Duration, timeout: f64, reason: &str, waiter: Waiter, actions: &mut Vec<Action>) {
        if !self.status.restarts() {
            actions.push(Action::Answer { waiter, outcome: self.refusal() });
            return;
        }
        self.starts.push(waiter);
        self.stop(now, timeout, reason, actions);
        if let Process::Waiting { .. } = self.process {
            self.start_again(now, actions);
        }
    }

    fn handle_instantiate(&mut self, now: Duration, waiter: Waiter, actions: &mut Vec<Action>) {
        match (&self.process, self.status.restarts()) {
            (Process::Running { .. }, _) => actions.push(Action::Answer { waiter, outcome: Outcome::Ok }),
            (_, false) => actions.push(Action::Answer { waiter, outcome: self.refusal() }),
            (Process::Waiting { .. }, true) => {
                self.starts.push(waiter);
                self.start_again(now, actions);
            }
            (
                Process::Absent | Process::Starting { .. } | Process::Stopping { .. } | Process::Unregistering { .. },
                true,
            ) => self.starts.push(waiter),
        }
    }

    fn refusal(&self) -> Outcome {
        Outcome::Refused(format!("the nanny at {} is {}", self.config.address, self.status.name()))
    }

    /// Ends the process, if there is one: politely first.
    fn stop(&mut self, now: Duration, timeout: f64, reason: &str, actions: &mut Vec<Action>) {
        let worker = match &self.process {
            Process::Starting { .. } => None,
            Process::Running { worker, .. } => Some(worker.clone()),
            Process::Stopping { .. } => return,
            Process::Absent | Process::Waiting { .. } | Process::Unregistering { .. } => {
                for waiter in self.kills.drain(..) {
                    actions.push(Action::Answer { waiter, outcome: Outcome::Ok });
                }
                return;
            }
        };
        info!(target: "distributed.nanny", "Nanny asking worker to close. Reason: {reason}");
        let seconds = if timeout.is_finite() { timeout.clamp(0.0, STOP_SECONDS_MAX) } else { STOP_SECONDS_MAX };
        let patience = Duration::from_secs_f64(seconds * STOP_SHARE);
        let kill_at = now + patience;
        self.process = Process::Stopping { worker, kill_at: Some(kill_at), give_up_at: kill_at + KILLED_WAIT };
        actions.push(Action::AskToStop { timeout: patience.as_secs_f64(), reason: reason.to_owned() });
    }

    fn close(&mut self, now: Duration, timeout: f64, reason: &str, actions: &mut Vec<Action>) {
        match self.status {
            Status::Closing | Status::Closed | Status::Failed => return,
            Status::Starting => {
                let text = format!("closed while the worker was starting: {reason}");
                self.failure.get_or_insert(text);
            }
            Status::Init | Status::Running | Status::ClosingGracefully => {}
        }
        info!(target: "distributed.nanny", "Closing Nanny at '{}'. Reason: {reason}", self.config.address);
        self.status = Status::Closing;
        self.stop(now, timeout, reason, actions);
        if !matches!(self.process, Process::Stopping { .. }) {
            self.finish(actions);
        }
    }

    /// The first worker cannot start: so the nanny cannot either.
    fn fail(&mut self, now: Duration, text: String, reason: &str, actions: &mut Vec<Action>) {
        actions.push(Action::AnnounceStarted { ok: false });
        self.failure = Some(text);
        self.close(now, CLOSE_SECONDS, reason, actions);
    }

    fn finish(&mut self, actions: &mut Vec<Action>) {
        self.status = if self.failure.is_some() { Status::Failed } else { Status::Closed };
        self.process = Process::Absent;
        let refusal = self.refusal();
        for waiter in self.kills.drain(..) {
            actions.push(Action::Answer { waiter, outcome: Outcome::Ok });
        }
        self.answer_starts(&refusal, actions);
        info!(target: "distributed.nanny", "Nanny at '{}' closed.", self.config.address);
        actions.push(Action::Finish { failure: self.failure.clone() });
    }

    fn answer_starts(&mut self, outcome: &Outcome, actions: &mut Vec<Action>) {
        for waiter in self.starts.drain(..) {
            actions.push(Action::Answer { waiter, outcome: outcome.clone() });
        }
    }

    fn handle_memory(&mut self, now: Duration, pid: u32, rss: u64, actions: &mut Vec<Action>) {
        let (Some(limit), Some(fraction)) = (self.config.memory_limit, self.config.terminate_fraction) else { return };
        let Process::Running { worker, ending, .. } = &mut self.process else { return };
        #[expect(clippy::cast_precision_loss, reason = "a memory size is compared to a part of another")]
        let over = limit > 0 && rss as f64 / limit as f64 > fraction;
        if self.status != Status::Running {
            return;
        }
        let address = worker.address.clone();
        match *ending {
            // Values on their way to disk or back are there twice for a moment, which is no reason to lose all of them.
            Ending::No if over && rss <= limit => *ending = Ending::Suspected,
            Ending::Suspected if !over => *ending = Ending::No,
            Ending::No | Ending::Suspected if over => {
                *ending = Ending::Terminated;
                warn!(
                    target: "distributed.nanny.memory",
                    "Worker {address} (pid={pid}) exceeded {:.0}% memory budget. Restarting...",
                    fraction * 100.0
                );
                actions.push(Action::LogMemoryRestart { worker: address, pid, rss });
                actions.push(Action::Signal(Signal::Terminate));
            }
            Ending::Terminated if over => {
                *ending = Ending::Killed { at: now };
                warn!(
                    target: "distributed.nanny.memory",
                    "Worker {address} (pid={pid}) is slow to accept SIGTERM; sending SIGKILL"
                );
                actions.push(Action::Signal(Signal::Kill));
            }
            Ending::Killed { at } if now >= at + DISOWN_AFTER => {
                *ending = Ending::Disowned;
                error!(
                    target: "distributed.nanny",
                    "Worker {address} (pid={pid}) does not end even after SIGKILL, as a process that waits for a disk; \
                     its tasks go to others, and another worker starts once it is gone"
                );
                actions.push(Action::Disown { address });
            }
            Ending::No | Ending::Suspected | Ending::Terminated | Ending::Killed { .. } | Ending::Disowned => {}
        }
    }

    fn handle_timeout(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.next_timeout().is_none_or(|at| now < at) {
            return;
        }
        match &mut self.process {
            Process::Waiting { .. } => self.start_again(now, actions),
            Process::Starting { .. } => self.handle_start_timeout(now, actions),
            Process::Stopping { kill_at: Some(_), .. } => self.kill_stopping(actions),
            Process::Stopping { kill_at: None, .. } => {
                error!(target: "distributed.nanny", "Worker process does not end even after SIGKILL; leaving it");
                self.finish(actions);
            }
            Process::Absent | Process::Running { .. } | Process::Unregistering { .. } => {}
        }
    }

    fn handle_start_timeout(&mut self, now: Duration, actions: &mut Vec<Action>) {
        error!(
            target: "distributed.nanny",
            "Timed out connecting Nanny '{}' to scheduler '{}'", self.config.address, self.config.scheduler
        );
        let text = "the worker did not register in time".to_owned();
        self.fail(now, text, "nanny-instantiate-timeout", actions);
    }

    fn kill_stopping(&mut self, actions: &mut Vec<Action>) {
        warn!(target: "distributed.nanny", "Worker process still alive after its time to close, killing");
        if let Process::Stopping { kill_at, .. } = &mut self.process {
            *kill_at = None;
        }
        actions.push(Action::Signal(Signal::Kill));
    }
}

#[cfg(test)]
mod tests;
