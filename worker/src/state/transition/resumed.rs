//! From resumed: something is still going on, and its outcome serves the other purpose too.

use super::{Cx, Target};
use crate::state::State;
use crate::state::task::{Previous, TaskId, TaskState};

impl State {
    pub(super) fn transition_resumed(&mut self, cx: &mut Cx<'_>, id: TaskId, target: Target, previous: Previous) {
        match (target, previous) {
            (Target::Released, _) => self.set_state(id, TaskState::Cancelled(previous)),
            (Target::Waiting, Previous::Executing) => self.set_state(id, TaskState::Executing),
            (Target::Waiting, Previous::LongRunning) => {
                self.set_state(id, TaskState::LongRunning);
                self.send_long_running(cx, id, None);
            }
            (Target::Waiting, Previous::Flight) => {}
            // Wanted as an input again: the whole cancellation is forgotten.
            (Target::Fetch, Previous::Flight) => self.set_state(id, TaskState::Flight),
            (Target::Fetch, Previous::Executing | Previous::LongRunning) => {}
            (Target::Ready | Target::Missing | Target::Forgotten, _) => {}
        }
    }
}
