//! Workers whose connection was cut: waited for, taken back, compared.
//!
//! While a worker is away the state takes it for paused: nothing new goes there, and nothing that is there is given up.

use std::sync::Arc;

use dask_protocol::Address;
use dask_protocol::comm::{CommWriter, ResumeError};
use dask_protocol::message::{
    KeysDigest, StreamState, StreamStateReply, WorkerDigest, WorkerStatus, WorkerStatusChange,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::core::Core;
use super::peers::{Session, WorkerPeer};
use super::worker_link::Link;
use crate::state::{Event, Seconds};

/// So many comparisons in a row may fail before the worker has to close. No message of the stream is on its way when they are
/// made, but a value that was scattered may be there, and the scheduler is told a moment later.
const DISAGREEMENTS_MAX: u32 = 10;
/// Keys named in a warning.
const KEYS_SHOWN: usize = 10;

/// A worker that may take its stream up again.
pub(crate) struct Claim {
    pub(crate) session: Session,
    pub(crate) link: Arc<Link>,
    pub(crate) removed: CancellationToken,
}

/// A worker that is away.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Away {
    since: Seconds,
    /// It ran before.
    paused: bool,
}

impl Core {
    /// A worker's connection broke. False when another one has taken its place, or the worker is removed.
    pub(crate) fn worker_cut(&mut self, worker: &Address, session: Session, connection: u64) -> bool {
        let since = self.clock.now();
        let running = self.state.worker(worker).is_some_and(|view| view.status == WorkerStatus::Running);
        let Some(peer) = self.present(worker, session, connection) else { return false };
        if peer.away.is_none() {
            peer.away = Some(Away { since, paused: running });
            if running {
                self.set_worker_status(worker, WorkerStatus::Paused, "worker-connection-lost");
            }
        }
        true
    }

    /// A worker did not come back over a newer connection than this one.
    pub(crate) fn worker_lost(&mut self, worker: &Address, session: Session, connection: u64) {
        if self.present(worker, session, connection).is_some() {
            self.worker_stream_ended(worker, session);
        }
    }

    /// Whose stream this token is of.
    pub(crate) fn claim_worker(&self, worker: &Address, token: &str) -> Option<Claim> {
        let peer = self.workers.get(worker)?;
        let link = peer.link.as_ref().filter(|link| link.accepts(token) && !link.is_ending())?;
        Some(Claim { session: peer.session, link: Arc::clone(link), removed: peer.removed.clone() })
    }

    /// Whether a stream can go on to a worker that has `received` messages; its present connection is given up.
    pub(crate) fn detach_worker(
        &mut self,
        worker: &Address,
        session: Session,
        received: u64,
    ) -> Result<(), ResumeError> {
        let peer = self.workers.get(worker).filter(|peer| peer.session == session);
        peer.and_then(|peer| peer.outbox.sender()).ok_or(ResumeError::Ended)?.detach(received)
    }

    /// A worker is back: its stream goes on over this connection.
    pub(crate) fn reattach_worker(
        &mut self,
        worker: &Address,
        session: Session,
        connection: u64,
        writer: CommWriter,
        received: u64,
    ) -> Result<(), ResumeError> {
        let now = self.clock.now();
        let peer = self.present(worker, session, connection).ok_or(ResumeError::Ended)?;
        let again = peer.outbox.sender().ok_or(ResumeError::Ended)?.resume(writer, received)?;
        peer.last_seen = now;
        peer.disagreements = 0;
        let away = peer.away.take();
        let seconds = away.map_or(0.0, |away| now - away.since);
        info!(
            target: "distributed.scheduler",
            "Worker {worker} is back after {seconds:.1} s, {again} messages sent again"
        );
        let still_paused = self.state.worker(worker).is_some_and(|view| view.status == WorkerStatus::Paused);
        if still_paused && away.is_some_and(|away| away.paused) {
            self.set_worker_status(worker, WorkerStatus::Running, "worker-connection-back");
        }
        Ok(())
    }

    /// What a heartbeat tells of the stream. `taken_in` messages from the worker were before it.
    pub(crate) fn stream_state(
        &mut self,
        worker: &Address,
        told: &StreamState,
        taken_in: u64,
    ) -> Option<StreamStateReply> {
        let peer = self.workers.get(worker)?;
        let (link, sender) = (peer.link.as_ref()?, peer.outbox.sender()?);
        if !link.accepts(&told.token) {
            return None;
        }
        sender.confirm(told.received);
        let received = link.received();
        let quiet = peer.outbox.is_empty() && sender.position() == Some(told.received);
        let digest = told.digest.filter(|digest| quiet && digest.sent == taken_in);
        let agrees = digest.map(|digest| self.compare(worker, &digest));
        Some(StreamStateReply { received, agrees })
    }

    fn compare(&mut self, worker: &Address, theirs: &WorkerDigest) -> bool {
        let (held, tasks) = (self.state.has_what(worker), self.state.processing(worker));
        let ours: (KeysDigest, KeysDigest) = (held.iter().collect(), tasks.iter().collect());
        if ours == (theirs.held, theirs.tasks) {
            info!(
                target: "distributed.scheduler",
                "Worker {worker} agrees after the cut: {} keys held, {} tasks", ours.0.count, ours.1.count
            );
            return true;
        }
        warn!(
            target: "distributed.scheduler",
            "Worker {worker} disagrees after the cut: it holds {} keys, booked are {} ({:?}); it has {} tasks, booked are {} ({:?})",
            theirs.held.count, ours.0.count, &held[..held.len().min(KEYS_SHOWN)],
            theirs.tasks.count, ours.1.count, &tasks[..tasks.len().min(KEYS_SHOWN)],
        );
        let Some(peer) = self.workers.get_mut(worker) else { return false };
        peer.disagreements += 1;
        if peer.disagreements >= DISAGREEMENTS_MAX {
            let stimulus_id = self.stimulus("worker-disagrees");
            self.remove_worker(worker, false, true, stimulus_id);
        }
        false
    }

    /// The worker of this session, unless a newer connection than this one has taken its stream over.
    fn present(&mut self, worker: &Address, session: Session, connection: u64) -> Option<&mut WorkerPeer> {
        self.workers.get_mut(worker).filter(|peer| {
            peer.session == session && peer.link.as_ref().is_none_or(|link| link.connection() == connection)
        })
    }

    fn set_worker_status(&mut self, worker: &Address, status: WorkerStatus, cause: &str) {
        let stimulus_id = self.stimulus(cause);
        let message = WorkerStatusChange { status, stimulus_id }.into();
        self.handle(Event::WorkerMessage { worker: worker.clone(), message });
    }
}
