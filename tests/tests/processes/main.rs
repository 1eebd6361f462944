//! The commands as processes: what they say, how they end, and that nothing outlives them.

mod pages;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use dask_tests::cluster::{Process, START_DEADLINE, binary};
use rustix::process::Signal;

const RULE: &str = "-----------------------------------------------";

/// A scheduler on a free port of loopback.
struct Scheduler {
    process: Process,
    address: String,
}

impl Scheduler {
    fn start(extra: &[&str]) -> Scheduler {
        let mut command = Command::new(binary("dask-scheduler"));
        command.args(["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]).args(extra);
        let process = Process::start("scheduler", &mut command);
        let line = process.line_with("  Scheduler at:");
        let address = line.split_whitespace().last().expect("the line ends in the address").to_owned();
        Scheduler { process, address }
    }
}

/// A worker that runs native tasks only, so that these tests need no Python.
fn worker(name: &str, scheduler: &str, extra: &[&str]) -> Process {
    let mut command = Command::new(binary("dask-worker"));
    command.args([scheduler, "--python", "none", "--nthreads", "1", "--dashboard-address", "127.0.0.1:0"]);
    Process::start(name, command.args(extra))
}

/// Waits for a condition to hold, as other processes make it so.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + START_DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "never so: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process runs; the dead that nobody has reaped do not.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|fields| !fields.is_empty() && !fields.starts_with(['Z', 'X']))
}

/// The processes that `pid` started and that still run.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids = lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>());
    pids.filter(|&pid| runs(pid)).collect()
}

/// The one worker process under a nanny, registered for the `n`th time.
fn worker_process(nanny: &Process, n: usize) -> u32 {
    nanny.nth_line_with(n, "Registered to:");
    let [pid] = children(nanny.id())[..] else { panic!("one worker under the nanny:\n{}", nanny.log()) };
    pid
}

/// Processes that a failing test must not leave behind.
struct EndedWithTheTest(Vec<u32>);

impl Drop for EndedWithTheTest {
    fn drop(&mut self) {
        for &pid in self.0.iter().filter(|&&pid| runs(pid)) {
            let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
            // It may end by itself meanwhile.
            let _ended = pid.map(|pid| rustix::process::kill_process(pid, Signal::KILL));
        }
    }
}

fn kill(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, signal).expect("it runs");
}

/// The text after `2026-11-22 00:00:00,123 - `.
fn after_time(line: &str) -> &str {
    line.get(26..).unwrap_or_else(|| panic!("too short: {line}"))
}

/// Asserts that these texts come in this order, each in a line of its own.
fn assert_in_order(log: &str, texts: &[&str]) {
    let mut lines = log.lines();
    for text in texts {
        assert!(lines.any(|line| line.contains(text)), "{text:?} is missing, or not in its place:\n{log}");
    }
}

#[test]
fn scheduler_says_what_dask_says_and_closes_on_sigterm() {
    let mut scheduler = Scheduler::start(&[]);
    let line = scheduler.process.line_with("Scheduler at:");
    assert_eq!(after_time(&line), format!("distributed.scheduler - INFO -   Scheduler at: {:>25}", scheduler.address));
    scheduler.process.line_with("  dashboard at:  ");
    scheduler.process.line_with("Registering Worker plugin shuffle");
    assert_in_order(&scheduler.process.log(), &[RULE, "State start", RULE, "Scheduler at:", "/status"]);
    scheduler.process.signal(Signal::TERM);
    assert!(scheduler.process.wait().success());
    scheduler.process.line_with("End scheduler");
    assert_in_order(
        &scheduler.process.log(),
        &[
            "distributed._signals - INFO - Received signal SIGTERM (15)",
            "distributed.scheduler - INFO - Closing scheduler. Reason: signal-15",
            "distributed.scheduler - INFO - Scheduler closing all comms",
            &format!("distributed.scheduler - INFO - Stopped scheduler at '{}'", scheduler.address),
            "distributed.scheduler - INFO - End scheduler",
        ],
    );
}

#[test]
fn scheduler_closes_on_sigint_too() {
    let mut scheduler = Scheduler::start(&[]);
    scheduler.process.signal(Signal::INT);
    assert!(scheduler.process.wait().success());
    scheduler.process.line_with("Received signal SIGINT (2)");
    scheduler.process.line_with("Closing scheduler. Reason: signal-2");
}

