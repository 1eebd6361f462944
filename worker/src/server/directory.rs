//! The worker's own directory, removed when the worker closes, or by the next worker when it could not.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tracing::{debug, info};

/// What upstream calls the directory that holds all workers'.
const SCRATCH: &str = "dask-scratch-space";
/// Beside each worker's directory, a file of its name and this ending, locked while the worker lives; upstream's name for it,
/// and its way of locking, so that each make's workers spare the other's.
const LOCK_EXTENSION: &str = "dirlock";

/// A directory `dask-scratch-space/worker-...`. Dropping it removes it and what is in it.
#[derive(Debug)]
pub(crate) struct LocalDirectory {
    directory: tempfile::TempDir,
    lock: PathBuf,
    /// Locked; the system unlocks it when the process ends, however it ends.
    _locked: File,
}

impl LocalDirectory {
    /// Makes one below `base`, or below the system's temporary directory, and removes those of workers that are gone.
    pub(crate) fn create(base: Option<&Path>) -> io::Result<LocalDirectory> {
        let base = base.map_or_else(std::env::temp_dir, Path::to_owned);
        let scratch = if base.ends_with(SCRATCH) { base } else { base.join(SCRATCH) };
        fs::create_dir_all(&scratch)?;
        remove_leftovers(&scratch);
        let directory = tempfile::Builder::new().prefix("worker-").tempdir_in(scratch)?;
        let lock = lock_of(directory.path());
        // Under its name it is locked from the first moment.
        let unnamed = directory.path().join(LOCK_EXTENSION);
        let locked = File::create(&unnamed)?;
        locked.lock()?;
        fs::rename(&unnamed, &lock)?;
        Ok(LocalDirectory { directory, lock, _locked: locked })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }
}

impl Drop for LocalDirectory {
    fn drop(&mut self) {
        // The directory goes after this; without its lock it is nobody's leftover.
        let _ = fs::remove_file(&self.lock);
    }
}

fn lock_of(directory: &Path) -> PathBuf {
    let mut lock = directory.as_os_str().to_owned();
    lock.push(".");
    lock.push(LOCK_EXTENSION);
    lock.into()
}

/// Removes the directories of workers that were killed, as far as this user may.
fn remove_leftovers(scratch: &Path) {
    let Ok(entries) = fs::read_dir(scratch) else { return };
    let locks = entries.flatten().map(|entry| entry.path());
    for lock in locks.filter(|path| path.extension() == Some(OsStr::new(LOCK_EXTENSION))) {
        let Ok(file) = File::open(&lock) else { continue };
        if file.try_lock().is_err() {
            continue;
        }
        let directory = lock.with_extension("");
        if let Err(error) = fs::remove_dir_all(&directory)
            && error.kind() != io::ErrorKind::NotFound
        {
            debug!(directory = %directory.display(), %error, "a leftover cannot be removed");
            continue;
        }
        info!(
            target: "distributed.diskutils",
            "Found stale lock file and directory '{}', purging", directory.display()
        );
        // Another worker may have been quicker.
        let _ = fs::remove_file(&lock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_with_its_worker_and_the_living_are_spared() {
        let base = tempfile::tempdir().expect("temporary directory");
        let first = LocalDirectory::create(Some(base.path())).expect("made");
        let second = LocalDirectory::create(Some(base.path())).expect("made");
        assert!(first.path().is_dir() && second.path().is_dir());
        let gone = first.path();
        drop(first);
        assert!(!gone.exists() && !lock_of(&gone).exists() && second.path().is_dir());
    }

    #[test]
    fn what_a_killed_worker_left_goes_with_the_next_start() {
        let base = tempfile::tempdir().expect("temporary directory");
        let scratch = base.path().join(SCRATCH);
        let left = scratch.join("worker-killed");
        fs::create_dir_all(left.join("storage")).expect("made");
        fs::write(left.join("storage").join("file"), "data").expect("written");
        File::create(lock_of(&left)).expect("made");
        let unlocked = scratch.join("worker-without-lock");
        fs::create_dir_all(&unlocked).expect("made");
        let _next = LocalDirectory::create(Some(base.path())).expect("made");
        assert!(!left.exists() && !lock_of(&left).exists());
        assert!(unlocked.exists(), "somebody's who does not lock");
    }
}
