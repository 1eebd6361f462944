//! What others decide about a native task while it runs.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Who is told elsewhere that a task should end.
pub(crate) trait Listener: Send + Sync {
    /// It should; may be said more than once.
    fn cancelled(&self);
}

/// Shared by a running task, its thread, and the pool. One allocation per task: there may be hundreds of thousands a second.
#[derive(Default)]
pub(crate) struct Fate {
    cancelled: AtomicBool,
    wake: Notify,
    given_up: AtomicBool,
    seceded: AtomicBool,
    overdue: OnceLock<f64>,
    listener: OnceLock<Box<dyn Listener>>,
}

impl Fate {
    /// It should end; `limit` is the `timeout` in seconds that it is over.
    pub(crate) fn cancel(&self, limit: Option<f64>) {
        if let Some(limit) = limit {
            // Once is enough: a task has one limit.
            let _ = self.overdue.set(limit);
        }
        self.cancelled.store(true, Ordering::Release);
        self.wake.notify_waiters();
        if let Some(listener) = self.listener.get() {
            listener.cancelled();
        }
    }

    /// Has somebody else told that it should end, now or later.
    pub(crate) fn listen(&self, listener: Box<dyn Listener>) {
        let listener = self.listener.get_or_init(|| listener);
        if self.is_cancelled() {
            listener.cancelled();
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Resolves when it should end.
    pub(crate) async fn cancelled(&self) {
        loop {
            let mut woken = std::pin::pin!(self.wake.notified());
            // In line before looking, so that no call in between goes unnoticed.
            woken.as_mut().enable();
            if self.is_cancelled() {
                return;
            }
            woken.await;
        }
    }

    /// Nobody waits for its outcome any more, and its thread has been replaced.
    pub(crate) fn give_up(&self) {
        self.cancel(None);
        self.given_up.store(true, Ordering::Release);
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// It leaves the pool by itself; false if it has already.
    pub(crate) fn secede(&self) -> bool {
        !self.seceded.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn has_seceded(&self) -> bool {
        self.seceded.load(Ordering::Acquire)
    }

    /// The `timeout` it is over, in seconds.
    pub(crate) fn overdue(&self) -> Option<f64> {
        self.overdue.get().copied()
    }
}
