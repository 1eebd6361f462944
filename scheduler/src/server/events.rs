//! The event log: topics, each a ring of recent events, and who listens (`log_event`, `subscribe-topic`).

use std::collections::VecDeque;

use dask_protocol::{Key, Value};
use indexmap::{IndexMap, IndexSet};

use crate::state::{ClientId, Seconds};

/// Events kept per topic (`distributed.admin.low-level-log-length`).
pub(crate) const EVENTS_PER_TOPIC_MAX: usize = 1000;
/// Most topics; two per client or worker and a few of the user's. Events of further topics only go to listeners.
pub(crate) const TOPICS_MAX: usize = 100_000;

/// All topics.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    topics: IndexMap<Key, Topic>,
}

#[derive(Debug, Default)]
struct Topic {
    events: VecDeque<(Seconds, Value)>,
    listeners: IndexSet<ClientId>,
}

impl EventLog {
    /// Appends an event and tells who listens to it.
    pub(crate) fn append(&mut self, topic: &Key, now: Seconds, msg: Value) -> Vec<ClientId> {
        if self.topics.len() >= TOPICS_MAX && !self.topics.contains_key(topic) {
            return Vec::new();
        }
        let topic = self.topics.entry(topic.clone()).or_default();
        if topic.events.len() >= EVENTS_PER_TOPIC_MAX {
            topic.events.pop_front();
        }
        topic.events.push_back((now, msg));
        topic.listeners.iter().cloned().collect()
    }

    /// The events of one topic, oldest first.
    pub(crate) fn events(&self, topic: &Key) -> Vec<(Seconds, Value)> {
        self.topics.get(topic).map(|topic| topic.events.iter().cloned().collect()).unwrap_or_default()
    }

    /// All topics with their events.
    pub(crate) fn all(&self) -> Vec<(Key, Vec<(Seconds, Value)>)> {
        let filled = self.topics.iter().filter(|(_, topic)| !topic.events.is_empty());
        filled.map(|(name, topic)| (name.clone(), topic.events.iter().cloned().collect())).collect()
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
        if let Some(found) = self.topics.get_mut(topic) {
            found.events.clear();
            if found.listeners.is_empty() {
                self.topics.swap_remove(topic);
            }
        }
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

    #[test]
    fn a_topic_keeps_its_newest_events_and_names_its_listeners() {
        let mut log = EventLog::default();
        let topic = Key::from("print");
        let client: ClientId = "Client-1".into();
        log.subscribe(topic.clone(), client.clone());
        for i in 0..=EVENTS_PER_TOPIC_MAX {
            assert_eq!(log.append(&topic, i as f64, Value::from(i)), std::slice::from_ref(&client));
        }
        let events = log.events(&topic);
        assert_eq!(events.len(), EVENTS_PER_TOPIC_MAX);
        assert_eq!(events[0], (1.0, Value::Int(1)));
        log.unsubscribe(&topic, &client);
        assert!(log.append(&topic, 0.0, Value::Nil).is_empty());
    }

    #[test]
    fn truncating_forgets_events_but_not_listeners() {
        let mut log = EventLog::default();
        let topic = Key::from("w");
        log.append(&topic, 1.0, Value::Nil);
        log.subscribe(topic.clone(), "c".into());
        log.truncate(&topic);
        assert!(log.events(&topic).is_empty());
        assert_eq!(log.append(&topic, 2.0, Value::Nil).len(), 1);
    }

    #[test]
    fn several_topics_come_as_an_array() {
        assert_eq!(topics(&Value::from(vec!["a", "b"])), [Key::from("a"), Key::from("b")]);
        assert_eq!(topics(&Value::from("a")), [Key::from("a")]);
        assert!(topics(&Value::Nil).is_empty());
    }
}
