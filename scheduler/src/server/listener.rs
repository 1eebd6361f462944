//! Incoming connections: handshake, then requests until the peer leaves or one of them takes the connection over.

use std::sync::Arc;

use dask_protocol::comm::{Comm, Incoming, Listener};
use dask_protocol::message::{Message, Request};
use dask_protocol::{Address, CommError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, error, warn};

use super::failure::reply;
use super::shared::Server;
use super::{client_stream, rpc, worker_stream};

/// Most connections at a time, each with two buffers; the operating system's limit of files usually comes first.
const CONNECTIONS_MAX: usize = 65_536;

/// Most connections that have not introduced themselves: those that never do, until their time is over, leave room for the
/// others.
const HANDSHAKES_MAX: usize = CONNECTIONS_MAX / 4;

/// How many more connections there may be.
pub(crate) struct Room {
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
}

impl Room {
    pub(crate) fn new() -> Room {
        let of = |n| Arc::new(Semaphore::new(n));
        Room { connections: of(CONNECTIONS_MAX), handshakes: of(HANDSHAKES_MAX) }
    }

    /// A place for a connection, and one for its handshake; else why there is none.
    fn take(&self) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), String> {
        let take = |room: &Arc<Semaphore>, full: String| Arc::clone(room).try_acquire_owned().map_err(|_| full);
        let handshake = take(&self.handshakes, format!("{HANDSHAKES_MAX} connections have not introduced themselves"))?;
        Ok((take(&self.connections, format!("{CONNECTIONS_MAX} connections are open"))?, handshake))
    }
}

/// Accepts until the scheduler closes. Nothing a caller does delays the next one.
pub(crate) async fn serve(server: Arc<Server>, listener: Listener, room: Arc<Room>) {
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
        let (permit, handshake) = match room.take() {
            Ok(permits) => permits,
            Err(full) => {
                warn!(target: "distributed.core", "refused {}: {full}", incoming.peer());
                continue;
            }
        };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            connection(server, incoming, handshake).await;
            drop(permit);
        });
    }
}

async fn connection(server: Arc<Server>, incoming: Incoming, introducing: OwnedSemaphorePermit) {
    let peer = incoming.peer();
    let closing = server.closing.clone();
    let served = async {
        match incoming.handshake().await {
            Ok(comm) => {
                drop(introducing);
                serve_requests(server, comm).await;
            }
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
