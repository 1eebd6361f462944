//! The one task that owns the worker's state: takes what waits, lets the state decide, carries it out, sends once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dask_protocol::comm::CommReader;
use dask_protocol::message::{SchedulerToWorker, WorkerToScheduler};
use dask_protocol::{CommError, Key, Value};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info};

use super::inbox::LOOK_AGAIN;
use super::shared::{Input, Shared};
use super::{Closed, gather, reconnect};
use crate::executor;
use crate::state::{Action, Actions, Event, State};

/// Most inputs handled before what they led to is sent, so that a flood cannot hold results back.
const DRAIN_MAX: usize = 1024;

/// Messages of the scheduler after which threads begin with what was handed over, however many are still to be taken in.
const ANNOUNCE_EVERY: usize = 64;
/// Inputs between two looks at the clock.
const CLOCK_EVERY: usize = 32;
/// How long a turn may take before what it led to is sent and others get the thread: brief tasks run within it.
const TURN_TIME_MAX: Duration = Duration::from_millis(10);

/// How a driver's run ended.
pub(crate) enum Ended {
    /// Somebody asked the worker to stop.
    Stopped,
    /// The scheduler's stream closed or broke.
    StreamLost,
}

/// Where the scheduler's messages come from.
pub(crate) enum Stream {
    /// A connection.
    Open(CommReader),
    /// The connection was cut; another one may come.
    Cut(oneshot::Receiver<CommReader>),
}

/// What came from there.
enum Arrived {
    Batch(Vec<SchedulerToWorker>),
    /// The stream goes on over this connection.
    Back(CommReader),
    Broken(CommError),
    /// No other connection will come.
    Lost,
}

impl Stream {
    /// Cancel-safe.
    async fn arrived(&mut self) -> Arrived {
        match self {
            Stream::Open(reader) => match reader.recv_batch::<SchedulerToWorker>().await {
                Ok(batch) => Arrived::Batch(batch),
                Err(broken) => Arrived::Broken(broken),
            },
            Stream::Cut(back) => back.await.map_or(Arrived::Lost, Arrived::Back),
        }
    }
}

pub(crate) struct Driver {
    pub shared: Arc<Shared>,
    pub state: State,
    pub stream: Stream,
    pub inbox: mpsc::UnboundedReceiver<Input>,
}

impl Driver {
    /// Runs until the worker stops or the scheduler is gone.
    pub(crate) async fn run(mut self) -> Ended {
        let mut turn = Turn::default();
        loop {
            let due = self.state.next_timeout().map(|(at, _)| Duration::from_secs_f64((at - self.now()).max(0.0)));
            let plenty = self.shared.native.plenty();
            let late = self.shared.inbox.before_sleep(plenty);
            if !late.is_empty() {
                late.into_iter().for_each(|input| self.take_input(input, &mut turn));
                turn.flush(&self.shared);
                continue;
            }
            tokio::select! {
                () = self.shared.stop.cancelled() => return Ended::Stopped,
                arrived = self.stream.arrived() => match arrived {
                    Arrived::Batch(batch) => {
                        for (number, message) in batch.into_iter().enumerate() {
                            self.take_message(message, &mut turn);
                            if number % ANNOUNCE_EVERY == ANNOUNCE_EVERY - 1 {
                                self.shared.native.announce();
                            }
                        }
                        if let Some(link) = self.shared.link.get() {
                            link.took_one();
                        }
                    }
                    Arrived::Back(reader) => self.stream = Stream::Open(reader),
                    Arrived::Broken(broken) => match self.await_another(&broken) {
                        Some(another) => self.stream = another,
                        None => {
                            stream_lost(&self.shared, &broken);
                            return Ended::StreamLost;
                        }
                    },
                    Arrived::Lost => return Ended::StreamLost,
                },
                Some(input) = self.inbox.recv() => self.take_input(input, &mut turn),
                () = sleep(due) => self.decide(Event::Timeout, &mut turn),
                () = sleep(plenty.map(|_| LOOK_AGAIN)) => {}
            }
            self.shared.inbox.take().into_iter().for_each(|input| self.take_input(input, &mut turn));
            let began = Instant::now();
            let mut is_long = false;
            for number in 1..=DRAIN_MAX {
                let Ok(input) = self.inbox.try_recv() else { break };
                self.take_input(input, &mut turn);
                is_long = number % CLOCK_EVERY == 0 && began.elapsed() > TURN_TIME_MAX;
                if is_long {
                    break;
                }
            }
            turn.flush(&self.shared);
            if is_long {
                tokio::task::yield_now().await;
            }
            if turn.stream_closed {
                return Ended::StreamLost;
            }
        }
    }

    /// After a cut: what to wait for, if the stream may go on.
    fn await_another(&self, broken: &CommError) -> Option<Stream> {
        let ends = self.shared.is_closing() || self.shared.is_leaving();
        if self.shared.link.get().is_none() || ends || !broken.is_cut() {
            return None;
        }
        let (back, waiting) = oneshot::channel();
        tokio::spawn(reconnect::run(Arc::clone(&self.shared), back));
        Some(Stream::Cut(waiting))
    }

    fn now(&self) -> f64 {
        self.shared.clock.steady()
    }

