//! The worker's end of the socket pair to its nanny: news goes up, the order to stop comes down, and when the nanny is
//! gone, however it died, this process and all that it started die too.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use dask_protocol::nanny_link::{self, FromNanny, FromWorker};
use rustix::process::{
    Signal, getpgrp, getpid, kill_current_process_group, kill_process, set_parent_process_death_signal,
};
use tokio::sync::mpsc;
use tracing::{debug, error};

use crate::options::OnRegistered;

/// The order to close, from the nanny.
#[derive(Debug, Clone, PartialEq)]
pub struct StopRequest {
    /// How long until the nanny kills the process, in seconds.
    pub timeout: f64,
    /// Why.
    pub reason: String,
}

/// The connection to the nanny that started this process.
#[derive(Debug)]
pub struct NannyLink {
    writer: Arc<Mutex<UnixStream>>,
    stops: mpsc::UnboundedReceiver<StopRequest>,
}

impl NannyLink {
    /// Takes the socket that the nanny gave this process as its standard input, and puts `/dev/null` in its place so
    /// that neither user code nor child processes can read from it.
    ///
    /// # Errors
    /// When standard input is no socket, or the system refuses another descriptor or thread.
    pub fn from_stdin() -> io::Result<NannyLink> {
        let link = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        link.peer_addr()?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        NannyLink::watch(link, end_process_group)
    }

    /// Starts the thread that reads `link` and calls `on_lost` at its end. A thread of its own, because it must react
    /// even while every other thread of the worker is busy or stuck.
    fn watch(link: UnixStream, on_lost: impl FnOnce() + Send + 'static) -> io::Result<NannyLink> {
        let mut reader = link.try_clone()?;
        let (stop, stops) = mpsc::unbounded_channel();
        thread::Builder::new().name("nanny-link".to_owned()).spawn(move || {
            wake_when_the_nanny_dies();
            loop {
                match nanny_link::read(&mut reader) {
                    // The receiver is gone only when the worker already ends.
                    Ok(Some(FromNanny::Stop { timeout, reason })) => drop(stop.send(StopRequest { timeout, reason })),
                    Ok(None) => break,
                    Err(error) => {
                        debug!(%error, "nanny link broke");
                        break;
                    }
                }
            }
            on_lost();
        })?;
        Ok(NannyLink { writer: Arc::new(Mutex::new(link)), stops })
    }

    /// What tells the nanny that the worker is registered.
    pub fn on_registered(&self) -> OnRegistered {
        let writer = Arc::clone(&self.writer);
        OnRegistered(Arc::new(move |address, local_directory| {
            let (address, local_directory) = (address.clone(), local_directory.to_owned());
            tell(&writer, &FromWorker::Started { address, local_directory });
        }))
    }

    /// Tells the nanny why the worker could not start.
    pub fn failed(&self, text: impl Into<String>) {
        tell(&self.writer, &FromWorker::Failed { text: text.into() });
    }

    /// Tells the nanny not to start another worker when this one exits.
    pub fn closing_gracefully(&self, reason: impl Into<String>) {
        tell(&self.writer, &FromWorker::ClosingGracefully { reason: reason.into() });
    }

    /// Waits for the nanny's order to close. Cancel-safe; pending for ever once the process is about to be killed.
    pub async fn stop_requested(&mut self) -> StopRequest {
        match self.stops.recv().await {
            Some(stop) => stop,
            None => std::future::pending().await,
        }
    }
}

/// A lost nanny is the reader thread's concern, so a failed write is only noted.
fn tell(writer: &Mutex<UnixStream>, message: &FromWorker) {
    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = nanny_link::write(&mut *writer, message).and_then(|()| writer.flush()) {
        debug!(%error, "could not tell the nanny");
    }
}

/// Has the kernel send SIGCONT when the nanny dies, so that even a stopped worker (SIGSTOP, a debugger) gets to read the
/// end of the link. A death signal that kills would end only this process and leave what it started; SIGCONT does
/// nothing to a running process. The kernel forgets the wish with the thread that made it, so the reading thread makes it.
fn wake_when_the_nanny_dies() {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::CONT)) {
        debug!(%error, "a stopped worker would not notice its nanny's death");
    }
}

/// Ends this process and, since the nanny made it the leader of a process group, everything it started.
fn end_process_group() {
    error!(target: "distributed.worker", "The nanny is gone; ending the worker process");
    if getpgrp() == getpid() {
        let _ = kill_current_process_group(Signal::KILL);
    }
    let _ = kill_process(getpid(), Signal::KILL);
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn news_goes_up_and_the_order_to_stop_comes_down() {
        let (mut nanny, worker) = UnixStream::pair().expect("socket pair");
        let mut link = NannyLink::watch(worker, || ()).expect("thread");
        (link.on_registered().0)(&"tcp://127.0.0.1:1".into(), Path::new("/tmp/w"));
        link.closing_gracefully("done");
        let told: Vec<FromWorker> =
            (0..2).map(|_| nanny_link::read(&mut nanny).expect("message").expect("not ended")).collect();
        assert_eq!(
            told,
            [
                FromWorker::Started { address: "tcp://127.0.0.1:1".into(), local_directory: "/tmp/w".into() },
                FromWorker::ClosingGracefully { reason: "done".to_owned() },
            ]
        );
        nanny_link::write(&mut nanny, &FromNanny::Stop { timeout: 4.0, reason: "nanny-kill".to_owned() })
            .expect("written");
        let stop = tokio::time::timeout(DEADLINE, link.stop_requested()).await.expect("in time");
        assert_eq!(stop, StopRequest { timeout: 4.0, reason: "nanny-kill".to_owned() });
    }

    #[test]
    fn losing_the_nanny_is_noticed() {
        let (nanny, worker) = UnixStream::pair().expect("socket pair");
        let (lost, noticed) = mpsc::channel();
        let _link = NannyLink::watch(worker, move || lost.send(()).expect("the test waits")).expect("thread");
        drop(nanny);
        noticed.recv_timeout(DEADLINE).expect("noticed");
    }
}
