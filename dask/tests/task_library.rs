//! A library of tasks in the stock `dask-worker`: the example `task_library`, which cargo builds together with the tests.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dask::{Bytes, Client, Future, IntoArg, LocalCluster, TaskCall, TaskError};
use rustix::process::{Pid, Signal, kill_process};

const DEADLINE: Duration = Duration::from_secs(60);

/// What this test was built with under a name of the library: other types.
#[dask::task(name = "library_total")]
fn total_of_texts(lengths: Vec<String>) -> f64 {
    lengths.iter().map(|text| text.parse().unwrap_or(0.0)).sum()
}

#[derive(serde::Deserialize)]
struct Track {
    points: Vec<(f64, f64)>,
}

/// Cargo builds the examples into a directory beside that of the tests.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let examples = test.parent().and_then(Path::parent).expect("tests are two levels below").join("examples");
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let path = examples.join(format!("{prefix}task_library{suffix}"));
    assert!(path.exists(), "{} is built by `cargo test`, or by `cargo build --examples`", path.display());
    path
}

/// The stock worker, ended with the test.
struct StockWorker(Child);

impl StockWorker {
    fn start(scheduler: &str, options: &[&str]) -> StockWorker {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dask-worker"));
        command.args([scheduler, "--python", "none", "--nthreads", "2", "--host", "127.0.0.1", "--no-dashboard"]);
        StockWorker(command.args(options).spawn().expect("dask-worker starts"))
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        // It may have ended by itself.
        let _ended = pid.map(|pid| kill_process(pid, signal));
    }
}

