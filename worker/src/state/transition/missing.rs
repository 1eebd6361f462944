//! From missing: wanted from a peer, and nobody is known to hold it.

use super::{Cx, Target};
use crate::state::State;
use crate::state::task::{TaskId, TaskState};

/// How often the scheduler is asked for holders of missing keys.
pub(crate) const FIND_MISSING_INTERVAL: f64 = 1.0;

impl State {
    pub(super) fn transition_missing(&mut self, cx: &mut Cx<'_>, id: TaskId, target: Target) {
        match target {
            Target::Released => {
                self.missing.swap_remove(&id);
                self.enter_released(cx, id);
            }
            Target::Waiting => {
                self.missing.swap_remove(&id);
                self.enter_released(cx, id);
                cx.recommend(id, Target::Waiting);
            }
            Target::Fetch if !self.task(id).who_has.is_empty() => {
                self.missing.swap_remove(&id);
                self.enter_fetch(cx, id);
            }
            Target::Fetch | Target::Ready | Target::Missing | Target::Forgotten => {}
        }
    }

    /// A replica that nobody here waits for is given up at once; the scheduler will ask again if it wants it.
    pub(super) fn enter_missing(&mut self, cx: &mut Cx<'_>, id: TaskId) {
        if self.task(id).waiters == 0 {
            self.enter_released(cx, id);
            return;
        }
        self.set_state(id, TaskState::Missing);
        self.missing.insert(id);
        self.find_missing_at.get_or_insert(cx.now + FIND_MISSING_INTERVAL);
    }
}
