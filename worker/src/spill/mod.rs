//! Values on disk: where a worker puts what its memory has no room for.
//!
//! One file a value, below the worker's own directory. A [`Spilled`] is the right to read one; the file goes with the last
//! of them, removed by a thread of its own: a disk that stands still holds up nobody who drops a value. Nothing else here
//! waits for anything but the disk: call it from threads that may block.

mod file;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;

use dask_protocol::Payload;
use dask_protocol::compression::Compression;
use tracing::debug;

pub use file::FileError;

/// Why a value could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    /// The configured bound (`distributed.worker.memory.max-spill`) is reached.
    #[error("{used} bytes are on disk, and no more than {max} may be (max-spill)")]
    Limit {
        /// What is there.
        used: u64,
        /// What may be.
        max: u64,
    },
    /// The file could not be written.
    #[error("could not write {path}: {error}")]
    Write {
        /// Which.
        path: PathBuf,
        /// The system's answer; [`io::ErrorKind::StorageFull`] when the disk is full.
        error: io::Error,
    },
    /// The file could not be read back.
    #[error("could not read {path} back: {error}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: FileError,
    },
}

/// The folder of a worker's spilled values, `storage` as upstream calls it.
#[derive(Debug)]
pub struct SpillDirectory {
    path: PathBuf,
    next: AtomicU64,
    /// Shared with the values.
    files: Arc<Files>,
    max: Option<u64>,
    compression: Option<Compression>,
    counts: Counts,
}

/// What is there, and who removes it.
#[derive(Debug, Default)]
struct Files {
    /// Bytes of values that somebody may read.
    used: AtomicU64,
    /// Where paths of files go that nobody may read any more; made when there is the first.
    unwanted: OnceLock<Option<mpsc::Sender<PathBuf>>>,
}

impl Files {
    /// Removes a file some time soon.
    fn remove(&self, path: PathBuf) {
        let unwanted = self.unwanted.get_or_init(|| match start_removing() {
            Ok(sender) => Some(sender),
            Err(error) => {
                debug!(%error, "no thread to remove files; they stay until the worker closes");
                None
            }
        });
        if let Some(unwanted) = unwanted {
            // The thread ends after the last sender.
            let _ = unwanted.send(path);
        }
    }
}

fn start_removing() -> io::Result<mpsc::Sender<PathBuf>> {
    let (unwanted, paths) = mpsc::channel::<PathBuf>();
    thread::Builder::new().name("spill-remove".to_owned()).spawn(move || {
        for path in paths {
            // The worker's directory, and all that is in it, goes when it closes.
            if let Err(error) = fs::remove_file(&path) {
                debug!(path = %path.display(), %error, "could not remove a spilled value");
            }
        }
    })?;
    Ok(unwanted)
}

/// What was written and read since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Files written.
    pub written: AtomicU64,
    /// Their bytes.
    pub written_bytes: AtomicU64,
    /// Files read.
    pub read: AtomicU64,
    /// Their bytes.
    pub read_bytes: AtomicU64,
}

impl SpillDirectory {
    /// A folder below `local_directory`, made when the first value comes; `max` bounds the bytes in it.
    pub fn new(local_directory: &Path, max: Option<u64>, compression: Option<Compression>) -> SpillDirectory {
        SpillDirectory {
            path: local_directory.join("storage"),
            next: AtomicU64::new(0),
            files: Arc::default(),
            max,
            compression,
            counts: Counts::default(),
        }
    }

    /// Bytes of values on disk; files that nobody may read any more may be there a moment longer.
    pub fn used(&self) -> u64 {
        self.files.used.load(Ordering::Relaxed)
    }

    /// What was written and read since the start.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether no more may be written.
    pub fn is_full(&self) -> bool {
        self.max.is_some_and(|max| self.used() >= max)
    }

