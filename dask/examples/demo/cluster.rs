//! The demo's processes.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

use crate::Failure;

const START_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A scheduler and its workers' nannies. Dropping it ends them all.
pub struct Cluster {
    pub address: String,
    pub dashboard: String,
    processes: Vec<(String, Child)>,
    /// What the processes say, all in one file.
    log: NamedTempFile,
}

impl Cluster {
    pub fn start(workers: usize, python: Option<&Path>) -> Result<Cluster, Failure> {
        let log = NamedTempFile::new()?;
        let mut cluster = Cluster { address: String::new(), dashboard: String::new(), processes: Vec::new(), log };
        let ours = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"];
        cluster.spawn("scheduler", &ours, python)?;
        cluster.address = cluster.wait_for("Scheduler at:")?;
        cluster.dashboard = cluster.wait_for("dashboard at:")?;
        for n in 0..workers {
            let (address, name) = (cluster.address.clone(), format!("demo-{n}"));
            let ours = [
                &*address,
                "--name",
                &name,
                "--nthreads",
                "1",
                "--host",
                "127.0.0.1",
                "--dashboard-address",
                "127.0.0.1:0",
            ];
            cluster.spawn("worker", &ours, python)?;
        }
        Ok(cluster)
    }

    fn spawn(&mut self, role: &str, arguments: &[&str], python: Option<&Path>) -> Result<(), Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(role).args(arguments);
        if let Some(python) = python {
            command.arg("--python").arg(python);
        }
        let log = OpenOptions::new().append(true).open(self.log.path())?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        println!("  {role}: process {}", child.id());
        self.processes.push((role.to_owned(), child));
        Ok(())
    }

    /// The last word of the log line with this text.
    fn wait_for(&mut self, text: &str) -> Result<String, Failure> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let said = fs::read_to_string(self.log.path())?;
            if let Some(word) = said.lines().find(|l| l.contains(text)).and_then(|l| l.split_whitespace().last()) {
                return Ok(word.to_owned());
            }
            let ended = self.processes.iter_mut().any(|(_, child)| matches!(child.try_wait(), Ok(Some(_))));
            if ended || Instant::now() > deadline {
                return Err(format!("the cluster did not start:\n{said}").into());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Ends all processes, workers first, and says so.
    pub fn stop(mut self) -> Result<(), Failure> {
        println!("Stopping the cluster.");
        let late = self.end();
        if late.is_empty() { Ok(()) } else { Err(format!("had to be killed: {}", late.join(", ")).into()) }
    }

    fn end(&mut self) -> Vec<String> {
        let mut late = Vec::new();
        while let Some((role, mut child)) = self.processes.pop() {
            // An error means that it has ended already.
            let _ended = kill_process(Pid::from_child(&child), Signal::TERM);
            let deadline = Instant::now() + STOP_DEADLINE;
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(POLL_INTERVAL);
            }
            if matches!(child.try_wait(), Ok(None)) {
                late.push(format!("{role} {}", child.id()));
                let _ended = child.kill();
                let _reaped = child.wait();
            }
        }
        late
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}
