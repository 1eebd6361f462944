//! Taking in a graph: new tasks, their edges, priorities and interest, in the order upstream does it.

use dask_protocol::message::{CancelledKeys, Keys};
use dask_protocol::{Address, Key, Value};

use super::State;
use super::action::Action;
use super::event::{ClientId, NewTask, UpdateGraph};
use super::ids::{ClientSlot, FastSet, GroupId, IdSet, TaskId};
use super::task::{Restrictions, Task, TaskPriority, TaskState};

/// How much earlier a task's own submissions run than what its client submits next.
const SUBTASK_STEP: f64 = 0.01;

/// The graph while it is taken in.
struct Intake {
    /// The slot of each task of the graph.
    ids: Vec<TaskId>,
    /// Which of them are new.
    new: Vec<bool>,
    /// Dependencies of all tasks, one after another; `None` is a key nobody knows.
    dependencies: Vec<Option<TaskId>>,
    /// Where each task's dependencies begin, and after the last one end.
    offsets: Vec<usize>,
    /// Which tasks of the graph the wanted keys reach.
    reached: Vec<bool>,
    /// Which of them get their edges: those that do not collide with what is known.
    linked: Vec<bool>,
    /// Everything reached, whether in the graph or known before.
    touched: Vec<TaskId>,
}

impl Intake {
    fn dependencies(&self, position: usize) -> &[Option<TaskId>] {
        &self.dependencies[self.offsets[position]..self.offsets[position + 1]]
    }
}

impl State {
    /// Takes in a materialised graph. A client that has left meanwhile gets nothing; its graph is dropped.
    pub(super) fn update_graph(&mut self, graph: UpdateGraph) {
        let UpdateGraph { client, tasks, keys, submitting_task, fifo_timeout, stimulus_id } = graph;
        let Some(slot) = self.clients.slot(&client) else {
            tracing::debug!(%client, "graph of a client that has left");
            return;
        };
        self.stimulus_id = stimulus_id;
        let mut intake = self.enter_tasks(&tasks);
        if !self.reach(&keys, &tasks, &mut intake) {
            self.drop_new_tasks(&intake, |_| true);
            self.lost_dependencies(slot, &client, keys);
            return;
        }
        let unreached = |position: usize| !intake.reached[position];
        self.drop_new_tasks(&intake, unreached);
        let generation = self.graph_generation(submitting_task.as_ref(), fifo_timeout);
        let submitter = self.charged_client(slot, submitting_task.as_ref());
        let mut report = Report { tasks: tasks.len(), ..Report::default() };
        for (position, task) in tasks.iter().enumerate() {
            self.leave_intake(&intake, position);
            if intake.new[position] && intake.reached[position] {
                self.tasks[intake.ids[position]].submitter = submitter;
            }
            // Edges only once every task has its group.
            intake.linked[position] =
                intake.reached[position] && self.apply(task, &intake, position, generation, &mut report);
        }
        for position in (0..tasks.len()).filter(|position| intake.linked[*position]) {
            self.add_dependencies(intake.ids[position], intake.dependencies(position));
        }
        let wanted: Vec<TaskId> = keys.iter().filter_map(|key| self.tasks.id(key)).collect();
        for &id in &wanted {
            self.desire(slot, id);
        }
        self.recommend_wanted(wanted);
        self.blame_touched(&intake.touched);
        self.transitions();
        for &id in &intake.touched {
            if self.tasks.get(id).is_some() {
                self.report_to(slot, id);
            }
        }
        self.queue_slots_maybe_opened();
        self.log_update_graph(&client, &report);
    }

    /// Gives every task of the graph a slot and resolves its dependencies.
    fn enter_tasks(&mut self, tasks: &[NewTask]) -> Intake {
        let mut intake = Intake {
            ids: Vec::with_capacity(tasks.len()),
            new: Vec::with_capacity(tasks.len()),
            dependencies: Vec::with_capacity(tasks.len()),
            offsets: Vec::with_capacity(tasks.len() + 1),
            reached: vec![false; tasks.len()],
            linked: vec![false; tasks.len()],
            touched: Vec::with_capacity(tasks.len()),
        };
        self.tasks.reserve(tasks.len());
        for (task, number) in tasks.iter().zip(1..) {
            let annotations = &task.annotations;
            let make = || Task::new(task.key.clone(), GroupId::default(), Default::default(), annotations.clone());
            let (id, is_new) = self.tasks.get_or_insert_with(&task.key, make);
            // Should a key come twice, its first task counts.
            let first = self.tasks[id].graph_position == 0;
            if first {
                self.tasks[id].graph_position = number;
            }
            intake.ids.push(id);
            intake.new.push(is_new && first);
        }
        for task in tasks {
            intake.offsets.push(intake.dependencies.len());
            let others = task.dependencies.iter().filter(|dep| **dep != task.key);
            intake.dependencies.extend(others.map(|dep| self.tasks.id(dep)));
        }
        intake.offsets.push(intake.dependencies.len());
        intake
    }

