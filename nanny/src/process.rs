//! One worker process and its link: started in a process group of its own, so that its end is the end of everything it
//! started.
//!
//! Nothing survives the nanny either, even its SIGKILL: the worker kills its whole group as soon as the link ends
//! (`worker/src/server/nanny_link.rs`).

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::Duration;

use dask_protocol::nanny_link::{self, FromNanny, FromWorker};
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, warn};

use crate::event::{Event, Exit, Signal};

/// How long the worker's last words on the link may take after its exit. They are already in the socket, unless a
/// process that left the group keeps the link open.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(1);

/// How to start a worker process.
#[derive(Debug, Clone)]
pub struct WorkerCommand {
    /// The executable; normally this one.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Environment variables set for it, beside those of the nanny.
    pub env: Vec<(String, OsString)>,
}

/// A worker process that was started and not reaped yet. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct WorkerProcess {
    child: Child,
    pid: Pid,
    link: UnixStream,
}

impl WorkerProcess {
    /// Starts the process. Its news and its exit arrive as events, the exit last.
    pub(crate) fn spawn(command: &WorkerCommand, events: &UnboundedSender<Event>) -> io::Result<WorkerProcess> {
        let (link, theirs) = UnixStream::pair()?;
        let child = Command::new(&command.program)
            .args(&command.args)
            .envs(command.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .process_group(0)
            .spawn()?;
        let pid = Pid::from_child(&child);
        let process = WorkerProcess { child, pid, link };
        let (told_all, last_words) = std_mpsc::channel();
        let (reader, talk) = (process.link.try_clone()?, events.clone());
        thread::Builder::new().name("worker-link".to_owned()).spawn(move || {
            forward_news(reader, &talk);
            // Nobody waits any more when the exit was already reported.
            let _ = told_all.send(());
        })?;
        let events = events.clone();
        thread::Builder::new().name("worker-exit".to_owned()).spawn(move || {
            let exit = wait_for_exit(pid);
            let _ = last_words.recv_timeout(LAST_WORDS_WAIT);
            // A nanny that is gone needs no news.
            let _ = events.send(Event::WorkerExited { pid: raw(pid), exit });
        })?;
        Ok(process)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        raw(self.pid)
    }

    /// Asks it to close within `timeout` seconds. A process that cannot hear it is killed later.
    pub(crate) fn ask_to_stop(&mut self, timeout: f64, reason: String) {
        if let Err(error) = nanny_link::write(&mut self.link, &FromNanny::Stop { timeout, reason }) {
            debug!(%error, "could not ask the worker process to close");
        }
    }

    /// Sends a signal. The process is not reaped while `self` lives, so the id cannot belong to another one.
    pub(crate) fn signal(&self, signal: Signal) {
        let signal = match signal {
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
        };
        if let Err(error) = kill_process(self.pid, signal) {
            debug!(%error, "could not signal the worker process");
        }
    }
}

impl Drop for WorkerProcess {
    /// Kills what is left of the group and reaps the process, which takes no time when it has exited.
    fn drop(&mut self) {
        kill_group(self.pid);
        if let Err(error) = self.child.wait() {
            warn!(%error, "could not reap the worker process");
        }
    }
}

fn raw(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

fn forward_news(mut link: UnixStream, events: &UnboundedSender<Event>) {
    loop {
        let event = match nanny_link::read(&mut link) {
            Ok(Some(FromWorker::Started { address, local_directory })) => {
                Event::WorkerStarted { address, local_directory }
            }
            Ok(Some(FromWorker::Failed { text })) => Event::WorkerFailed { text },
            Ok(Some(FromWorker::ClosingGracefully { reason })) => Event::WorkerClosing { reason },
            Ok(None) => return,
            Err(error) => {
                debug!(%error, "link to the worker process broke");
                return;
            }
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

/// Waits for the process to end and ends the rest of its group, leaving the reaping to [`WorkerProcess`].
fn wait_for_exit(pid: Pid) -> Exit {
    let status = loop {
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Ok(status) => break status,
            Err(rustix::io::Errno::INTR) => {}
            // Dropping the process reaped it already, so its id may belong to another one by now.
            Err(error) => {
                debug!(%error, "cannot wait for the worker process");
                return Exit::Signal(9);
            }
        }
    };
    kill_group(pid);
    let signal = status.as_ref().and_then(|status| status.terminating_signal()).map(Exit::Signal);
    let code = status.as_ref().and_then(|status| status.exit_status()).map(Exit::Code);
    signal.or(code).unwrap_or(Exit::Code(255))
}

/// The group keeps the worker's id as long as it has members or the worker is not reaped.
fn kill_group(pid: Pid) {
    match kill_process_group(pid, rustix::process::Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => debug!(%error, "could not kill the worker's process group"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    const DEADLINE: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> WorkerCommand {
        let args = vec!["-c".into(), script.into()];
        WorkerCommand { program: "/bin/sh".into(), args, env: vec![("GREETING".to_owned(), "hello".into())] }
    }

    async fn next(events: &mut UnboundedReceiver<Event>) -> Event {
        tokio::time::timeout(DEADLINE, events.recv()).await.expect("in time").expect("a sender is left")
    }

    #[tokio::test]
    async fn exits_are_told_apart_and_the_environment_is_set() {
        let (sender, mut events) = unbounded_channel();
        let cases = [
            ("test \"$GREETING\" = hello && exit 3", Exit::Code(3)),
            ("exit 0", Exit::Code(0)),
            ("kill -TERM $$; sleep 60", Exit::Signal(15)),
        ];
        for (script, exit) in cases {
            let process = WorkerProcess::spawn(&shell(script), &sender).expect("sh exists");
            assert_eq!(next(&mut events).await, Event::WorkerExited { pid: process.id(), exit });
        }
    }

    #[tokio::test]
    async fn grandchildren_die_with_the_worker() {
        let (sender, mut events) = unbounded_channel();
        // The grandchild holds the pipe open; the read ends when it is dead.
        let (mut alive, held) = std::io::pipe().expect("pipe");
        let script = format!("sleep 600 >/proc/{}/fd/{} & exit 0", std::process::id(), held.as_raw_fd());
        let process = WorkerProcess::spawn(&shell(&script), &sender).expect("sh exists");
        assert_eq!(next(&mut events).await, Event::WorkerExited { pid: process.id(), exit: Exit::Code(0) });
        drop(held);
        let ended = tokio::task::spawn_blocking(move || std::io::Read::read(&mut alive, &mut [0]));
        let ended = tokio::time::timeout(DEADLINE, ended).await.expect("in time").expect("no panic");
        assert_eq!(ended.expect("readable"), 0);
    }

    #[tokio::test]
    async fn dropping_a_process_ends_it() {
        let (sender, mut events) = unbounded_channel();
        let process = WorkerProcess::spawn(&shell("sleep 600"), &sender).expect("sh exists");
        let pid = process.id();
        drop(process);
        assert!(matches!(next(&mut events).await, Event::WorkerExited { pid: gone, .. } if gone == pid));
    }

    #[tokio::test]
    async fn processes_can_be_signalled() {
        let (sender, mut events) = unbounded_channel();
        let process = WorkerProcess::spawn(&shell("exec sleep 600"), &sender).expect("sh exists");
        process.signal(Signal::Kill);
        assert_eq!(next(&mut events).await, Event::WorkerExited { pid: process.id(), exit: Exit::Signal(9) });
    }
}
