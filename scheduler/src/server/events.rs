//! The event log: topics, each a ring of recent events, and who listens (`log_event`, `subscribe-topic`).
//!
//! Rings are bounded in bytes, too: one event of work stealing may tell of a thousand tasks. Events are kept packed, which is
//! exact to count, less than half the size, and holds on to no buffer that they came in.

use std::collections::VecDeque;

use dask_protocol::{Key, Value};
use indexmap::{IndexMap, IndexSet};

pub(crate) use super::packed::Packed;
use crate::state::{ClientId, Seconds};

/// Bytes of events kept per topic: 16 KiB for each of them.
pub(crate) const TOPIC_BYTES_MAX: usize = 16 << 20;
/// Bytes of events kept in all topics together: four that are full, or two events of 30 bytes in each of [`TOPICS_MAX`].
pub(crate) const LOG_BYTES_MAX: usize = 64 << 20;
/// Most topics; two per client or worker and a few of the user's. Events of further topics only go to listeners.
pub(crate) const TOPICS_MAX: usize = 100_000;
/// What an event costs beside its message: its places in the queues, and a part of their slack.
const EVENT_BYTES: usize = 128;

/// All topics.
#[derive(Debug)]
pub(crate) struct EventLog {
    /// Events kept per topic (`distributed.admin.low-level-log-length`).
    length: usize,
    topics: IndexMap<Key, Topic>,
    /// Which topic each event went to, oldest first; events that are gone already are skipped.
    order: VecDeque<(u64, Key)>,
    /// Events appended so far.
    appended: u64,
    kept: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Topic {
    events: VecDeque<Event>,
    bytes: usize,
    listeners: IndexSet<ClientId>,
}

#[derive(Debug)]
struct Event {
    number: u64,
    at: Seconds,
    msg: Packed,
}

impl Event {
    fn bytes(&self) -> usize {
        self.msg.len() + EVENT_BYTES
    }
}

impl Topic {
    /// Its events, oldest first.
    fn unpacked(&self) -> Vec<(Seconds, Value)> {
        self.events.iter().map(|event| (event.at, event.msg.unpack())).collect()
    }

    /// Drops the oldest event; how many bytes that frees.
    fn drop_oldest(&mut self) -> Option<usize> {
        let bytes = self.events.pop_front()?.bytes();
        self.bytes -= bytes;
        Some(bytes)
    }
}

impl EventLog {
    /// Keeps this many events of each topic.
    pub(crate) fn new(length: usize) -> EventLog {
        EventLog { length, topics: IndexMap::new(), order: VecDeque::new(), appended: 0, kept: 0, bytes: 0 }
    }

    /// Appends an event and tells who listens to it.
    pub(crate) fn append(&mut self, topic: &Key, now: Seconds, msg: &Value) -> Vec<ClientId> {
        if self.topics.len() >= TOPICS_MAX && !self.topics.contains_key(topic) {
            return Vec::new();
        }
        let event = Event { number: self.appended, at: now, msg: Packed::new(msg) };
        self.appended += 1;
        self.order.push_back((event.number, topic.clone()));
        let found = self.topics.entry(topic.clone()).or_default();
        let listeners = found.listeners.iter().cloned().collect();
        (self.kept, self.bytes, found.bytes) = (self.kept + 1, self.bytes + event.bytes(), found.bytes + event.bytes());
        found.events.push_back(event);
        while found.events.len() > self.length || found.bytes > TOPIC_BYTES_MAX {
            let freed = found.drop_oldest().expect("a topic that is too full has events");
            (self.kept, self.bytes) = (self.kept - 1, self.bytes - freed);
        }
        while self.bytes > LOG_BYTES_MAX {
            self.drop_oldest();
        }
        self.forget_places();
        listeners
    }

    /// Drops the oldest event of all.
    fn drop_oldest(&mut self) {
        let (number, topic) = self.order.pop_front().expect("every event has a place in the order");
        let Some(topic) = self.topics.get_mut(&topic).filter(|topic| topic.has(number)) else { return };
        let freed = topic.drop_oldest().expect("it has this event");
        (self.kept, self.bytes) = (self.kept - 1, self.bytes - freed);
    }

