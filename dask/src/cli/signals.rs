//! SIGINT and SIGTERM: the first one asks a command to close, a second one ends it at once.

use std::future::Future;
use std::io;
use std::process::exit;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

/// How long a command may take to close after a signal.
pub const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// Listens to both signals; their usual effect is off from now on.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Starts listening. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The number of the next signal, which is logged. Cancel-safe.
    pub async fn received(&mut self) -> i32 {
        let number = self.next().await;
        let name = if number == SignalKind::interrupt().as_raw_value() { "SIGINT" } else { "SIGTERM" };
        info!(target: "distributed._signals", "Received signal {name} ({number})");
        number
    }

    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
        }
    }

    /// Waits for `closing`, at most `wait`. Another signal meanwhile ends the process at once, with the status shells
    /// give to a death by that signal; children notice by their links.
    pub async fn while_closing<T>(mut self, wait: Duration, closing: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = closing => Some(done),
            () = tokio::time::sleep(wait) => {
                error!(target: "distributed._signals", "Not closed within {} s; ending now", wait.as_secs());
                None
            }
            number = self.next() => exit(128 + number),
        }
    }
}
