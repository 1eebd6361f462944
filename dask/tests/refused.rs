//! What the compiler says of tasks called wrongly. That it refuses them at all is tested with every compiler
//! (`dask/src/compile_fail.rs`); its words change, so they are compared with those of the release they were recorded with.
//! `TRYBUILD=overwrite cargo test -p dask --test refused` records them anew.

use std::process::Command;

/// The release whose words are recorded.
const RECORDED: &str = "rustc 1.95.";

#[test]
fn wrong_calls_are_refused_in_words_that_help() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().expect("cargo has found it, too").stdout;
    let version = String::from_utf8_lossy(&version);
    if !version.starts_with(RECORDED) {
        println!("not compared: the words of {RECORDED} are recorded, and this is {version}");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/refused/*.rs");
}
