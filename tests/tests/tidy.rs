//! Rules of the code base that no compiler checks: `state/` is pure, and roles know only the protocol.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a source directory").map(|e| e.expect("readable").path()) {
        if entry.is_dir() {
            rust_files(&entry, found);
        } else if entry.extension().is_some_and(|e| e == "rs") {
            found.push(entry);
        }
    }
}

fn code_lines(file: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(file).expect("a source file");
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim_start().to_owned()));
    lines.filter(|(_, line)| !line.starts_with("//")).collect()
}

#[test]
fn state_machines_are_pure() {
    const FORBIDDEN: &[&str] = &[
        "tokio",
        "std::net",
        "std::fs",
        "std::io",
        "std::thread",
        "std::process",
        "std::env",
        "Instant::now",
        "SystemTime",
        "rand::rng(",
        "rand::random",
        "thread_rng",
        "HashMap<",
        "HashSet<",
        "HashMap::",
        "HashSet::",
    ];
    let mut files = Vec::new();
    for role in ["scheduler", "worker"] {
        rust_files(&root().join(role).join("src/state"), &mut files);
    }
    rust_files(&root().join("nanny/src/state"), &mut files);
    assert!(files.len() > 30, "the state machines are where they were");
    let mut wrong = Vec::new();
    for file in files {
        // Tests may ask their environment how much to do.
        if file.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        for (number, line) in code_lines(&file) {
            // Hash maps with a fixed hasher that are only looked up are fine: they have names of their own.
            let line = line.replace("FxHashMap", "Fx").replace("FxHashSet", "Fx");
            if let Some(word) = FORBIDDEN.iter().find(|word| line.contains(**word)) {
                wrong.push(format!("{}:{number}: {word}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "state must not know these:\n{}", wrong.join("\n"));
}

#[test]
fn roles_meet_only_on_the_wire() {
    const ROLES: &[&str] = &["scheduler", "worker", "nanny", "client"];
    let mut wrong = Vec::new();
    for role in ROLES {
        let manifest = fs::read_to_string(root().join(role).join("Cargo.toml")).expect("a manifest");
        let dependencies = manifest.split("[dependencies]").nth(1).expect("a dependency table");
        let dependencies = dependencies.split("\n[").next().unwrap_or(dependencies);
        for other in ROLES.iter().filter(|other| *other != role) {
            if dependencies.contains(&format!("dask-{other}")) {
                wrong.push(format!("{role} depends on {other}"));
            }
        }
    }
    let protocol = fs::read_to_string(root().join("protocol/Cargo.toml")).expect("a manifest");
    if ROLES.iter().any(|role| protocol.contains(&format!("dask-{role} "))) {
        wrong.push("protocol depends on a role".to_owned());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