    /// Forgets the places of events that are gone, once they are the most.
    fn forget_places(&mut self) {
        const SLACK: usize = 1000;
        if self.order.len() <= 2 * self.kept + SLACK {
            return;
        }
        let topics = &self.topics;
        self.order.retain(|(number, topic)| topics.get(topic).is_some_and(|topic| topic.has(*number)));
    }

    /// The events of one topic, oldest first.
    pub(crate) fn events(&self, topic: &Key) -> Vec<(Seconds, Value)> {
        self.topics.get(topic).map(Topic::unpacked).unwrap_or_default()
    }

    /// All topics with their events.
    pub(crate) fn all(&self) -> Vec<(Key, Vec<(Seconds, Value)>)> {
        let filled = self.topics.iter().filter(|(_, topic)| !topic.events.is_empty());
        filled.map(|(name, topic)| (name.clone(), topic.unpacked())).collect()
    }

    /// The newest events, of one topic if it is named, newest first.
    pub(crate) fn newest(&self, count: usize, topic: Option<&str>) -> Vec<(Seconds, Key, Packed)> {
        let told = |topic: &Key, event: &Event| (event.at, topic.clone(), event.msg.clone());
        if let Some(name) = topic {
            let topic = Key::from(name);
            let events = self.topics.get(&topic).map(|found| found.events.iter().rev().take(count));
            return events.into_iter().flatten().map(|event| told(&topic, event)).collect();
        }
        let event = |(number, topic): &(u64, Key)| {
            let events = &self.topics.get(topic)?.events;
            let at = events.binary_search_by_key(number, |event| event.number).ok()?;
            Some(told(topic, &events[at]))
        };
        self.order.iter().rev().filter_map(event).take(count).collect()
    }

    /// How many topics there are, events in them, and bytes of these.
    pub(crate) fn size(&self) -> (usize, usize, usize) {
        (self.topics.len(), self.kept, self.bytes)
    }

    /// `subscribe-topic`.
    pub(crate) fn subscribe(&mut self, topic: Key, client: ClientId) {
        if self.topics.len() < TOPICS_MAX || self.topics.contains_key(&topic) {
            self.topics.entry(topic).or_default().listeners.insert(client);
        }
    }

    /// `unsubscribe-topic`.
    pub(crate) fn unsubscribe(&mut self, topic: &Key, client: &ClientId) {
        if let Some(topic) = self.topics.get_mut(topic) {
            topic.listeners.shift_remove(client);
        }
    }

    /// Forgets all subscriptions of a client that left.
    pub(crate) fn remove_listener(&mut self, client: &ClientId) {
        for topic in self.topics.values_mut() {
            topic.listeners.shift_remove(client);
        }
    }

    /// Forgets the events of a topic whose peer left long ago (`events-cleanup-delay`).
    pub(crate) fn truncate(&mut self, topic: &Key) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        (self.kept, self.bytes) = (self.kept - found.events.len(), self.bytes - found.bytes);
        (found.events, found.bytes) = (VecDeque::new(), 0);
        if found.listeners.is_empty() {
            self.topics.swap_remove(topic);
        }
    }
}

impl Topic {
    /// Whether it still has this event: they go oldest first.
    fn has(&self, number: u64) -> bool {
        self.events.front().is_some_and(|oldest| oldest.number <= number)
    }
}

