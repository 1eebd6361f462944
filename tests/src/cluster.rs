//! Real processes for tests: a scheduler and workers of either make, ended when the test ends however it ends.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::venv;

/// Longest wait for a process to say something.
pub const START_DEADLINE: Duration = Duration::from_secs(60);

/// A child process whose stderr is kept; terminated, then killed, when dropped.
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Process {
    /// Starts a program and collects what it writes to stderr.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Process {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: cannot start {:?}: {e}", command.get_program()));
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("stderr is piped");
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                kept.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                kept.grown.notify_all();
            }
        });
        Process { name: name.to_owned(), child, log }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that contains `text` and gives it.
    ///
    /// # Panics
    /// With everything it said, when the line does not come before [`START_DEADLINE`].
    pub fn line_with(&self, text: &str) -> String {
        self.nth_line_with(1, text)
    }

    /// Waits for the `n`th line (from 1) that contains `text` and gives it.
    ///
    /// # Panics
    /// With everything it said, when the line does not come before [`START_DEADLINE`].
    pub fn nth_line_with(&self, n: usize, text: &str) -> String {
        let deadline = Instant::now() + START_DEADLINE;
        let mut lines = self.log.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = lines.iter().filter(|line| line.contains(text)).nth(n - 1) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{}: no line {n} with {text:?} in:\n{}", self.name, lines.join("\n"));
            (lines, _) = self.log.grown.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it was reaped already.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal)
            .unwrap_or_else(|e| panic!("{}: cannot be signalled: {e}", self.name));
    }

    /// Waits for it to end.
    ///
    /// # Panics
    /// With everything it said, when it does not end before [`START_DEADLINE`].
    pub fn wait(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "{}: does not end:\n{}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// All it said so far.
    pub fn log(&self) -> String {
        self.log.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // An error here means that it has ended already.
        let _ended = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}", self.name, self.log());
        }
    }
}

/// Which implementation a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerKind {
    /// Ours, under our nanny.
    Ours,
    /// `dask worker` of the Python package, under its nanny.
    Upstream,
}

/// One scheduler of ours and its workers.
pub struct Cluster {
    /// The scheduler's address.
    pub address: String,
    /// The workers' processes (nannies).
    pub workers: Vec<Process>,
    /// The scheduler's process.
    pub scheduler: Process,
    /// Variables of workers that are added, and of pytest.
    pub variables: Vec<(String, String)>,
    python: PathBuf,
}

impl Cluster {
    /// Starts a scheduler with `scheduler_args` and one worker of each kind named.
    ///
    /// # Panics
    /// When a process does not come up.
    pub fn start(workers: &[WorkerKind], scheduler_args: &[&str]) -> Cluster {
        Cluster::start_with(workers, scheduler_args, &[])
    }

    /// The same with these variables in the scheduler's environment.
    ///
    /// # Panics
    /// When a process does not come up.
    pub fn start_with(workers: &[WorkerKind], scheduler_args: &[&str], variables: &[(&str, &str)]) -> Cluster {
        let python = test_python();
        let mut command = Command::new(binary("dask-scheduler"));
        command.args(["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]);
        if !scheduler_args.contains(&"--python") {
            command.arg("--python").arg(&python);
        }
        command.args(scheduler_args).env("PYTHONPATH", programs()).envs(variables.iter().copied());
        let scheduler = Process::start("scheduler", &mut command);
        let line = scheduler.line_with("Scheduler at:");
        let address = line.split_whitespace().last().expect("the line ends in the address").to_owned();
        let mut cluster = Cluster { address, workers: Vec::new(), scheduler, variables: Vec::new(), python };
        for kind in workers {
            cluster.add_worker(*kind);
        }
        cluster
    }

    /// Starts one more worker with one thread.
    pub fn add_worker(&mut self, kind: WorkerKind) {
        self.add_worker_with(kind, &[]);
    }

    /// Starts one more worker with these arguments too; with one thread and 4 GB unless they say otherwise.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn add_worker_with(&mut self, kind: WorkerKind, arguments: &[&str]) {
        let mut command = match kind {
            WorkerKind::Ours => {
                let mut command = Command::new(binary("dask-worker"));
                command.arg("--python").arg(&self.python);
                command
            }
            WorkerKind::Upstream => {
                let mut command = Command::new(&self.python);
                command.args(["-m", "dask", "worker"]);
                command
            }
        };
        command.arg(&self.address).args(["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]);
        for (option, default) in [("--nthreads", "1"), ("--memory-limit", "4GB")] {
            if !arguments.contains(&option) {
                command.args([option, default]);
            }
        }
        command.args(arguments).env("PYTHONPATH", programs()).envs(self.variables.iter().cloned());
        let worker = Process::start(&format!("{kind:?} worker {}", self.workers.len()), &mut command);
        worker.line_with("Registered to:");
        self.workers.push(worker);
    }

    /// Runs pytest on files of `tests/python` against this cluster.
    ///
    /// # Panics
    /// With pytest's output and the logs of all processes, unless every test passes.
    pub fn pytest(&self, arguments: &[&str]) {
        let workers: Vec<String> = self.workers.iter().map(|worker| worker.id().to_string()).collect();
        let output = Command::new(&self.python)
            .args(["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--durations=5"])
            .args(arguments)
            .current_dir(programs())
            .env("DASK_TEST_SCHEDULER", &self.address)
            .env("DASK_TEST_WORKERS", self.workers.len().to_string())
            .env("DASK_TEST_SCHEDULER_PID", self.scheduler.id().to_string())
            .env("DASK_TEST_WORKER_PIDS", workers.join(","))
            .env("DASK_TEST_WORKER_BINARY", binary("dask-worker"))
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .output()
            .expect("the environment's python starts");
        let text = String::from_utf8_lossy(&output.stdout);
        println!("{text}");
        assert!(
            output.status.success(),
            "pytest {arguments:?} failed:\n{text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// The Python programs beside this crate.
pub fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python")
}

/// The test environment's interpreter.
///
/// # Panics
/// When it cannot be made.
pub fn test_python() -> PathBuf {
    let target = venv::target_directory().expect("tests run from a target directory");
    venv::python(&target, |step| eprintln!("python: {step}")).expect("the Python test environment can be made")
}

/// A binary of the workspace, built if it is not there (a test of one package alone does not build others').
///
/// # Panics
/// When it cannot be built.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: std::sync::Once = std::sync::Once::new();
    let exe = std::env::current_exe().expect("a test knows where it is");
    let profile_directory = exe.ancestors().nth(2).expect("tests are two levels inside their profile's directory");
    BUILT.call_once(|| {
        let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
        cargo.args(["build", "--quiet", "-p", "dask", "--bins"]);
        if profile_directory.ends_with("release") {
            cargo.arg("--release");
        }
        let status = cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).status();
        assert!(status.expect("cargo starts").success(), "the binaries build");
    });
    profile_directory.join(name)
}
