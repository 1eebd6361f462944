//! A child process as a peer, over a pair of connected sockets that nobody else can reach.
//!
//! The child finds its end's file descriptor number in the environment variable [`CHILD_FD_VARIABLE`]. Framing is that
//! of any connection; there is no handshake.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::connection::Comm;
use crate::address::Address;

/// Names the file descriptor through which a child talks to its parent.
pub const CHILD_FD_VARIABLE: &str = "DASK_PARENT_FD";

impl Comm {
    /// Over a Unix socket whose other end is known. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`io::Error`] when the socket cannot be set up.
    pub fn from_unix_stream(stream: StdUnixStream, peer: &str) -> io::Result<Comm> {
        stream.set_nonblocking(true)?;
        let (reader, writer) = UnixStream::from_std(stream)?.into_split();
        Ok(Comm::from_halves(reader, writer, Address::new("unix://self"), Address::new(format!("unix://{peer}"))))
    }
}

/// Starts `command` with a connection to it.
///
/// # Errors
/// [`io::Error`] when the sockets cannot be made or the program cannot be started.
pub fn spawn_with_socketpair(mut command: Command) -> io::Result<(Child, Comm)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    let inherited = theirs.as_raw_fd();
    command.env(CHILD_FD_VARIABLE, inherited.to_string());
    keep_open_across_exec(&mut command, inherited);
    let child = command.spawn()?;
    let peer = child.id().map_or_else(|| "child".to_owned(), |id| id.to_string());
    Ok((child, Comm::from_unix_stream(ours, &peer)?))
}

/// Clears close-on-exec in the child only: clearing it here would let any process started meanwhile inherit the socket,
/// and then the parent would never see it closed.
fn keep_open_across_exec(command: &mut Command, inherited: RawFd) {
    let clear = move || {
        // SAFETY: the descriptor belongs to `theirs`, which outlives the fork; between fork and exec the child has it.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(inherited) };
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).map_err(io::Error::from)
    };
    // SAFETY: the closure makes one fcntl call, which is async-signal-safe; it neither allocates nor locks.
    unsafe { command.pre_exec(clear) };
}

/// In a child: the connection to the parent that started it with [`spawn_with_socketpair`], or `None` if it was started
/// otherwise. To be called once, early.
///
/// # Errors
/// [`io::Error`] when the variable does not name an open socket.
pub fn parent() -> io::Result<Option<Comm>> {
    let Some(text) = std::env::var_os(CHILD_FD_VARIABLE) else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.parse::<RawFd>().ok()).filter(|&fd| fd > 2);
    let invalid =
        || io::Error::new(io::ErrorKind::InvalidInput, format!("{CHILD_FD_VARIABLE} is no descriptor: {text:?}"));
    let number = number.ok_or_else(invalid)?;
    // SAFETY: our parent set the variable to a descriptor that it left open for us alone; nothing else here knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Comm::from_unix_stream(StdUnixStream::from(fd), "parent").map(Some)
}
