//! CPU, memory, descriptors and traffic of this worker (its Python processes included), from `/proc`.

use std::collections::VecDeque;
use std::time::Instant;

use dask_protocol::Value;

use crate::clock::unix_now;

/// Samples kept for `get_monitor_info`: an hour and a half at two a second, as upstream's default.
const SAMPLES_MAX: usize = 7200;

/// One moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// Unix seconds.
    pub time: f64,
    /// Percent of one core.
    pub cpu: f64,
    /// Resident bytes.
    pub memory: u64,
    pub num_fds: u64,
    pub net_read_bps: f64,
    pub net_write_bps: f64,
    pub disk_read_bps: f64,
    pub disk_write_bps: f64,
}

/// Totals since the machine or process started.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    cpu_seconds: f64,
    net: (u64, u64),
    disk: (u64, u64),
}

/// Takes samples and keeps the recent ones.
#[derive(Debug)]
pub(crate) struct Monitor {
    samples: VecDeque<Sample>,
    /// Samples ever taken.
    count: u64,
    last: Option<(Instant, Totals)>,
}

impl Monitor {
    pub(crate) fn new() -> Monitor {
        Monitor { samples: VecDeque::new(), count: 0, last: None }
    }

    /// Measures now. `python` are the ids of the Python processes.
    pub(crate) fn sample(&mut self, python: &[u32]) -> Sample {
        let processes: Vec<String> =
            std::iter::once("self".to_owned()).chain(python.iter().map(u32::to_string)).collect();
        let totals = Totals {
            cpu_seconds: processes.iter().map(|pid| cpu_seconds(pid)).sum(),
            net: net_bytes(),
            disk: disk_bytes(),
        };
        let now = Instant::now();
        let mut sample = Sample {
            time: unix_now(),
            memory: resident_bytes(python),
            num_fds: processes.iter().map(|pid| descriptors(pid)).sum(),
            ..Sample::default()
        };
        if let Some((then, before)) = self.last.replace((now, totals)) {
            let seconds = now.duration_since(then).as_secs_f64().max(1e-3);
            sample.cpu = (totals.cpu_seconds - before.cpu_seconds).max(0.0) / seconds * 100.0;
            sample.net_read_bps = rate(totals.net.0, before.net.0, seconds);
            sample.net_write_bps = rate(totals.net.1, before.net.1, seconds);
            sample.disk_read_bps = rate(totals.disk.0, before.disk.0, seconds);
            sample.disk_write_bps = rate(totals.disk.1, before.disk.1, seconds);
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        self.count += 1;
        sample
    }

    /// The latest sample.
    pub(crate) fn recent(&self) -> Sample {
        self.samples.back().copied().unwrap_or_default()
    }

    /// The samples from number `start` on, by quantity, as `get_monitor_info` returns them.
    pub(crate) fn range(&self, start: u64) -> Value {
        let first = self.count - self.samples.len() as u64;
        let skip = usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX);
        let column = |of: fn(&Sample) -> Value| Value::Array(self.samples.iter().skip(skip).map(of).collect());
        Value::map([
            ("time", column(|s| s.time.into())),
            ("cpu", column(|s| s.cpu.into())),
            ("memory", column(|s| s.memory.into())),
            ("num_fds", column(|s| s.num_fds.into())),
            ("host_net_io.read_bps", column(|s| s.net_read_bps.into())),
            ("host_net_io.write_bps", column(|s| s.net_write_bps.into())),
            ("host_disk_io.read_bps", column(|s| s.disk_read_bps.into())),
            ("host_disk_io.write_bps", column(|s| s.disk_write_bps.into())),
        ])
    }

    /// Samples ever taken.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}

#[expect(clippy::cast_precision_loss, reason = "byte counters are far below 2^53")]
fn rate(now: u64, before: u64, seconds: f64) -> f64 {
    now.saturating_sub(before) as f64 / seconds
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Resident memory of this process and the Python processes, in bytes.
pub(crate) fn resident_bytes(python: &[u32]) -> u64 {
    let page = rustix::param::page_size() as u64;
    let of =
        |path: String| read(&path).split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    let ours = of("/proc/self/statm".to_owned());
    let theirs: u64 = python.iter().map(|pid| of(format!("/proc/{pid}/statm"))).sum();
    (ours + theirs) * page
}

#[expect(clippy::cast_precision_loss, reason = "clock ticks are far below 2^53")]
fn cpu_seconds(pid: &str) -> f64 {
    let stat = read(&format!("/proc/{pid}/stat"));
    // The command's name, in parentheses, may hold anything; user and system ticks are fields 14 and 15.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

fn descriptors(pid: &str) -> u64 {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64)
}

/// Bytes received and sent by all interfaces but loopback.
fn net_bytes() -> (u64, u64) {
    let table = read("/proc/net/dev");
    let rows = table.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    rows.fold((0, 0), |(received, sent), (_, fields)| {
        let field = |i: usize| fields.split_whitespace().nth(i).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        (received + field(0), sent + field(8))
    })
}

/// Bytes read and written by all whole disks.
fn disk_bytes() -> (u64, u64) {
    const SECTOR_BYTES: u64 = 512;
    let table = read("/proc/diskstats");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let whole =
        rows.filter(|fields| fields.get(2).is_some_and(|name| std::path::Path::new("/sys/block").join(name).exists()));
    whole.fold((0, 0), |(read, written), fields| {
        let field = |i: usize| fields.get(i).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        (read + field(5) * SECTOR_BYTES, written + field(9) * SECTOR_BYTES)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let mut monitor = Monitor::new();
        let sample = monitor.sample(&[]);
        assert!(sample.memory > 0 && sample.num_fds > 0);
        monitor.sample(&[]);
        assert_eq!(monitor.range(1).get("cpu").and_then(Value::as_items).map(<[Value]>::len), Some(1));
        assert_eq!(monitor.count(), 2);
    }
}
