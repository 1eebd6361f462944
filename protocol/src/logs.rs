//! A ring of recent log records, kept for the `get_logs` RPC that every role answers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::value::Value;

/// Records kept, as upstream's `DequeHandler` does by default.
pub const LOG_RECORDS_MAX: usize = 10_000;

/// Longest text kept of one record, in bytes.
pub const LOG_TEXT_BYTES_MAX: usize = 8_192;

/// Bytes of text kept of all records: 800 for each, where most have some 150 and the report of a death 3,000.
pub const LOG_BYTES_MAX: usize = 8_000_000;

/// One record as it was logged.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    /// When, in seconds since the epoch.
    pub created: f64,
    /// Python's name of the level: `DEBUG`, `INFO`, `WARNING` or `ERROR`.
    pub level: &'static str,
    /// The logger's name, such as `distributed.scheduler`.
    pub logger: String,
    /// The whole line as printed.
    pub line: String,
}

/// The recent records of this process. Clones share the ring; the logging layer of crate `dask` fills it.
#[derive(Debug, Clone)]
pub struct LogRing(Arc<Mutex<Kept>>);

impl Default for LogRing {
    fn default() -> LogRing {
        LogRing::with_length(LOG_RECORDS_MAX)
    }
}

#[derive(Debug)]
struct Kept {
    records: VecDeque<LogRecord>,
    bytes: usize,
    length: usize,
}

impl LogRing {
    /// An empty ring.
    pub fn new() -> LogRing {
        LogRing::default()
    }

    /// An empty ring for so many records, [`LOG_RECORDS_MAX`] at most.
    pub fn with_length(length: usize) -> LogRing {
        let length = length.min(LOG_RECORDS_MAX);
        LogRing(Arc::new(Mutex::new(Kept { records: VecDeque::new(), bytes: 0, length })))
    }

    /// Adds a record, dropping the oldest ones when full.
    pub fn push(&self, mut record: LogRecord) {
        let mut end = record.line.len().min(LOG_TEXT_BYTES_MAX);
        while !record.line.is_char_boundary(end) {
            end -= 1;
        }
        record.line.truncate(end);
        record.line.shrink_to_fit();
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.bytes += record.line.len();
        ring.records.push_back(record);
        while ring.records.len() > ring.length || ring.bytes > LOG_BYTES_MAX {
            ring.bytes -= ring.records.pop_front().map_or(0, |oldest| oldest.line.len());
        }
    }

    /// The records of loggers whose name starts with `logger`, newest first: those created at `start` or later, and
    /// at most `n` of them (all when `None` or 0).
    pub fn recent(&self, logger: &str, start: f64, n: Option<usize>) -> Vec<LogRecord> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let matching = ring.records.iter().rev().filter(|record| record.logger.starts_with(logger));
        let limit = n.filter(|&n| n > 0).unwrap_or(usize::MAX);
        matching.take_while(|record| record.created >= start).take(limit).cloned().collect()
    }

    /// The reply of the `get_logs` RPC: arrays `[level, line]`, with the time in front when `timestamps` is set.
    pub fn reply(&self, logger: &str, start: f64, n: Option<usize>, timestamps: bool) -> Value {
        let row = |record: LogRecord| {
            let mut row = vec![Value::from(record.level), Value::from(record.line)];
            if timestamps {
                row.insert(0, Value::from(record.created));
            }
            Value::Array(row)
        };
        Value::Array(self.recent(logger, start, n).into_iter().map(row).collect())
    }
}

/// The arguments of the `get_logs` RPC.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
pub struct GetLogs {
    /// Only records from this time on, in seconds since the epoch.
    #[serde(default)]
    pub start: f64,
    /// At most this many records; all when absent or 0.
    #[serde(default)]
    pub n: Option<usize>,
    /// Whether each row begins with its time.
    #[serde(default)]
    pub timestamps: bool,
}

impl GetLogs {
    /// The reply, from the records of `logger`.
    pub fn reply(&self, ring: &LogRing, logger: &str) -> Value {
        ring.reply(logger, self.start, self.n, self.timestamps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(created: f64, logger: &str, line: &str) -> LogRecord {
        LogRecord { created, level: "INFO", logger: logger.to_owned(), line: line.to_owned() }
    }

    #[test]
    fn recent_records_come_newest_first_and_only_of_one_logger() {
        let ring = LogRing::new();
        ring.push(record(1.0, "distributed.nanny", "a"));
        ring.push(record(2.0, "distributed.worker", "b"));
        ring.push(record(3.0, "distributed.nanny", "c"));
        let lines = |start, n| -> Vec<String> {
            ring.recent("distributed.nanny", start, n).into_iter().map(|record| record.line).collect()
        };
        assert_eq!(lines(0.0, None), ["c", "a"]);
        assert_eq!(lines(2.0, None), ["c"]);
        assert_eq!(lines(0.0, Some(1)), ["c"]);
        assert_eq!(lines(0.0, Some(0)), ["c", "a"]);
    }

    #[test]
    fn the_ring_forgets_the_oldest_and_cuts_long_lines() {
        let ring = LogRing::new();
        for _ in 0..=LOG_RECORDS_MAX {
            ring.push(record(1.0, "x", "short"));
        }
        ring.push(record(2.0, "x", &"é".repeat(LOG_TEXT_BYTES_MAX)));
        let records = ring.recent("x", 0.0, None);
        assert_eq!(records.len(), LOG_RECORDS_MAX);
        assert!(records[0].line.len() <= LOG_TEXT_BYTES_MAX);
    }

    #[test]
    fn long_lines_push_out_more_than_one() {
        let ring = LogRing::new();
        let long = "x".repeat(LOG_TEXT_BYTES_MAX);
        for _ in 0..LOG_RECORDS_MAX {
            ring.push(record(1.0, "x", &long));
        }
        assert_eq!(ring.recent("x", 0.0, None).len(), LOG_BYTES_MAX / LOG_TEXT_BYTES_MAX);
    }

    #[test]
    fn replies_hold_level_and_line() {
        let ring = LogRing::new();
        ring.push(record(1.5, "x", "text"));
        let plain = GetLogs::default().reply(&ring, "x");
        assert_eq!(plain, Value::Array(vec![Value::Array(vec!["INFO".into(), "text".into()])]));
        let timed = GetLogs { timestamps: true, ..GetLogs::default() }.reply(&ring, "x");
        assert_eq!(timed, Value::Array(vec![Value::Array(vec![1.5.into(), "INFO".into(), "text".into()])]));
    }
}
