//! Heartbeats: the scheduler learns that we live and how we are; we learn its clock and how often to call.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use dask_protocol::frame::give_back_unused;
use dask_protocol::message::{HeartbeatWorker, HeartbeatWorkerReply, KeepAlive};
use dask_protocol::{CommError, Key, Value};
use tracing::{debug, error, warn};

use super::Closed;
use super::reconnect::{self, Link};
use super::shared::Shared;
use crate::clock::unix_now;

/// Before the scheduler said how often.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// Bounds on what a scheduler may ask for, in seconds.
const INTERVAL_SECONDS: std::ops::RangeInclusive<f64> = 0.05..=600.0;
/// How often the stream carries something even when idle.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(60);

/// Calls the scheduler until the worker stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut interval = FIRST_INTERVAL;
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        give_back_unused();
        match beat(&shared).await {
            Ok(Some(seconds)) => {
                interval = Duration::from_secs_f64(seconds.clamp(*INTERVAL_SECONDS.start(), *INTERVAL_SECONDS.end()))
            }
            Ok(None) => {}
            Err(Missing) if shared.is_leaving() => return,
            Err(Missing) => {
                warn!(target: "distributed.worker", "Scheduler was unaware of this worker; shutting down.");
                shared.request_close(Closed::leaving("worker-heartbeat-missing"));
                return;
            }
        }
    }
}

/// The scheduler does not know us.
struct Missing;

async fn beat(shared: &Arc<Shared>) -> Result<Option<f64>, Missing> {
    let at = Arc::clone(shared);
    let asked = shared.ask(move |state| (state_of_tasks(state), reconnect::stream_state(&at, state))).await;
    let Some(((counts, executing), stream)) = asked else { return Ok(None) };
    let sent = unix_now();
    let now = shared.clock.steady();
    let (metrics, spans) = (metrics(shared, counts), shared.metrics.take_spans());
    let executing = executing.into_iter().map(|(key, start)| (key, (now - start).max(0.0))).collect();
    let request = HeartbeatWorker {
        address: shared.identity.address.clone(),
        now: Some(sent),
        metrics,
        executing,
        extensions: Value::map([("spans", spans)]),
        resolve_address: None,
        stream,
    };
    let scheduler = &shared.identity.scheduler;
    let answer: Result<HeartbeatWorkerReply, CommError> =
        shared.pool.call(scheduler, "heartbeat_worker", &request).await;
    match answer {
        Ok(reply) if reply.status == "missing" => Err(Missing),
        Ok(reply) => {
            let answered = unix_now();
            if let Some(stream) = &reply.stream {
                reconnect::compared(shared, stream).await;
            }
            shared.metrics.round_trip(answered - sent);
            if let Some(time) = reply.time {
                shared.clock.observe(time, sent, answered);
                if let Some(python) = shared.python() {
                    python.delay(shared.clock.delay());
                }
            }
            Ok(reply.heartbeat_interval)
        }
        Err(broken) => {
            if shared.link.get().is_some_and(Link::is_away) {
                debug!(target: "distributed.worker", %broken, "no heartbeat while the connection is cut");
            } else if !shared.stop.is_cancelled() {
                error!(target: "distributed.worker", "Failed to communicate with scheduler during heartbeat: {broken}");
            }
            Ok(None)
        }
    }
}

/// Counts by state, and running tasks with their start times.
fn state_of_tasks(state: &crate::state::State) -> (Value, Vec<(Key, f64)>) {
    let counts: Vec<_> = state.task_counts().map(|(name, count)| (name, Value::from(count))).collect();
    let executing = state.executing().map(|(key, _, start)| (key.clone(), start)).collect();
    (Value::map(counts), executing)
}

/// The `metrics` map of a heartbeat or registration.
pub(crate) fn metrics(shared: &Shared, task_counts: Value) -> Value {
    let python = shared.python_pids();
    let sample = shared.monitor.lock().unwrap_or_else(PoisonError::into_inner).sample(&python);
    let pair =
        |read: &'static str, a: f64, write: &'static str, b: f64| Value::map([(read, a.into()), (write, b.into())]);
    Value::map([
        ("task_counts", task_counts),
        ("bandwidth", shared.metrics.take_bandwidth()),
        ("digests_total_since_heartbeat", shared.metrics.take_digests()),
        ("managed_bytes", shared.store.nbytes().into()),
        (
            "spilled_bytes",
            Value::map([("memory", shared.store.spilled_nbytes().into()), ("disk", on_disk(shared).into())]),
        ),
        ("transfer", shared.metrics.transfer()),
        ("event_loop_interval", shared.metrics.loop_interval().into()),
        ("cpu", sample.cpu.into()),
        ("memory", sample.memory.into()),
        ("time", sample.time.into()),
        ("num_fds", sample.num_fds.into()),
        ("host_net_io", pair("read_bps", sample.net_read_bps, "write_bps", sample.net_write_bps)),
        ("host_disk_io", pair("read_bps", sample.disk_read_bps, "write_bps", sample.disk_write_bps)),
    ])
}

/// Bytes of the worker's files of values.
pub(crate) fn on_disk(shared: &Shared) -> i64 {
    let used = shared.spilling.as_ref().map_or(0, |spilling| spilling.directory().used());
    i64::try_from(used).unwrap_or(i64::MAX)
}

/// Keeps the stream from looking idle to anything between us and the scheduler.
pub(crate) async fn keep_alive(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(KEEP_ALIVE_INTERVAL) => shared.send(KeepAlive::default()),
        }
    }
}
