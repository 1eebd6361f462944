//! The unmodified Python client on our scheduler, with our workers, upstream's, and one of each.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dask_tests::cluster::{Cluster, Process, WorkerKind, binary, programs, test_python};
use dask_tests::venv::{BROWSER_VARIABLE, LIBRARIES_VARIABLE};
use rustix::process::Signal;

/// `.ci/run releases` runs this one with the releases before the reference, too.
#[test]
fn a_python_client_on_two_of_our_workers() {
    let cluster = Cluster::start(&[WorkerKind::Ours, WorkerKind::Ours], &[]);
    cluster.pytest(&["test_client.py", "test_inside_workers.py", "test_coordination.py", "test_diagnostics.py"]);
    cluster.pytest(&["test_requests.py", "test_operations.py", "test_scheduler_python.py", "test_lending.py"]);
}

#[test]
fn a_python_client_measures_restarts_and_kills_our_workers() {
    let cluster = Cluster::start(&[WorkerKind::Ours, WorkerKind::Ours], &[]);
    cluster.pytest(&["test_hardware.py", "test_compatibility_table.py", "test_graph_nodes.py", "test_graph_helper.py"]);
    cluster.pytest(&[
        "test_workers_restart.py",
        "test_nannies.py",
        "test_workers_die.py",
        "test_scheduler_python_dies.py",
    ]);
}

#[test]
fn a_python_client_on_two_upstream_workers() {
    let cluster = Cluster::start(&[WorkerKind::Upstream, WorkerKind::Upstream], &[]);
    cluster.pytest(&["test_client.py", "test_coordination.py", "test_diagnostics.py", "test_operations.py"]);
    cluster.pytest(&["test_requests.py"]);
    cluster.pytest(&["test_workers_die.py"]);
}

#[test]
fn a_python_client_on_one_worker_of_each() {
    let cluster = Cluster::start(&[WorkerKind::Ours, WorkerKind::Upstream], &[]);
    cluster.pytest(&["test_client.py", "test_coordination.py", "test_diagnostics.py", "test_workers_die.py"]);
}

#[test]
fn a_python_client_and_workers_of_either_make_on_websockets() {
    let cluster = Cluster::start(&[WorkerKind::Ours, WorkerKind::Upstream], &["--protocol", "ws"]);
    cluster.pytest(&["test_websockets.py"]);
    let log = cluster.scheduler.log();
    for reason in ["does not speak HTTP", "a page of another origin", "a text frame"] {
        let line = log.lines().find(|line| line.contains(reason)).unwrap_or_else(|| panic!("{reason:?} in\n{log}"));
        assert!(line.contains("Closing connection from ws://127.0.0.1:"), "{line}");
    }
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_python_client_and_workers_of_either_make_on_encrypted_websockets() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let made = directory.path().join("tls");
    let path = |name: &str| made.join(name).to_str().expect("a path in UTF-8").to_owned();
    let mut cluster = Cluster::start(&[], &["--protocol", "wss", "--auto-tls", made.to_str().expect("UTF-8")]);
    cluster.variables = vec![("DASK_CONFIG".to_owned(), path("dask.yaml"))];
    cluster.add_worker(WorkerKind::Ours);
    cluster.add_worker(WorkerKind::Upstream);
    cluster.pytest(&["test_websockets.py"]);
}

#[test]
fn tasks_end_at_their_timeout_and_when_they_are_cancelled() {
    let mut cluster = Cluster::start(&[], &[]);
    for _ in 0..2 {
        cluster.add_worker_with(WorkerKind::Ours, &["--interrupt-grace", "1s"]);
    }
    cluster.pytest(&["test_timeouts.py"]);
}

/// What tasks do works as well in processes of their own.
#[test]
fn tasks_run_in_processes_of_their_own() {
    let mut cluster = Cluster::start(&[], &[]);
    cluster.add_worker_with(WorkerKind::Ours, &["--task-processes", "--nthreads", "2"]);
    cluster.pytest(&["test_task_processes.py"]);
    cluster.add_worker_with(WorkerKind::Ours, &["--task-processes", "--nthreads", "2"]);
    // It counts values where they are as objects only with threads.
    let counts = "test_inside_workers.py::test_released_values_leave_the_workers";
    cluster.pytest(&["test_inside_workers.py", "test_coordination.py", "test_diagnostics.py", "--deselect", counts]);
    cluster.pytest(&["test_client.py", "-k", "shuffle or bag or joblib or delayed"]);
}