#[test]
fn worker_without_nanny_says_what_dask_says_and_closes_on_sigterm() {
    let scheduler = Scheduler::start(&[]);
    let mut worker = worker("worker", &scheduler.address, &["--no-nanny", "--name", "w-nonanny"]);
    worker.line_with("Starting established connection to");
    let log = worker.log();
    assert_in_order(
        &log,
        &[
            "distributed.worker - INFO -       Start worker at: ",
            "distributed.worker - INFO -          Listening to: ",
            "distributed.worker - INFO -           Worker name:                  w-nonanny",
            "distributed.worker - INFO -          dashboard at:",
            &format!("distributed.worker - INFO - Waiting to connect to: {:>26}", scheduler.address),
            RULE,
            "distributed.worker - INFO -               Threads:                          1",
            "distributed.worker - INFO -                Memory:",
            "distributed.worker - INFO -       Local Directory: ",
            RULE,
            &format!("distributed.worker - INFO -         Registered to: {:>26}", scheduler.address),
            &format!("distributed.core - INFO - Starting established connection to {}", scheduler.address),
        ],
    );
    let registered = scheduler.process.line_with("Register worker addr: tcp://127.0.0.1:");
    assert!(registered.ends_with(" name: w-nonanny"), "{registered}");
    scheduler.process.line_with("Starting worker compute stream, tcp://127.0.0.1:");
    scheduler.process.line_with("distributed.core - INFO - Starting established connection to tcp://127.0.0.1:");
    worker.signal(Signal::TERM);
    assert!(worker.wait().success());
    worker.line_with("distributed.dask_worker - INFO - End worker");
    assert_in_order(&worker.log(), &["Received signal SIGTERM (15)", "Stopping worker at tcp://127.0.0.1:"]);
    worker.line_with("Reason: signal-15");
    scheduler.process.line_with("Lost all workers");
}

#[test]
fn scheduler_notices_a_killed_worker() {
    let scheduler = Scheduler::start(&[]);
    let worker = worker("worker", &scheduler.address, &["--no-nanny", "--name", "victim"]);
    worker.line_with("Registered to:");
    worker.signal(Signal::KILL);
    let removed = scheduler.process.line_with("Remove worker addr: tcp://127.0.0.1:");
    assert!(removed.contains(" name: victim (stimulus_id='handle-worker-cleanup-"), "{removed}");
    scheduler.process.line_with("has been closed.");
    scheduler.process.line_with("Lost all workers");
}

#[test]
fn nanny_replaces_a_worker_killed_by_any_signal() {
    let scheduler = Scheduler::start(&[]);
    let nanny = worker("nanny", &scheduler.address, &["--name", "phoenix"]);
    for (n, signal, number) in [(1, Signal::TERM, 15), (2, Signal::KILL, 9)] {
        let pid = worker_process(&nanny, n);
        kill(pid, signal);
        nanny.line_with(&format!("distributed.nanny - INFO - Worker process {pid} was killed by signal {number}"));
        nanny.nth_line_with(n, "distributed.nanny - INFO - Unregistering worker (status=Status.running)");
        nanny.nth_line_with(n, "distributed.nanny - WARNING - Restarting worker (status=Status.running)");
        until("the old worker is gone", || !runs(pid));
    }
    assert!(runs(worker_process(&nanny, 3)));
    scheduler.process.nth_line_with(3, " name: phoenix");
    let log = nanny.log();
    assert_in_order(
        &log,
        &["distributed.nanny - INFO -         Start Nanny at: 'tcp://127.0.0.1:", "Start worker at:"],
    );
}

#[test]
fn nanny_and_worker_close_together_on_sigterm() {
    let scheduler = Scheduler::start(&[]);
    let mut nanny = worker("nanny", &scheduler.address, &[]);
    let pid = worker_process(&nanny, 1);
    nanny.signal(Signal::TERM);
    assert!(nanny.wait().success());
    assert!(!runs(pid));
    nanny.line_with("Closing Nanny at 'tcp://127.0.0.1:");
    nanny.line_with("Nanny asking worker to close. Reason: signal-15");
    nanny.line_with("distributed.dask_worker - INFO - End worker");
    scheduler.process.line_with("Lost all workers");
}

#[test]
fn killed_nannies_leave_no_worker_behind() {
    let scheduler = Scheduler::start(&[]);
    let nanny = worker("nanny", &scheduler.address, &["--nworkers", "2", "--name", "w"]);
    nanny.nth_line_with(2, "Registered to:");
    let workers = children(nanny.id());
    let _guard = EndedWithTheTest(workers.clone());
    assert_eq!(workers.len(), 2);
    scheduler.process.line_with("name: w-0");
    scheduler.process.line_with("name: w-1");
    nanny.signal(Signal::KILL);
    until("both workers end with their nannies", || !workers.iter().any(|&pid| runs(pid)));
    scheduler.process.line_with("Lost all workers");
}

#[test]
fn stopped_worker_dies_with_its_killed_nanny_too() {
    let scheduler = Scheduler::start(&[]);
    let nanny = worker("nanny", &scheduler.address, &[]);
    let pid = worker_process(&nanny, 1);
    let _guard = EndedWithTheTest(vec![pid]);
    kill(pid, Signal::STOP);
    nanny.signal(Signal::KILL);
    until("the stopped worker ends", || !runs(pid));
}

