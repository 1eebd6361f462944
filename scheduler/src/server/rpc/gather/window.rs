//! How much of what workers answer is held at once, for all gathers together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit of the window. An answer of none or few bytes has one.
const UNIT_BYTES: u64 = 1024;

/// The window.
pub(crate) struct Window {
    units: Arc<Semaphore>,
    size: u32,
}

impl Window {
    /// An empty window of so many bytes.
    pub(crate) fn new(bytes: usize) -> Window {
        let size = units(bytes as u64).unwrap_or(u32::MAX).min(UNITS_MAX);
        Window { units: Arc::new(Semaphore::new(size as usize)), size }
    }

    /// Room for so many bytes, if there is some.
    pub(super) fn try_enter(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.units).try_acquire_many_owned(units(bytes)?).ok()
    }

    /// Room for so many bytes, or the whole window for more than it has.
    pub(super) async fn enter(&self, bytes: u64) -> OwnedSemaphorePermit {
        let units = units(bytes).unwrap_or(u32::MAX).min(self.size);
        Arc::clone(&self.units).acquire_many_owned(units).await.expect("the window is never closed")
    }
}

/// The largest window: 512 GiB, which a semaphore can count on any machine.
const UNITS_MAX: u32 = 1 << 29;

fn units(bytes: u64) -> Option<u32> {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok().map(|units| units.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_window_has_no_room_for_is_told_so() {
        const WINDOW_BYTES: u64 = 1 << 20;
        let window = Window::new(1 << 20);
        let half = window.try_enter(WINDOW_BYTES / 2).expect("it is empty");
        assert!(window.try_enter(WINDOW_BYTES / 2 + 1).is_none());
        assert!(window.try_enter(u64::MAX).is_none());
        drop(half);
        let all = window.enter(u64::MAX).await;
        assert!(window.try_enter(0).is_none());
        drop(all);
        assert!(window.try_enter(0).is_some());
    }
}
