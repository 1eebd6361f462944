//! `compute-task`, the slots, and what runs next (dask's `_ensure_computing`).

use std::sync::Arc;

use dask_protocol::message::{ComputeTask, Priority, Resources, RunId, StealRequest, StealResponse};
use dask_protocol::{Key, Value};

use super::State;
use super::action::Action;
use super::event::{ExecuteOutcome, Seconds};
use super::story::StoryRow;
use super::story::What;
use super::task::{Computation, Previous, Task, TaskId, TaskState, known_size};
use super::timeout::Limit;
use super::transition::{Cx, Target};

/// Slack when amounts of resources are compared, against rounding of sums.
const RESOURCE_SLACK: f64 = 1e-9;

/// An execution the shell was told to start and has not reported back.
#[derive(Debug)]
pub(crate) struct Execution {
    pub start: Seconds,
    /// Whether it gave its slot back.
    pub seceded: bool,
    /// Whether others may wait behind it at its executor.
    pub quick: bool,
    pub resources: Resources,
    pub limit: Option<Limit>,
}

impl State {
    pub(crate) fn handle_compute_task(&mut self, cx: &mut Cx<'_>, message: ComputeTask) {
        if let Some(reason) = self.reject_compute_task(&message) {
            cx.act(Action::Illegal { reason });
            return;
        }
        let priority = message.priority.extended(self.generation);
        let id = self.ensure_task(cx, &message.key, &priority);
        self.log_event(cx, id, "compute-task");
        self.task_mut(id).run_id = message.run_id;
        match self.task(id).state {
            TaskState::Waiting
            | TaskState::Ready
            | TaskState::Constrained
            | TaskState::Executing
            | TaskState::LongRunning => {}
            TaskState::Memory => self.send_task_finished(cx, id, message.run_id, Value::Nil, None),
            // What runs goes on as it was started; its outcome carries the old run.
            TaskState::Cancelled(Previous::Executing | Previous::LongRunning)
            | TaskState::Resumed(Previous::Executing | Previous::LongRunning) => cx.recommend(id, Target::Waiting),
            TaskState::Released
            | TaskState::Error
            | TaskState::Fetch
            | TaskState::Missing
            | TaskState::Flight
            | TaskState::Cancelled(Previous::Flight)
            | TaskState::Resumed(Previous::Flight) => self.accept_computation(cx, id, message, priority),
        }
    }

    fn reject_compute_task(&self, message: &ComputeTask) -> Option<String> {
        let key = &message.key;
        if message.who_has.iter().any(|(dependency, _)| dependency == key) {
            return Some(format!("compute-task for {key:?}: the task depends on itself"));
        }
        if self.running.contains_key(&(key.clone(), message.run_id)) {
            return Some(format!("compute-task for {key:?}: run {} is running already", message.run_id));
        }
        for (name, amount) in message.resource_restrictions.iter().flat_map(|r| r.iter()) {
            if !self.config.resources.iter().any(|(supplied, _)| supplied == name) {
                return Some(format!("compute-task for {key:?}: this worker has no resource {name:?}"));
            }
            if !amount.is_finite() || *amount < 0.0 {
                return Some(format!("compute-task for {key:?}: {amount} is no amount of {name:?}"));
            }
        }
        None
    }

    fn accept_computation(&mut self, cx: &mut Cx<'_>, id: TaskId, message: ComputeTask, priority: Priority) {
        match self.task(id).state {
            TaskState::Fetch => {
                self.leave_fetch(id);
                self.set_state(id, TaskState::Released);
            }
            TaskState::Missing => {
                self.missing.swap_remove(&id);
                self.set_state(id, TaskState::Released);
            }
            TaskState::Error => self.set_state(id, TaskState::Released),
            _ => {}
        }
        self.generation -= 1.0;
        let task = self.task_mut(id);
        task.priority = priority.clone();
        task.error = None;
        task.result = None;
        task.startstops.clear();
        task.computation = Some(Arc::new(Computation {
            spec: message.run_spec,
            annotations: message.annotations,
            span_id: message.span_id,
            actor: message.actor,
            resources: message.resource_restrictions.unwrap_or_default(),
        }));
        self.clear_dependencies(cx, id);
        for (key, _) in message.who_has.iter() {
            let dependency = self.ensure_task(cx, key, &priority);
            self.task_mut(id).dependencies.insert(dependency);
            self.task_mut(dependency).dependents.insert(id);
        }
        self.update_nbytes(&message.nbytes);
        self.update_who_has(cx, &message.who_has);
        cx.recommend(id, Target::Waiting);
    }

