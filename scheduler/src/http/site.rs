//! [`Site`]: what all pages share, and how much of the driver's time they get.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as StdInstant};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, sleep_until, timeout};

use super::frame::Frame;
use super::guard::Guard;
use super::profile;
use super::stream::Stream;
use crate::server::{Core, Server};

/// After a question the driver is left alone for this many times as long as the answer took: all pages of all readers
/// together get at most 2 % of it.
const REST: u32 = 50;
/// ... but for no longer than this.
const REST_MAX: Duration = Duration::from_secs(2);
/// How long a page waits for its turn and its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Readers within this time share a frame.
const FRAME_AGE: Duration = Duration::from_millis(20);

/// The pages of one scheduler.
pub(super) struct Site {
    pub(super) server: Arc<Server>,
    pub(super) guard: Guard,
    /// When the driver may be asked again; held while it is asked.
    next: Arc<AsyncMutex<Instant>>,
    frame: AsyncMutex<Option<(StdInstant, Arc<Frame>)>>,
    stream: Mutex<Stream>,
    pub(super) profile: profile::Kept,
    /// The longest turn of the driver since `/metrics` was last read, in seconds.
    longest_turn: Mutex<f64>,
}

/// Why a page cannot be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unavailable {
    /// The scheduler is closing.
    Closing,
    /// The driver had no time to answer.
    Busy,
}

impl IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        let why = match self {
            Unavailable::Closing => "the scheduler is closing\n",
            Unavailable::Busy => "the scheduler has no time for pages now: try again\n",
        };
        (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
    }
}

impl Site {
    pub(super) fn new(server: Arc<Server>, guard: Guard) -> Site {
        let stream = Mutex::new(Stream::new(server.options.page_stream_length));
        Site {
            server,
            guard,
            next: Arc::new(AsyncMutex::new(Instant::now())),
            frame: AsyncMutex::new(None),
            stream,
            profile: profile::Kept::default(),
            longest_turn: Mutex::new(0.0),
        }
    }

    /// Asks the driver something when it is the turn of this page. A reader that goes away meanwhile changes nothing: what
    /// was asked for is waited for all the same.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Core) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (server, next) = (Arc::clone(&self.server), Arc::clone(&self.next));
        let asked = tokio::spawn(async move {
            let mut next = next.lock().await;
            sleep_until(*next).await;
            let timed = move |core: &mut Core| {
                let began = StdInstant::now();
                (question(core), began.elapsed())
            };
            let (answer, took) = server.driver.run(timed).await.map_err(|_| Unavailable::Closing)?;
            *next = Instant::now() + (took * REST).min(REST_MAX);
            Ok(answer)
        });
        match timeout(ANSWER_TIMEOUT, asked).await {
            Err(_) => Err(Unavailable::Busy),
            Ok(Err(_)) => Err(Unavailable::Closing),
            Ok(Ok(answer)) => answer,
        }
    }

    /// The present state of everything, as new as its cost allows.
    pub(super) async fn frame(&self) -> Result<Arc<Frame>, Unavailable> {
        let mut kept = self.frame.lock().await;
        if let Some((at, frame)) = &*kept
            && at.elapsed() < FRAME_AGE
        {
            return Ok(Arc::clone(frame));
        }
        let (address, started, asked) = (self.server.address.clone(), self.server.started, StdInstant::now());
        let (mut frame, parts, missed) = self
            .ask(move |core| {
                let (parts, missed) = core.recent.take();
                (Frame::of(core, address, started), parts, missed)
            })
            .await?;
        frame.answered_in = asked.elapsed().as_secs_f64();
        self.stream().absorb(parts, missed);
        let mut longest = self.longest_turn.lock().unwrap_or_else(PoisonError::into_inner);
        *longest = longest.max(frame.turns.longest);
        let frame = Arc::new(frame);
        *kept = Some((StdInstant::now(), Arc::clone(&frame)));
        Ok(frame)
    }

    /// What tasks did lately.
    pub(super) fn stream(&self) -> std::sync::MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds of the driver's longest turn since this was last asked.
    pub(super) fn take_longest_turn(&self) -> f64 {
        std::mem::take(&mut *self.longest_turn.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
