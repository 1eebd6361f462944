//! What heartbeats report beside the state's own counts: transfers, bandwidth, latency.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use dask_protocol::{Address, Key, Value};
use rustc_hash::FxHashMap;

/// Bandwidth assumed before any transfer was measured, in bytes per second (`distributed.scheduler.bandwidth`).
const BANDWIDTH_DEFAULT: f64 = 100e6;
/// Transfers below this size say more about latency than about bandwidth.
const BANDWIDTH_BYTES_MIN: i64 = 1_000_000;
/// Ticks of the runtime are watched this far apart.
const LOOP_INTERVAL: std::time::Duration = std::time::Duration::from_millis(500);
/// Weight of what was known before a new measurement.
const SMOOTHING: f64 = 0.95;

/// Counters of one worker.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Transfers to peers in progress: the count, and their bytes.
    pub outgoing_count: AtomicU64,
    pub outgoing_bytes: AtomicI64,
    pub outgoing_count_total: AtomicU64,
    pub outgoing_bytes_total: AtomicI64,
    /// Transfers from peers in progress.
    pub incoming_count: AtomicU64,
    pub incoming_bytes: AtomicI64,
    pub incoming_count_total: AtomicU64,
    /// Copied from the memory of peers on this machine.
    pub borrowed_bytes_total: AtomicI64,
    /// Seconds between ticks of the runtime, as bits; see [`Metrics::watch_loop`].
    loop_interval: AtomicU64,
    /// Ticks so far, and the nanoseconds of the longest since this was last asked for.
    ticks: AtomicU64,
    longest_tick: AtomicU64,
    measured: Mutex<Measured>,
}

/// Seconds by task prefix and [`Label`].
type ByPrefix = FxHashMap<String, [f64; Label::ALL.len()]>;

#[derive(Debug)]
struct Measured {
    bandwidth: f64,
    /// Sum and count since the last heartbeat.
    by_worker: HashMap<Address, (f64, u32)>,
    latency: f64,
    /// Seconds since the last heartbeat, by task prefix.
    executed: ByPrefix,
    /// The same by span and task prefix.
    executed_by_span: FxHashMap<String, ByPrefix>,
    gathered: f64,
}

/// What a part of a task's time went into, by upstream's name (fine performance metrics).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    ThreadCpu,
    ThreadNonCpu,
    Failed,
}

impl Label {
    const ALL: [Label; 3] = [Label::ThreadCpu, Label::ThreadNonCpu, Label::Failed];

    fn name(self) -> &'static str {
        match self {
            Label::ThreadCpu => "thread-cpu",
            Label::ThreadNonCpu => "thread-noncpu",
            Label::Failed => "failed",
        }
    }
}

impl Default for Measured {
    fn default() -> Measured {
        Measured {
            bandwidth: BANDWIDTH_DEFAULT,
            by_worker: HashMap::new(),
            latency: 0.001,
            executed: ByPrefix::default(),
            executed_by_span: FxHashMap::default(),
            gathered: 0.0,
        }
    }
}

impl Metrics {
    /// A transfer to us ended.
    #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
    pub(crate) fn received(&self, from: &Address, nbytes: i64, seconds: f64) {
        if nbytes <= BANDWIDTH_BYTES_MIN {
            return;
        }
        let rate = nbytes as f64 / seconds.max(1e-6);
        let mut measured = self.measured();
        measured.bandwidth = measured.bandwidth * SMOOTHING + rate * (1.0 - SMOOTHING);
        let (sum, count) = measured.by_worker.entry(from.clone()).or_default();
        *sum += rate;
        *count += 1;
    }

    /// A part of a task's execution took this long.
    pub(crate) fn executed(&self, key: &Key, span: Option<&str>, label: Label, seconds: f64) {
        let prefix = key.prefix();
        let mut measured = self.measured();
        if let Some(span) = span {
            if !measured.executed_by_span.contains_key(span) {
                measured.executed_by_span.insert(span.to_owned(), ByPrefix::default());
            }
            let by_prefix = measured.executed_by_span.get_mut(span).expect("inserted where it was not");
            add(by_prefix, &prefix, label, seconds);
        }
        add(&mut measured.executed, &prefix, label, seconds);
    }

    /// A transfer to us took this long.
    pub(crate) fn gathered(&self, seconds: f64) {
        self.measured().gathered += seconds;
    }

    /// The `digests_total_since_heartbeat` entry of a heartbeat; what it counts begins anew.
    pub(crate) fn take_digests(&self) -> Value {
        let mut measured = self.measured();
        let mut digests: Vec<(Value, Value)> =
            rows(vec!["execute".into()], std::mem::take(&mut measured.executed)).collect();
        digests.push(("latency".into(), measured.latency.into()));
        let gathered = std::mem::take(&mut measured.gathered);
        if gathered > 0.0 {
            let name = ["gather-dep", "network", "seconds"].map(Value::from);
            digests.push((Value::Array(name.to_vec()), gathered.into()));
        }
        Value::Map(digests)
    }

