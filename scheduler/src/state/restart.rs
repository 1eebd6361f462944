//! `restart`: release everything. The shell restarts the workers afterwards.

use dask_protocol::message::{Restart, StimulusId};

use super::State;
use super::action::Action;
use super::ids::{ClientSlot, TaskId};
use super::task::TaskState;

impl State {
    /// Ends all interest and forgets all tasks; clients hear of it.
    pub(super) fn restart(&mut self, stimulus_id: StimulusId) {
        self.stimulus_id = stimulus_id;
        let clients: Vec<ClientSlot> = self.clients.iter().map(|(slot, _)| slot).collect();
        for slot in clients {
            let wanted = self.clients.get(slot).map(|client| client.wants_what.iter().copied().collect::<Vec<_>>());
            self.release_interest(slot, &wanted.unwrap_or_default());
            self.transitions();
        }
        // What is left was kept by dependents that nobody wants, such as erred tasks.
        let left: Vec<TaskId> = self.tasks.iter().map(|(id, _)| id).collect();
        for id in left {
            if let Some(task) = self.tasks.get_mut(id) {
                // So that no waiter keeps it.
                task.has_lost_dependencies = true;
                self.recommend(id, TaskState::Forgotten);
                self.transitions();
            }
        }
        self.groups.forget_durations();
        self.erred_tasks.clear();
        self.out.push(Action::ToAllClients { message: Restart {}.into() });
    }
}