    /// Marks what the wanted keys reach; false if something on the way is unknown.
    fn reach(&self, keys: &[Key], tasks: &[NewTask], intake: &mut Intake) -> bool {
        let mut stack: Vec<Option<TaskId>> = keys.iter().map(|key| self.tasks.id(key)).collect();
        let mut known_before = FastSet::<TaskId>::default();
        let mut complete = true;
        while let Some(next) = stack.pop() {
            let Some(id) = next else {
                complete = false;
                continue;
            };
            match self.tasks[id].graph_position {
                0 => {
                    if known_before.insert(id) {
                        intake.touched.push(id);
                    }
                }
                number => {
                    let position = number as usize - 1;
                    if !std::mem::replace(&mut intake.reached[position], true) {
                        intake.touched.push(id);
                        let dependencies = intake.dependencies(position);
                        // One that keeps another definition keeps what it reads too: the rest of this one is not wanted.
                        if intake.new[position] || self.tasks[id].spec.is_none() || !self.collides(id, dependencies) {
                            stack.extend(dependencies);
                        }
                    }
                }
            }
        }
        if !complete {
            self.log_lost(keys, tasks);
        }
        complete
    }

    fn log_lost(&self, keys: &[Key], tasks: &[NewTask]) {
        let unknown = |key: &&Key| self.tasks.id(key).is_none();
        let dependencies = tasks.iter().flat_map(|task| &task.dependencies);
        if let Some(missing) = keys.iter().chain(dependencies).find(unknown) {
            tracing::info!(
                target: "distributed.scheduler",
                "User asked for computation on lost data. Missing dependency {missing}"
            );
        }
    }

    /// Takes new tasks out again that turn out not to be wanted.
    fn drop_new_tasks(&mut self, intake: &Intake, unwanted: impl Fn(usize) -> bool) {
        for (position, &id) in intake.ids.iter().enumerate() {
            if unwanted(position) {
                if intake.new[position] {
                    self.tasks.remove(id);
                } else {
                    self.leave_intake(intake, position);
                }
            }
        }
    }

    fn leave_intake(&mut self, intake: &Intake, position: usize) {
        if let Some(task) = self.tasks.get_mut(intake.ids[position]) {
            task.graph_position = 0;
        }
    }

    fn lost_dependencies(&mut self, slot: ClientSlot, client: &ClientId, keys: Vec<Key>) {
        let reason = Some("lost dependencies".to_owned());
        self.send_client(slot, CancelledKeys { keys: Keys(keys.clone()), reason, msg: None });
        let known: Vec<TaskId> = keys.iter().filter_map(|key| self.tasks.id(key)).collect();
        self.release_interest(slot, &known);
        self.transitions();
        self.queue_slots_maybe_opened();
        let msg = [("status", Value::from("cancelled"))];
        self.log_graph_event(client, msg);
    }

    /// The second element of the priorities (`_set_priorities`): older graphs first, graphs in quick succession as one,
    /// what a task submits before what its client submits next.
    #[expect(clippy::cast_precision_loss, reason = "generations stay far below 2^53")]
    fn graph_generation(&mut self, submitting_task: Option<&Key>, fifo_timeout: f64) -> f64 {
        if let Some(key) = submitting_task {
            let parent = self.tasks.id(key).and_then(|id| self.tasks[id].priority.get());
            return parent.map_or(self.generation as f64, |priority| priority[0] - SUBTASK_STEP);
        }
        if self.generation_time + fifo_timeout < self.now {
            self.generation += 1;
            self.generation_time = self.now;
        }
        self.generation as f64
    }

    /// Who pays for the tasks of a graph: its client, or who pays for the task that submits it.
    fn charged_client(&self, client: ClientSlot, submitting_task: Option<&Key>) -> ClientSlot {
        submitting_task.and_then(|key| self.tasks.id(key)).map_or(client, |id| self.tasks[id].submitter)
    }

    /// Brings one task of the graph into the state: a new one as it is, a known one only where it says nothing else.
    /// False if it collides with what is known.
    fn apply(&mut self, new: &NewTask, intake: &Intake, position: usize, generation: f64, report: &mut Report) -> bool {
        let id = intake.ids[position];
        if intake.new[position] {
            self.make_task(id, new);
            report.new_tasks += 1;
        } else if self.tasks[id].spec.is_none() {
            self.give_spec(id, new);
        } else if self.collides(id, intake.dependencies(position)) {
            report.collisions += 1;
            self.warn_of_collision(id, report);
            return false;
        }
        let task = &mut self.tasks[id];
        if task.priority.get().is_none() {
            task.priority = TaskPriority::new([-new.annotations.priority, generation, new.order]);
        }
        // What a worker runs, or has run, as an ordinary task is none.
        if new.actor && !matches!(task.state, TaskState::Processing | TaskState::Memory) {
            task.actor = true;
        }
        true
    }

