//! Incoming connections: handshake, then requests until the peer leaves or one of them takes the connection over.

use std::sync::Arc;

use dask_protocol::comm::{Comm, Incoming, Listener};
use dask_protocol::message::{Message, Request};
use dask_protocol::{Address, CommError};
use tokio::sync::Semaphore;
use tracing::{debug, error, warn};

use super::failure::reply;
use super::shared::Server;
use super::{client_stream, rpc, worker_stream};

/// Most connections at a time, each with two buffers; the operating system's limit of files usually comes first.
pub(crate) const CONNECTIONS_MAX: usize = 65_536;

/// Accepts until the scheduler closes. Nothing a caller does delays the next one.
pub(crate) async fn serve(server: Arc<Server>, listener: Listener, room: Arc<Semaphore>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.closing.cancelled() => return,
        };
        let incoming = match accepted {
            Ok(incoming) => incoming,
            Err(error) => {
                error!(target: "distributed.scheduler", "cannot accept connections any more: {error}");
                server.request_close("listener-failed");
                return;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            warn!(target: "distributed.core", "refused {}: {CONNECTIONS_MAX} connections are open", incoming.peer());
            continue;
        };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            connection(server, incoming).await;
            drop(permit);
        });
    }
}

async fn connection(server: Arc<Server>, incoming: Incoming) {
    let peer = incoming.peer();
    let closing = server.closing.clone();
    let served = async {
        match incoming.handshake().await {
            Ok(comm) => serve_requests(server, comm).await,
            Err(error) => explain_end(&peer, &error),
        }
    };
    tokio::select! {
        () = served => {}
        () = closing.cancelled() => {}
    }
}

/// One warning for a peer that breaks the protocol, none for one that leaves.
pub(crate) fn explain_end(peer: &Address, error: &CommError) {
    match error {
        CommError::Closed { .. } | CommError::Io(_) => {
            debug!(target: "distributed.core", %peer, %error, "connection ended")
        }
        CommError::Decode(_)
        | CommError::Connect { .. }
        | CommError::Address { .. }
        | CommError::Handshake { .. }
        | CommError::Tls(_)
        | CommError::Encode(_)
        | CommError::Remote { .. }
        | CommError::Timeout { .. } => {
            warn!(target: "distributed.core", "Closing connection from {peer}: {error}");
        }
    }
}

async fn serve_requests(server: Arc<Server>, mut comm: Comm) {
    let mut early = None;
    loop {
        let message = match early.take() {
            Some(message) => message,
            None => match comm.recv().await {
                Ok(message) => message,
                Err(error) => return explain_end(comm.peer(), &error),
            },
        };
        let request = match Request::from_message(message) {
            Ok(request) => request,
            Err(error) => return explain_end(comm.peer(), &error.into()),
        };
        match request.op() {
            "register-client" => return client_stream::serve(server, comm, request).await,
            "register-worker" => return worker_stream::serve(server, comm, request).await,
            "resume-worker" => return worker_stream::resume(server, comm, request).await,
            "register_nanny" => return rpc::nanny::register(server, comm, request).await,
            "feed" if !server.blocks("feed") => return rpc::feed::serve(server, comm, request).await,
            "subscribe_worker_status" => return rpc::status::subscribe(server, comm, request).await,
            _ => {}
        }
        let close = request.close || request.op() == "close";
        let wanted = request.reply;
        let sent = if request.op() == "gather" && wanted && !server.blocks("gather") {
            // Its reply may be too large to be made before it is sent.
            rpc::gather::serve(&server, &mut comm, &request).await
        } else {
            let Some(answer) = answer(&server, &mut comm, request, &mut early).await else { return };
            if wanted { comm.send(&answer).await } else { Ok(()) }
        };
        if let Err(error) = sent {
            return explain_end(comm.peer(), &error);
        }
        if close {
            return comm.close().await;
        }
    }
}

/// Answers one request. `None` when the peer left while it only waited for something.
async fn answer(
    server: &Arc<Server>,
    comm: &mut Comm,
    request: Request,
    early: &mut Option<Message>,
) -> Option<Message> {
    let op = request.op().to_owned();
    if op == "close" {
        return reply("OK").ok();
    }
    let waits = rpc::only_waits(&op);
    let mut answering = Box::pin(rpc::answer(server, request));
    let answered = if waits {
        loop {
            tokio::select! {
                answered = &mut answering => break answered,
                arrived = comm.recv(), if early.is_none() => match arrived {
                    Ok(message) => *early = Some(message),
                    Err(error) => {
                        explain_end(comm.peer(), &error);
                        return None;
                    }
                },
            }
        }
    } else {
        answering.await
    };
    Some(answered.unwrap_or_else(|failure| failure.tell(&op, comm.peer())))
}