/// The topics that a `topic` argument names: one, or several in an array.
pub(crate) fn topics(topic: &Value) -> Vec<Key> {
    match topic {
        Value::Array(items) | Value::Set(items) => items.iter().filter_map(Value::to_key).collect(),
        one => one.to_key().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: usize = 1000;

    #[test]
    fn a_topic_keeps_its_newest_events_and_names_its_listeners() {
        let mut log = EventLog::new(EVENTS);
        let topic = Key::from("print");
        let client: ClientId = "Client-1".into();
        log.subscribe(topic.clone(), client.clone());
        for i in 0..=EVENTS {
            assert_eq!(log.append(&topic, i as f64, &Value::from(i)), std::slice::from_ref(&client));
        }
        let events = log.events(&topic);
        assert_eq!(events.len(), EVENTS);
        assert_eq!(events[0], (1.0, Value::Int(1)));
        log.unsubscribe(&topic, &client);
        assert!(log.append(&topic, 0.0, &Value::Nil).is_empty());
    }

    #[test]
    fn the_newest_events_are_found_across_topics() {
        let mut log = EventLog::new(1000);
        for i in 0..6 {
            log.append(&Key::from(["a", "b"][i % 2]), i as f64, &Value::from(i));
        }
        let told = |newest: Vec<(Seconds, Key, Packed)>| -> Vec<(String, Value)> {
            newest.into_iter().map(|(_, topic, msg)| (topic.to_string(), msg.unpack())).collect()
        };
        let row = |topic: &str, i: i64| (topic.to_owned(), Value::Int(i));
        assert_eq!(told(log.newest(3, None)), [row("b", 5), row("a", 4), row("b", 3)]);
        assert_eq!(told(log.newest(2, Some("a"))), [row("a", 4), row("a", 2)]);
        assert!(log.newest(2, Some("none")).is_empty());
        log.truncate(&Key::from("b"));
        assert_eq!(told(log.newest(9, None)), [row("a", 4), row("a", 2), row("a", 0)]);
    }

    #[test]
    fn truncating_forgets_events_but_not_listeners() {
        let mut log = EventLog::new(EVENTS);
        let topic = Key::from("w");
        log.append(&topic, 1.0, &Value::Nil);
        log.subscribe(topic.clone(), "c".into());
        log.truncate(&topic);
        assert!(log.events(&topic).is_empty());
        assert_eq!(log.append(&topic, 2.0, &Value::Nil).len(), 1);
    }

    #[test]
    fn large_events_push_out_older_ones_of_their_topic_only() {
        let mut log = EventLog::new(EVENTS);
        let (quiet, loud) = (Key::from("quiet"), Key::from("loud"));
        log.append(&quiet, 0.0, &Value::Nil);
        let large = Value::from("x".repeat(1 << 20));
        (0..20).for_each(|i| drop(log.append(&loud, f64::from(i), &large)));
        let kept = log.events(&loud);
        assert_eq!((kept.len(), kept.last().map(|(at, _)| *at)), (15, Some(19.0)));
        assert_eq!(log.events(&quiet).len(), 1);
        log.append(&loud, 20.0, &Value::from("x".repeat(TOPIC_BYTES_MAX)));
        assert!(log.events(&loud).is_empty(), "larger than a topic may be");
    }

    #[test]
    fn all_topics_together_are_bounded_oldest_first() {
        let mut log = EventLog::new(EVENTS);
        let large = Value::from("x".repeat(1 << 20));
        (0..100).for_each(|i| drop(log.append(&Key::from(i64::from(i)), f64::from(i), &large)));
        let (_, kept, bytes) = log.size();
        assert_eq!(kept, 63);
        assert!(bytes <= LOG_BYTES_MAX);
        assert!(log.events(&Key::from(36)).is_empty() && log.events(&Key::from(37)).len() == 1);
        (0..100).for_each(|i| log.truncate(&Key::from(i64::from(i))));
        assert_eq!(log.size(), (0, 0, 0));
    }

    #[test]
    fn places_of_events_that_are_gone_are_forgotten() {
        let mut log = EventLog::new(EVENTS);
        let old = Key::from("old");
        log.append(&old, 0.0, &Value::Nil);
        (0..10 * EVENTS).for_each(|i| drop(log.append(&Key::from("busy"), i as f64, &Value::Nil)));
        assert_eq!(log.size().1, EVENTS + 1);
        assert!(log.order.len() <= 3 * EVENTS + 10, "{}", log.order.len());
        assert_eq!(log.order.front(), Some(&(0, old)));
    }

    #[test]
    fn several_topics_come_as_an_array() {
        assert_eq!(topics(&Value::from(vec!["a", "b"])), [Key::from("a"), Key::from("b")]);
        assert_eq!(topics(&Value::from("a")), [Key::from("a")]);
        assert!(topics(&Value::Nil).is_empty());
    }
}
