//! `dask-bench` itself works: cases of each kind, small, on both makes.

use std::process::Command;

use dask_tests::cluster::{binary, test_python};
use serde_json::Value;

#[test]
fn cases_are_measured_beside_upstream() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (json, svg) = (directory.path().join("results.json"), directory.path().join("results.svg"));
    let binaries = binary("dask-scheduler").parent().expect("binaries are in a folder").to_path_buf();
    let output = Command::new(env!("CARGO_BIN_EXE_dask-bench"))
        .args(["run", "--quick", "--vs", "upstream"])
        .args(["zero/merge-1000@3", "zero/delayed_tree-3@3"])
        .args(["--python".as_ref(), test_python().as_os_str(), "--binaries".as_ref(), binaries.as_os_str()])
        .args(["--json".as_ref(), json.as_os_str(), "--svg".as_ref(), svg.as_os_str()])
        .output()
        .expect("dask-bench starts");
    let (table, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{table}{log}");
    assert!(table.contains("| zero/merge-10@3x1 | scheduler CPU, us/task |"), "{table}");

    let results: Value = serde_json::from_slice(&std::fs::read(json).expect("written")).expect("JSON");
    let cases = results["cases"].as_array().expect("cases");
    let mut names: Vec<&str> = cases.iter().filter_map(|case| case["case"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["zero/delayed_tree-3@3x1", "zero/merge-10@3x1"]);
    for case in cases {
        for make in ["ours", "upstream"] {
            let medians = &case["makes"][make]["medians"];
            assert!(medians["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{case}");
            assert!(medians["client CPU, us/task"].as_f64().is_some_and(|cost| cost >= 0.0), "{case}");
        }
        assert!(case["makes"]["ours"]["better_by"]["seconds"].as_f64().is_some_and(|ratio| ratio > 0.0), "{case}");
    }
    assert!(std::fs::read_to_string(svg).expect("written").ends_with("</svg>\n"));
}
