//! `--pid-file`.

use std::fs;
use std::path::PathBuf;

/// A file that holds the process id and is removed when this is dropped.
#[derive(Debug)]
pub struct PidFile(Option<PathBuf>);

impl PidFile {
    /// Writes the file; does nothing when `path` is empty, as upstream's default is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(path: &str) -> Result<PidFile, String> {
        if path.is_empty() {
            return Ok(PidFile(None));
        }
        fs::write(path, std::process::id().to_string())
            .map_err(|error| format!("cannot write --pid-file {path}: {error}"))?;
        Ok(PidFile(Some(path.into())))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.as_ref().map(fs::remove_file) {
            tracing::debug!(%error, "could not remove the pid file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_lives_as_long_as_the_guard() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("pid");
        let guard = PidFile::write(path.to_str().expect("text")).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), std::process::id().to_string());
        drop(guard);
        assert!(!path.exists());
        assert!(PidFile::write("/no/such/directory/pid").is_err());
        drop(PidFile::write("").expect("nothing to do"));
    }
}