#[test]
fn killed_worker_tells_how_its_workers_died() {
    let cluster = Cluster::start(&[WorkerKind::Ours, WorkerKind::Ours], &[]);
    cluster.pytest(&["test_post_mortems.py"]);
}

#[test]
fn a_worker_holds_four_times_its_memory_on_disk() {
    let mut cluster = Cluster::start(&[], &[]);
    cluster.add_worker_with(WorkerKind::Ours, &["--memory-limit", "512MiB", "--nthreads", "2"]);
    cluster.pytest(&["test_spilling.py"]);
}

/// Mounting needs root; without it this says so.
#[test]
fn a_full_disk_costs_results_and_no_worker() {
    let Some(disk) = SmallDisk::mount("64m") else { return };
    let mut cluster = Cluster::start(&[], &[]);
    let directory = disk.path().to_str().expect("a path of ours").to_owned();
    let options = ["--memory-limit", "512MiB", "--nthreads", "2", "--local-directory", &directory];
    cluster.add_worker_with(WorkerKind::Ours, &options);
    cluster.pytest(&["test_spilling.py", "-k", "full_disk"]);
}

/// Freezing a file system needs root and a loop device; without them this says so.
#[test]
fn a_disk_that_stands_still_costs_time_and_nothing_else() {
    let Some(disk) = SmallDisk::image("2G") else { return };
    let mut cluster = Cluster::start(&[], &[]);
    let directory = disk.path().to_str().expect("a path of ours").to_owned();
    let options = ["--memory-limit", "512MiB", "--nthreads", "2", "--local-directory", &directory];
    cluster.add_worker_with(WorkerKind::Ours, &options);
    cluster.pytest(&["test_spilling.py", "-k", "stands_still"]);
}

/// A file system of its own, gone when dropped. In memory all the same: how fast this machine's disk is does not matter.
struct SmallDisk {
    path: PathBuf,
    /// What it is in.
    below: Option<Box<SmallDisk>>,
}

impl SmallDisk {
    /// It can be full.
    fn mount(size: &str) -> Option<SmallDisk> {
        let options = format!("size={size}");
        SmallDisk { path: Self::place("full-disk"), below: None }.mounted(&["-t", "tmpfs", "-o", &options, "tmpfs"])
    }

    /// In a file: it can stand still.
    fn image(size: &str) -> Option<SmallDisk> {
        let below = SmallDisk { path: Self::place("image"), below: None };
        let below = below.mounted(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])?;
        let image = below.path.join("disk");
        let made = runs("truncate", &["-s", size, text(&image)]) && runs("mkfs.ext4", &["-q", text(&image)]);
        if !made {
            eprintln!("NOT RUN: no file system can be made here (that needs mkfs.ext4)");
            return None;
        }
        let disk = SmallDisk { path: Self::place("still-disk"), below: Some(Box::new(below)) };
        disk.mounted(&["-o", "loop", text(&image)])
    }

    fn place(name: &str) -> PathBuf {
        let target = dask_tests::venv::target_directory().expect("tests run from a target directory");
        let path = target.join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the target directory can be written");
        path
    }

    fn mounted(self, arguments: &[&str]) -> Option<SmallDisk> {
        if runs("mount", &[arguments, &[text(&self.path)]].concat()) {
            return Some(self);
        }
        eprintln!("NOT RUN: no small file system can be mounted here (that needs root)");
        None
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        runs("umount", &["--lazy", text(&self.path)]);
        let _ = std::fs::remove_dir(&self.path);
        drop(self.below.take());
    }
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

#[test]
fn workers_come_back_after_cuts() {
    Cluster::start(&[], &[]).pytest(&["test_reconnect.py"]);
}

#[test]
fn workers_that_are_told_to_go_hand_over_what_they_hold() {
    Cluster::start(&[], &[]).pytest(&["test_draining.py"]);
}

/// Some 20 s; `.ci/run chaos SEED --minutes N` has it go on.
#[test]
fn everything_fails_and_every_result_is_right() {
    Cluster::start(&[], &["--worker-ttl", "5s"]).pytest(&["-s", "test_faults.py"]);
}

