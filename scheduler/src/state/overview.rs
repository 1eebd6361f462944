//! What pages about the whole show: the graphs of groups and of tasks, and totals. Nothing here changes anything.

use dask_protocol::{Address, Key};

use super::State;
use super::event::Seconds;
use super::group::StateCounts;
use super::ids::TaskId;
use super::story::StoryRow;
use super::task::TaskState;

/// A group as a node of the graph of groups.
#[derive(Debug, Clone)]
pub struct GroupView<'a> {
    /// Its number among groups; another one may get it once this one is gone.
    pub number: usize,
    /// Its name.
    pub name: &'a Key,
    /// Its prefix.
    pub prefix: &'a str,
    /// Its tasks per state.
    pub states: &'a StateCounts,
    /// The numbers of the groups whose results it reads.
    pub dependencies: Vec<usize>,
}

/// A task as a node of the graph of tasks.
#[derive(Debug, Clone)]
pub struct TaskNode<'a> {
    /// Its number among tasks; another one may get it once this one is gone.
    pub number: usize,
    /// Its name.
    pub key: &'a Key,
    /// Its prefix.
    pub prefix: &'a str,
    /// Its state.
    pub state: TaskState,
    /// Generation and order, the later parts of its priority.
    pub order: Option<(f64, f64)>,
    /// The numbers of the tasks that it reads.
    pub dependencies: Vec<usize>,
}

impl State {
    /// How many groups there are.
    pub fn group_count(&self) -> usize {
        self.groups.groups.len()
    }

    /// How many prefixes are remembered.
    pub fn prefix_count(&self) -> usize {
        self.groups.prefixes.len()
    }

    /// All groups with the groups that they read, by position among all.
    pub fn group_graph(&self) -> impl Iterator<Item = GroupView<'_>> {
        self.groups.groups.iter().map(|(index, group)| GroupView {
            number: index,
            name: &group.name,
            prefix: &self.groups.prefix(group.prefix).name,
            states: &group.states,
            dependencies: group.dependencies.iter().map(|id| id.index()).collect(),
        })
    }

    /// All tasks with the tasks that they read, by number.
    pub fn task_graph(&self) -> impl Iterator<Item = TaskNode<'_>> {
        self.tasks.iter().map(|(id, task)| TaskNode {
            number: id.index(),
            key: &task.key,
            prefix: &self.groups.prefix(task.prefix).name,
            state: task.state,
            order: task.priority.get().map(|[_, generation, order]| (generation, order)),
            dependencies: task.dependencies.iter().map(super::ids::TaskId::index).collect(),
        })
    }

    /// Of a worker, some tasks it was given and some results it holds, at most `limit` of each; none if it is unknown.
    pub fn tasks_at(&self, worker: &Address, limit: usize) -> Option<(Vec<Key>, Vec<Key>)> {
        let worker = &self.workers[self.workers.id(worker)?];
        let key = |id: TaskId| self.tasks[id].key.clone();
        let processing = worker.processing.iter().take(limit).map(key).collect();
        Some((processing, worker.has_what.iter().take(limit).map(|id| key(*id)).collect()))
    }

    /// The latest transitions of a task, and those that recommended one to it, newest first, at most `limit`.
    pub fn latest_story(&self, key: &Key, limit: usize) -> Vec<StoryRow> {
        let about = |row: &&StoryRow| row.key == *key || row.recommendations.iter().any(|(other, _)| other == key);
        self.story.rows().rev().filter(about).take(limit).cloned().collect()
    }

    /// Tasks asked back from a worker (`steal`): per level, requests and the seconds of work in them.
    pub fn steal_requests(&self) -> &[(u64, Seconds)] {
        self.stealing.requests()
    }
}