    fn make_task(&mut self, id: TaskId, new: &NewTask) {
        let (group, prefix) = self.groups.of_key(&new.key, &self.config);
        let task = &mut self.tasks[id];
        (task.group, task.prefix) = (group, prefix);
        task.retries = new.annotations.retries;
        task.loose_restrictions = new.annotations.allow_other_workers;
        self.count_new_task(id);
        if !new.annotations.workers.is_empty() {
            let restrictions = self.resolve_restrictions(&new.annotations.workers);
            self.tasks[id].set_restrictions(restrictions);
        }
        self.groups.assign_span(group, &new.annotations, self.now);
        self.give_spec(id, new);
    }

    fn give_spec(&mut self, id: TaskId, new: &NewTask) {
        let task = &mut self.tasks[id];
        task.spec = Some(new.spec.clone());
        task.runtime = new.runtime;
        task.data_producer = new.data_producer;
        task.is_barrier = new.is_barrier;
    }

    /// Names and addresses of workers, and hosts, apart (`_apply_annotations`). Names are resolved now.
    fn resolve_restrictions(&self, names: &[String]) -> Restrictions {
        let mut restrictions = Restrictions::default();
        for name in names {
            if let Some(id) = self.workers.by_name(name) {
                restrictions.workers.push(self.workers[id].address.clone());
            } else {
                match Address::normalize(name, None) {
                    Ok(address) => restrictions.workers.push(address),
                    Err(_) => restrictions.hosts.push(name.clone()),
                }
            }
        }
        restrictions
    }

    /// Whether the dependencies differ from those the task is known with; then it stays as it is.
    fn collides(&self, id: TaskId, dependencies: &[Option<TaskId>]) -> bool {
        let known = &self.tasks[id].dependencies;
        let mut count = 0;
        let same = dependencies.iter().flatten().all(|dep| {
            count += 1;
            known.contains(*dep)
        });
        !same || count != known.len()
    }

    fn warn_of_collision(&self, id: TaskId, report: &mut Report) {
        let task = &self.tasks[id];
        if report.collided_groups.insert(task.group) {
            tracing::warn!(
                target: "distributed.scheduler",
                "Detected different `run_spec` for key {:?} between two consecutive calls to `update_graph`. This can \
                 cause failures and deadlocks down the line. Please ensure unique key names. The old definition is \
                 kept (state {}).", task.key, task.state.name()
            );
        }
    }

    fn add_dependencies(&mut self, id: TaskId, dependencies: &[Option<TaskId>]) {
        let mut last_group = None;
        for &dep in dependencies.iter().flatten() {
            if self.tasks[id].dependencies.insert(dep) {
                self.tasks[dep].dependents.insert(id);
                let groups = (self.tasks[id].group, self.tasks[dep].group);
                if last_group.replace(groups) != Some(groups) {
                    self.groups.add_dependency(groups.0, groups.1);
                }
                self.tasks[id].queueable &= !self.tasks[dep].is_barrier;
            }
        }
    }

    /// Recommends waiting for the wanted tasks, the best last so that it goes first.
    fn recommend_wanted(&mut self, mut wanted: Vec<TaskId>) {
        wanted.retain(|id| self.tasks[*id].state == TaskState::Released);
        wanted.sort_by_key(|id| std::cmp::Reverse(self.tasks[*id].sort_key()));
        for id in wanted {
            self.recommend(id, TaskState::Waiting);
        }
    }

    /// What depends on something erred is erred for the same reason.
    fn blame_touched(&mut self, touched: &[TaskId]) {
        for &id in touched {
            let failed = self.tasks[id].dependencies.iter().find_map(|dep| self.tasks[dep].failure.clone());
            let open = matches!(self.tasks[id].state, TaskState::Released | TaskState::Waiting);
            if let Some(failure) = failed
                && open
            {
                self.tasks[id].failure = Some(failure);
                self.recommend(id, TaskState::Erred);
            }
        }
    }

    fn log_update_graph(&mut self, client: &ClientId, report: &Report) {
        let metrics = Value::map([
            ("tasks", report.tasks.into()),
            ("new_tasks", report.new_tasks.into()),
            ("key_collisions", report.collisions.into()),
        ]);
        self.log_graph_event(client, [("metrics", metrics), ("status", "OK".into())]);
    }

    fn log_graph_event<const N: usize>(&mut self, client: &ClientId, entries: [(&str, Value); N]) {
        let about = [("action", "update-graph".into()), ("stimulus_id", (&*self.stimulus_id).into())];
        let msg = Value::map(about.into_iter().chain(entries));
        self.out.push(Action::LogEvent { topic: "scheduler".into(), msg: msg.clone() });
        self.out.push(Action::LogEvent { topic: (&**client).into(), msg });
    }
}

/// What becomes of a graph, for the event log.
#[derive(Default)]
struct Report {
    tasks: usize,
    new_tasks: usize,
    collisions: usize,
    /// Groups warned about.
    collided_groups: IdSet<GroupId>,
}
