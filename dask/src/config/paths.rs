//! Where files of the configuration are looked for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Variables that name the Python environment in use; upstream looks beside its own interpreter.
const ENVIRONMENTS: [&str; 2] = ["CONDA_PREFIX", "VIRTUAL_ENV"];

/// Files and directories in the order in which they are read; what later ones say counts. `executable` is this program:
/// installed into `PREFIX/bin`, it reads `PREFIX/etc/dask`.
pub fn search_paths(variable: impl Fn(&str) -> Option<OsString>, executable: Option<&Path>) -> Vec<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut paths = vec![set("DASK_ROOT_CONFIG").unwrap_or_else(|| "/etc/dask".into())];
    let bin = executable.and_then(Path::parent).filter(|directory| directory.ends_with("bin"));
    let prefixes = bin
        .and_then(Path::parent)
        .map(Path::to_path_buf)
        .into_iter()
        .chain(ENVIRONMENTS.iter().filter_map(|name| set(name)));
    paths.extend(prefixes.map(|prefix| prefix.join("etc/dask")));
    paths.extend(set("HOME").map(|home| home.join(".config/dask")));
    paths.extend(set("DASK_CONFIG"));
    // The last of several equal ones stays, as upstream.
    let mut seen = Vec::new();
    for path in paths.into_iter().rev() {
        if !seen.contains(&path) {
            seen.push(path);
        }
    }
    seen.reverse();
    seen
}

/// The file itself, or the configuration files in the directory, sorted by name.
pub(super) fn config_files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return if path.exists() { vec![path.to_path_buf()] } else { Vec::new() };
    }
    // As upstream: a directory that may not be read is empty.
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let is_config = |file: &PathBuf| {
        let extension = file.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
        matches!(extension.as_deref(), Some("json" | "yaml" | "yml"))
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_config).collect();
    files.sort();
    files
}
