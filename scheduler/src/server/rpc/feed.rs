//! `feed`: something is told every so often until the reader leaves. Progress bars and event streams use it.
//!
//! A feed is made of pickled functions. Those of upstream's own diagnostics are known by name and served from trackers: no
//! Python runs. Others run in the process beside the scheduler.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dask_protocol::comm::{Comm, CommReader, CommWriter};
use dask_protocol::message::Request;
use dask_protocol::pickle::{PickleValue, PickledFunction};
use dask_protocol::{Key, Value};
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;
use uuid::Uuid;

use super::super::failure::{Failure, SchedulerClosed};
use super::super::listener::explain_end;
use super::super::shared::Server;
use super::super::trackers::{Everything, FinishedTasks, GroupBy, Progress, Tracker, TrackerId};
use super::scatter::timeout_argument;

/// Where a feed names no interval.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
/// Shortest time between two messages of a feed.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
/// How often to look whether the keys of a progress bar have arrived with their client's stream.
const KEYS_POLL: Duration = Duration::from_millis(50);
/// Module of upstream's progress bars.
const PROGRESS_BARS: &str = "distributed.diagnostics.progressbar";

#[derive(Deserialize)]
struct Args {
    #[serde(default)]
    function: Bytes,
    #[serde(default)]
    setup: Option<Bytes>,
    #[serde(default)]
    teardown: Option<Bytes>,
    #[serde(default)]
    interval: Value,
}

/// A feed that needs no Python.
#[derive(Debug, PartialEq)]
enum Known {
    /// `TextProgressBar` and its like.
    Progress { keys: Vec<Key>, complete: bool, group_by: GroupBy },
    /// `progress_stream`.
    Everything,
    /// `eventstream`.
    Finished,
}

impl Known {
    /// The feed that upstream's diagnostics make of this setup and function; none if it is somebody else's.
    fn recognise(setup: Option<&Bytes>, function: &Bytes) -> Option<Known> {
        let read = |pickle| PickledFunction::read(pickle).ok().flatten();
        let (setup, function) = (read(setup?)?, read(function)?);
        if setup.is("distributed.diagnostics.progress", "AllProgress")
            && function.is("distributed.diagnostics.progress_stream", "_counts")
        {
            return Some(Known::Everything);
        }
        if setup.is("distributed.diagnostics.eventstream", "EventStream")
            && function.is("distributed.diagnostics.eventstream", "swap_buffer")
        {
            return Some(Known::Finished);
        }
        let group_by = match setup.name.as_str() {
            "ProgressBar.listen.<locals>.setup" => GroupBy::Nothing,
            "MultiProgressBar.listen.<locals>.setup" => group_by(setup.variable("group_by")?)?,
            _ => return None,
        };
        let keys = setup.variable("keys")?.as_items()?.iter().map(PickleValue::to_key).collect::<Option<_>>()?;
        let complete = setup.variable("complete")?.as_bool()?;
        (setup.module == PROGRESS_BARS).then_some(Known::Progress { keys, complete, group_by })
    }
}

/// `group_by` of a progress bar, unless it is a function of the user's.
fn group_by(named: &PickleValue) -> Option<GroupBy> {
    match named {
        PickleValue::None => Some(GroupBy::Prefix),
        PickleValue::Str(name) if name == "prefix" => Some(GroupBy::Prefix),
        PickleValue::Str(name) if name == "spans" => Some(GroupBy::Span),
        PickleValue::Opaque(function) if function.name == "key_split" => Some(GroupBy::Prefix),
        _ => None,
    }
}

/// Serves a feed until its reader leaves.
pub(crate) async fn serve(server: Arc<Server>, mut comm: Comm, request: Request) {
    let peer = comm.peer().clone();
    let (args, period) = match arguments(&request) {
        Ok(arguments) => arguments,
        Err(failure) => return refuse(&mut comm, failure).await,
    };
    let known = Known::recognise(args.setup.as_ref(), &args.function);
    let (mut reader, mut writer) = comm.split();
    let told = async {
        match known {
            Some(known) => told(&server, known, period, &mut writer).await,
            None => told_by_python(&server, args, period, &mut writer).await,
        }
    };
    let ended = tokio::select! {
        ended = told => ended,
        ended = until_gone(&mut reader) => Err(ended),
        () = server.closing.cancelled() => Ok(()),
    };
    if let Err(error) = ended {
        explain_end(&peer, &error);
    }
}

fn arguments(request: &Request) -> Result<(Args, Duration), Failure> {
    let args: Args = request.args()?;
    let period = timeout_argument(&args.interval, INTERVAL_DEFAULT)?.max(INTERVAL_MIN);
    Ok((args, period))
}

async fn refuse(comm: &mut Comm, failure: Failure) {
    if let Err(error) = comm.send(&failure.into_message()).await {
        explain_end(comm.peer(), &error);
    }
}

/// Completes when the reader of a feed leaves; it has nothing to say.
async fn until_gone(reader: &mut CommReader) -> dask_protocol::CommError {
    loop {
        if let Err(error) = reader.recv().await {
            return error;
        }
    }
}

