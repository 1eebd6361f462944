//! `register_nanny`: a nanny tells that it starts a worker, and gets the plugins for itself.

use std::sync::Arc;

use dask_protocol::Address;
use dask_protocol::comm::Comm;
use dask_protocol::message::{RegisterNannyReply, Request};
use serde::Deserialize;
use tokio::sync::watch;

use super::super::failure::Failure;
use super::super::listener::explain_end;
use super::super::shared::Server;

/// How many nannies have plugins and not yet said that they applied them.
pub(crate) struct StartingNannies {
    count: watch::Sender<usize>,
}

impl Default for StartingNannies {
    fn default() -> StartingNannies {
        StartingNannies { count: watch::Sender::new(0) }
    }
}

/// One nanny that starts, until dropped.
struct Starting<'a>(&'a StartingNannies);

impl StartingNannies {
    fn enter(&self) -> Starting<'_> {
        self.count.send_modify(|count| *count += 1);
        Starting(self)
    }

    /// Completes when no nanny is starting.
    pub(crate) async fn settled(&self) {
        // The sender is ours, so waiting cannot fail.
        let _ = self.count.subscribe().wait_for(|&count| count == 0).await;
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.count.send_modify(|count| *count -= 1);
    }
}

/// Sends the plugins, waits until the nanny says how it went, and lets it go.
pub(crate) async fn register(server: Arc<Server>, mut comm: Comm, request: Request) {
    #[derive(Deserialize)]
    struct Args {
        address: Address,
    }
    let peer = comm.peer().clone();
    let exchange = async {
        if let Err(error) = request.args::<Args>().map(|args| args.address) {
            return comm.send(&Failure::from(error).into_message()).await;
        }
        let _starting = server.nannies.enter();
        let nanny_plugins = server.plugins.nanny_plugins();
        comm.send_value(&RegisterNannyReply { status: "OK".into(), nanny_plugins }).await?;
        comm.recv().await?;
        comm.send_value(&()).await
    };
    if let Err(error) = exchange.await {
        explain_end(&peer, &error);
    }
}
