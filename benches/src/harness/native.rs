//! The Rust client's cases: `native-load`, whose one line says what came of it.

use std::process::Command;

use super::Failure;
use super::case::Case;
use super::cluster::{Cluster, Make, Programs};
use super::processes::usage;
use super::results::Figures;

/// Runs one.
///
/// # Errors
/// When the program fails, with what it wrote.
pub fn run(case: &Case, programs: &Programs) -> Result<Figures, Failure> {
    let program = programs.binaries.join("native-load");
    let tasks = case.program.rsplit('-').next().unwrap_or_default();
    let mut command = Command::new(&program);
    command.args(["throughput", "--tasks", tasks]);
    let threads = case.layout.threads.to_string();
    if case.family() == "native_local" {
        command.args(["--workers", &case.layout.workers.to_string(), "--threads", &threads]);
        return figures(command);
    }
    let mut cluster = Cluster::scheduler(Make::Ours, programs)?;
    for number in 0..case.layout.workers {
        let mut worker = Command::new(&program);
        worker.args(["worker", &cluster.address, "--nthreads", &threads, "--host", "127.0.0.1"]);
        worker.args(["--dashboard-address", "127.0.0.1:0", "--python", "none"]);
        cluster.worker(format!("native worker {number}"), worker)?;
    }
    cluster.all_say("Registered to:")?;
    command.args(["--scheduler", &cluster.address]);
    let at = |cluster: &Cluster| (usage(&[cluster.scheduler]).cpu_seconds, usage(&cluster.workers).cpu_seconds);
    let before = at(&cluster);
    let mut figures = figures(command).map_err(|error| format!("{error}\n{}", cluster.logs()))?;
    let (after, tasks) = (at(&cluster), figures.get("tasks").unwrap_or(1.0));
    figures.set("scheduler CPU, us/task", 1e6 * (after.0 - before.0) / tasks);
    figures.set("workers CPU, us/task", 1e6 * (after.1 - before.1) / tasks);
    Ok(figures)
}

fn figures(mut command: Command) -> Result<Figures, Failure> {
    let output = command.output().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!(
            "{command:?} ended with {}: {text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    read(&text).ok_or_else(|| format!("{command:?} says {text:?}, which is not understood").into())
}

/// The numbers before the words that say what they are.
fn read(text: &str) -> Option<Figures> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let before = |what: &[&str]| {
        let place = words.windows(what.len()).position(|at| at == what)?;
        words.get(place.checked_sub(1)?)?.parse::<f64>().ok()
    };
    let mut figures = Figures::default();
    figures.set("tasks", before(&["tasks:"])?);
    figures.set("tasks/s", before(&["tasks/s,"])?);
    figures.set("client CPU, us/task", before(&["us", "of", "processor"])?);
    figures.set("client resident, MB", before(&["MiB", "resident"])? * 1.048_576);
    Some(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_line_is_understood() {
        let line = "1000 tasks: submitted after 0.01 s, done after 0.05 s, released after 0.1 s: 10000 tasks/s, \
                    12.50 us of processor time each, 34 MiB resident at most\n";
        let figures = read(line).expect("figures");
        assert_eq!(figures.get("tasks/s"), Some(10000.0));
        assert_eq!(figures.get("client CPU, us/task"), Some(12.5));
        assert!(read("something else").is_none());
    }
}
