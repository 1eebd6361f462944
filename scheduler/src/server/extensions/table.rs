//! A table that requests change, and wait on.

use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::watch;
use tokio::time::timeout_at;

/// Shared data with a wake-up for everyone who waits for it to change.
#[derive(Debug)]
pub(super) struct Table<T> {
    data: Mutex<T>,
    changed: watch::Sender<()>,
}

/// How far something that waits for a table has come.
pub(super) enum Step<R> {
    /// It has its result.
    Done(R),
    /// It has changed the table and is to be tried again.
    Changed,
    /// It can do nothing until the table changes.
    Wait,
}

impl<T: Default> Default for Table<T> {
    fn default() -> Table<T> {
        Table { data: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl<T> Table<T> {
    fn lock(&self) -> MutexGuard<'_, T> {
        self.data.lock().expect("no code panics while it holds a table")
    }

    /// Looks, without waking anybody.
    pub(super) fn read<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        f(&self.lock())
    }

    /// Changes it and wakes who waits.
    pub(super) fn change<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let result = f(&mut self.lock());
        self.changed.send_replace(());
        result
    }

    /// Tries again after each change until `f` has a result; `None` when the deadline comes first. `f` may change the
    /// table when it returns a result; others are then woken.
    pub(super) async fn wait<R>(&self, deadline: Option<Instant>, mut f: impl FnMut(&mut T) -> Option<R>) -> Option<R> {
        self.wait_in_steps(deadline, |data| f(data).map_or(Step::Wait, Step::Done)).await
    }

    /// As [`Table::wait`], of something that is done bit by bit.
    pub(super) async fn wait_in_steps<R>(
        &self,
        deadline: Option<Instant>,
        mut f: impl FnMut(&mut T) -> Step<R>,
    ) -> Option<R> {
        let mut changes = self.changed.subscribe();
        loop {
            let step = f(&mut self.lock());
            match step {
                Step::Done(result) => {
                    self.changed.send_replace(());
                    return Some(result);
                }
                Step::Changed => {
                    self.changed.send_replace(());
                    changes.mark_unchanged();
                    continue;
                }
                Step::Wait => {}
            }
            match deadline {
                // The sender lives in the table, so waiting only ends with a change.
                None => changes.changed().await.ok()?,
                Some(deadline) => timeout_at(deadline.into(), changes.changed()).await.ok()?.ok()?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_waiter_sees_the_change_it_waits_for() {
        let table: Arc<Table<i32>> = Arc::default();
        let waiting = tokio::spawn({
            let table = Arc::clone(&table);
            async move { table.wait(None, |n| (*n == 2).then_some(*n)).await }
        });
        table.change(|n| *n = 1);
        tokio::task::yield_now().await;
        table.change(|n| *n = 2);
        assert_eq!(waiting.await.expect("no panic"), Some(2));
    }

    #[tokio::test]
    async fn a_deadline_that_has_passed_ends_the_wait() {
        let table: Table<i32> = Table::default();
        assert_eq!(table.wait(Some(Instant::now()), |_| None::<()>).await, None);
    }
}
