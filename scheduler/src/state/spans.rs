//! Spans: which groups belong to which part of a user's program (`distributed.spans`).
//!
//! A group belongs to one span, that of its first task. Tasks without a span belong to the default one, which ends when
//! all its groups are done; the next such task begins another.

use dask_protocol::Value;

use super::event::{Annotations, Seconds};
use super::group::Groups;
use super::ids::{FastMap, GroupId, IdSet};

/// Most spans that are remembered by name; a program may open one per call. Then the older half is forgotten at once: to take
/// out one by one from the front would move all others each time.
const SPANS_MAX: usize = 10_000;
/// What the span of tasks without one is called.
const DEFAULT: &str = "default";

/// The spans by id.
#[derive(Debug, Default)]
pub(super) struct Spans {
    names: FastMap<String, Vec<String>>,
    /// The default span that tasks belong to now, and those of its groups that may not be done.
    default: Option<(String, IdSet<GroupId>)>,
    /// Default spans so far.
    defaults: u64,
}

impl Spans {
    fn remember(&mut self, id: &str, name: Vec<String>) {
        if self.names.contains_key(id) {
            return;
        }
        if self.names.len() >= SPANS_MAX {
            self.names.drain(..SPANS_MAX / 2);
        }
        self.names.insert(id.to_owned(), name);
    }

    /// The tags of a span, outermost first.
    pub(super) fn name(&self, id: &str) -> Option<&[String]> {
        self.names.get(id).map(Vec::as_slice)
    }

    /// A group is gone.
    pub(super) fn group_removed(&mut self, group: GroupId) {
        if let Some((_, groups)) = &mut self.default {
            groups.remove(group);
        }
    }
}

impl Groups {
    /// Gives a group its span, unless it has one (`observe_tasks`).
    pub(super) fn assign_span(&mut self, group: GroupId, annotations: &Annotations, now: Seconds) {
        if self.group(group).span_id.is_some() {
            return;
        }
        let id = match annotations.span_ids.last() {
            Some(id) => {
                self.spans.remember(id, tags(&annotations.echoed));
                id.clone()
            }
            None => self.default_span(group, now),
        };
        self.group_mut(group).span_id = Some(id);
    }

    fn default_span(&mut self, group: GroupId, now: Seconds) -> String {
        self.end_default_span_if_done();
        if self.spans.default.is_none() {
            self.spans.defaults += 1;
            let id = unique_id(now, self.spans.defaults);
            self.spans.remember(&id, vec![DEFAULT.to_owned()]);
            self.spans.default = Some((id, IdSet::default()));
        }
        let (id, groups) = self.spans.default.as_mut().expect("a default span was just made");
        groups.insert(group);
        id.clone()
    }

    /// Drops groups that are done from the default span. One that has to compute again is not missed: its span ends a
    /// little earlier than upstream's.
    fn end_default_span_if_done(&mut self) {
        let Some((id, mut groups)) = self.spans.default.take() else { return };
        while !groups.is_empty() {
            let last = groups.at(groups.len() - 1);
            if !self.group(last).states.is_done() {
                self.spans.default = Some((id, groups));
                return;
            }
            groups.remove(last);
        }
    }
}

/// The tags of a span's annotation, as the user wrote it.
fn tags(echoed: &Value) -> Vec<String> {
    let name = echoed.get("span").and_then(|span| span.get("name"));
    let tags = name.and_then(Value::as_items).unwrap_or_default();
    tags.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// An id in the form of a UUID that no other default span of this scheduler has.
fn unique_id(now: Seconds, number: u64) -> String {
    let (time, number) = (format!("{:016x}", now.to_bits()), format!("{number:016x}"));
    format!("{}-{}-{}-{}-{}", &time[..8], &time[8..12], &time[12..], &number[..4], &number[4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_look_like_those_of_other_spans() {
        let id = unique_id(1_700_000_000.25, 7);
        assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_ne!(id, unique_id(1_700_000_000.25, 8));
    }

    #[test]
    fn old_spans_are_forgotten() {
        let mut spans = Spans::default();
        (0..=SPANS_MAX).for_each(|i| spans.remember(&i.to_string(), vec![i.to_string()]));
        let half = SPANS_MAX / 2;
        assert_eq!((spans.name("0"), spans.name(&(half - 1).to_string())), (None, None));
        assert_eq!(spans.name(&half.to_string()), Some(&[half.to_string()][..]));
        assert_eq!(spans.names.len(), half + 1);
    }
}
