//! What tasks did lately, for the task stream: short neighbours are drawn as one block, so that a browser can keep up with
//! any number of tasks.

use std::collections::VecDeque;

use dask_protocol::Address;
use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;
use serde_json::{Value as Json, json};

use crate::server::recent::{Activity, Part};

/// Most blocks in one answer, the newest ones; more than a screen has room for.
const BLOCKS_PER_ANSWER: usize = 6_000;
/// Most lanes (threads of workers, also of those that left) and names; with more of either everything begins anew.
const LANES_MAX: usize = 20_000;
const NAMES_MAX: usize = 20_000;
/// A block of several tasks is at least this long if there are enough of them: some pixels of a window of half a minute.
const BLOCK_SECONDS: f64 = 0.04;
/// ... and longer where there are many lanes: this much for each.
const BLOCK_SECONDS_PER_LANE: f64 = 0.000_5;

type Set<T> = IndexSet<T, FxBuildHasher>;

/// A stretch of one lane: one part of a task's life, or several alike.
#[derive(Debug, Clone)]
struct Block {
    lane: usize,
    /// The prefix, as number of a name.
    name: usize,
    action: Activity,
    ok: bool,
    start: f64,
    stop: f64,
    /// Seconds of it that something was done.
    busy: f64,
    count: u32,
    /// The longest task in it.
    key: String,
    longest: f64,
    /// The worker a transfer came from, as number of a name.
    source: Option<usize>,
}

/// The blocks of the last while.
#[derive(Debug)]
pub(super) struct Stream {
    /// Blocks kept.
    length: usize,
    /// Counts the beginnings: numbers of lanes and names mean something within one only.
    epoch: u64,
    lanes: Set<(Address, i64)>,
    /// Per lane, the number of its last block.
    last: Vec<Option<u64>>,
    names: Set<String>,
    blocks: VecDeque<Block>,
    /// The number of the first block.
    first: u64,
    /// Blocks below this number were shown to somebody and stay as they are.
    shown: u64,
    /// Tasks that nobody asked about in time.
    missed: u64,
}

impl Stream {
    /// Keeps so many blocks.
    pub(super) fn new(length: usize) -> Stream {
        Stream {
            length,
            epoch: 0,
            lanes: Set::default(),
            last: Vec::new(),
            names: Set::default(),
            blocks: VecDeque::new(),
            first: 0,
            shown: 0,
            missed: 0,
        }
    }

    /// Takes in what the driver noted, oldest first.
    pub(super) fn absorb(&mut self, parts: impl IntoIterator<Item = Part>, missed: u64) {
        self.missed += missed;
        for part in parts {
            let sound = part.start.is_finite() && part.stop.is_finite() && part.start <= part.stop;
            if sound {
                self.add(part);
            }
        }
    }

    fn add(&mut self, part: Part) {
        if self.lanes.len() >= LANES_MAX || self.names.len() >= NAMES_MAX {
            *self = Stream { epoch: self.epoch + 1, missed: self.missed, ..Stream::new(self.length) };
        }
        let prefix = part.key.prefix().into_owned();
        let lane = self.lanes.insert_full((part.worker, part.thread)).0;
        if lane == self.last.len() {
            self.last.push(None);
        }
        let name = self.number_of(prefix);
        let source = part.source.map(|source| self.number_of(source.as_str().to_owned()));
        let (start, stop) = (part.start, part.stop);
        let block = Block {
            lane,
            name,
            action: part.action,
            ok: part.ok,
            start,
            stop,
            busy: stop - start,
            count: 1,
            key: String::new(),
            longest: stop - start,
            source,
        };
        let length = BLOCK_SECONDS.max(BLOCK_SECONDS_PER_LANE * self.count_as_f64());
        let number = self.last[lane].filter(|number| *number >= self.shown.max(self.first));
        let neighbour = number.and_then(|number| self.blocks.get_mut(position(number, self.first)));
        if let Some(neighbour) = neighbour.filter(|neighbour| neighbour.takes(&block, length)) {
            if block.longest > neighbour.longest {
                (neighbour.longest, neighbour.key) = (block.longest, part.key.to_string());
            }
            neighbour.stop = neighbour.stop.max(stop);
            neighbour.start = neighbour.start.min(start);
            neighbour.busy += block.busy;
            neighbour.count = neighbour.count.saturating_add(1);
            return;
        }
        if self.blocks.len() >= self.length.max(1) {
            self.blocks.pop_front();
            self.first += 1;
        }
        self.blocks.push_back(Block { key: part.key.to_string(), ..block });
        self.last[lane] = Some(self.next() - 1);
    }

