//! From cancelled: not wanted, but something is still going on that cannot be stopped.

use super::{Cx, Target};
use crate::state::State;
use crate::state::task::{Previous, TaskId, TaskState};

impl State {
    pub(super) fn transition_cancelled(&mut self, cx: &mut Cx<'_>, id: TaskId, target: Target, previous: Previous) {
        match (target, previous) {
            (Target::Waiting, Previous::Executing) => self.set_state(id, TaskState::Executing),
            (Target::Waiting, Previous::LongRunning) => {
                self.set_state(id, TaskState::LongRunning);
                self.send_long_running(cx, id, None);
            }
            (Target::Waiting, Previous::Flight) => self.set_state(id, TaskState::Resumed(Previous::Flight)),
            (Target::Fetch, Previous::Executing | Previous::LongRunning) => {
                self.set_state(id, TaskState::Resumed(previous));
            }
            (Target::Fetch, Previous::Flight) => self.set_state(id, TaskState::Flight),
            (Target::Released | Target::Ready | Target::Missing | Target::Forgotten, _) => {}
        }
    }
}
