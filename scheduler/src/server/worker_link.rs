//! What lets a worker's stream go on over another connection: its token, and which connection is the present one.
//!
//! A link counts connections. Who brings a new one raises the number, which ends the reading of the one before, and waits
//! for that to have happened: only then is it certain how many messages were taken in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dask_protocol::message::{RegisterWorker, ResumeGrant};
use tokio::sync::{Mutex, MutexGuard, watch};

/// Longest wait for a worker, whatever it asks for: its tasks stand still for so long.
const GRACE_MAX: Duration = Duration::from_secs(600);

/// A worker's resumable stream, beside its messages.
#[derive(Debug)]
pub(crate) struct Link {
    token: String,
    grace: Duration,
    connection: watch::Sender<u64>,
    /// Held by the task that reads from the present connection.
    reading: Mutex<()>,
    /// Messages taken in.
    received: AtomicU64,
    /// The worker said that it ends: it will not come back.
    ending: AtomicBool,
}

impl Link {
    /// For a worker that asks for it.
    pub(crate) fn asked_for(registration: &RegisterWorker) -> Option<Link> {
        let grace = registration.reconnect_grace()?;
        let grace = Duration::try_from_secs_f64(grace).unwrap_or(GRACE_MAX).min(GRACE_MAX);
        Some(Link {
            token: uuid::Uuid::new_v4().simple().to_string(),
            grace,
            connection: watch::channel(0).0,
            reading: Mutex::default(),
            received: AtomicU64::new(0),
            ending: AtomicBool::new(false),
        })
    }

    pub(crate) fn grant(&self) -> ResumeGrant {
        ResumeGrant { token: self.token.clone(), grace: self.grace.as_secs_f64() }
    }

    pub(crate) fn grace(&self) -> Duration {
        self.grace
    }

    /// Whether this is the token; takes as long for any text of its length.
    pub(crate) fn accepts(&self, token: &str) -> bool {
        let differences = self.token.bytes().zip(token.bytes()).fold(0, |all, (ours, theirs)| all | (ours ^ theirs));
        token.len() == self.token.len() && differences == 0
    }

    /// The present connection's number.
    pub(crate) fn connection(&self) -> u64 {
        *self.connection.borrow()
    }

    /// Begins another connection; the one before is not read from any more.
    pub(crate) fn supersede(&self) -> u64 {
        self.connection.send_modify(|number| *number += 1);
        self.connection()
    }

    /// Waits for a newer connection than this one.
    pub(crate) async fn superseded(&self, number: u64) {
        // The sender lives in self.
        let _ = self.connection.subscribe().wait_for(|present| *present != number).await;
    }

    /// Waits until nobody else reads.
    pub(crate) async fn read(&self) -> MutexGuard<'_, ()> {
        self.reading.lock().await
    }

    /// Messages taken in so far. Final only for who holds [`Link::read`].
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    pub(crate) fn took_one(&self) {
        self.received.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    pub(crate) fn ends(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dask_protocol::Value;
    use dask_protocol::message::{Message, RESUME_EXTRA};

    fn registration(grace: Value) -> RegisterWorker {
        let body = Value::map([
            ("address", "tcp://127.0.0.1:1".into()),
            ("status", "init".into()),
            ("nthreads", 1.into()),
            ("extra", Value::map([(RESUME_EXTRA, grace)])),
        ]);
        Message::encode(&body).expect("packs").decode().expect("a registration")
    }

    #[test]
    fn absurd_graces_are_refused_or_bounded() {
        for grace in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            assert!(Link::asked_for(&registration(grace.into())).is_none(), "{grace}");
        }
        assert!(Link::asked_for(&registration("soon".into())).is_none());
        assert_eq!(Link::asked_for(&registration(1e300.into())).map(|link| link.grace()), Some(GRACE_MAX));
        assert_eq!(Link::asked_for(&registration(2.into())).map(|link| link.grace()), Some(Duration::from_secs(2)));
    }

    #[test]
    fn only_the_token_is_accepted() {
        let link = Link::asked_for(&registration(1.into())).expect("it asks");
        let token = link.grant().token;
        assert!(link.accepts(&token));
        for wrong in ["", &token[1..], &format!("{token}0"), &token.replace(&token[..1], "x")] {
            assert!(!link.accepts(wrong), "{wrong}");
        }
    }
}
