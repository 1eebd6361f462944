//! Who is connected to the HTTP server. When it is full, whoever has waited longest without a request makes room: health
//! checks get through however many callers there are that say nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Who takes longer over one request makes room, too. Pages take 20 s at most; what comes slower is the request's body.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);
/// How often to look for such when everybody is busy.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Places for so many connections.
#[derive(Debug)]
pub(super) struct Room {
    places: usize,
    callers: Mutex<Callers>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Callers {
    next: u64,
    /// In the order of their arrival.
    present: IndexMap<u64, Caller>,
}

#[derive(Debug)]
struct Caller {
    /// When the request came that is being answered.
    busy_since: Option<Instant>,
    sent_away: CancellationToken,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    number: u64,
    /// Cancelled when the connection has to make room for another.
    pub(super) sent_away: CancellationToken,
}

impl Room {
    pub(super) fn new(places: usize) -> Arc<Room> {
        Arc::new(Room { places, callers: Mutex::default(), left: Notify::new() })
    }

    /// A place for a caller that is at the door: somebody else's, or after a while, if all are taken.
    pub(super) async fn enter(self: &Arc<Self>) -> Place {
        loop {
            let left = self.left.notified();
            if let Some(place) = self.place() {
                return place;
            }
            // Somebody may have become too slow meanwhile.
            let _ = tokio::time::timeout(LOOK_AGAIN, left).await;
        }
    }

    fn place(self: &Arc<Self>) -> Option<Place> {
        let mut callers = self.callers();
        if callers.present.len() >= self.places {
            let slowest = callers.present.values().position(Caller::makes_room)?;
            if let Some((_, caller)) = callers.present.shift_remove_index(slowest) {
                caller.sent_away.cancel();
            }
        }
        let (number, sent_away) = (callers.next, CancellationToken::new());
        callers.next += 1;
        callers.present.insert(number, Caller { busy_since: None, sent_away: sent_away.clone() });
        Some(Place { room: Arc::clone(self), number, sent_away })
    }

    fn callers(&self) -> MutexGuard<'_, Callers> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller {
    fn makes_room(&self) -> bool {
        self.busy_since.is_none_or(|since| since.elapsed() > REQUEST_TIME_MAX)
    }
}

impl Place {
    /// A request came, or was answered.
    pub(super) fn set_busy(&self, busy: bool) {
        if let Some(caller) = self.room.callers().present.get_mut(&self.number) {
            caller.busy_since = busy.then(Instant::now);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Gone already if it was sent away.
        self.room.callers().present.shift_remove(&self.number);
        self.room.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waited_longest_makes_room() {
        let room = Room::new(3);
        let (busy, idle, newer) = (room.enter().await, room.enter().await, room.enter().await);
        busy.set_busy(true);
        let _newest = room.enter().await;
        assert!(idle.sent_away.is_cancelled());
        assert!(!busy.sent_away.is_cancelled() && !newer.sent_away.is_cancelled());
        drop(idle);
        assert_eq!(room.callers().present.len(), 3);
    }

    #[tokio::test]
    async fn where_all_are_busy_one_waits() {
        let room = Room::new(1);
        let only = room.enter().await;
        only.set_busy(true);
        assert!(room.place().is_none());
        let waiting = tokio::spawn({
            let room = Arc::clone(&room);
            async move { room.enter().await.number }
        });
        drop(only);
        assert_eq!(waiting.await.expect("it gets in"), 1);
    }
}
