//! `MultiLock`: hold any `num_locks` of several locks at once, without deadlock.

use std::collections::VecDeque;

use dask_protocol::message::Request;
use dask_protocol::{Key, Value};
use indexmap::{IndexMap, IndexSet};
use serde::Deserialize;

use super::super::failure::{Failure, Reply, nil, reply};
use super::table::Table;
use super::{NAMES_MAX, deadline, name_key};

/// Requests queue at each lock; who is first in a queue holds that lock.
#[derive(Default)]
pub(super) struct MultiLocks(Table<Queues>);

#[derive(Default)]
struct Queues {
    locks: IndexMap<Key, VecDeque<Key>>,
    requests: IndexMap<Key, Asked>,
}

/// One request.
struct Asked {
    locks: IndexSet<Key>,
    wanted: usize,
}

#[derive(Deserialize)]
struct Args {
    #[serde(default)]
    locks: Value,
    id: Value,
    #[serde(default)]
    timeout: Value,
    #[serde(default)]
    num_locks: Option<usize>,
}

/// Leaves the queues when its request is given up.
struct Queued<'a> {
    table: &'a Table<Queues>,
    id: Key,
    granted: bool,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        if !self.granted {
            self.table.change(|queues| queues.leave(&self.id));
        }
    }
}

impl MultiLocks {
    /// `multi_lock_acquire`: whether enough locks were got in time.
    pub(super) async fn acquire(&self, request: &Request) -> Reply {
        let Args { locks, id, timeout, num_locks } = request.args()?;
        let id = name_key(&id)?;
        let names: IndexSet<Key> = locks.as_items().unwrap_or_default().iter().filter_map(Value::to_key).collect();
        let wanted = num_locks.unwrap_or(names.len());
        if wanted == 0 || wanted > names.len() {
            return Err(Failure::value(format!("cannot hold {wanted} of {} locks", names.len())));
        }
        let deadline = deadline(&timeout)?;
        self.0.change(|queues| queues.enter(&id, names, wanted))?;
        let mut queued = Queued { table: &self.0, id, granted: false };
        let id = queued.id.clone();
        queued.granted = self.0.wait(deadline, |queues| queues.granted(&id).then_some(())).await.is_some();
        reply(&queued.granted)
    }

    /// `multi_lock_release`.
    pub(super) fn release(&self, request: &Request) -> Reply {
        let id = name_key(&request.args::<Args>()?.id)?;
        self.0.change(|queues| queues.leave(&id));
        nil()
    }
}

impl Queues {
    /// Queues at each lock, the shortest queues first; once enough locks are held the others are not asked for.
    fn enter(&mut self, id: &Key, names: IndexSet<Key>, wanted: usize) -> Result<(), Failure> {
        if self.requests.contains_key(id) {
            return Err(Failure::value(format!("{id} waits for locks already, or holds some")));
        }
        if self.locks.len() + names.len() > NAMES_MAX {
            return Err(Failure::runtime(format!("{NAMES_MAX} locks are in use already")));
        }
        let mut names: Vec<Key> = names.into_iter().collect();
        names.sort_by_key(|name| self.locks.get(name).map_or(0, VecDeque::len));
        let (mut held, mut asked) = (0, IndexSet::new());
        for name in names {
            let queue = self.locks.entry(name.clone()).or_default();
            queue.push_back(id.clone());
            asked.insert(name);
            held += usize::from(queue.len() == 1);
            if held == wanted {
                break;
            }
        }
        self.requests.insert(id.clone(), Asked { locks: asked, wanted });
        Ok(())
    }

    fn granted(&self, id: &Key) -> bool {
        let Some(asked) = self.requests.get(id) else { return false };
        let first = |name: &&Key| self.locks.get(*name).and_then(VecDeque::front) == Some(id);
        asked.locks.iter().filter(first).count() >= asked.wanted
    }

    fn leave(&mut self, id: &Key) {
        let Some(asked) = self.requests.shift_remove(id) else { return };
        for name in asked.locks {
            let Some(queue) = self.locks.get_mut(&name) else { continue };
            queue.retain(|waiting| waiting != id);
            if queue.is_empty() {
                self.locks.swap_remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> IndexSet<Key> {
        names.iter().map(|&name| Key::from(name)).collect()
    }

    #[test]
    fn the_second_gets_its_locks_when_the_first_lets_go() {
        let mut queues = Queues::default();
        let (a, b) = (Key::from("a"), Key::from("b"));
        queues.enter(&a, names(&["x", "y"]), 2).expect("queued");
        queues.enter(&b, names(&["y", "z"]), 2).expect("queued");
        assert!(queues.granted(&a));
        assert!(!queues.granted(&b));
        queues.leave(&a);
        assert!(queues.granted(&b));
        queues.leave(&b);
        assert!(queues.locks.is_empty());
    }

    #[test]
    fn one_of_several_is_enough_when_asked_so() {
        let mut queues = Queues::default();
        let (a, b) = (Key::from("a"), Key::from("b"));
        queues.enter(&a, names(&["x"]), 1).expect("queued");
        queues.enter(&b, names(&["x", "y"]), 1).expect("queued");
        assert!(queues.granted(&b), "y is free");
        assert_eq!(queues.locks.get(&Key::from("x")).map(VecDeque::len), Some(1), "b did not queue at x");
    }
}