    fn take_input(&mut self, input: Input, turn: &mut Turn) {
        match input {
            Input::Event { values, event } => {
                self.shared.keep(values);
                self.decide(event, turn);
            }
            Input::Step(step) => {
                // What it tells Python comes behind what was dropped before.
                turn.flush_dropped(&self.shared);
                step().into_iter().for_each(|event| self.decide(event, turn));
            }
            Input::Ask(question) => {
                // Who is told how things stand can tell that what led there was sent.
                turn.flush(&self.shared);
                question(&self.state);
            }
        }
    }

    fn take_message(&mut self, message: SchedulerToWorker, turn: &mut Turn) {
        match &message {
            SchedulerToWorker::ShuffleFail(failed) => {
                let fields = [
                    ("op", Value::from("shuffle-fail")),
                    ("shuffle_id", failed.shuffle_id.clone().into()),
                    ("run_id", failed.run_id.into()),
                    ("message", failed.message.clone().into()),
                ];
                executor::forward_stream(&self.shared, "shuffle-fail", Value::map(fields));
                return;
            }
            SchedulerToWorker::CloseStream(_) => {
                info!(target: "distributed.core", "Received 'close-stream' from {}; closing.", self.shared.identity.scheduler);
                turn.stream_closed = true;
                return;
            }
            SchedulerToWorker::RemoveWorker(gone) => {
                self.shared.pool.remove(&gone.worker);
                // Nobody listens when no transfer is going on.
                let _ = self.shared.removals.send(gone.worker.clone());
            }
            SchedulerToWorker::ComputeTask(_)
            | SchedulerToWorker::FreeKeys(_)
            | SchedulerToWorker::CancelCompute(_)
            | SchedulerToWorker::AcquireReplicas(_)
            | SchedulerToWorker::RemoveReplicas(_)
            | SchedulerToWorker::StealRequest(_)
            | SchedulerToWorker::RefreshWhoHas(_)
            | SchedulerToWorker::WorkerStatusChange(_)
            | SchedulerToWorker::CloseWorker(_) => {}
        }
        self.decide(Event::Scheduler(message), turn);
    }

    fn decide(&mut self, event: Event, turn: &mut Turn) {
        let now = self.now();
        self.state.handle(now, event, &mut turn.actions);
        self.shared.set_status(self.state.status());
        for action in std::mem::take(&mut turn.actions) {
            self.carry_out(action, turn);
        }
    }

    fn carry_out(&self, action: Action, turn: &mut Turn) {
        match action {
            Action::Send(message) => turn.outgoing.push(message),
            Action::Gather { worker, keys, total_nbytes, stimulus_id } => {
                self.shared.transfers.spawn(gather::run(
                    Arc::clone(&self.shared),
                    worker,
                    keys,
                    total_nbytes,
                    stimulus_id,
                ));
            }
            Action::Execute {
                key,
                run_id,
                spec,
                dependencies,
                priority: _,
                annotations,
                span_id,
                actor,
                stimulus_id: _,
            } => {
                // Python sees drops and executions in the order decided.
                turn.flush_dropped(&self.shared);
                let task = executor::Task { key, run_id, spec, dependencies, annotations, actor, span_id };
                executor::execute(&self.shared, task);
            }
            Action::CancelExecution { key, run_id } => executor::cancel(&self.shared, key, run_id),
            Action::InterruptExecution { key, run_id, limit } => executor::interrupt(&self.shared, key, run_id, limit),
            Action::ReplaceExecutor { key, run_id, limit } => {
                executor::replace::begin(&self.shared, executor::replace::Overdue { key, run_id, limit });
            }
            Action::DropData { key } => {
                if self.shared.store.remove(&key) {
                    turn.dropped.push(key);
                }
            }
            Action::Illegal { reason } => {
                error!(target: "distributed.worker", "Illegal message from the scheduler: {reason}");
                self.shared.request_close(Closed::leaving("worker-illegal-message"));
            }
            Action::Close { reason } => self.shared.request_close(Closed::leaving(reason)),
        }
    }
}

/// What one turn of the driver collects.
#[derive(Default)]
struct Turn {
    actions: Actions,
    outgoing: Vec<WorkerToScheduler>,
    dropped: Vec<Key>,
    stream_closed: bool,
}

impl Turn {
    fn flush(&mut self, shared: &Shared) {
        self.flush_dropped(shared);
        shared.native.announce();
        if let (false, Some(stream)) = (self.outgoing.is_empty(), shared.stream.get()) {
            stream.send_all(self.outgoing.drain(..));
        }
    }

    fn flush_dropped(&mut self, shared: &Shared) {
        if !self.dropped.is_empty() {
            executor::drop_in_python(shared, std::mem::take(&mut self.dropped));
        }
    }
}

fn stream_lost(shared: &Shared, broken: &CommError) {
    debug!(target: "distributed.worker", %broken, "scheduler stream ended");
    info!(target: "distributed.core", "Connection to {} has been closed.", shared.identity.scheduler);
}

async fn sleep(due: Option<Duration>) {
    match due {
        Some(due) => tokio::time::sleep(due).await,
        None => std::future::pending().await,
    }
}