    #[expect(clippy::cast_precision_loss, reason = "at most some thousands")]
    fn count_as_f64(&self) -> f64 {
        self.lanes.len() as f64
    }

    fn number_of(&mut self, name: String) -> usize {
        match self.names.get_index_of(&name) {
            Some(number) => number,
            None => self.names.insert_full(name).0,
        }
    }

    fn next(&self) -> u64 {
        self.first + self.blocks.len() as u64
    }

    /// The blocks since a number, as `/json/stream.json` has them. `epoch` and `since` are from the answer before; names
    /// and lanes are told from `names` and `lanes` on, which the asker has already.
    pub(super) fn answer(&mut self, asked: &Asked, now: f64) -> Json {
        let known = asked.epoch == self.epoch;
        let (since, names, lanes) = if known { (asked.since, asked.names, asked.lanes) } else { (0, 0, 0) };
        let next = self.next();
        let from = since.clamp(self.first, next);
        let skip = position(from, self.first).max(self.blocks.len().saturating_sub(BLOCKS_PER_ANSWER));
        // Times are told in milliseconds before now: short texts.
        let ago = |moment: f64| ((now - moment) * 1e5).round() / 1e2;
        let row = |block: &Block| {
            json!([
                block.lane,
                block.name,
                block.action.name(),
                u8::from(block.ok),
                ago(block.start),
                ago(block.stop),
                block.count,
                (block.busy * 1e5).round() / 1e2,
                block.key,
                block.source,
            ])
        };
        let rows: Vec<Json> = self.blocks.range(skip..).map(row).collect();
        let new_lanes: Vec<Json> =
            self.lanes.iter().skip(lanes).map(|(worker, thread)| json!([worker.as_str(), thread])).collect();
        self.shown = next;
        json!({
            "epoch": self.epoch,
            "next": next,
            "now": now,
            "skipped": (self.first + skip as u64).saturating_sub(from),
            "missed": self.missed,
            "names_from": names,
            "names": self.names.iter().skip(names).collect::<Vec<_>>(),
            "lanes_from": lanes,
            "lanes": new_lanes,
            "blocks": rows,
        })
    }
}

/// What a reader of the stream has already.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// The epoch of its last answer.
    pub(super) epoch: u64,
    /// `next` of its last answer.
    pub(super) since: u64,
    /// How many names it knows.
    pub(super) names: usize,
    /// How many lanes it knows.
    pub(super) lanes: usize,
}

impl Asked {
    /// From `epoch=..&since=..&names=..&lanes=..`; what is missing or no number is 0.
    pub(super) fn parse(query: &str) -> Asked {
        let number = |name: &str| -> u64 {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(known, _)| *known == name).and_then(|(_, text)| text.parse().ok()).unwrap_or(0)
        };
        let count = |name| usize::try_from(number(name)).unwrap_or(usize::MAX);
        Asked { epoch: number("epoch"), since: number("since"), names: count("names"), lanes: count("lanes") }
    }
}

impl Block {
    /// Whether another block, later in the same lane, is drawn as part of this one.
    fn takes(&self, other: &Block, length: f64) -> bool {
        let alike =
            (self.name, self.action, self.ok, self.source) == (other.name, other.action, other.ok, other.source);
        let gap = other.start - self.stop;
        alike && other.stop - self.start <= length && gap <= length / 4.0 && gap >= -length
    }
}

