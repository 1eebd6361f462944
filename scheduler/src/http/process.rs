//! What the scheduler's own process uses, as the kernel tells it.

use std::fs;

/// Clock ticks per second in `/proc`, on every Linux there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Figures of this process; zero where the system has no `/proc`.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Process {
    /// Seconds of processor time so far.
    pub(super) cpu_seconds: f64,
    /// Bytes of resident memory.
    pub(super) memory: u64,
    /// Open files and connections.
    pub(super) open_files: usize,
}

impl Process {
    pub(super) fn sample() -> Process {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The second field, the name, may contain anything up to the last parenthesis.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
        Process {
            cpu_seconds: (ticks(11) + ticks(12)) / TICKS_PER_SECOND,
            memory: kib.saturating_mul(1024),
            open_files: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_something() {
        let process = Process::sample();
        assert!(process.memory > 0 && process.open_files > 2, "{process:?}");
    }
}