impl Drop for StockWorker {
    fn drop(&mut self) {
        self.signal(Signal::INT);
        let since = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) {
            if since.elapsed() > DEADLINE {
                self.signal(Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn call<T>(name: &'static str, args: Vec<dask::CallArg>) -> TaskCall<T> {
    TaskCall::new(name, args)
}

async fn until_file_says(path: &Path, words: &str) {
    let since = Instant::now();
    while std::fs::read_to_string(path).unwrap_or_default() != words {
        assert!(since.elapsed() < DEADLINE, "{} never said {words}", path.display());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stock_worker_runs_the_tasks_of_a_library() {
    let cluster = LocalCluster::builder().workers(0).start().await.expect("a scheduler");
    let client = cluster.client().await.expect("connects");
    // Under a nanny, which passes the library on to its worker.
    let library = library();
    let _worker =
        StockWorker::start(cluster.address().as_str(), &["--preload", library.to_str().expect("a path of ours")]);
    client.wait_for_workers(1, DEADLINE).await.expect("it starts");
    shares_values(&client).await;
    passes_bytes(&client).await;
    asks_its_worker(&client).await;
    is_cancelled(&client).await;
    fails_as_other_tasks_do(&client).await;
    client.close().await;
    cluster.close().await;
}

/// Tasks of a library get each other's values themselves; whoever is elsewhere gets them packed.
async fn shares_values(client: &Client) {
    let track: Future<Track> = client.submit(call("library_walk", vec![IntoArg::<u32>::into_arg(8)]));
    let lengths: Vec<Future<(f64, u64)>> =
        client.map((0..2).map(|_| call("library_length", vec![IntoArg::<Track>::into_arg(&track)])));
    let found = client.gather(&lengths).await.expect("both run");
    assert_eq!((found[0].0, found[0].1 != 0), (40.0, true));
    assert_eq!(found[0], found[1], "both were given the same object");
    let total: Future<f64> = client.submit(call("library_total", vec![IntoArg::<Vec<(f64, u64)>>::into_arg(&lengths)]));
    assert_eq!(total.result().await, Ok(80.0));
    assert_eq!(track.result().await.expect("packed for us").points[8], (24.0, 32.0));
}

async fn passes_bytes(client: &Client) {
    let bytes: Bytes = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let there: Future<Bytes> = client.submit(call("library_reverse", vec![IntoArg::<Bytes>::into_arg(&bytes)]));
    let back: Future<Bytes> = client.submit(call("library_reverse", vec![IntoArg::<Bytes>::into_arg(&there)]));
    assert_eq!(back.bytes().await, Ok(bytes));
    let scattered = client.scatter(&Bytes::from_static(b"abc"), false).await.expect("a worker takes it");
    let reversed: Future<Bytes> = client.submit(call("library_reverse", vec![IntoArg::<Bytes>::into_arg(&scattered)]));
    assert_eq!(reversed.bytes().await, Ok(Bytes::from_static(b"cba")));
}

async fn asks_its_worker(client: &Client) {
    let said: Future<String> = client.submit(call("library_asks", vec![]).key("asks-1"));
    let said = said.result().await.expect("it submits another task and waits for it");
    assert!(said.starts_with("asks-1 on tcp://127.0.0.1:") && said.ends_with(" got 5"), "{said}");
}

async fn is_cancelled(client: &Client) {
    let directory = tempfile::tempdir().expect("a directory");
    let mark = directory.path().join("mark");
    let text = mark.to_str().expect("a path of ours");
    let waits: Future<()> = client.submit(call("library_waits", vec![IntoArg::<String>::into_arg(text)]));
    until_file_says(&mark, "started").await;
    waits.cancel();
    until_file_says(&mark, "cancelled").await;
}

async fn fails_as_other_tasks_do(client: &Client) {
    let panics: Future<u32> = client.submit(call("library_panics", vec![IntoArg::<u32>::into_arg(7)]));
    let TaskError::Failed { exception, .. } = panics.result().await.expect_err("it panics") else {
        panic!("it failed")
    };
    assert!(exception.contains("7 is out of luck") && exception.contains("task_library.rs:"), "{exception}");
    let wrong: Future<(f64, u64)> = client.submit(call("library_length", vec![IntoArg::<String>::into_arg("text")]));
    let error = wrong.result().await.expect_err("a text is no track").to_string();
    assert!(error.contains("argument 0") && error.contains("Track"), "{error}");
    let other =
        client.submit(total_of_texts(vec!["1".to_owned()])).result().await.expect_err("other types").to_string();
    assert!(other.contains("the caller has library_total(Vec<String>) -> f64"), "{other}");
    assert!(other.contains("this worker library_total(Vec<(f64, u64)>) -> f64"), "{other}");
    assert!(other.contains("task_library.rs"), "it names the place: {other}");
    let unknown: Future<u32> = client.submit(call("no_such_task", vec![]));
    let unknown = unknown.result().await.expect_err("not there").to_string();
    assert!(unknown.contains("library_walk"), "it names those there are: {unknown}");
}

/// What the stock worker says about a library that it cannot use.
fn refusal(library: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dask-worker"));
    command.args(["tcp://127.0.0.1:1", "--no-nanny", "--python", "none", "--preload"]).arg(library);
    let output = command.stdin(Stdio::null()).output().expect("dask-worker starts");
    assert!(!output.status.success(), "a worker without its tasks does not start");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn compiled(directory: &Path, name: &str, source: &str) -> PathBuf {
    let (code, library) = (directory.join(name).with_extension("c"), directory.join(name).with_extension("so"));
    std::fs::write(&code, source).expect("written");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let made = Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&code).status();
    assert!(made.expect("a C compiler").success());
    library
}

#[test]
fn what_is_no_task_library_of_this_release_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let said = refusal(&directory.path().join("absent.so"));
    assert!(said.contains("absent.so"), "{said}");

    let said = refusal(&compiled(directory.path(), "other", "int other(void) { return 1; }"));
    assert!(said.contains("no library of tasks") && said.contains("dask::task_library!()"), "{said}");

    // The beginning of a table is the same in every version.
    let newer = r#"
        #include <stddef.h>
        #include <stdint.h>
        struct table { char magic[16]; uint32_t version, unwinds; const char *release; size_t length; };
        static const struct table it = { "dask-rs tasks\0\0", 9, 1, "7.8.9", 5 };
        const struct table *dask_task_library(void) { return &it; }
    "#;
    let said = refusal(&compiled(directory.path(), "newer", newer));
    let own = env!("CARGO_PKG_VERSION");
    assert!(said.contains("dask-rs 7.8.9 (interface 9)") && said.contains(&format!("with {own}")), "{said}");

    let aborts = newer.replace("9, 1, \"7.8.9\"", &format!("1, 0, \"{own}\""));
    let said = refusal(&compiled(directory.path(), "aborts", &aborts));
    assert!(said.contains("panic = \"abort\""), "{said}");
}
