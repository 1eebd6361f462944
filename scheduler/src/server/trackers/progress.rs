//! How far the tasks behind some keys are (`distributed.diagnostics.progress.Progress`, `MultiProgress`).

use dask_protocol::{Key, Value};
use indexmap::{IndexMap, IndexSet};

use super::Transition;
use crate::state::{State, TaskState};

/// What belongs together in a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupBy {
    /// One bar for all.
    Nothing,
    /// By prefix of the key.
    Prefix,
    /// By span: names and id.
    Span,
}

/// A progress bar's tasks.
#[derive(Debug)]
pub(crate) struct Progress {
    /// All tasks that count, each with the position of its group.
    all: IndexMap<Key, usize>,
    /// Those not computed yet.
    remaining: IndexSet<Key>,
    groups: Vec<Group>,
    grouped: bool,
    end: Option<End>,
}

#[derive(Debug)]
struct Group {
    name: Value,
    all: usize,
    remaining: usize,
}

/// How it ended.
#[derive(Debug)]
enum End {
    Finished,
    Error { key: Key, exception: Value },
}

impl Progress {
    /// Follows what these keys need; with `complete` also what was computed before. None while a key is unknown: the
    /// stream that brings it may be late.
    pub(crate) fn new(keys: &[Key], complete: bool, group_by: GroupBy, state: &State) -> Option<Progress> {
        if keys.iter().any(|key| state.task_state(key).is_none()) {
            return None;
        }
        let (mut all, errors) = needed(keys, complete, state);
        let mut remaining = if complete { needed(keys, false, state).0 } else { all.clone() };
        all.extend(keys.iter().cloned());
        remaining.extend(errors.iter().filter(|key| all.contains(*key)).cloned());
        let mut progress = Progress {
            all: IndexMap::with_capacity(all.len()),
            remaining,
            groups: Vec::new(),
            grouped: group_by != GroupBy::Nothing,
            end: None,
        };
        progress.group(all, group_by, state);
        if progress.remaining.is_empty() {
            progress.end = Some(End::Finished);
        }
        if let Some(key) = errors.iter().find(|key| progress.all.contains_key(*key)) {
            progress.fail(key, state);
        }
        Some(progress)
    }

    fn group(&mut self, all: IndexSet<Key>, group_by: GroupBy, state: &State) {
        let mut positions: IndexMap<Key, usize> = IndexMap::new();
        for key in all {
            let (name, shown) = match group_by {
                GroupBy::Nothing => (Key::from(""), Value::Nil),
                GroupBy::Prefix => {
                    let prefix = key.prefix();
                    (Key::from(&*prefix), prefix.into_owned().into())
                }
                GroupBy::Span => {
                    let (name, id) = state.span_of(&key).unwrap_or_default();
                    (Key::from(id.as_str()), Value::Array(vec![name.join(", ").into(), id.into()]))
                }
            };
            let position = *positions.entry(name).or_insert_with(|| {
                self.groups.push(Group { name: shown, all: 0, remaining: 0 });
                self.groups.len() - 1
            });
            self.groups[position].all += 1;
            self.groups[position].remaining += usize::from(self.remaining.contains(&key));
            self.all.insert(key, position);
        }
    }

    pub(super) fn transition(&mut self, transition: &Transition, state: &State) {
        let Some(&group) = self.all.get(&transition.key) else { return };
        match (transition.start, transition.finish) {
            (TaskState::Processing, TaskState::Memory) => {
                if self.remaining.swap_remove(&transition.key) {
                    self.groups[group].remaining -= 1;
                }
                if self.remaining.is_empty() && self.end.is_none() {
                    self.end = Some(End::Finished);
                }
            }
            (_, TaskState::Erred) => self.fail(&transition.key, state),
            (_, TaskState::Forgotten) if self.remaining.contains(&transition.key) => {
                self.fail(&transition.key, state);
            }
            _ => {}
        }
    }

    fn fail(&mut self, key: &Key, state: &State) {
        if self.end.is_none() {
            let exception = state.error(key).map(|(_, error)| error.exception.clone()).unwrap_or_default();
            self.end = Some(End::Error { key: key.clone(), exception });
        }
    }

    /// The tasks are gone, and nobody failed.
    pub(super) fn restart(&mut self) {
        self.end = Some(End::Finished);
    }

    /// `all`, `remaining`, `status`, and of an error `key` and `exception`.
    pub(super) fn report(&self) -> Value {
        let counts = |count: fn(&Group) -> usize| match self.grouped {
            true => Value::Map(self.groups.iter().map(|group| (group.name.clone(), count(group).into())).collect()),
            false => self.groups.iter().map(count).sum::<usize>().into(),
        };
        let mut fields = vec![("all", counts(|group| group.all)), ("remaining", counts(|group| group.remaining))];
        match &self.end {
            None => fields.push(("status", Value::Nil)),
            Some(End::Finished) => fields.push(("status", "finished".into())),
            Some(End::Error { key, exception }) => {
                fields.push(("status", "error".into()));
                fields.push(("key", key.into()));
                fields.push(("exception", exception.clone()));
            }
        }
        Value::map(fields)
    }
}

/// What must be computed for these keys, and which of it raised (`dependent_keys`). Unless `complete`, what is in memory
/// or has raised does not count, nor what is behind it.
fn needed(keys: &[Key], complete: bool, state: &State) -> (IndexSet<Key>, IndexSet<Key>) {
    let (mut needed, mut errors) = (IndexSet::new(), IndexSet::new());
    let mut stack = keys.to_vec();
    while let Some(key) = stack.pop() {
        if needed.contains(&key) {
            continue;
        }
        let Some(task) = state.task(&key) else { continue };
        if !complete && !task.who_has.is_empty() {
            continue;
        }
        if task.exception_blame == Some(task.key) {
            errors.insert(key.clone());
            if !complete {
                continue;
            }
        }
        stack.extend(task.dependencies.into_iter().cloned());
        needed.insert(key);
    }
    (needed, errors)
}
