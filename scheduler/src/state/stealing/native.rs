//! What the policy `native` does not move although upstream would.

use super::super::State;
use super::super::config::Policy;
use super::super::event::Seconds;
use super::super::ids::TaskId;
use super::{LATENCY, Move};

/// Times one execution is moved at most: upstream has been seen to move a task 45 times.
pub(super) const MOVES_MAX: u8 = 3;

/// Why a task stays where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declined {
    /// It was moved several times already.
    MovedOften,
    /// It starts sooner where it is than its inputs could be brought elsewhere.
    SoonerWhereItIs,
}

impl Declined {
    /// All reasons, in declaration order.
    pub const ALL: [Declined; 2] = [Declined::MovedOften, Declined::SoonerWhereItIs];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Declined::MovedOften => "moved-often",
            Declined::SoonerWhereItIs => "sooner-where-it-is",
        }
    }
}

impl State {
    /// Whether the policy leaves a task where it is; counted.
    pub(super) fn declines(&mut self, move_: &Move) -> bool {
        let reason = match self.config.policy {
            Policy::Upstream => None,
            Policy::Native => self.reason_to_decline(move_),
        };
        if let Some(reason) = reason {
            self.stealing.declined[reason as usize] += 1;
        }
        reason.is_some()
    }

    pub(super) fn reason_to_decline(&self, move_: &Move) -> Option<Declined> {
        if self.was_moved_often(move_.task) {
            return Some(Declined::MovedOften);
        }
        let (there, here) = self.starts(move_);
        (there >= here).then_some(Declined::SoonerWhereItIs)
    }

    pub(super) fn was_moved_often(&self, id: TaskId) -> bool {
        self.tasks[id].moves >= MOVES_MAX
    }

    /// Seconds until the task starts with the thief, and with the victim. The victim fetches while the task waits; and
    /// the task is the last there at worst, which is when it is worth stealing.
    pub(super) fn starts(&self, move_: &Move) -> (Seconds, Seconds) {
        let threads = |worker| f64::from(self.workers[worker].nthreads);
        let there = LATENCY + move_.thief_transfer + move_.thief_occupancy.max(0.0) / threads(move_.thief);
        let waits = (move_.victim_occupancy - move_.compute).max(0.0) / threads(move_.victim);
        (there, waits.max(move_.victim_transfer))
    }
}
