//! What plugins hear: the hooks of upstream's `SchedulerPlugin`.

use dask_protocol::comm::BatchedSender;
use dask_protocol::{Key, Value};
use indexmap::IndexSet;

use super::super::trackers::Transition;
use super::facts::{gone_task_facts, task_facts};
use crate::state::{State, UpdateGraph};

/// The hooks that some plugin has, and the way to the process that runs them.
pub(crate) struct Hooks {
    wanted: IndexSet<String>,
    sender: BatchedSender<Value>,
}

impl Hooks {
    pub(super) fn new(wanted: IndexSet<String>, sender: BatchedSender<Value>) -> Hooks {
        Hooks { wanted, sender }
    }

    /// Whether some plugin has this hook.
    pub(crate) fn wants(&self, hook: &str) -> bool {
        self.wanted.contains(hook)
    }

    /// Tells plugins with this hook. A process that does not keep up is cut off by its queue's limit.
    pub(crate) fn tell<const N: usize>(&self, hook: &'static str, about: [(&'static str, Value); N]) {
        if self.wants(hook) {
            let fields = [("op", Value::from("hook")), ("hook", hook.into()), ("about", Value::map(about))];
            self.sender.send(Value::map(fields));
        }
    }

    /// A transition, with the task as it left it.
    pub(crate) fn transition(&self, transition: &Transition, state: &State) {
        if !self.wants("transition") {
            return;
        }
        let Transition { key, start, finish, stimulus_id, record } = transition;
        let task = state.task(key).map_or_else(|| gone_task_facts(key), |task| task_facts(&task, state));
        self.tell(
            "transition",
            [
                ("key", key.into()),
                ("start", start.name().into()),
                ("finish", finish.name().into()),
                ("stimulus_id", (&**stimulus_id).into()),
                ("record", record.clone().unwrap_or_default()),
                ("task", task),
            ],
        );
    }

    /// A client's graph.
    pub(crate) fn graph(&self, graph: &UpdateGraph) {
        if !self.wants("update_graph") {
            return;
        }
        let keys = |keys: &mut dyn Iterator<Item = &Key>| Value::Array(keys.map(Value::from).collect());
        let mut annotations: Vec<(Value, Value)> = Vec::new();
        let mut priorities = Vec::with_capacity(graph.tasks.len());
        for task in &graph.tasks {
            let priority = Value::Array(vec![(-task.annotations.priority).into(), task.order.into()]);
            priorities.push((Value::from(&task.key), priority));
            let Value::Map(named) = &task.annotations.echoed else { continue };
            for (name, value) in named {
                let entry = (Value::from(&task.key), value.clone());
                match annotations.iter_mut().find(|(known, _)| known == name) {
                    Some((_, Value::Map(by_key))) => by_key.push(entry),
                    Some(_) | None => annotations.push((name.clone(), Value::Map(vec![entry]))),
                }
            }
        }
        self.tell(
            "update_graph",
            [
                ("client", (&*graph.client).into()),
                ("keys", keys(&mut graph.keys.iter())),
                ("tasks", keys(&mut graph.tasks.iter().map(|task| &task.key))),
                ("annotations", Value::Map(annotations)),
                ("priority", Value::Map(priorities)),
                ("stimulus_id", (&*graph.stimulus_id).into()),
            ],
        );
    }
}
