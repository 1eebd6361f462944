//! A Python environment with upstream's packages, made once under `target/`.
//!
//! Plain `std` only: the demo includes this file too.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The release that is the reference for everything.
pub const REFERENCE: &str = "2026.8.0";
/// Names another release, which the tests are run with.
const RELEASE_VARIABLE: &str = "DASK_TEST_RELEASE";

/// Set by `.ci/run libraries`: the environment also holds what the programs of `tests/python/test_libraries.py` use.
pub const LIBRARIES_VARIABLE: &str = "DASK_TEST_LIBRARIES";
/// Releases that work with the reference.
const LIBRARIES: [&str; 6] = [
    "dask-ml==2025.1.0",
    "lightgbm==4.7.0",
    "scikit-learn==1.9.1",
    "xarray==2026.9.0",
    "xgboost-cpu==3.2.0",
    "zarr==3.1.6",
];

/// Set by `.ci/run browser`: the environment also drives a browser, for `tests/python/test_browser.py`.
pub const BROWSER_VARIABLE: &str = "DASK_TEST_BROWSER";
/// The browser itself is Debian's `chromium`.
const BROWSER: &str = "playwright==1.65.2";

/// What the environment holds; its name carries a hash of this, so a change makes a new one.
fn requirements() -> Vec<String> {
    let release = std::env::var(RELEASE_VARIABLE).unwrap_or_else(|_| REFERENCE.to_owned());
    let mut requirements = vec![format!("dask[complete]=={release}"), format!("distributed=={release}")];
    requirements.extend(["scikit-learn", "joblib", "pytest", "lz4", "zstandard", "cryptography"].map(String::from));
    if std::env::var_os(LIBRARIES_VARIABLE).is_some() {
        requirements.extend(LIBRARIES.map(String::from));
    }
    if std::env::var_os(BROWSER_VARIABLE).is_some() {
        requirements.push(BROWSER.to_owned());
    }
    requirements
}

/// The interpreter of the environment, which is made first if need be (`progress` is told each step).
///
/// # Errors
/// When there is no usable `python3`, or a package cannot be installed; the text says which and shows pip's last lines.
pub fn python(target: &Path, mut progress: impl FnMut(&str)) -> io::Result<PathBuf> {
    let requirements = requirements();
    let home = target.join(format!("python-{:016x}", hash(&requirements)));
    let python = home.join("bin").join("python");
    let ready = home.join("ready");
    fs::create_dir_all(target)?;
    let lock = File::create(target.join("python.lock"))?;
    lock.lock()?;
    if ready.exists() {
        return Ok(python);
    }
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    progress("making a virtual environment");
    run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
    progress(&format!("installing {} and what the tests use", requirements[0]));
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(&requirements))?;
    File::create(ready)?;
    Ok(python)
}

/// The cargo target directory this executable was built into.
///
/// # Errors
/// When the executable does not know where it is.
pub fn target_directory() -> io::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    target
        .map(Path::to_path_buf)
        .ok_or_else(|| io::Error::other(format!("{} is not under a target directory", exe.display())))
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(10)..].join("\n");
    Err(io::Error::other(format!("{:?} ended with {}:\n{tail}", command.get_program(), output.status)))
}

/// FNV-1a, so that the name stays the same between builds.
fn hash(texts: &[String]) -> u64 {
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
