//! The client's side of a case: `drivers/drive.py` with an unmodified client, and looks at the processes when it says so.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::Deserialize;

use super::Failure;
use super::case::Case;
use super::cluster::{Cluster, Programs};
use super::processes::{Usage, reset_peaks, usage};
use super::results::Figures;

/// Between two things that a driver says: the longest case takes upstream some minutes.
const SILENCE_MAX: Duration = Duration::from_secs(3600);

#[derive(Deserialize)]
#[serde(tag = "at", rename_all = "lowercase")]
enum Said {
    Begin,
    End { seconds: f64, tasks: u64 },
    Look { name: String },
    Figure { name: String, value: f64 },
}

/// What all processes have used so far.
#[derive(Clone, Copy, Default)]
struct Snapshot {
    scheduler: Usage,
    workers: Usage,
    client: Usage,
}

/// Runs one case on a cluster.
///
/// # Errors
/// When the driver fails, with what it wrote and the ends of the cluster's logs.
pub fn run(case: &Case, cluster: &Cluster, programs: &Programs) -> Result<Figures, Failure> {
    let mut command = Command::new(&programs.python);
    command.arg(Programs::drivers().join("drive.py"));
    command.args([&case.program, &cluster.address, &case.layout.workers.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Guard(command.spawn().map_err(|error| format!("{}: {error}", programs.python.display()))?);
    let outcome = converse(case, cluster, &mut child);
    if outcome.is_err() {
        // Before its last words are read.
        let _ = child.0.kill();
    }
    let status = child.0.wait()?;
    let outcome = outcome.and_then(|conversation| match status.success() {
        true => conversation.figures(),
        false => Err(format!("the driver ended with {status}").into()),
    });
    outcome.map_err(|error| {
        let mut text = String::new();
        if let Some(mut stderr) = child.0.stderr.take() {
            let _ = stderr.read_to_string(&mut text);
        }
        format!("{case}: {error}\n{text}{}", cluster.logs()).into()
    })
}

struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn converse<'a>(case: &'a Case, cluster: &'a Cluster, child: &mut Guard) -> Result<Conversation<'a>, Failure> {
    let stdout = child.0.stdout.take().expect("piped");
    let mut stdin = child.0.stdin.take().expect("piped");
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut conversation =
        Conversation { case, cluster, client: child.0.id(), begin: None, tasks: 0, figures: Figures::default() };
    loop {
        match lines.recv_timeout(SILENCE_MAX) {
            Ok(line) => {
                if let Some(said) = line.strip_prefix('@') {
                    conversation.handle(serde_json::from_str(said)?, &mut stdin)?;
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(conversation),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(format!("the driver says nothing for {} s", SILENCE_MAX.as_secs()).into());
            }
        }
    }
}

struct Conversation<'a> {
    case: &'a Case,
    cluster: &'a Cluster,
    client: u32,
    begin: Option<Snapshot>,
    tasks: u64,
    figures: Figures,
}

impl Conversation<'_> {
    fn handle(&mut self, said: Said, driver: &mut ChildStdin) -> Result<(), Failure> {
        match said {
            Said::Begin => {
                reset_peaks(&[self.cluster.scheduler]);
                self.begin = Some(self.look());
            }
            Said::End { seconds, tasks } => {
                let (begin, end) = (self.begin.ok_or("an end without a beginning")?, self.look());
                self.tasks = tasks;
                self.compare(&begin, &end, seconds);
            }
            Said::Look { name } => {
                let begin = self.begin.ok_or("a look without a beginning")?;
                let grown = grown(&begin.scheduler, self.look().scheduler.resident);
                self.figures.set(&name, grown / self.tasks.max(1) as f64);
            }
            Said::Figure { name, value } => {
                self.figures.set(&name, value);
                return Ok(());
            }
        }
        Ok(driver.write_all(b"go on\n")?)
    }

    fn look(&self) -> Snapshot {
        Snapshot {
            scheduler: usage(&[self.cluster.scheduler]),
            workers: usage(&self.cluster.workers),
            client: usage(&[self.client]),
        }
    }

    fn compare(&mut self, begin: &Snapshot, end: &Snapshot, seconds: f64) {
        let spent = |of: fn(&Snapshot) -> Usage| of(end).cpu_seconds - of(begin).cpu_seconds;
        let scheduler = spent(|at| at.scheduler);
        let (workers, client) = (spent(|at| at.workers), spent(|at| at.client));
        let of_workers = if self.case.layout.zero { "fakes" } else { "workers" };
        // What fakes do stands for no worker's work.
        let all = scheduler + client + if self.case.layout.zero { 0.0 } else { workers };
        let figures = &mut self.figures;
        figures.set("seconds", seconds);
        figures.set("scheduler processes", end.scheduler.processes as f64);
        figures.set("scheduler resident, MB", end.scheduler.resident as f64 / 1e6);
        if self.tasks == 0 {
            for (who, spent) in [("scheduler", scheduler), (of_workers, workers), ("client", client)] {
                figures.set(&format!("{who} CPU, % of a core"), 100.0 * spent / seconds);
            }
            figures.set("a worker resident, MB", end.workers.resident as f64 / 1e6 / self.case.layout.workers as f64);
            return;
        }
        let tasks = self.tasks as f64;
        figures.set("tasks", tasks);
        figures.set("tasks/s", tasks / seconds);
        figures.set("us/task", 1e6 * seconds / tasks);
        for (who, spent) in [("scheduler", scheduler), (of_workers, workers), ("client", client), ("all", all)] {
            figures.set(&format!("{who} CPU, us/task"), 1e6 * spent / tasks);
        }
        let peak = grown(&begin.scheduler, end.scheduler.resident_peak);
        figures.set("scheduler memory at most, bytes/task", peak / tasks);
    }

    fn figures(self) -> Result<Figures, Failure> {
        if self.figures.get("seconds").is_none() {
            return Err("the driver has measured nothing".into());
        }
        Ok(self.figures)
    }
}

fn grown(begin: &Usage, to: u64) -> f64 {
    to.saturating_sub(begin.resident) as f64
}