    /// The `extensions.spans` entry of a heartbeat; what it counts begins anew.
    pub(crate) fn take_spans(&self) -> Value {
        let spans = std::mem::take(&mut self.measured().executed_by_span);
        let rows = |(span, by_prefix): (String, ByPrefix)| rows(vec!["execute".into(), span.into()], by_prefix);
        Value::Map(spans.into_iter().flat_map(rows).collect())
    }

    /// A round trip to the scheduler took this long.
    pub(crate) fn round_trip(&self, seconds: f64) {
        let mut measured = self.measured();
        measured.latency = measured.latency * SMOOTHING + seconds * (1.0 - SMOOTHING);
    }

    /// Seconds to the scheduler and back, smoothed.
    pub(crate) fn latency(&self) -> f64 {
        self.measured().latency
    }

    /// Measures how late the runtime wakes a task that asks for [`LOOP_INTERVAL`] (`event_loop_interval`). Runs for ever.
    pub(crate) async fn watch_loop(&self) {
        let mut last = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(LOOP_INTERVAL).await;
            let now = tokio::time::Instant::now();
            self.loop_interval.store((now - last).as_secs_f64().to_bits(), Ordering::Relaxed);
            self.ticks.fetch_add(1, Ordering::Relaxed);
            let nanoseconds = u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX);
            self.longest_tick.fetch_max(nanoseconds, Ordering::Relaxed);
            last = now;
        }
    }

    /// Seconds between the last two ticks.
    pub(crate) fn loop_interval(&self) -> f64 {
        f64::from_bits(self.loop_interval.load(Ordering::Relaxed))
    }

    /// How often the runtime ticked, and the seconds of its longest tick since this was last asked for.
    pub(crate) fn take_ticks(&self) -> (u64, f64) {
        let longest = std::time::Duration::from_nanos(self.longest_tick.swap(0, Ordering::Relaxed));
        (self.ticks.load(Ordering::Relaxed), longest.as_secs_f64())
    }

    /// The `bandwidth` entry of a heartbeat; what it counts begins anew.
    pub(crate) fn take_bandwidth(&self) -> Value {
        let mut measured = self.measured();
        let row = |(worker, (sum, count)): (Address, (f64, u32))| {
            (Value::from(worker.as_str()), Value::Array(vec![sum.into(), i64::from(count).into()]))
        };
        let workers = std::mem::take(&mut measured.by_worker).into_iter().map(row).collect();
        Value::map([
            ("total", measured.bandwidth.into()),
            ("workers", Value::Map(workers)),
            ("types", Value::Map(Vec::new())),
        ])
    }

    /// The `transfer` entry of a heartbeat.
    pub(crate) fn transfer(&self) -> Value {
        let count = |counter: &AtomicU64| Value::from(counter.load(Ordering::Relaxed));
        let bytes = |counter: &AtomicI64| Value::from(counter.load(Ordering::Relaxed));
        Value::map([
            ("incoming_bytes", bytes(&self.incoming_bytes)),
            ("incoming_count", count(&self.incoming_count)),
            ("incoming_count_total", count(&self.incoming_count_total)),
            ("outgoing_bytes", bytes(&self.outgoing_bytes)),
            ("outgoing_count", count(&self.outgoing_count)),
            ("outgoing_count_total", count(&self.outgoing_count_total)),
        ])
    }

    fn measured(&self) -> std::sync::MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(to: &mut ByPrefix, prefix: &str, label: Label, seconds: f64) {
    // Nearly all tasks have a prefix seen before, and need no text of their own for it.
    match to.get_mut(prefix) {
        Some(sums) => sums[label as usize] += seconds,
        None => to.entry(prefix.to_owned()).or_default()[label as usize] += seconds,
    }
}

/// Entries of a heartbeat; their names begin with `about`.
fn rows(about: Vec<Value>, sums: ByPrefix) -> impl Iterator<Item = (Value, Value)> {
    let labels = move |(prefix, sums): (String, [f64; Label::ALL.len()])| {
        let about = about.clone();
        let counted = Label::ALL.into_iter().filter(move |label| sums[*label as usize] > 0.0);
        counted.map(move |label| {
            let rest = [Value::from(prefix.as_str()), label.name().into(), "seconds".into()];
            (Value::Array(about.iter().cloned().chain(rest).collect()), Value::from(sums[label as usize]))
        })
    };
    sums.into_iter().flat_map(labels)
}

/// Adds to a transfer's counters until dropped.
#[derive(Debug)]
pub(crate) struct InProgress<'a> {
    count: &'a AtomicU64,
    bytes: &'a AtomicI64,
    nbytes: i64,
}

impl<'a> InProgress<'a> {
    pub(crate) fn begin(count: &'a AtomicU64, bytes: &'a AtomicI64, nbytes: i64) -> InProgress<'a> {
        count.fetch_add(1, Ordering::AcqRel);
        bytes.fetch_add(nbytes, Ordering::AcqRel);
        InProgress { count, bytes, nbytes }
    }
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
        self.bytes.fetch_sub(self.nbytes, Ordering::AcqRel);
    }
}
