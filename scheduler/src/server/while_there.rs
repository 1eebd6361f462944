//! Calls to workers that end when the worker is removed: a connection to a process that is gone is tried for long otherwise.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use dask_protocol::{Address, CommError};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Server;

/// Calls answered sooner than this cost no question to the driver.
const PROMPT: Duration = Duration::from_millis(100);

impl Server {
    /// What comes of a call to a worker.
    ///
    /// # Errors
    /// The call's own, and [`CommError::Closed`] when the worker is not registered any more.
    pub(crate) async fn while_there<T, E: From<CommError>>(
        &self,
        worker: &Address,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut call = pin!(call);
        if let Ok(answer) = timeout(PROMPT, call.as_mut()).await {
            return answer;
        }
        tokio::select! {
            answer = call => answer,
            () = self.removal(worker) => Err(CommError::Closed { peer: format!("removed worker {worker}") }.into()),
        }
    }

    /// Waits until a worker is removed; at once when there is none of this address.
    async fn removal(&self, worker: &Address) {
        let wanted = worker.clone();
        let removed = self.driver.run(move |core| core.workers.get(&wanted).map(|peer| peer.removed.clone()));
        if let Ok(Some(removed)) = removed.await {
            CancellationToken::cancelled(&removed).await;
        }
    }
}