    /// Takes over sizes of values that are not here.
    pub(crate) fn update_nbytes(&mut self, nbytes: &[(Key, i64)]) {
        for (key, nbytes) in nbytes {
            if let Some(id) = self.find(key) {
                let task = self.task_mut(id);
                if task.state != TaskState::Memory {
                    task.nbytes = known_size(*nbytes);
                }
            }
        }
    }

    /// The task of this name, made if it is not known (dask's `_ensure_task_exists`).
    pub(crate) fn ensure_task(&mut self, cx: &Cx<'_>, key: &Key, priority: &Priority) -> TaskId {
        let (id, new) = self.tasks.get_or_insert_with(key, || Task::new(key.clone(), priority.clone()));
        if !new {
            return id;
        }
        self.counts[TaskState::Released.index()] += 1;
        let what = What::Event { name: "ensure-task-exists", state: TaskState::Released.name() };
        self.story.push(StoryRow { key: key.clone(), what, stimulus_id: cx.stimulus_id.clone(), time: cx.now });
        id
    }

    /// Fills free slots with the best runnable tasks, and hands short ones over before there is a slot.
    pub(crate) fn ensure_computing(&mut self, cx: &mut Cx<'_>) {
        while self.is_running() {
            let Some(id) = self.next_runnable() else { break };
            let full = self.slots_used >= self.config.nthreads;
            // Behind a task of which less is known, nothing is sure to start soon.
            if full && self.slow_slots > 0 {
                break;
            }
            let ahead = self.ahead(id);
            if full && self.slots_used >= self.config.nthreads.saturating_mul(1 + ahead) {
                break;
            }
            self.leave_queue(id);
            self.start_execution(cx, id, ahead > 0);
        }
    }

    /// The best of both queues. Only the head of the constrained one counts: smaller demands must not starve it.
    fn next_runnable(&self) -> Option<TaskId> {
        let ready = self.ready.first();
        let constrained = self.constrained.first().filter(|(_, id)| self.resources_suffice(*id));
        match (ready, constrained) {
            (Some(ready), Some(constrained)) if constrained.0 < ready.0 => Some(constrained.1),
            (Some(ready), _) => Some(ready.1),
            (None, Some(constrained)) => Some(constrained.1),
            (None, None) => None,
        }
    }

    fn resources_suffice(&self, id: TaskId) -> bool {
        let Some(computation) = &self.task(id).computation else { return true };
        let free = |name: &str| self.resources_available().find(|(n, _)| *n == name).map_or(0.0, |(_, amount)| amount);
        computation.resources.iter().all(|(name, needed)| free(name) + RESOURCE_SLACK >= *needed)
    }

    fn start_execution(&mut self, cx: &mut Cx<'_>, id: TaskId, quick: bool) {
        let start = self.task(id).state;
        self.set_state(id, TaskState::Executing);
        let task = self.task_mut(id);
        task.execution = Some(task.run_id);
        let (key, run_id) = (task.key.clone(), task.run_id);
        let priority = task.priority.clone();
        let computation = task.computation.clone().expect("a runnable task has a computation");
        let dependencies = self.task(id).dependencies.iter().map(|d| self.task(*d).key.clone()).collect();
        let limit = Limit::of(&computation.annotations, cx.now);
        let resources = computation.resources.clone();
        self.occupy(&key, run_id, Execution { start: cx.now, seceded: false, quick, resources, limit });
        self.log_settled(cx, id, start, "executing");
        cx.act(Action::Execute {
            key,
            run_id,
            spec: computation.spec.clone(),
            dependencies,
            priority,
            annotations: computation.annotations.clone(),
            span_id: computation.span_id.clone(),
            actor: computation.actor,
            stimulus_id: cx.stimulus_id.clone(),
        });
    }

