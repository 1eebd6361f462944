//! What processes have used, by their trees: from `/proc`, children that ended and were waited for included.

use std::fs;

/// Processor time and memory of a process and everything below it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// User and system time, in seconds.
    pub cpu_seconds: f64,
    /// Resident bytes.
    pub resident: u64,
    /// The most resident bytes since [`reset_peaks`], the sum of each process's own.
    pub resident_peak: u64,
    /// Processes.
    pub processes: usize,
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Usage>>(all: I) -> Usage {
        all.fold(Usage::default(), |sum, one| Usage {
            cpu_seconds: sum.cpu_seconds + one.cpu_seconds,
            resident: sum.resident + one.resident,
            resident_peak: sum.resident_peak + one.resident_peak,
            processes: sum.processes + one.processes,
        })
    }
}

/// Of these processes and all below them.
pub fn usage(roots: &[u32]) -> Usage {
    let tick = 1.0 / rustix::param::clock_ticks_per_second() as f64;
    roots.iter().flat_map(|pid| tree(*pid)).filter_map(|pid| usage_of(pid, tick)).sum()
}

/// Makes [`Usage::resident_peak`] begin anew.
pub fn reset_peaks(roots: &[u32]) {
    for pid in roots.iter().flat_map(|pid| tree(*pid)) {
        // One that ends just now has no peak.
        let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
}

/// The process and all below it.
fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let children: Vec<u32> = children
            .flat_map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .filter_map(|it| it.parse().ok())
            .collect();
        found.extend(children);
        next += 1;
    }
    found
}

fn usage_of(pid: u32, tick: f64) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = |field| kib(&status, field).unwrap_or(0) * 1024;
    Some(Usage {
        cpu_seconds: ticks(&stat)? as f64 * tick,
        resident: resident("VmRSS:"),
        resident_peak: resident("VmHWM:"),
        processes: 1,
    })
}

/// utime, stime, cutime and cstime: the 14th to 17th field, counted behind the name, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let times: Vec<u64> = fields.split_whitespace().skip(11).take(4).filter_map(|it| it.parse().ok()).collect();
    (times.len() == 4).then(|| times.iter().sum())
}

fn kib(status: &str, field: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 5 6 7 8 100 20 3 4 20 0 1 0 9 10 11";
        assert_eq!(ticks(stat), Some(127));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn children_count_too_once_they_ended() {
        let pid = std::process::id();
        let before = usage(&[pid]);
        let burn = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done";
        let status = std::process::Command::new("sh").args(["-c", burn]).status().expect("sh starts");
        assert!(status.success());
        let after = usage(&[pid]);
        assert!(after.cpu_seconds > before.cpu_seconds, "{before:?}, then {after:?}");
        assert!(after.resident > 0 && after.resident_peak > 0);
    }
}
