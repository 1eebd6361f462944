//! The way to the driver, and the ends of tasks that may wait there until it looks again.
//!
//! To wake the driver for each task that ends takes a core from a thread that is in the middle of another one: with tasks of a
//! millisecond that costs as much as everything else done for them. While threads have plenty to go on with, the driver says
//! that it looks again soon, and ends of tasks wait for that.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::shared::Input;

/// How long the end of a task waits at most.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(4);
/// The driver is woken before that once only one of so many jobs is left.
const FEW: usize = 4;

/// Where inputs of the driver go.
pub(crate) struct Inbox {
    sender: mpsc::UnboundedSender<Input>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// With how many jobs left the driver is woken before it looks again; none while it sleeps until it is woken.
    few: Option<usize>,
    inputs: Vec<Input>,
}

impl Inbox {
    /// With the other end.
    pub(crate) fn new() -> (Inbox, mpsc::UnboundedReceiver<Input>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Inbox { sender, waiting: Mutex::default() }, receiver)
    }

    /// Wakes the driver; false after its end.
    pub(crate) fn send(&self, input: Input) -> bool {
        self.sender.send(input).is_ok()
    }

    /// A task ended. The driver is woken unless it looks again, and threads have enough to go on with until then.
    pub(crate) fn send_soon(&self, input: Input, jobs_left: impl FnOnce() -> usize) {
        let mut waiting = self.lock();
        if waiting.few.is_some_and(|few| jobs_left() > few) {
            waiting.inputs.push(input);
            return;
        }
        // Those before it go first.
        let before = std::mem::take(&mut waiting.inputs);
        before.into_iter().chain([input]).for_each(|input| drop(self.sender.send(input)));
    }

    /// The driver is about to sleep. If threads have plenty to do, `jobs` for them, it says that it looks again after
    /// [`LOOK_AGAIN`]; else it gets what waits.
    pub(super) fn before_sleep(&self, plenty: Option<usize>) -> Vec<Input> {
        let mut waiting = self.lock();
        waiting.few = plenty.map(|jobs| jobs / FEW);
        if plenty.is_some() { Vec::new() } else { std::mem::take(&mut waiting.inputs) }
    }

    /// What waits.
    pub(super) fn take(&self) -> Vec<Input> {
        std::mem::take(&mut self.lock().inputs)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Event;

    fn end(name: &str) -> Input {
        Input::Event { values: Vec::new(), event: Event::Close { stimulus_id: name.into() } }
    }

    fn names(inputs: Vec<Input>) -> Vec<String> {
        let name = |input| match input {
            Input::Event { event: Event::Close { stimulus_id }, .. } => stimulus_id.to_string(),
            _ => panic!("only these were sent"),
        };
        inputs.into_iter().map(name).collect()
    }

    fn come(receiver: &mut mpsc::UnboundedReceiver<Input>) -> Vec<String> {
        names(std::iter::from_fn(|| receiver.try_recv().ok()).collect())
    }

    #[test]
    fn ends_wait_only_while_the_driver_looks_again_and_threads_have_enough() {
        let (inbox, mut receiver) = Inbox::new();
        inbox.send_soon(end("a"), || 100);
        assert_eq!(come(&mut receiver), ["a"], "nobody said that he looks again");
        assert!(inbox.before_sleep(Some(8)).is_empty());
        inbox.send_soon(end("b"), || 7);
        inbox.send_soon(end("c"), || 3);
        assert!(come(&mut receiver).is_empty());
        inbox.send_soon(end("d"), || 2);
        assert_eq!(come(&mut receiver), ["b", "c", "d"], "few jobs are left");
        inbox.send_soon(end("e"), || 7);
        assert_eq!(names(inbox.take()), ["e"]);
        inbox.send_soon(end("f"), || 7);
        assert_eq!(names(inbox.before_sleep(None)), ["f"], "before it sleeps on it takes what waits");
        inbox.send_soon(end("g"), || 7);
        assert_eq!(come(&mut receiver), ["g"]);
    }
}
