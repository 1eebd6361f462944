//! `subscribe_worker_status`: a cluster object follows which workers come and go.

use std::sync::Arc;

use dask_protocol::Value;
use dask_protocol::comm::{BatchedSender, Comm};
use dask_protocol::message::Request;

use super::super::identity;
use super::super::listener::explain_end;
use super::super::shared::Server;

/// Answers with the identity, then tells of every change until the peer leaves.
pub(crate) async fn subscribe(server: Arc<Server>, mut comm: Comm, request: Request) {
    let peer = comm.peer().clone();
    let shared = Arc::clone(&server);
    let Ok(identity) = server.driver.run(move |core| identity::scheduler(&shared, core, -1)).await else { return };
    if request.reply
        && let Err(error) = comm.send_value(&without_metrics(identity)).await
    {
        return explain_end(&peer, &error);
    }
    let (mut reader, writer) = comm.split();
    let sender = BatchedSender::spawn(writer);
    let listener = sender.clone();
    if server.driver.run(move |core| core.follow_workers(listener)).await.is_err() {
        return;
    }
    loop {
        if let Err(error) = reader.recv().await {
            // The driver drops its handle with the next change.
            sender.abort();
            return explain_end(&peer, &error);
        }
    }
}

fn without_metrics(identity: Value) -> Value {
    let Value::Map(entries) = identity else { return identity };
    let trim = |(name, value): (Value, Value)| match (name.as_str(), value) {
        (Some("workers"), Value::Map(workers)) => {
            let workers = workers.into_iter().map(|(address, one)| (address, identity::without_metrics(one)));
            (name, Value::Map(workers.collect()))
        }
        (_, value) => (name, value),
    };
    Value::Map(entries.into_iter().map(trim).collect())
}
