//! Rust and Python on one cluster: each submits the other's functions, reads the other's results and shares the other's
//! names.

use std::process::Command;
use std::time::Duration;

use dask::{GraphBuilder, LocalCluster, TaskError, python};
use dask_tests::venv;
use dask_worker::PythonChoice;

#[dask::task]
fn polyglot_scale(numbers: &[f64], by: f64) -> Vec<f64> {
    numbers.iter().map(|n| n * by).collect()
}

#[dask::task]
fn polyglot_total(numbers: &[f64]) -> f64 {
    numbers.iter().sum()
}

#[dask::task]
fn polyglot_greet(names: &[String], greeting: &str) -> Vec<String> {
    names.iter().map(|name| format!("{greeting} {name}")).collect()
}

fn interpreter() -> std::path::PathBuf {
    let target = venv::target_directory().expect("tests run from a target directory");
    venv::python(&target, |step| println!("{step}")).expect("a virtual environment")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rust_and_python_submit_each_others_functions_and_share_names() {
    let python_path = interpreter();
    let builder = LocalCluster::builder().threads_per_worker(2).python(PythonChoice::Path(python_path.clone()));
    let cluster = builder.start().await.expect("starts");
    let client = cluster.client().await.expect("connects");

    // Python's functions, with arguments by position and name, of futures, lists and maps of them.
    let hypot = client.submit(python("math:hypot").arg(3.0).arg(4.0).returns::<f64>());
    assert_eq!(hypot.result().await, Ok(5.0));
    let text = client.submit(python("json.dumps").arg(vec![1, 2]).kwarg("indent", 1).returns::<String>());
    assert_eq!(text.result().await.as_deref(), Ok("[\n 1,\n 2\n]"));
    let total =
        client.submit(python("builtins:sum").arg_as::<Vec<f64>>(vec![hypot.clone(), hypot.clone()]).returns::<f64>());
    assert_eq!(total.result().await, Ok(10.0));
    let map = std::collections::BTreeMap::from([("a".to_owned(), hypot.clone())]);
    let listed = client.submit(
        python("builtins:sorted").arg_as::<std::collections::BTreeMap<String, f64>>(map).returns::<Vec<String>>(),
    );
    assert_eq!(listed.result().await, Ok(vec!["a".to_owned()]));

    // One graph of both: Rust, Python on its result, Rust on that.
    let mut graph = GraphBuilder::new("mixed");
    let scaled = graph.add(polyglot_scale(vec![1.0, 2.0, 3.0], 2.0)).expect("new");
    let mean = graph.add(python("statistics:fmean").arg(&scaled).returns::<f64>()).expect("new");
    let back = graph.add(polyglot_scale(scaled, mean)).expect("new");
    let future = client.compute(graph, &[back]).expect("no cycle").remove(0);
    assert_eq!(future.result().await, Ok(vec![8.0, 16.0, 24.0]));

    // Errors say which language could not read what.
    let error = client.submit(python("math:sqrt").arg(-1.0).returns::<f64>()).result().await.expect_err("raises");
    assert!(error.to_string().contains("ValueError"), "{error}");
    let object = client.submit(python("fractions:Fraction").arg(1).arg(2).returns::<f64>());
    assert!(matches!(object.result().await, Err(TaskError::Type { reason, .. }) if reason.contains("Fraction")));
    let unread = client.submit(polyglot_scale(vec![1.0], &object)).result().await.expect_err("cannot be read");
    assert!(unread.to_string().contains("Fraction"), "{unread}");

    let shared = client.variable::<f64>("from-rust");
    shared.set(&2.5).await.expect("sets");
    client.publish("rust-data", std::slice::from_ref(&future), false).await.expect("publishes");
    let jobs = client.queue::<String>("jobs", None).await.expect("made");
    jobs.put(&"first job".to_owned(), None).await.expect("put");

    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/python/polyglot.py");
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/../python");
    let address = cluster.address().to_string();
    let running = tokio::task::spawn_blocking(move || {
        Command::new(python_path).arg(program).arg(address).env("PYTHONPATH", package).output()
    });
    let output = running.await.expect("no panic").expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // What Python left behind.
    let within = Some(Duration::from_secs(20));
    let answer = client.variable::<Vec<f64>>("from-python").get(within).await.expect("set");
    assert_eq!(answer.value().await, Ok(vec![0.5, 1.0]));
    let kept = client.dataset::<Vec<f64>>("python-data").await.expect("published");
    assert_eq!(client.gather(&kept).await, Ok(vec![vec![3.0, 6.0]]));
    assert_eq!(jobs.get(within).await.expect("put").value().await, Ok("answer".to_owned()));
    assert!(client.event("python-was-here").is_set().await.expect("asked"));
    client.close().await;
    cluster.close().await;
}