#[test]
fn workers_leave_quietly_when_the_scheduler_is_killed() {
    let scheduler = Scheduler::start(&[]);
    let mut nanny = worker("nanny", &scheduler.address, &[]);
    let pid = worker_process(&nanny, 1);
    scheduler.process.signal(Signal::KILL);
    assert!(nanny.wait().success());
    assert!(!runs(pid));
    nanny.line_with("Closing Nanny gracefully at 'tcp://127.0.0.1:");
    assert!(!nanny.log().contains("ERROR"), "{}", nanny.log());
}

#[test]
fn workers_end_with_a_scheduler_that_closes() {
    let mut scheduler = Scheduler::start(&[]);
    let mut nanny = worker("nanny", &scheduler.address, &[]);
    let mut bare = worker("bare worker", &scheduler.address, &["--no-nanny"]);
    nanny.line_with("Registered to:");
    bare.line_with("Registered to:");
    scheduler.process.signal(Signal::TERM);
    assert!(scheduler.process.wait().success());
    assert!(nanny.wait().success());
    assert!(bare.wait().success());
}

#[test]
fn worker_over_its_memory_is_ended_and_replaced() {
    let scheduler = Scheduler::start(&[]);
    // Less than any process uses.
    let nanny = worker("nanny", &scheduler.address, &["--memory-limit", "1MiB"]);
    let line = nanny.line_with("exceeded 95% memory budget. Restarting...");
    assert!(line.contains("distributed.nanny.memory - WARNING - Worker tcp://127.0.0.1:"), "{line}");
    nanny.line_with("was killed by signal 15");
    nanny.nth_line_with(2, "Registered to:");
    // A worker that dies each time is not restarted ever faster.
    nanny.line_with("Worker died 4 times in a row within 10 s of its start; next start in 1 s");
}

#[test]
fn workers_of_the_same_name_are_refused() {
    let scheduler = Scheduler::start(&[]);
    let first = worker("first", &scheduler.address, &["--no-nanny", "--name", "taken"]);
    first.line_with("Registered to:");
    let mut bare = worker("second", &scheduler.address, &["--no-nanny", "--name", "taken"]);
    assert_eq!(bare.wait().code(), Some(1));
    bare.line_with("taken");
    let mut nanny = worker("second under a nanny", &scheduler.address, &["--name", "taken"]);
    assert_eq!(nanny.wait().code(), Some(1));
    nanny.line_with("Worker failed to start:");
    assert!(runs(first.id()));
}

#[test]
fn worker_gives_up_on_a_scheduler_that_is_not_there() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("loopback").port();
    let mut worker = worker("worker", &format!("127.0.0.1:{port}"), &["--no-nanny", "--death-timeout", "200ms"]);
    assert_eq!(worker.wait().code(), Some(1));
    worker.line_with("distributed.dask_worker - INFO - Timed out starting worker");
}

#[test]
fn scheduler_file_leads_workers_and_goes_with_the_scheduler() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (file, pid_file) = (dir.path().join("scheduler.json"), dir.path().join("pid"));
    let (path, pid_path) = (file.to_str().expect("text"), pid_file.to_str().expect("text"));
    let mut scheduler = Scheduler::start(&["--scheduler-file", path, "--pid-file", pid_path]);
    let mut command = Command::new(binary("dask-worker"));
    let worker = Process::start("worker", command.args(["--scheduler-file", path, "--python", "none", "--no-nanny"]));
    worker.line_with(&scheduler.address);
    worker.line_with("Registered to:");
    assert_eq!(fs::read_to_string(&pid_file).expect("written"), scheduler.process.id().to_string());
    scheduler.process.signal(Signal::TERM);
    assert!(scheduler.process.wait().success());
    assert!(!file.exists() && !pid_file.exists());
}

#[test]
fn environment_names_the_scheduler_even_in_quotes() {
    let scheduler = Scheduler::start(&[]);
    let mut command = Command::new(binary("dask-worker"));
    command.args(["--python", "none", "--no-nanny"]);
    let worker = Process::start("worker", command.env("DASK_SCHEDULER_ADDRESS", format!("\"{}\"", scheduler.address)));
    worker.line_with("Registered to:");
}

