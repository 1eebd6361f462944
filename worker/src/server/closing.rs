//! How a worker ends: who asked, what it tells the scheduler, and what its nanny should make of it.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use dask_protocol::message::{CloseStream, LogEvent, RunId};
use dask_protocol::{Key, Value};
use tokio::sync::watch;
use tracing::{info, warn};

use super::LOGGER;
use super::directory::LocalDirectory;
use super::drain::drain;
use super::driver::Ended;
use super::shared::{Shared, stimulus};
use crate::executor::python::message::ToPython;
use crate::state::{Event, State};

/// How long a closing worker waits for its Python process and for its last messages to be sent.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(7);

/// How long a dying worker may take to tell of it: its tasks wait for that.
const DEATH_WAIT: Duration = Duration::from_millis(500);
/// Lines of its log that go with it.
const DEATH_LOG_LINES: usize = 20;

/// How a worker ended, and what that means for its process and nanny.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// For good: the nanny should not start another one.
    Leaving,
    /// The nanny may start another one.
    Restarting,
    /// Its Python process died with this status. The worker's process should end the same way, so that whoever watches
    /// it (nanny, operator, scheduler) sees a death and not a farewell.
    Died(ExitStatus),
}

/// The end of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Why.
    pub reason: String,
    /// For whom to draw which conclusion.
    pub end: End,
}

impl Closed {
    /// An end for good.
    pub fn leaving(reason: impl Into<String>) -> Closed {
        Closed { reason: reason.into(), end: End::Leaving }
    }

    /// An end after which a nanny starts another worker.
    pub fn restarting(reason: impl Into<String>) -> Closed {
        Closed { reason: reason.into(), end: End::Restarting }
    }
}

/// Hands over what only this worker has when its time is over, then closes; as upstream, however long that takes.
pub(super) async fn retire_after(shared: Arc<Shared>, lifetime: Duration) {
    tokio::select! {
        () = shared.stop.cancelled() => return,
        () = tokio::time::sleep(lifetime) => {}
    }
    drain(&shared, None, "worker-lifetime-reached").await;
    shared.request_close(Closed::leaving("worker-lifetime-reached"));
}

/// Waits for the end and carries it out.
pub(super) async fn supervise(
    shared: Arc<Shared>,
    mut driven: tokio::task::JoinHandle<Ended>,
    directory: LocalDirectory,
    ended: watch::Sender<Option<Closed>>,
) {
    let closed = tokio::select! {
        closed = shared.close_request() => closed,
        end = &mut driven => {
            let asked = shared.close_request();
            match end {
                Ok(Ended::Stopped) => asked.await,
                // The scheduler's farewell; who asked for it closes the worker in a moment.
                _ if shared.is_leaving() => {
                    tokio::time::timeout(CLOSE_TIMEOUT, asked).await.unwrap_or_else(|_| stream_lost(&shared))
                }
                Ok(Ended::StreamLost) | Err(_) => stream_lost(&shared),
            }
        }
    };
    shared.request_close(closed.clone());
    info!(target: LOGGER, "Stopping worker at {}. Reason: {}", shared.identity.address, closed.reason);
    match &closed.end {
        // A death has no farewell: the stream just breaks, after what is known of it.
        End::Died(status) => tell_of_death(&shared, *status).await,
        End::Leaving | End::Restarting => say_farewell(&shared, &closed).await,
    }
    shared.stop.cancel();
    shared.pool.close();
    drop(directory);
    ended.send_replace(Some(closed));
}

fn stream_lost(shared: &Shared) -> Closed {
    let asked = Closed::leaving("worker-handle-scheduler-connection-broken");
    shared.request_close(asked.clone());
    asked
}

/// Tells the scheduler how the Python process died, as far as it can be told at once.
async fn tell_of_death(shared: &Arc<Shared>, status: ExitStatus) {
    let Some(stream) = shared.stream.get() else { return };
    let told = async {
        let running =
            |state: &State| state.executing().map(|(key, run_id, _)| (key.clone(), run_id)).collect::<Vec<_>>();
        let handed_over = shared.ask(running).await.unwrap_or_default();
        let begun = shared.python().and_then(|python| python.begun());
        let blamed = |(key, run_id): &(Key, RunId)| {
            begun.as_ref().is_none_or(|begun| begun.contains(run_id) || !shared.runs_in_python(key, *run_id))
        };
        let executing = handed_over.iter().filter(|it| blamed(it)).map(|(key, _)| Value::from(key)).collect();
        let records = shared.logs.recent("distributed", 0.0, Some(DEATH_LOG_LINES));
        let log = records.into_iter().map(|record| Value::from(record.line)).collect();
        let msg = Value::map([
            ("exit", Value::from(format!("lost its Python process, which ended with {status}"))),
            ("executing", Value::Array(executing)),
            ("log", Value::Array(log)),
        ]);
        shared.send(LogEvent { topic: "worker-post-mortem".into(), msg });
        stream.close();
        stream.closed().await;
    };
    if tokio::time::timeout(DEATH_WAIT, told).await.is_err() {
        stream.abort();
    }
}

/// Tells the scheduler, tears plugins down, and sends what is left to send.
async fn say_farewell(shared: &Arc<Shared>, closed: &Closed) {
    let address = shared.identity.address.as_str();
    let msg = Value::map([("action", "closing-worker".into()), ("reason", closed.reason.clone().into())]);
    shared.send(LogEvent { topic: address.into(), msg });
    shared.notify(Event::Close { stimulus_id: stimulus("worker-close") });
    // The state's own last messages come before the end of the stream.
    let settled = async {
        shared.ask(|_| ()).await;
        if let Some(python) = shared.python() {
            python.tell(ToPython::Close {});
            python.closed().await;
        }
        shared.send(CloseStream::default());
        if let Some(stream) = shared.stream.get() {
            stream.close();
            stream.closed().await;
        }
    };
    if tokio::time::timeout(CLOSE_TIMEOUT, settled).await.is_err() {
        warn!(target: LOGGER, "worker {address} did not close in {} s; ending it", CLOSE_TIMEOUT.as_secs());
    }
}
