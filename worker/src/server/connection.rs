//! Incoming connections: one task each, one request at a time.

use std::sync::Arc;

use dask_protocol::comm::{Comm, Incoming, Listener};
use dask_protocol::message::{Message, Request};
use tracing::{debug, warn};

use super::calls::{self, Answer};
use super::shared::Shared;

/// Takes connections until the worker stops.
pub(crate) async fn accept(shared: Arc<Shared>, listener: Listener) {
    loop {
        let incoming = tokio::select! {
            () = shared.stop.cancelled() => return,
            incoming = listener.accept() => incoming,
        };
        match incoming {
            Ok(incoming) => drop(tokio::spawn(serve(Arc::clone(&shared), incoming))),
            Err(error) => {
                warn!(target: "distributed.worker", %error, "the worker cannot take connections any more");
                return;
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, incoming: Incoming) {
    let peer = incoming.peer();
    let stop = shared.stop.clone();
    let talk = async {
        match incoming.handshake().await {
            Ok(comm) => answer_requests(&shared, comm).await,
            Err(error) => debug!(%peer, %error, "connection refused"),
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = talk => {}
    }
}

async fn answer_requests(shared: &Arc<Shared>, mut comm: Comm) {
    // The end of a connection, however it comes, is the caller's affair.
    while let Ok(message) = comm.recv().await {
        let request = match Request::from_message(message) {
            Ok(request) => request,
            Err(error) => {
                warn!(target: "distributed.worker", peer = %comm.peer(), %error, "closing a connection that sent no request");
                return;
            }
        };
        let sent = match calls::answer(shared, &mut comm, &request).await {
            Answer::Reply(reply) if request.reply => reply_with(&mut comm, &reply).await,
            Answer::Reply(_) | Answer::Done => true,
            Answer::Close => return,
        };
        if !sent || request.close {
            return;
        }
    }
}

async fn reply_with(comm: &mut Comm, reply: &dask_protocol::Value) -> bool {
    let sent = match Message::encode(reply) {
        Ok(message) => comm.send(&message).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &sent {
        debug!(peer = %comm.peer(), %error, "could not reply");
    }
    sent.is_ok()
}
