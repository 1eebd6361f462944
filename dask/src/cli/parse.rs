//! The texts that options take, read by upstream's rules.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::system::System;

/// Most workers one command starts; more is a typing error.
const WORKERS_MAX: usize = 10_000;
/// The longest duration taken, in seconds: about a hundred years.
const SECONDS_MAX: f64 = 3.2e9;

/// Reads a size such as `5GB`, `512 MiB`, `3G`, `3Gi`, `1e9`, as `dask.utils.parse_bytes`: units of 1000 or, with an
/// `i`, of 1024; a fraction of a byte is dropped.
///
/// # Errors
/// What upstream raises.
pub fn parse_bytes(text: &str) -> Result<i64, String> {
    let text = without_spaces(text);
    let text = if text.contains(|c: char| c.is_ascii_digit()) { text } else { format!("1{text}") };
    let (number, unit) = split_unit(&text);
    let number = python_float(number).ok_or_else(|| format!("Could not interpret '{number}' as a number"))?;
    let unit = unit.to_lowercase();
    let multiplier = byte_unit(&unit).ok_or_else(|| format!("Could not interpret '{unit}' as a byte unit"))?;
    let bytes = (number * multiplier).trunc();
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "checked to be in range")]
    let bytes = (bytes.abs() < i64::MAX as f64).then_some(bytes as i64);
    bytes.ok_or_else(|| format!("{text:?} is more bytes than can be counted"))
}

fn byte_unit(unit: &str) -> Option<f64> {
    let letters = ["", "k", "m", "g", "t", "p"];
    let (prefix, base) = match unit.strip_suffix('b').unwrap_or(unit) {
        prefix if prefix.ends_with('i') => (&prefix[..prefix.len() - 1], 1024_f64),
        prefix => (prefix, 1000_f64),
    };
    let power = letters.iter().position(|&letter| letter == prefix)?;
    // There is no "i" or "iB" without a letter before it.
    if power == 0 && base > 1000.0 {
        return None;
    }
    Some((0..power).fold(1.0, |product, _| product * base))
}

