//! The topic `stealing` of the event log: rows as upstream's, and why.

use dask_protocol::{Key, Value};

use super::super::State;
use super::super::action::Action;
use super::super::event::Seconds;
use super::super::ids::WorkerId;
use super::Move;

/// Requests logged per round; more are counted by level all the same.
const REQUESTS_LOGGED_MAX: usize = 1000;

/// The requests of one round.
#[derive(Debug, Default)]
pub(super) struct Requests {
    rows: Vec<Value>,
    reasons: Vec<Value>,
}

impl State {
    /// Why a task is asked back, in words.
    pub(super) fn reason_to_move(&self, move_: &Move) -> String {
        let (there, here) = self.starts(move_);
        format!(
            "{} is idle and could start it in {there:.2} s, {:.2} s of that to fetch its inputs; where it is it starts \
             in {here:.2} s",
            self.workers[move_.thief].address, move_.thief_transfer
        )
    }

    pub(super) fn add_request(&self, move_: &Move, reason: &str, log: &mut Requests) {
        if log.rows.len() >= REQUESTS_LOGGED_MAX {
            return;
        }
        let address = |worker| Value::from(self.workers[worker].address.as_str());
        let seconds = |seconds: Seconds| Value::from(seconds);
        log.rows.push(Value::Array(vec![
            seconds(self.now),
            move_.level.into(),
            Value::from(&self.tasks[move_.task].key),
            seconds(move_.compute + move_.victim_transfer),
            address(move_.victim),
            seconds(move_.victim_occupancy),
            address(move_.thief),
            seconds(move_.thief_occupancy),
        ]));
        log.reasons.push(reason.into());
    }

    /// `("request", rows)` as upstream logs it, and as a third element why, one text per row.
    pub(super) fn log_requests(&mut self, log: Requests) {
        if !log.rows.is_empty() {
            let msg = vec!["request".into(), Value::Array(log.rows), Value::Array(log.reasons)];
            self.out.push(Action::LogEvent { topic: "stealing".into(), msg: Value::Array(msg) });
        }
    }

    /// What came of a request: `what` and the rest as upstream has them.
    pub(super) fn log_answer(&mut self, what: Vec<Value>, key: &Key, state: Option<&str>, workers: &[WorkerId]) {
        let mut row = what;
        row.extend([Value::from(key), Value::from(state)]);
        let address = |id: &WorkerId| self.workers.get(*id).map(|worker| &worker.address);
        let address = |id: &WorkerId| address(id).or_else(|| self.incidents.departed(*id));
        row.extend(workers.iter().map(|id| Value::from(address(id).map(dask_protocol::Address::as_str))));
        row.push((&*self.stimulus_id).into());
        self.out.push(Action::LogEvent { topic: "stealing".into(), msg: Value::Array(row) });
    }
}
