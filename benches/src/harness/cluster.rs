//! A scheduler and workers of one make, as processes.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Failure;
use super::case::Layout;

/// For each process to say that it is there; eight Python workers start at once on a busy machine.
const START_MAX: Duration = Duration::from_secs(180);
/// For each process to end when it is asked to; then it is killed.
const STOP_MAX: Duration = Duration::from_secs(20);
/// Between looks at a log.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Whose scheduler and whose workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Make {
    /// Ours.
    Ours,
    /// Upstream's.
    Upstream,
    /// Our scheduler with upstream's workers.
    Mixed,
}

impl fmt::Display for Make {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Make::Ours => "ours",
            Make::Upstream => "upstream",
            Make::Mixed => "mixed",
        })
    }
}

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The folder of our commands.
    pub binaries: PathBuf,
    /// The client's interpreter, the workers' and upstream's.
    pub python: PathBuf,
}

impl Programs {
    /// The folder of the Python programs of cases.
    pub fn drivers() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers")
    }

    fn role(&self, ours: bool, role: &str) -> Command {
        if ours {
            let mut command = Command::new(self.binaries.join(format!("dask-{role}")));
            command.arg("--python").arg(&self.python);
            return command;
        }
        let mut command = Command::new(&self.python);
        command.args(["-m", &format!("distributed.cli.dask_{role}")]);
        command
    }
}

/// It stops when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// The scheduler's address.
    pub address: String,
    /// The scheduler's process.
    pub scheduler: u32,
    /// The workers' processes, or their nannies'; of fakes the one they share.
    pub workers: Vec<u32>,
    processes: Vec<Logged>,
    directory: tempfile::TempDir,
}

/// A process that writes a log.
#[derive(Debug)]
struct Logged {
    child: Child,
    log: PathBuf,
    what: String,
}

impl Cluster {
    /// Starts one and waits until all is there.
    ///
    /// # Errors
    /// When a process does not start, with the end of its log.
    pub fn start(make: Make, layout: Layout, programs: &Programs) -> Result<Cluster, Failure> {
        let mut cluster = Cluster::scheduler(make, programs)?;
        if layout.zero {
            let mut fakes = Command::new(std::env::current_exe()?);
            fakes.arg("fakes").arg(&cluster.address);
            fakes.args(["--workers", &layout.workers.to_string(), "--threads", &layout.threads.to_string()]);
            cluster.worker("fake workers".to_owned(), fakes)?;
            cluster.all_say("registered")?;
            return Ok(cluster);
        }
        for number in 0..layout.workers {
            let mut worker = programs.role(make == Make::Ours, "worker");
            let name = format!("w{number}");
            worker.arg(&cluster.address).args(["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]);
            worker.args(["--name", &name, "--nthreads", &layout.threads.to_string()]);
            worker.arg("--local-directory").arg(cluster.directory.path());
            cluster.worker(format!("{make} worker {name}"), worker)?;
        }
        cluster.all_say("Registered to:")?;
        Ok(cluster)
    }

    /// A scheduler alone.
    ///
    /// # Errors
    /// When it does not start, with the end of its log.
    pub fn scheduler(make: Make, programs: &Programs) -> Result<Cluster, Failure> {
        let directory = tempfile::Builder::new().prefix("dask-bench-").tempdir()?;
        let (workers, processes) = (Vec::new(), Vec::new());
        let mut cluster = Cluster { address: String::new(), scheduler: 0, workers, processes, directory };
        let mut scheduler = programs.role(make != Make::Upstream, "scheduler");
        scheduler.args(["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]);
        cluster.scheduler = cluster.spawn(format!("{make} scheduler"), scheduler)?;
        cluster.address = cluster.processes[0].line_with("Scheduler at:")?;
        Ok(cluster)
    }

    /// Starts one more worker.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn worker(&mut self, what: String, command: Command) -> Result<(), Failure> {
        let pid = self.spawn(what, command)?;
        self.workers.push(pid);
        Ok(())
    }

    /// Waits until each worker has written a line with this in it.
    ///
    /// # Errors
    /// When one does not, with the end of its log.
    pub fn all_say(&mut self, text: &str) -> Result<(), Failure> {
        self.processes[1..].iter_mut().try_for_each(|worker| worker.line_with(text).map(|_| ()))
    }

    fn spawn(&mut self, what: String, mut command: Command) -> Result<u32, Failure> {
        let log = self.directory.path().join(format!("{}.log", self.processes.len()));
        let file = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        command.env("PYTHONPATH", Programs::drivers());
        let child = command.spawn().map_err(|error| format!("{what} ({:?}): {error}", command.get_program()))?;
        let pid = child.id();
        self.processes.push(Logged { child, log, what });
        Ok(pid)
    }

    /// The last lines of every log, for whoever looks into a failure.
    pub fn logs(&self) -> String {
        self.processes.iter().map(Logged::last_lines).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            process.terminate();
        }
        let deadline = Instant::now() + STOP_MAX;
        for process in &mut self.processes {
            process.end(deadline);
        }
    }
}

impl Logged {
    /// What follows `text` in the first line that has it.
    fn line_with(&mut self, text: &str) -> Result<String, Failure> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let ended = self.child.try_wait()?;
            let log = std::fs::read_to_string(&self.log)?;
            // The last line may be half written.
            let found =
                log.split_inclusive('\n').filter(|line| line.ends_with('\n')).find_map(|line| line.split_once(text));
            if let Some((_, rest)) = found {
                return Ok(rest.trim().to_owned());
            }
            if let Some(status) = ended {
                return Err(format!("it ended with {status} before {text:?}\n{}", self.last_lines()).into());
            }
            if Instant::now() > deadline {
                return Err(format!("no {text:?} after {} s\n{}", START_MAX.as_secs(), self.last_lines()).into());
            }
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    fn last_lines(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("-- {}:\n{}\n", self.what, lines[lines.len().saturating_sub(12)..].join("\n"))
    }

    fn terminate(&mut self) {
        if let (Ok(None), Some(pid)) = (self.child.try_wait(), Pid::from_raw(self.child.id().cast_signed())) {
            // It may end in between.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    fn end(&mut self, deadline: Instant) {
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _: io::Result<_> = self.child.wait();
                return;
            }
            std::thread::sleep(LOOK_PAUSE);
        }
    }
}