    /// Writes a value. Leaves nothing behind when that fails.
    ///
    /// # Errors
    /// [`SpillError::Limit`] and [`SpillError::Write`].
    pub fn write(&self, payload: &Payload) -> Result<Spilled, SpillError> {
        let used = self.used();
        if let Some(max) = self.max.filter(|max| used >= *max) {
            return Err(SpillError::Limit { used, max });
        }
        let path = self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let failed = |error| SpillError::Write { path: path.clone(), error };
        fs::create_dir_all(&self.path).map_err(failed)?;
        let mut out = File::create_new(&path).map_err(failed)?;
        // From here on the file goes with this.
        let mut spilled = Spilled { path: path.clone(), bytes: 0, files: Arc::clone(&self.files) };
        let bytes = file::write(&mut out, payload, self.compression).map_err(failed)?;
        let before = self.files.used.fetch_add(bytes, Ordering::Relaxed);
        spilled.bytes = bytes;
        if let Some(max) = self.max.filter(|max| before + bytes > *max) {
            return Err(SpillError::Limit { used: before, max });
        }
        self.counts.written.fetch_add(1, Ordering::Relaxed);
        self.counts.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(spilled)
    }

    /// Reads a value back; the file stays.
    ///
    /// # Errors
    /// [`SpillError::Read`].
    pub fn read(&self, spilled: &Spilled) -> Result<Payload, SpillError> {
        let payload =
            file::read(&spilled.path).map_err(|error| SpillError::Read { path: spilled.path.clone(), error })?;
        self.counts.read.fetch_add(1, Ordering::Relaxed);
        self.counts.read_bytes.fetch_add(spilled.bytes, Ordering::Relaxed);
        Ok(payload)
    }
}

/// A value on disk; dropping it removes the file.
#[derive(Debug)]
pub struct Spilled {
    path: PathBuf,
    bytes: u64,
    files: Arc<Files>,
}

impl Drop for Spilled {
    fn drop(&mut self) {
        self.files.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.files.remove(std::mem::take(&mut self.path));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn payload(bytes: usize) -> Payload {
        Payload::serialized("pickle", None, vec![vec![1; bytes].into(), Bytes::from_static(b"x")])
    }

    fn files(directory: &Path) -> usize {
        fs::read_dir(directory.join("storage")).map_or(0, Iterator::count)
    }

    fn wait_for_files(directory: &Path, n: usize) {
        let since = std::time::Instant::now();
        while files(directory) != n {
            assert!(since.elapsed().as_secs() < 10, "{} files instead of {n}", files(directory));
            thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    #[test]
    fn a_file_lasts_as_long_as_somebody_may_read_it() {
        let home = tempfile::tempdir().expect("temporary directory");
        let storage = SpillDirectory::new(home.path(), None, None);
        let first = Arc::new(storage.write(&payload(1000)).expect("written"));
        let second = Arc::clone(&first);
        drop(first);
        assert_eq!(files(home.path()), 1);
        assert!(storage.used() > 1000);
        assert_eq!(storage.read(&second).expect("read").frames(), payload(1000).frames());
        drop(second);
        assert_eq!(storage.used(), 0);
        wait_for_files(home.path(), 0);
    }

    #[test]
    fn no_more_is_written_than_may_be() {
        let home = tempfile::tempdir().expect("temporary directory");
        let storage = SpillDirectory::new(home.path(), Some(2000), None);
        let _first = storage.write(&payload(1500)).expect("fits");
        assert!(matches!(storage.write(&payload(1500)), Err(SpillError::Limit { max: 2000, .. })));
        // What was begun is removed.
        wait_for_files(home.path(), 1);
        let _second = storage.write(&payload(10)).expect("fits");
    }

    #[test]
    fn what_cannot_be_written_is_said_with_its_path() {
        let home = tempfile::tempdir().expect("temporary directory");
        fs::write(home.path().join("storage"), "a file is in the way").expect("written");
        let error = SpillDirectory::new(home.path(), None, None).write(&payload(10)).expect_err("no folder");
        assert!(error.to_string().contains("storage/0"), "{error}");
    }
}