#[test]
fn wrong_usage_is_explained() {
    let output = |command: &str, args: &[&str]| {
        let output = Command::new(binary(command)).args(args).env_remove("DASK_SCHEDULER_ADDRESS").output();
        let output = output.expect("the command starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, _, stderr) = output("dask-worker", &[]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("Need to provide scheduler address like `dask worker SCHEDULER_ADDRESS:8786`"), "{stderr}");
    let (code, _, stderr) = output("dask-worker", &["127.0.0.1:1", "--nworkers", "0"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("Must specify --nworkers so that there's at least one process."), "{stderr}");
    let (code, _, stderr) = output("dask-scheduler", &["--no-such-option"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--no-such-option"), "{stderr}");
    for command in ["dask-scheduler", "dask-worker", "dask"] {
        let (code, stdout, _) = output(command, &["--version"]);
        assert_eq!((code, stdout), (Some(0), format!("{command}, version {}\n", env!("CARGO_PKG_VERSION"))));
    }
}

#[test]
fn front_command_starts_nannies_that_find_their_way_back() {
    let scheduler = Scheduler::start(&[]);
    let mut command = Command::new(binary("dask"));
    let nanny = Process::start("dask worker", command.args(["worker", &scheduler.address, "--python", "none"]));
    assert!(runs(worker_process(&nanny, 1)));
}

/// A scheduler that was sent garbage serves the next caller, and says one thing about each bad one.
#[test]
fn garbage_on_the_ports_harms_nobody_else() {
    let scheduler = Scheduler::start(&[]);
    let nanny = worker("nanny", &scheduler.address, &[]);
    let pid = worker_process(&nanny, 1);
    let start = nanny.line_with("Start Nanny at:");
    let nanny_port = start.rsplit("tcp://").next().expect("an address").trim_end_matches('\'').to_owned();
    for target in [scheduler.address.trim_start_matches("tcp://"), &nanny_port] {
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0; 64], b""] {
            let mut stream = TcpStream::connect(target).expect("it listens");
            stream.write_all(garbage).expect("sent");
            stream.shutdown(std::net::Shutdown::Write).expect("still open");
            stream.set_read_timeout(Some(START_DEADLINE)).expect("a valid timeout");
            // Whatever it says first, it closes the connection.
            let mut said = Vec::new();
            let ended = stream.read_to_end(&mut said);
            assert!(!matches!(&ended, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock), "{target}: {ended:?}");
        }
    }
    let late = worker("late worker", &scheduler.address, &["--no-nanny"]);
    late.line_with("Registered to:");
    assert!(runs(pid), "{}", nanny.log());
    assert!(!scheduler.process.log().contains("panicked"));
    assert!(!nanny.log().contains("panicked"));
}

mod tls {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    /// One self-signed certificate that is authority and everyone's own, as `Security.temporary()` makes.
    fn options(dir: &std::path::Path, name: &str) -> Vec<String> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["dask-scheduler".to_owned()]).expect("valid names");
        let certificate = params.self_signed(&key).expect("a certificate");
        let (cert_path, key_path) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        fs::write(&cert_path, certificate.pem()).expect("written");
        fs::write(&key_path, key.serialize_pem()).expect("written");
        let option = |name: &str, path: &std::path::Path| format!("--tls-{name}={}", path.display());
        vec![option("ca-file", &cert_path), option("cert", &cert_path), option("key", &key_path)]
    }

    #[test]
    fn a_scheduler_makes_the_certificates_its_workers_use() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let bundle = dir.path().join("tls");
        let scheduler = Scheduler::start(&[&format!("--auto-tls={}", bundle.display())]);
        assert!(scheduler.address.starts_with("tls://127.0.0.1:"), "{}", scheduler.address);
        let option = |name: &str, file: &str| format!("--tls-{name}={}", bundle.join(file).display());
        let (ca, cert) = (option("ca-file", "ca.pem"), option("cert", "worker.pem"));
        let friend = worker("friend", &scheduler.address, &[&ca, &cert]);
        friend.line_with("Registered to:");
    }

    #[test]
    fn certificates_decide_who_may_join() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (ours, theirs) = (options(dir.path(), "ours"), options(dir.path(), "theirs"));
        let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
        let theirs: Vec<&str> = theirs.iter().map(String::as_str).collect();
        let scheduler = Scheduler::start(&ours);
        assert!(scheduler.address.starts_with("tls://127.0.0.1:"), "{}", scheduler.address);
        let friend = worker("friend", &scheduler.address, &ours);
        friend.line_with("Registered to:");
        let registered = scheduler.process.line_with("Register worker addr: ");
        assert!(registered.contains("tls://127.0.0.1:"), "{registered}");
        let mut stranger = worker("stranger", &scheduler.address, &[&theirs[..], &["--death-timeout=30s"]].concat());
        assert_eq!(stranger.wait().code(), Some(1));
        let plain = scheduler.address.replace("tls://", "tcp://");
        let mut unarmed = worker("unarmed", &plain, &["--no-nanny", "--death-timeout=1s"]);
        assert_eq!(unarmed.wait().code(), Some(1));
        let second = worker("second friend", &scheduler.address, &ours);
        second.line_with("Registered to:");
    }
}
