//! What is going to happen, in order of time; first come first served among equals.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

/// Something due at a time.
#[derive(Debug)]
struct Due<T> {
    time: f64,
    number: u64,
    what: T,
}

impl<T> Ord for Due<T> {
    /// The earliest is the greatest, as `BinaryHeap` wants it.
    fn cmp(&self, other: &Due<T>) -> Ordering {
        other.time.total_cmp(&self.time).then(other.number.cmp(&self.number))
    }
}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Due<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Due<T>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Due<T> {}

/// Things due at times that come in any order, and messages, which all take equally long and so come in order.
#[derive(Debug)]
pub struct Queue<T> {
    any: BinaryHeap<Due<T>>,
    messages: VecDeque<Due<T>>,
    number: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { any: BinaryHeap::new(), messages: VecDeque::new(), number: 0 }
    }
}

impl<T> Queue<T> {
    /// Something happens at `time`.
    pub fn push(&mut self, time: f64, what: T) {
        let due = self.due(time, what);
        self.any.push(due);
    }

    /// A message arrives at `time`, not before any earlier one.
    pub fn push_message(&mut self, time: f64, what: T) {
        let due = self.due(time, what);
        self.messages.push_back(due);
    }

    fn due(&mut self, time: f64, what: T) -> Due<T> {
        self.number += 1;
        Due { time, number: self.number, what }
    }

    /// How much is going to happen.
    pub fn len(&self) -> usize {
        self.any.len() + self.messages.len()
    }

    /// Whether nothing is going to happen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When something happens next.
    pub fn next_time(&self) -> Option<f64> {
        self.first().map(|due| due.time)
    }

    fn first(&self) -> Option<&Due<T>> {
        match (self.any.peek(), self.messages.front()) {
            (Some(any), Some(message)) => Some(if any > message { any } else { message }),
            (any, message) => any.or(message),
        }
    }

    /// What happens next, and when.
    pub fn pop(&mut self) -> Option<(f64, T)> {
        let any_first = match (self.any.peek(), self.messages.front()) {
            (Some(any), Some(message)) => any > message,
            (any, _) => any.is_some(),
        };
        let due = if any_first { self.any.pop() } else { self.messages.pop_front() };
        due.map(|due| (due.time, due.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_first_comes_first() {
        let mut queue = Queue::default();
        queue.push(3.0, "c");
        queue.push_message(1.0, "a");
        queue.push(1.0, "b");
        queue.push_message(3.0, "d");
        let order: Vec<&str> = std::iter::from_fn(|| queue.pop()).map(|(_, what)| what).collect();
        assert_eq!(order, ["a", "b", "c", "d"]);
    }
}
