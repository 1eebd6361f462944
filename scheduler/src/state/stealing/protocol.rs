//! Asking a victim for a task, and what it answers.

use dask_protocol::Key;
use dask_protocol::message::{StealRequest, StimulusId};

use super::super::State;
use super::super::explain::{Incident, Rule};
use super::super::ids::{TaskId, WorkerId};
use super::{InFlight, Move, log};

/// How a victim answers.
enum Answer {
    /// It has let go of the task.
    Confirm,
    /// It runs the task, or has run it.
    Reject,
    /// It does not know the task.
    Unknown,
}

impl Answer {
    fn parse(state: Option<&str>) -> Answer {
        match state {
            Some("ready" | "constrained" | "waiting") => Answer::Confirm,
            Some("released") | None => Answer::Unknown,
            Some("memory" | "executing" | "long-running" | "cancelled" | "resumed") => Answer::Reject,
            Some(other) => {
                tracing::warn!(state = other, "unexpected state in a steal response");
                Answer::Reject
            }
        }
    }
}

impl State {
    /// Asks the victim to let go of a task (`move_task_request`).
    pub(super) fn move_task_request(&mut self, move_: &Move, log: &mut log::Requests) {
        let Move { task, level, victim, thief, compute, victim_transfer, thief_transfer, .. } = *move_;
        let stimulus_id: StimulusId = format!("steal-{}", self.stealing.request_counter).into();
        self.stealing.request_counter += 1;
        let key = self.tasks[task].key.clone();
        self.send_worker(victim, StealRequest { key, stimulus_id: stimulus_id.clone() });
        let reason = self.reason_to_move(move_);
        self.add_request(move_, &reason, log);
        self.note_incident(task, |state| Incident::StealRequested {
            victim: state.workers[victim].address.clone(),
            thief: state.workers[thief].address.clone(),
            reason,
        });
        let (there, here) = self.starts(move_);
        let scores = [(thief, move_.thief_occupancy, there), (victim, move_.victim_occupancy, here)]
            .map(|(worker, occupancy, start)| self.score(worker, occupancy, start, self.missing_bytes(task, worker)));
        let (victim_duration, thief_duration) = (compute + victim_transfer, compute + thief_transfer);
        self.stealing.add(task, InFlight { victim, thief, victim_duration, thief_duration, scores, stimulus_id });
        let (count, seconds) = &mut self.stealing.requests[level];
        *count += 1;
        *seconds += victim_duration;
    }

    /// The victim's answer (`move_task_confirm`); the event's stimulus id names the request.
    pub(in crate::state) fn steal_response(&mut self, worker: WorkerId, key: &Key, state: Option<&str>) {
        let Some(id) = self.tasks.id(key) else {
            return;
        };
        let current = self.stealing.in_flight.get(&id);
        if current.is_none_or(|move_| move_.stimulus_id != self.stimulus_id || move_.victim != worker) {
            let outcome = if current.is_some() { "stale-response" } else { "already-aborted" };
            self.log_answer(vec![outcome.into()], key, state, &[worker]);
            return;
        }
        let move_ = self.stealing.remove(id).expect("looked up above");
        // A thief that paused or left in the meantime gets nothing.
        let thief_runs = self.running.contains(&move_.thief);
        let workers = [move_.victim, move_.thief];
        match Answer::parse(state) {
            Answer::Confirm if thief_runs => {
                self.log_answer(vec!["confirm".into()], key, state, &workers);
                self.considered.rank(Rule::Stolen, 2, &move_.scores);
                self.hand_over(id, move_.victim, move_.thief);
            }
            Answer::Confirm | Answer::Unknown => {
                let thief_left = !self.workers.is_registered(move_.thief);
                self.log_answer(vec!["reschedule".into(), thief_left.into()], key, state, &workers);
                self.reschedule(worker, key);
            }
            Answer::Reject => {
                self.log_answer(vec!["already-computing".into()], key, state, &workers);
                // Upstream takes it off its list of what could be stolen, too.
                self.tasks[id].steal_refused = true;
                self.note_incident(id, |told| Incident::StealRefused {
                    victim: told.workers[worker].address.clone(),
                    state: state.unwrap_or_default().to_owned(),
                });
            }
        }
        self.check_idle_saturated(move_.thief, None);
        self.check_idle_saturated(move_.victim, None);
    }

    /// The victim has released the task already: it goes to the thief without any transition.
    fn hand_over(&mut self, id: TaskId, victim: WorkerId, thief: WorkerId) {
        self.unbook_processing(id, victim);
        self.release_resources(id, victim);
        self.tasks[id].processing_on = Some(thief);
        self.book_processing(id, thief);
        self.acquire_resources(id, thief);
        if self.workers[victim].actors.swap_remove(&id) {
            self.workers[thief].actors.insert(id);
        }
        let task = &mut self.tasks[id];
        task.moves = task.moves.saturating_add(1);
        self.send_compute_task(id, thief);
    }
}