    fn occupy(&mut self, key: &Key, run_id: RunId, execution: Execution) {
        self.slots_used += 1;
        self.slow_slots += u32::from(!execution.quick);
        for (name, amount) in execution.resources.iter() {
            *self.resources_used.entry(name.clone()).or_insert(0.0) += amount;
        }
        self.running.insert((key.clone(), run_id), execution);
    }

    fn vacate(&mut self, execution: &Execution) {
        if !execution.seceded {
            self.leave_slot(execution.quick);
        }
        for (name, amount) in execution.resources.iter() {
            *self.resources_used.get_mut(name).expect("a resource in use is booked") -= amount;
        }
        if self.running.is_empty() {
            // Sums of fractions drift; nothing runs, so nothing is used.
            self.resources_used.clear();
        }
    }

    fn leave_slot(&mut self, quick: bool) {
        self.slots_used -= 1;
        self.slow_slots -= u32::from(!quick);
    }

    /// An execution ended, whether its task still wants it or not.
    pub(crate) fn handle_execute_done(&mut self, cx: &mut Cx<'_>, key: Key, run_id: RunId, outcome: ExecuteOutcome) {
        let execution = self.running.swap_remove(&(key.clone(), run_id));
        if let Some(execution) = &execution {
            self.learn_duration(&key, &outcome);
            self.vacate(execution);
            self.executed_count += 1;
        }
        let wanted = self.find(&key).filter(|id| self.task(*id).execution == Some(run_id));
        match wanted {
            Some(id) => self.settle_execution(cx, id, run_id, outcome),
            // Its value was put here from outside meanwhile, and perhaps freed again.
            None if matches!(outcome, ExecuteOutcome::Success { .. }) => self.drop_unclaimed(cx, &key),
            None => {}
        }
    }

    /// A running task left its slot (dask's `SecedeEvent`).
    pub(crate) fn handle_seceded(&mut self, cx: &mut Cx<'_>, key: Key, compute_duration: Seconds) {
        let id = self.find(&key);
        let run_id = id.and_then(|id| self.task(id).execution);
        let run_id = run_id.or_else(|| self.running.keys().find(|(k, _)| *k == key).map(|(_, run_id)| *run_id));
        let Some(run_id) = run_id else { return };
        let execution = self.running.get_mut(&(key, run_id)).expect("a task's execution is running");
        if std::mem::replace(&mut execution.seceded, true) {
            return;
        }
        let quick = execution.quick;
        self.leave_slot(quick);
        if let Some(id) = id {
            self.settle_seceded(cx, id, compute_duration);
        }
    }

    /// A task that has not started can be given back.
    pub(crate) fn handle_steal_request(&mut self, cx: &mut Cx<'_>, request: StealRequest) {
        let id = self.find(&request.key);
        let state = id.map(|id| self.task(id).state);
        let name = state.map(|s| s.name().to_owned());
        cx.send(StealResponse { key: request.key, state: name, stimulus_id: request.stimulus_id });
        if let Some(id) = id
            && state.is_some_and(has_not_started)
        {
            cx.recommend(id, Target::Released);
        }
    }

    pub(crate) fn handle_cancel_compute(&mut self, cx: &mut Cx<'_>, key: &Key) {
        if let Some(id) = self.find(key)
            && has_not_started(self.task(id).state)
        {
            self.log_event(cx, id, "cancel-compute");
            cx.recommend(id, Target::Released);
        }
    }

    /// `set_resources`: what more there is now may let tasks start that wait for it.
    pub(crate) fn handle_set_resources(&mut self, resources: Resources) {
        for (name, amount) in resources {
            match self.config.resources.0.iter_mut().find(|(supplied, _)| *supplied == name) {
                Some((_, total)) => *total = amount,
                None => self.config.resources.0.push((name, amount)),
            }
        }
    }

    /// Resources not taken by executions, by name.
    pub fn resources_available(&self) -> impl Iterator<Item = (&str, f64)> {
        self.config.resources.iter().map(|(name, total)| {
            let used = self.resources_used.get(name).copied().unwrap_or(0.0);
            (name.as_str(), total - used)
        })
    }
}

fn has_not_started(state: TaskState) -> bool {
    matches!(state, TaskState::Waiting | TaskState::Ready | TaskState::Constrained)
}
