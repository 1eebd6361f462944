//! Values for peers on this machine: the one Python process copies them from the other's memory, and no socket carries them.
//!
//! The lender keeps a value where it is until the borrower is done; the borrower's process reads the lender's memory with
//! `process_vm_readv`, as MPI libraries do. Both run as one user, in one PID namespace; where the kernel forbids it all the
//! same, values are sent as to any other peer.

use std::sync::Arc;

use dask_protocol::{Key, Value};

use super::message::ToPython;
use super::{Python, PythonError};

/// What two processes have in common that may read each other's memory: the machine since its start, the PID namespace, and
/// the user. `None` where there is no such thing.
pub(crate) fn host() -> Option<Arc<str>> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let user = rustix::process::getuid().as_raw();
    Some(format!("{}/{}/{user}", boot.trim(), namespace.display()).into())
}

/// Values stay in place until this is dropped.
#[derive(Debug)]
pub(crate) struct Loan {
    python: Arc<Python>,
    id: u64,
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.python.tell(ToPython::TakeBack { id: self.id });
    }
}

/// Copies that are nobody's yet.
#[derive(Debug)]
pub(crate) struct Borrowed {
    python: Arc<Python>,
    id: u64,
    /// Their sizes in bytes.
    pub sizes: Vec<(Key, i64)>,
    kept: bool,
}

impl Borrowed {
    /// Makes them the worker's, if this is still its Python process.
    pub(crate) fn keep(mut self, now: Option<&Arc<Python>>) -> Option<Vec<(Key, i64)>> {
        now.filter(|now| Arc::ptr_eq(now, &self.python))?;
        self.kept = true;
        self.python.tell(ToPython::KeepBorrowed { id: self.id });
        Some(std::mem::take(&mut self.sizes))
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if !self.kept {
            self.python.tell(ToPython::DropBorrowed { id: self.id });
        }
    }
}

/// Why nothing was borrowed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BorrowError {
    /// The process ended meanwhile.
    #[error(transparent)]
    Python(#[from] PythonError),
    /// The kernel lets nobody do so; asking again is of no use.
    #[error("not allowed: {0}")]
    Refused(String),
    /// This time.
    #[error("{0}")]
    Failed(String),
}

/// Has values kept in place. What the borrower has to know is in the process's own words.
///
/// # Errors
/// [`PythonError::Gone`].
pub(crate) async fn lend(python: Arc<Python>, keys: Vec<Key>) -> Result<(Value, Loan), PythonError> {
    let mut loan = None;
    let answer = python.begin_to_ask(|id| {
        loan = Some(Loan { python: Arc::clone(&python), id });
        ToPython::Lend { id, keys }
    });
    let lent = answer.await.map_err(|_| PythonError::Gone)?;
    loan.map(|loan| (lent, loan)).ok_or(PythonError::Gone)
}

/// Has values copied that another process lends.
///
/// # Errors
/// [`BorrowError`].
pub(crate) async fn borrow(python: Arc<Python>, lent: Value) -> Result<Borrowed, BorrowError> {
    let mut borrowed = None;
    let answer = python.begin_to_ask(|id| {
        borrowed = Some(Borrowed { python: Arc::clone(&python), id, sizes: Vec::new(), kept: false });
        ToPython::Borrow { id, lent }
    });
    let reply = answer.await.map_err(|_| PythonError::Gone)?;
    let mut borrowed = borrowed.ok_or(PythonError::Gone)?;
    if let Some(reason) = reply.get("error").and_then(Value::as_str) {
        let refused = reply.get("refused").and_then(Value::as_bool) == Some(true);
        let error = if refused { BorrowError::Refused } else { BorrowError::Failed };
        return Err(error(reason.to_owned()));
    }
    let Some(Value::Map(sizes)) = reply.get("sizes") else {
        return Err(BorrowError::Failed("a reply without sizes".to_owned()));
    };
    borrowed.sizes = sizes.iter().filter_map(|(key, nbytes)| Some((key.to_key()?, nbytes.as_i64()?))).collect();
    Ok(borrowed)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_host_is_the_same_each_time() {
        assert_eq!(super::host(), super::host());
    }
}