/// Reads a duration such as `5 minutes`, `300ms`, `10` (seconds), as `dask.utils.parse_timedelta`. Unlike there, `.5s`
/// is half a second, not one and a half.
///
/// # Errors
/// When the number or the unit cannot be understood, or the duration is negative or endless.
pub fn parse_timedelta(text: &str) -> Result<Duration, String> {
    let compact = without_spaces(text);
    let first = compact.chars().next().ok_or("expected a duration such as \"5 minutes\"")?;
    let compact = if first.is_alphabetic() { format!("1{compact}") } else { compact };
    let (number, unit) = split_unit(&compact);
    let number = python_float(number).ok_or_else(|| format!("could not read a number from {text:?}"))?;
    let seconds = number
        * time_unit(&unit.to_lowercase()).ok_or_else(|| {
            format!("Invalid time unit: {unit}. Valid units are: ns, us, ms, s, m, h, d, w and their full names")
        })?;
    if !(0.0..=SECONDS_MAX).contains(&seconds) {
        return Err(format!("{text:?} is not a duration between 0 and 100 years"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn time_unit(unit: &str) -> Option<f64> {
    match unit {
        "" | "s" | "second" | "seconds" => Some(1.0),
        "ms" | "millisecond" | "milliseconds" => Some(1e-3),
        "us" | "microsecond" | "microseconds" => Some(1e-6),
        "ns" | "nanosecond" | "nanoseconds" => Some(1e-9),
        "m" | "minute" | "minutes" => Some(60.0),
        "h" | "hour" | "hours" => Some(3600.0),
        "d" | "day" | "days" => Some(86_400.0),
        "w" | "week" | "weeks" => Some(604_800.0),
        _ => None,
    }
}

fn without_spaces(text: &str) -> String {
    text.chars().filter(|&c| c != ' ').collect()
}

/// The text before the letters at its end, and those letters.
fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.trim_end_matches(char::is_alphabetic).len())
}

/// Python's `float()` for finite numbers: underscores may stand between digits.
pub(crate) fn python_float(text: &str) -> Option<f64> {
    let text = text.trim();
    let bytes = text.as_bytes();
    let between_digits = |i: usize| {
        let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
        digit(i.checked_sub(1)) && digit(Some(i + 1))
    };
    let allowed = |(i, b): (usize, &u8)| match b {
        b'_' => between_digits(i),
        b => b.is_ascii_digit() || b"+-.eE".contains(b),
    };
    let readable = bytes.iter().enumerate().all(allowed);
    readable.then(|| text.replace('_', "").parse().ok()).flatten().filter(|number: &f64| number.is_finite())
}

/// `23.54 GiB`, as `dask.utils.format_bytes`.
#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
pub fn format_bytes(bytes: u64) -> String {
    let units = [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("kiB", 10)];
    let fitting = units.iter().find(|&&(_, power)| bytes as f64 >= f64::from(power).exp2() * 0.9);
    match fitting {
        Some(&(unit, power)) => format!("{:.2} {unit}", bytes as f64 / f64::from(power).exp2()),
        None => format!("{bytes} B"),
    }
}

/// A memory limit that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryLimit {
    /// Bytes; `None` for no limit.
    pub bytes: Option<u64>,
    /// What the user should know about it.
    pub warning: Option<String>,
}

/// Reads `--memory-limit`: `auto`, a fraction of the system's memory (at most 1), a number of bytes or a size with
/// a unit; 0 turns limits off. Never more than the system has.
///
/// # Errors
/// When the text is none of these, or negative.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "as Python's int(float) for a number checked not to be negative; casts saturate"
)]
pub fn parse_memory_limit(text: &str, nthreads: usize, system: &System) -> Result<MemoryLimit, String> {
    let memory = system.memory as f64;
    let compact = text.trim();
    let bytes = if compact == "auto" {
        let share = (nthreads as f64 / system.cpus.get() as f64).min(1.0);
        (memory * share) as u64
    } else {
        match python_float(compact) {
            Some(number) if number < 0.0 => return Err(format!("memory limit {text:?} is negative")),
            Some(fraction) if fraction <= 1.0 => (fraction * memory) as u64,
            Some(bytes) => bytes as u64,
            None => u64::try_from(parse_bytes(compact)?).map_err(|_| format!("memory limit {text:?} is negative"))?,
        }
    };
    if bytes > system.memory {
        let warning = format!(
            "Ignoring provided memory limit {text} due to system memory limit of {}",
            format_bytes(system.memory)
        );
        return Ok(MemoryLimit { bytes: Some(system.memory), warning: Some(warning) });
    }
    Ok(MemoryLimit { bytes: Some(bytes).filter(|&bytes| bytes > 0), warning: None })
}

/// Reads `--nworkers` and `--nthreads` together: how many processes, and how many threads in each.
///
/// # Errors
/// The text upstream logs when there would be no process, or why a number cannot be read.
pub fn parse_workers(
    nworkers: Option<&str>,
    nthreads: Option<&str>,
    cpus: NonZeroUsize,
) -> Result<(usize, usize), String> {
    let cpus = cpus.get();
    if nworkers == Some("auto") {
        return Ok(processes_and_threads(cpus));
    }
    let workers: i64 = match nworkers {
        None => 1,
        Some(text) => text.trim().parse().map_err(|_| format!("--nworkers: {text:?} is neither a number nor auto"))?,
    };
    let count = i64::try_from(cpus).unwrap_or(i64::MAX);
    let workers = if workers < 0 { count.saturating_add(1).saturating_add(workers) } else { workers };
    let workers = usize::try_from(workers)
        .ok()
        .filter(|&workers| workers > 0)
        .ok_or("Failed to launch worker. Must specify --nworkers so that there's at least one process.")?;
    if workers > WORKERS_MAX {
        return Err(format!("--nworkers: {workers} is more than {WORKERS_MAX} workers"));
    }
    let threads = nthreads.map(parse_nthreads).transpose()?.filter(|&threads| threads > 0);
    Ok((workers, threads.unwrap_or((cpus / workers).max(1))))
}