async fn told(
    server: &Arc<Server>,
    known: Known,
    period: Duration,
    writer: &mut CommWriter,
) -> Result<(), dask_protocol::CommError> {
    let Ok(Some(id)) = track(server, known).await else { return Ok(()) };
    let _ending = Untrack { server: Arc::clone(server), id };
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(Some(report)) = server.driver.run(move |core| core.tracker_report(id)).await else { return Ok(()) };
        writer.send(&dask_protocol::message::Message::encode(&report)?).await?;
    }
}

/// A feed of somebody else's functions, which the process beside the scheduler calls.
async fn told_by_python(
    server: &Arc<Server>,
    args: Args,
    period: Duration,
    writer: &mut CommWriter,
) -> Result<(), dask_protocol::CommError> {
    let feed = Value::from(Uuid::new_v4().to_string());
    let pickle = |pickle: Option<Bytes>| pickle.map_or(Value::Nil, Value::Bin);
    let fields = [
        ("feed", feed.clone()),
        ("setup", pickle(args.setup)),
        ("function", pickle(Some(args.function))),
        ("teardown", pickle(args.teardown)),
    ];
    let _ending = CloseFeed { server: Arc::clone(server), feed: feed.clone() };
    if let Err(failure) = server.sidecar.ask(server, "feed-open", fields).await {
        return writer.send(&failure.into_message()).await;
    }
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match server.sidecar.ask(server, "feed-next", [("feed", feed.clone())]).await {
            Ok(reply) => {
                let told = reply.get("told").cloned().unwrap_or_default();
                writer.send(&dask_protocol::message::Message::encode(&told)?).await?;
            }
            Err(failure) => return writer.send(&failure.into_message()).await,
        }
    }
}

/// Ends a feed of Python's when its reader leaves.
struct CloseFeed {
    server: Arc<Server>,
    feed: Value,
}

impl Drop for CloseFeed {
    fn drop(&mut self) {
        let (server, feed) = (Arc::clone(&self.server), self.feed.clone());
        tokio::spawn(async move {
            if server.sidecar.is_running().await
                && let Err(failure) = server.sidecar.ask(&server, "feed-close", [("feed", feed)]).await
            {
                debug!(target: "distributed.scheduler", ?failure, "a feed could not be ended");
            }
        });
    }
}

/// Adds the feed's tracker; a progress bar's once all its keys are known.
async fn track(server: &Server, known: Known) -> Result<Option<TrackerId>, SchedulerClosed> {
    let (keys, complete, group_by) = match known {
        Known::Everything => {
            let make = |state: &crate::state::State| Some(Tracker::Everything(Everything::new(state)));
            return server.driver.run(move |core| core.track(make)).await;
        }
        Known::Finished => {
            return server.driver.run(|core| core.track(|_| Some(Tracker::Finished(FinishedTasks::default())))).await;
        }
        Known::Progress { keys, complete, group_by } => (keys, complete, group_by),
    };
    loop {
        let wanted = keys.clone();
        let tracked = server.driver.run(move |core| {
            let make = |state: &_| Progress::new(&wanted, complete, group_by, state).map(Tracker::Progress);
            core.track(make)
        });
        if let Some(id) = tracked.await? {
            return Ok(Some(id));
        }
        tokio::time::sleep(KEYS_POLL).await;
    }
}

/// Ends a tracker when its feed ends, however that ends.
struct Untrack {
    server: Arc<Server>,
    id: TrackerId,
}

impl Drop for Untrack {
    fn drop(&mut self) {
        let (server, id) = (Arc::clone(&self.server), self.id);
        tokio::spawn(async move {
            // A scheduler that closes has no trackers any more.
            let _ = server.driver.run(move |core| core.untrack(id)).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feeds_of_upstreams_diagnostics_are_known() {
        let global = |module: &str, name: &str| {
            let opcodes = [&b"\x80\x04c"[..], module.as_bytes(), b"\n", name.as_bytes(), b"\n."];
            Bytes::from(opcodes.concat())
        };
        let all = global("distributed.diagnostics.progress", "AllProgress");
        let counts = global("distributed.diagnostics.progress_stream", "_counts");
        let known = |setup, function| Known::recognise(Some(setup), function);
        assert_eq!(known(&all, &counts), Some(Known::Everything));
        assert_eq!(known(&counts, &all), None);
        assert_eq!(Known::recognise(None, &counts), None);
        let stream = global("distributed.diagnostics.eventstream", "EventStream");
        let swap = global("distributed.diagnostics.eventstream", "swap_buffer");
        assert_eq!(known(&stream, &swap), Some(Known::Finished));
    }

    #[test]
    fn functions_of_the_user_do_not_group_natively() {
        assert_eq!(group_by(&PickleValue::from("spans")), Some(GroupBy::Span));
        assert_eq!(group_by(&PickleValue::None), Some(GroupBy::Prefix));
        assert_eq!(group_by(&PickleValue::from(1_i64)), None);
    }
}