/// Some 160 operations; `.ci/run chaos` has it do 1,000. The scheduler keeps next to no history: whatever grows is a leak.
#[test]
fn eight_clients_while_workers_are_killed() {
    let history = [
        ("DASK_DISTRIBUTED__ADMIN__LOG_LENGTH", "10"),
        ("DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH", "10"),
        ("DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__STATUS__TASK_STREAM_LENGTH", "10"),
        ("DASK_DISTRIBUTED__SCHEDULER__EVENTS_CLEANUP_DELAY", "1s"),
    ];
    let mut cluster = Cluster::start_with(&[], &[], &history);
    for _ in 0..3 {
        cluster.add_worker_with(WorkerKind::Ours, &["--interrupt-grace", "500ms"]);
    }
    cluster.pytest(&["-s", "test_chaos.py"]);
}

/// `dask_rs`: its clusters, and what deployers call.
#[test]
fn the_python_package_starts_and_scales_clusters() {
    let package = programs().join("../../python");
    let scheduler = binary("dask-scheduler");
    let output = Command::new(test_python())
        .args(["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--durations=5", "tests"])
        .current_dir(&package)
        .env("PYTHONPATH", &package)
        .env("DASK_RS_BIN", scheduler.parent().expect("a program is in a directory"))
        .output()
        .expect("the environment's python starts");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "pytest failed:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Programs of xarray, joblib, scikit-learn, dask-ml, xgboost and lightgbm.
#[test]
fn libraries_on_two_of_our_workers() {
    libraries_on([WorkerKind::Ours, WorkerKind::Ours]);
}

#[test]
fn libraries_on_two_upstream_workers() {
    libraries_on([WorkerKind::Upstream, WorkerKind::Upstream]);
}

/// Those whose packages are there: joblib and scikit-learn, the others with `.ci/run libraries`.
fn libraries_on(workers: [WorkerKind; 2]) {
    let mut programs = vec!["test_joblib.py"];
    if std::env::var_os(LIBRARIES_VARIABLE).is_some() {
        programs.push("test_libraries.py");
    }
    Cluster::start(&workers, &[]).pytest(&programs);
}

/// `.ci/run browser`: needs Chromium and a minute.
#[test]
fn the_dashboard_in_a_browser() {
    if std::env::var_os(BROWSER_VARIABLE).is_none() {
        eprintln!("NOT RUN: the dashboard in a browser; `.ci/run browser` does that");
        return;
    }
    let mut cluster = Cluster::start(&[], &["--dashboard-prefix", "user/ada"]);
    for name in ["ada", "grace", "joan"] {
        let arguments = ["--name", name, "--nthreads", "2", "--memory-limit", "2GB"];
        cluster.add_worker_with(WorkerKind::Ours, &arguments);
    }
    cluster.pytest(&["-s", "-rs", "test_browser.py"]);
}

#[test]
fn modules_are_preloaded_with_their_arguments() {
    let mut cluster = Cluster::start(&[], &["--preload", "preloaded", "--", "--mark", "on-scheduler"]);
    let traces = tempfile::tempdir().expect("a temporary directory");
    for kind in [WorkerKind::Ours, WorkerKind::Upstream] {
        let trace = traces.path().join(format!("{kind:?}"));
        let program = format!("def dask_teardown(nanny):\n    open({trace:?}, 'w').write(nanny.preloaded_mark)\n");
        let modules = ["--preload-nanny", "preloaded_by_nanny", "--preload-nanny", &program, "--preload", "preloaded"];
        cluster.add_worker_with(kind, &[&modules[..], &["--", "--mark", "on-worker"]].concat());
    }
    cluster.pytest(&["test_preloads.py"]);
    assert_eq!(std::fs::read_dir(traces.path()).expect("it is there").count(), 0, "the nannies are still there");
    for (mut worker, kind) in cluster.workers.drain(..).zip(["Ours", "Upstream"]) {
        worker.signal(Signal::TERM);
        worker.wait();
        let trace = std::fs::read_to_string(traces.path().join(kind)).expect("the nanny has torn its modules down");
        assert_eq!(trace, "on-nanny");
    }
}

#[test]
fn a_nanny_whose_module_cannot_be_loaded_does_not_start() {
    let cluster = Cluster::start(&[], &[]);
    let mut command = Command::new(binary("dask-worker"));
    command.args([&cluster.address, "--preload-nanny", "no_such_module", "--python"]).arg(test_python());
    let mut worker = Process::start("worker", &mut command);
    worker.line_with("cannot preload no_such_module: ModuleNotFoundError");
    assert!(!worker.wait().success());
}

#[test]
fn a_scheduler_without_python_serves_what_needs_none() {
    let cluster = Cluster::start(&[WorkerKind::Ours], &["--python", "/nonexistent"]);
    cluster.pytest(&["test_no_python_on_the_scheduler.py"]);
}