/// A part of a thread, as a container with a part of a CPU is told to use, is a whole one.
fn parse_nthreads(text: &str) -> Result<usize, String> {
    const THREADS_MAX: f64 = 65_536.0;
    let threads = python_float(text).map(f64::ceil).filter(|threads| (0.0..=THREADS_MAX).contains(threads));
    let threads = threads.ok_or_else(|| format!("--nthreads: {text:?} is not a number of threads"))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    Ok(threads as usize)
}

/// How upstream divides CPUs (`nprocesses_nthreads`): up to four processes of one thread each; else the smallest
/// divisor not below the square root.
fn processes_and_threads(cpus: usize) -> (usize, usize) {
    if cpus <= 4 {
        return (cpus, 1);
    }
    let processes = (1..=cpus).find(|&n| cpus.is_multiple_of(n) && n * n >= cpus).unwrap_or(cpus);
    (processes, cpus / processes)
}

/// Reads `--resources`: `GPU=2 MEM=10e9`, with spaces or commas between, `inf` allowed.
///
/// # Errors
/// Naming the part that is no `NAME=NUMBER`.
pub fn parse_resources(text: &str) -> Result<Vec<(String, f64)>, String> {
    let pairs = text.split([',', ' ']).filter(|pair| !pair.is_empty());
    pairs.map(|pair| parse_resource(pair).ok_or_else(|| format!("--resources: {pair:?} is not NAME=NUMBER"))).collect()
}

fn parse_resource(pair: &str) -> Option<(String, f64)> {
    let (name, amount) = pair.split_once('=')?;
    let amount = match amount.to_lowercase().trim_start_matches('+') {
        "inf" | "infinity" => f64::INFINITY,
        _ => python_float(amount)?,
    };
    (!name.is_empty() && amount >= 0.0).then(|| (name.to_owned(), amount))
}

/// Reads the ports of `--worker-port` or `--nanny-port`: one, a range `first:last` including both, or a comma list.
///
/// # Errors
/// When there is no such port, or the range runs backwards.
pub fn parse_ports(text: &str) -> Result<Vec<u16>, String> {
    let port =
        |text: &str| text.trim().parse::<u16>().map_err(|_| format!("{text:?} is not a port number below 65536"));
    if let Some((first, last)) = text.split_once(':') {
        let (first, last) = (port(first)?, port(last)?);
        if last <= first {
            return Err(format!(
                "When specifying a range of ports like port_start:port_stop, port_stop must be greater than \
                 port_start, but got port_start={first} and port_stop={last}"
            ));
        }
        return Ok((first..=last).collect());
    }
    text.split(',').map(port).collect()
}

/// The ports one worker and its nanny may try; 0 for any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortShare {
    /// For the worker.
    pub worker: Vec<u16>,
    /// For the nanny.
    pub nanny: Vec<u16>,
}

/// Deals the ports of both options out to `n` workers in turn, no port twice.
///
/// # Errors
/// When there are fewer ports than workers.
pub fn apportion_ports(
    worker_port: Option<&str>,
    nanny_port: Option<&str>,
    n: usize,
    nanny: bool,
) -> Result<Vec<PortShare>, String> {
    let mut seen = std::collections::HashSet::new();
    let mut deal = |text: Option<&str>| -> Result<Vec<Vec<u16>>, String> {
        let mut shares = vec![Vec::new(); n];
        let ports = text.map(parse_ports).transpose()?.unwrap_or_else(|| vec![0]);
        if ports == [0] {
            return Ok(vec![vec![0]; n]);
        }
        for (i, port) in ports.into_iter().filter(|&port| seen.insert(port)).enumerate() {
            shares[i % n].push(port);
        }
        Ok(shares)
    };
    let (workers, nannies) = (deal(worker_port)?, deal(nanny_port)?);
    if workers.iter().any(Vec::is_empty) || nanny && nannies.iter().any(Vec::is_empty) {
        let shown = |text: Option<&str>| text.unwrap_or("None").to_owned();
        let nannies = if nanny { format!("--nanny_port {} ", shown(nanny_port)) } else { String::new() };
        return Err(format!("Not enough ports in range --worker_port {} {nannies}for {n} workers", shown(worker_port)));
    }
    Ok(workers.into_iter().zip(nannies).map(|(worker, nanny)| PortShare { worker, nanny }).collect())
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
