//! Explanations as Python programs and people at a terminal get them.

use std::process::{Command, Output};

use dask_tests::cluster::{Cluster, WorkerKind, binary};

fn dask_explain(cluster: &Cluster, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("dask"));
    command.arg("explain").args(arguments).args(["--scheduler", &cluster.address]);
    command.output().expect("the command starts")
}

#[test]
fn tasks_are_explained_to_python_programs_and_at_the_terminal() {
    let cluster = Cluster::start(&[WorkerKind::Ours], &[]);
    cluster.pytest(&["test_explain.py"]);
    let told = dask_explain(&cluster, &["('nobody', 1)"]);
    assert_eq!(told.status.code(), Some(1), "nobody knows it");
    assert!(String::from_utf8_lossy(&told.stdout).starts_with("('nobody', 1) is unknown."));
    let told = dask_explain(&cluster, &["nobody", "--json"]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("\"kind\": \"unknown\""));
}
