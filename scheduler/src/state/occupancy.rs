//! How long workers are expected to be busy: counts of processing tasks times the average duration of their prefix.

use super::State;
use super::event::Seconds;
use super::group::nanoseconds;
use super::ids::{PrefixId, TaskId, WorkerId};
use super::worker::{Need, Worker};

impl State {
    /// Seconds one more task of this prefix is expected to take (`_get_prefix_duration`).
    pub(super) fn prefix_duration(&self, prefix: PrefixId) -> Seconds {
        self.groups.prefix(prefix).estimate(self.config.unknown_task_duration)
    }

    /// Keeps the total in step after a prefix learnt about durations.
    pub(super) fn refresh_estimate(&mut self, id: PrefixId) {
        let unknown = self.config.unknown_task_duration;
        let prefix = self.groups.prefix_mut(id);
        let estimate_ns = nanoseconds(prefix.estimate(unknown));
        self.total_compute_ns -= u128::from(prefix.processing) * u128::from(prefix.estimate_ns);
        self.total_compute_ns += u128::from(prefix.processing) * u128::from(estimate_ns);
        prefix.estimate_ns = estimate_ns;
    }

    /// Seconds until a worker is expected to be done with what it was given (`WorkerState.occupancy`).
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn occupancy(&self, worker: &Worker) -> Seconds {
        let prefixes = worker.prefix_count.iter();
        let compute: Seconds = prefixes.map(|(prefix, count)| self.prefix_duration(*prefix) * f64::from(*count)).sum();
        compute + worker.network_occupancy as f64 / self.bandwidth
    }

    /// The same for all workers together (`total_occupancy`).
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn total_occupancy_seconds(&self) -> Seconds {
        self.total_compute_ns as f64 / 1e9 + self.total_network_occupancy as f64 / self.bandwidth
    }

    /// Average seconds of work per thread of the cluster.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn average_occupancy(&self) -> Seconds {
        self.total_occupancy_seconds() / self.total_nthreads.max(1) as f64
    }

    /// Bytes a task's result counts for (`get_nbytes`).
    pub(super) fn nbytes(&self, id: TaskId) -> u64 {
        u64::try_from(self.tasks[id].nbytes).unwrap_or(self.config.default_data_size)
    }

    /// Seconds to bring to a worker what the task's dependencies miss there (`get_comm_cost`).
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn comm_cost(&self, task: TaskId, worker: WorkerId) -> Seconds {
        self.missing_bytes(task, worker) as f64 / self.bandwidth
    }

    /// Bytes of the task's dependencies that a worker does not have.
    pub(super) fn missing_bytes(&self, task: TaskId, worker: WorkerId) -> u128 {
        let dependencies = self.tasks[task].dependencies.iter();
        let missing = dependencies.filter(|dep| !self.tasks[*dep].who_has.contains(worker));
        missing.map(|dep| u128::from(self.nbytes(dep))).sum()
    }

    /// Books a task on a worker (`WorkerState.add_to_processing`).
    pub(super) fn book_processing(&mut self, task: TaskId, worker: WorkerId) {
        self.count_processing(task, worker);
        self.total_processing += 1;
        self.workers[worker].processing.insert(task);
        for position in 0..self.tasks[task].dependencies.len() {
            let dep = self.tasks[task].dependencies.at(position);
            if !self.tasks[dep].who_has.contains(worker) {
                self.book_need(dep, worker);
            }
        }
    }

    /// Takes a task off a worker (`WorkerState.remove_from_processing`).
    pub(super) fn unbook_processing(&mut self, task: TaskId, worker: WorkerId) {
        if self.tasks[task].long_running {
            self.tasks[task].long_running = false;
            self.workers[worker].long_running.swap_remove(&task);
        } else {
            self.uncount_processing(task, worker);
        }
        self.total_processing -= 1;
        self.workers[worker].processing.remove(task);
        if self.workers[worker].needs_what.is_empty() {
            return;
        }
        for position in 0..self.tasks[task].dependencies.len() {
            let dep = self.tasks[task].dependencies.at(position);
            self.unbook_need(dep, worker);
        }
    }

    /// A task seceded: it no longer counts as work (`add_to_long_running`).
    pub(super) fn book_long_running(&mut self, task: TaskId, worker: WorkerId) {
        self.uncount_processing(task, worker);
        self.tasks[task].long_running = true;
        self.workers[worker].long_running.insert(task);
    }

    fn count_processing(&mut self, task: TaskId, worker: WorkerId) {
        let id = self.tasks[task].prefix;
        let counts = &mut self.workers[worker].prefix_count;
        match counts.iter_mut().find(|(prefix, _)| *prefix == id) {
            Some((_, count)) => *count += 1,
            None => counts.push((id, 1)),
        }
        let prefix = self.groups.prefix_mut(id);
        prefix.processing += 1;
        self.total_compute_ns += u128::from(prefix.estimate_ns);
    }

    fn uncount_processing(&mut self, task: TaskId, worker: WorkerId) {
        let id = self.tasks[task].prefix;
        let counts = &mut self.workers[worker].prefix_count;
        let place = counts.iter().position(|(prefix, _)| *prefix == id);
        let place = place.expect("a processing task is counted under its prefix");
        counts[place].1 -= 1;
        if counts[place].1 == 0 {
            counts.swap_remove(place);
        }
        let prefix = self.groups.prefix_mut(id);
        prefix.processing -= 1;
        self.total_compute_ns -= u128::from(prefix.estimate_ns);
    }

    fn book_need(&mut self, dep: TaskId, worker: WorkerId) {
        if let Some(need) = self.workers[worker].needs_what.get_mut(&dep) {
            need.count += 1;
            return;
        }
        let (nbytes, sender) = (self.nbytes(dep), self.likely_sender(dep));
        let worker = &mut self.workers[worker];
        worker.needs_what.insert(dep, Need { count: 1, nbytes, sender });
        worker.network_occupancy += u128::from(nbytes);
        self.total_network_occupancy += u128::from(nbytes);
        if let Some(sender) = sender {
            self.workers[sender].outgoing += u128::from(nbytes);
        }
    }

    /// The holder that a result is expected to be fetched from, if only one task reads it: such a piece is fetched once,
    /// from where it was made. What many read is passed on by everyone who has it, and waits for no worker in particular.
    pub(super) fn likely_sender(&self, dep: TaskId) -> Option<WorkerId> {
        /// More holders than these are as good.
        const HOLDERS_MAX: usize = 4;
        let dep = &self.tasks[dep];
        if dep.dependents.len() > 1 {
            return None;
        }
        dep.who_has.iter().take(HOLDERS_MAX).min_by_key(|holder| self.workers[*holder].outgoing)
    }

    fn unbook_need(&mut self, dep: TaskId, worker: WorkerId) {
        if let Some(need) = self.workers[worker].needs_what.get_mut(&dep) {
            need.count -= 1;
            if need.count == 0 {
                self.clear_need(dep, worker);
            }
        }
    }

    /// A dependency arrived, or nobody needs it there any more.
    pub(super) fn clear_need(&mut self, dep: TaskId, worker: WorkerId) {
        if let Some(need) = self.workers[worker].needs_what.swap_remove(&dep) {
            self.workers[worker].network_occupancy -= u128::from(need.nbytes);
            self.total_network_occupancy -= u128::from(need.nbytes);
            if let Some(sender) = need.sender.and_then(|sender| self.workers.get_mut(sender)) {
                sender.outgoing -= u128::from(need.nbytes);
            }
        }
    }
}
