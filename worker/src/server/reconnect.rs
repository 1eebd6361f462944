//! A stream to the scheduler that was cut goes on over another connection, within a grace period.
//!
//! The state knows nothing of it: tasks run on, what they report waits, and nothing is lost, doubled or reordered (see
//! `dask_protocol::comm::SentLog`). Only schedulers of ours take part; see `RESUME_EXTRA`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dask_protocol::CommError;
use dask_protocol::comm::{Comm, CommConfig, CommReader, refused};
use dask_protocol::message::{
    KeysDigest, Message, ResumeGrant, ResumeWorker, ResumeWorkerReply, StreamState, StreamStateReply, WorkerDigest,
};
use rand::Rng;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::LOGGER;
use super::shared::Shared;
use crate::state::State;

/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest pause before the second attempt; it doubles from there.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A host that has answered for so long that nobody listens has no scheduler any more; something between us and it may
/// need a moment to start again.
const REFUSED_PATIENCE: Duration = Duration::from_secs(2);
/// Keys named in a warning.
const KEYS_SHOWN: usize = 10;

/// What the scheduler granted at registration.
#[derive(Debug)]
pub(crate) struct Link {
    token: String,
    grace: Duration,
    /// Messages of the stream taken in.
    received: AtomicU64,
    /// The stream is cut at the moment.
    away: AtomicBool,
    /// There was a cut, and both sides have not compared since.
    unsure: AtomicBool,
}

impl Link {
    pub(crate) fn new(grant: ResumeGrant, grace: Duration) -> Link {
        let granted = Duration::try_from_secs_f64(grant.grace).unwrap_or(Duration::ZERO);
        Link {
            token: grant.token,
            grace: grace.min(granted),
            received: AtomicU64::new(0),
            away: AtomicBool::new(false),
            unsure: AtomicBool::new(false),
        }
    }

    pub(crate) fn took_one(&self) {
        self.received.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the stream is cut at the moment.
    pub(crate) fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }
}

/// Why another connection does not help.
enum Failure {
    /// It may later.
    NotNow(CommError),
    /// The scheduler, or what is left of the stream here, forbids it.
    Never(String),
}

impl From<CommError> for Failure {
    fn from(error: CommError) -> Failure {
        match error {
            CommError::Remote { text, .. } => Failure::Never(text),
            other => Failure::NotNow(other),
        }
    }
}

/// Tries until the stream goes on, which `back` is told; it is dropped when that cannot be.
pub(crate) async fn run(shared: Arc<Shared>, back: oneshot::Sender<CommReader>) {
    let Some(link) = shared.link.get() else { return };
    let (scheduler, grace, cut) = (&shared.identity.scheduler, link.grace, Instant::now());
    link.unsure.store(true, Ordering::Relaxed);
    link.away.store(true, Ordering::Relaxed);
    warn!(
        target: LOGGER,
        "Connection to scheduler {scheduler} lost; trying to take it up again for {:.0} s", grace.as_secs_f64()
    );
    let outcome = tokio::select! {
        () = shared.stop.cancelled() => return,
        outcome = timeout(grace, keep_trying(&shared, link)) => outcome,
        () = refused(scheduler, REFUSED_PATIENCE) => Ok(Err("nobody listens there any more".to_owned())),
    };
    match outcome {
        Ok(Ok((reader, again))) => {
            link.away.store(false, Ordering::Relaxed);
            let seconds = cut.elapsed().as_secs_f64();
            info!(target: LOGGER, "Back at scheduler {scheduler} after {seconds:.1} s, {again} messages sent again");
            // The driver may have ended meanwhile.
            let _ = back.send(reader);
        }
        Ok(Err(reason)) => warn!(target: LOGGER, "The scheduler {scheduler} is lost: {reason}"),
        Err(_) => {
            warn!(target: LOGGER, "The scheduler {scheduler} is lost: no connection in {:.0} s", grace.as_secs_f64())
        }
    }
}

