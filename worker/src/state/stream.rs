//! The scheduler's stream, message by message.

use dask_protocol::message::{AcquireReplicas, SchedulerToWorker, WorkerStatus, WorkerStatusChange};

use super::State;
use super::action::Action;
use super::memory::replica_priority;
use super::task::TaskState;
use super::transition::{Cx, Target};

impl State {
    pub(crate) fn handle_scheduler(&mut self, cx: &mut Cx<'_>, message: SchedulerToWorker) {
        match message {
            SchedulerToWorker::ComputeTask(m) => self.handle_compute_task(cx, m),
            SchedulerToWorker::FreeKeys(m) => self.handle_free_keys(cx, &m.keys),
            SchedulerToWorker::CancelCompute(m) => self.handle_cancel_compute(cx, &m.key),
            SchedulerToWorker::AcquireReplicas(m) => self.handle_acquire_replicas(cx, &m),
            SchedulerToWorker::RemoveReplicas(m) => self.handle_remove_replicas(cx, &m.keys),
            SchedulerToWorker::StealRequest(m) => self.handle_steal_request(cx, m),
            SchedulerToWorker::RefreshWhoHas(m) => self.update_who_has(cx, &m.who_has),
            SchedulerToWorker::WorkerStatusChange(m) => self.handle_status_change(cx, m.status),
            SchedulerToWorker::RemoveWorker(m) => self.forget_peer_holdings(cx, &m.worker),
            SchedulerToWorker::CloseWorker(m) => cx.act(Action::Close { reason: m.reason }),
            // P2P belongs to the shell, the end of the stream too.
            SchedulerToWorker::ShuffleFail(_) | SchedulerToWorker::CloseStream(_) => {}
        }
    }

    fn handle_acquire_replicas(&mut self, cx: &mut Cx<'_>, message: &AcquireReplicas) {
        for (key, _) in message.who_has.iter() {
            let id = self.ensure_task(cx, key, &replica_priority());
            if self.task(id).state != TaskState::Memory {
                cx.recommend(id, Target::Fetch);
            }
        }
        self.update_nbytes(&message.nbytes);
        self.update_who_has(cx, &message.who_has);
    }

    /// The scheduler retires us, or takes that back. The answer tells it what we are from now on.
    fn handle_status_change(&mut self, cx: &mut Cx<'_>, status: WorkerStatus) {
        match status {
            WorkerStatus::Running | WorkerStatus::Paused if self.is_closing() => {}
            WorkerStatus::Running | WorkerStatus::Paused => {
                let status = if self.memory_full { WorkerStatus::Paused } else { WorkerStatus::Running };
                self.set_status(cx, status);
            }
            WorkerStatus::ClosingGracefully if !self.is_closing() => self.set_status(cx, status),
            WorkerStatus::ClosingGracefully | WorkerStatus::Closing => {}
            WorkerStatus::Init | WorkerStatus::Closed => {
                let reason = format!("worker-status-change to {}: not a status to be told", status.name());
                cx.act(Action::Illegal { reason });
            }
        }
    }

    /// Memory crossed the pause fraction: running and paused alternate, other statuses stay.
    pub(crate) fn handle_memory_full(&mut self, cx: &mut Cx<'_>, full: bool) {
        self.memory_full = full;
        match (self.status, full) {
            (WorkerStatus::Running, true) => self.set_status(cx, WorkerStatus::Paused),
            (WorkerStatus::Paused, false) => self.set_status(cx, WorkerStatus::Running),
            _ => {}
        }
    }

    /// The worker leaves.
    pub(crate) fn handle_close(&mut self, cx: &mut Cx<'_>) {
        if !self.is_closing() {
            self.set_status(cx, WorkerStatus::Closing);
        }
    }

    fn set_status(&mut self, cx: &mut Cx<'_>, status: WorkerStatus) {
        self.status = status;
        cx.send(WorkerStatusChange { status, stimulus_id: cx.stimulus_id.clone() });
    }

    fn is_closing(&self) -> bool {
        matches!(self.status, WorkerStatus::Closing | WorkerStatus::Closed)
    }

    /// Whether new executions and transfers may start.
    pub(crate) fn is_running(&self) -> bool {
        self.status == WorkerStatus::Running
    }
}
