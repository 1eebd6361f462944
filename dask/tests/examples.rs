//! Every example runs, and finds its own results right: they end with an error otherwise.

use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../../tests/src/venv.rs"]
mod venv;

/// Cargo builds the examples together with the tests, into a directory beside theirs.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.parent().and_then(Path::parent).expect("tests are two levels below");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "{} is built by `cargo test`, or by `cargo build --examples`", path.display());
    path
}

fn run(name: &str, arguments: &[&str], environment: &[(&str, &Path)]) -> String {
    let mut command = Command::new(example(name));
    command.args(arguments).envs(environment.iter().copied());
    let output = command.output().expect("the example starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} ended with {}:\n{out}{err}", output.status);
    out.into_owned()
}

#[test]
fn quickstart_counts_words() {
    assert!(run("quickstart", &[], &[]).contains("most frequent: the (4)"));
}

#[test]
fn word_count_reads_files() {
    assert!(run("word_count", &[], &[]).starts_with("40 files, "));
}

#[test]
fn matrix_multiplies_and_draws() {
    assert!(run("matrix", &[], &[]).contains("trace"));
    let home = tempfile::tempdir().expect("a directory");
    let picture = home.path().join("graph.svg");
    run("matrix", &[picture.to_str().expect("a path of ours")], &[]);
    let svg = std::fs::read_to_string(picture).expect("drawn");
    assert_eq!(svg.matches("<rect").count(), 3 * 9 + 3 + 1);
}

#[test]
fn search_stops_at_the_first_hit() {
    assert!(run("search", &[], &[]).contains("read the same backwards"));
}

#[test]
fn tree_reduction_publishes_its_result() {
    assert!(run("tree_reduction", &[], &[]).starts_with("256000 values, mean 499.500"));
}

#[test]
fn own_worker_survives_a_crash() {
    assert!(run("own_worker", &[], &[]).contains("survived in process"));
}

#[test]
fn mixed_runs_rust_and_python_in_one_graph() {
    let target = venv::target_directory().expect("tests run from a target directory");
    let python = venv::python(&target, |step| println!("{step}")).expect("a virtual environment");
    let said = run("mixed", &[], &[("DASK_PYTHON", &python)]);
    assert!(said.contains("20 medians around 0.5") && said.contains("AND BACK AGAIN"), "{said}");
}

#[test]
fn arrow_arrays_are_shared_and_pass_through_pyarrow() {
    let target = venv::target_directory().expect("tests run from a target directory");
    let python = venv::python(&target, |step| println!("{step}")).expect("a virtual environment");
    let said = run("arrow", &[], &[("DASK_PYTHON", &python)]);
    assert!(said.contains("where the first one left them") && said.contains("doubled them"), "{said}");
}

#[test]
fn scheduler_by_hand_computes_despite_a_death() {
    let said = run("scheduler_by_hand", &[], &[]);
    assert!(said.contains("and dies") && said.contains("the client is told that c is in memory"), "{said}");
}