async fn keep_trying(shared: &Shared, link: &Link) -> Result<(CommReader, u64), String> {
    let mut pause = PAUSE_MIN;
    loop {
        let attempt = timeout(ATTEMPT_TIMEOUT, attempt(shared, link)).await;
        match attempt {
            Ok(Ok(resumed)) => return Ok(resumed),
            Ok(Err(Failure::Never(reason))) => return Err(reason),
            Ok(Err(Failure::NotNow(error))) => debug!(target: LOGGER, %error, "the scheduler cannot be reached yet"),
            Err(_) => debug!(target: LOGGER, "the scheduler does not answer"),
        }
        let chance = rand::rng().random::<f64>();
        tokio::time::sleep(pause.mul_f64(chance)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn attempt(shared: &Shared, link: &Link) -> Result<(CommReader, u64), Failure> {
    #[derive(Serialize)]
    struct Request {
        op: &'static str,
        reply: bool,
        #[serde(flatten)]
        body: ResumeWorker,
    }
    let scheduler = &shared.identity.scheduler;
    let config = CommConfig { connect_timeout: ATTEMPT_TIMEOUT, ..shared.pool.config().clone() };
    let mut comm = Comm::connect(scheduler, &config).await?;
    let body = ResumeWorker {
        address: shared.identity.address.clone(),
        token: link.token.clone(),
        received: link.received.load(Ordering::Acquire),
        resolve_address: None,
    };
    comm.send(&Message::encode(&Request { op: "resume-worker", reply: true, body })?).await?;
    let message = comm.recv().await?;
    dask_protocol::comm::pool::check_reply("resume-worker", scheduler, &message)?;
    let reply: ResumeWorkerReply = message.decode().map_err(|error| Failure::Never(error.to_string()))?;
    if reply.status != "OK" {
        return Err(Failure::Never(reply.message.unwrap_or(reply.status)));
    }
    let (reader, writer) = comm.split();
    let stream = shared.stream.get().ok_or_else(|| Failure::Never("there was no stream".to_owned()))?;
    let again = stream.resume(writer, reply.received).map_err(|error| Failure::Never(error.to_string()))?;
    Ok((reader, again))
}

/// What a heartbeat tells of the stream, and what the digest is of.
pub(crate) fn stream_state(shared: &Shared, state: &State) -> Option<StreamState> {
    let link = shared.link.get()?;
    let sent = if link.unsure.load(Ordering::Relaxed) { shared.stream.get()?.position() } else { None };
    let digest = sent.map(|sent| WorkerDigest {
        sent,
        held: state.in_memory().map(|(key, _)| key).collect::<KeysDigest>(),
        tasks: state.unreported().collect(),
    });
    Some(StreamState { token: link.token.clone(), received: link.received.load(Ordering::Acquire), digest })
}

/// Takes in what the scheduler answers to that.
pub(crate) async fn compared(shared: &Shared, reply: &StreamStateReply) {
    let (Some(link), Some(stream)) = (shared.link.get(), shared.stream.get()) else { return };
    stream.confirm(reply.received);
    match reply.agrees {
        None => {}
        Some(true) => {
            link.unsure.store(false, Ordering::Relaxed);
            info!(target: LOGGER, "The scheduler agrees after the cut on what is here");
        }
        Some(false) => {
            let shown = |state: &State| {
                let held: Vec<_> = state.in_memory().map(|(key, _)| key.clone()).take(KEYS_SHOWN).collect();
                let tasks: Vec<_> = state.unreported().take(KEYS_SHOWN).cloned().collect();
                (held, tasks)
            };
            if let Some((held, tasks)) = shared.ask(shown).await {
                warn!(
                    target: LOGGER,
                    "The scheduler disagrees after the cut on what is here: held are {held:?}, to be done {tasks:?}"
                );
            }
        }
    }
}