fn position(number: u64, first: u64) -> usize {
    usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 10_000;

    fn part(key: &str, thread: i64, start: f64, seconds: f64) -> Part {
        Part {
            key: key.into(),
            worker: "tcp://h:1".into(),
            thread,
            action: Activity::Compute,
            ok: true,
            start,
            stop: start + seconds,
            source: None,
        }
    }

    fn blocks(answer: &Json) -> Vec<(u64, u64)> {
        let rows = answer["blocks"].as_array().expect("blocks");
        rows.iter().map(|row| (row[0].as_u64().expect("lane"), row[6].as_u64().expect("count"))).collect()
    }

    #[test]
    fn short_neighbours_of_one_kind_are_one_block() {
        let mut stream = Stream::new(LENGTH);
        let tasks = (0..30_u32).map(|i| part(&format!("inc-{i}"), 1, 100.0 + f64::from(i) * 0.001, 0.000_9));
        stream.absorb(tasks, 0);
        stream.absorb(
            [part("inc-99", 1, 101.0, 0.001), part("inc-100", 2, 101.0, 0.001), part("dec-1", 2, 101.002, 0.5)],
            0,
        );
        assert_eq!(blocks(&stream.answer(&Asked::default(), 102.0)), [(0, 30), (0, 1), (1, 1), (1, 1)]);
    }

    #[test]
    fn what_was_shown_does_not_change_and_is_told_once() {
        let mut stream = Stream::new(LENGTH);
        stream.absorb([part("inc-1", 1, 1.0, 0.001)], 0);
        let first = stream.answer(&Asked::default(), 2.0);
        stream.absorb([part("inc-2", 1, 1.001, 0.001)], 0);
        let asked = Asked { since: first["next"].as_u64().expect("a number"), names: 1, lanes: 1, epoch: 0 };
        let second = stream.answer(&asked, 2.0);
        assert_eq!(blocks(&second), [(0, 1)]);
        assert_eq!((second["names"].as_array().map(Vec::len), second["skipped"].as_u64()), (Some(0), Some(0)));
    }

    #[test]
    fn an_answer_is_bounded_and_says_what_it_leaves_out() {
        let mut stream = Stream::new(LENGTH);
        let many = u32::try_from(LENGTH).expect("it fits") + 10;
        stream.absorb((0..many).map(|i| part(&format!("k-{i}"), 1, f64::from(i), 0.5)), 3);
        let answer = stream.answer(&Asked::default(), f64::from(many));
        assert_eq!(blocks(&answer).len(), BLOCKS_PER_ANSWER);
        assert_eq!(answer["skipped"], LENGTH - BLOCKS_PER_ANSWER);
        assert_eq!(answer["missed"], 3);
    }

    #[test]
    fn lanes_without_end_begin_anew() {
        let mut stream = Stream::new(LENGTH);
        let many = i64::try_from(LANES_MAX).expect("it fits") + 1;
        stream.absorb((0..many).map(|thread| part("x", thread, 1.0, 1.0)), 0);
        let answer = stream.answer(&Asked { epoch: 0, since: 5, names: 1, lanes: 5 }, 2.0);
        assert_eq!((answer["epoch"].as_u64(), answer["lanes"].as_array().map(Vec::len)), (Some(1), Some(1)));
    }

    #[test]
    fn times_that_are_none_are_left_out() {
        let mut stream = Stream::new(LENGTH);
        stream.absorb([part("x", 1, f64::NAN, 1.0), part("x", 1, 5.0, -1.0), part("x", 1, f64::INFINITY, 0.0)], 0);
        assert!(blocks(&stream.answer(&Asked::default(), 2.0)).is_empty());
    }

    #[test]
    fn a_readers_place_is_read_from_its_address() {
        let asked = Asked::parse("since=7&epoch=2&names=x&other=1");
        assert_eq!(asked, Asked { epoch: 2, since: 7, names: 0, lanes: 0 });
    }
}
