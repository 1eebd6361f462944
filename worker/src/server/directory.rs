//! The worker's own directory, removed when the worker closes.

use std::io;
use std::path::{Path, PathBuf};

/// What upstream calls the directory that holds all workers'.
const SCRATCH: &str = "dask-scratch-space";

/// A directory `dask-scratch-space/worker-...`. Dropping it removes it and what is in it.
#[derive(Debug)]
pub(crate) struct LocalDirectory(tempfile::TempDir);

impl LocalDirectory {
    /// Makes one below `base`, or below the system's temporary directory.
    pub(crate) fn create(base: Option<&Path>) -> io::Result<LocalDirectory> {
        let base = base.map_or_else(std::env::temp_dir, Path::to_owned);
        let scratch = if base.ends_with(SCRATCH) { base } else { base.join(SCRATCH) };
        std::fs::create_dir_all(&scratch)?;
        tempfile::Builder::new().prefix("worker-").tempdir_in(scratch).map(LocalDirectory)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}
