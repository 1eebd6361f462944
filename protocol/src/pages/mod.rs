//! The listening side of the processes' HTTP servers: how many callers at a time, and for how long each may dawdle.

mod room;

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::room::{Place, Room};
use crate::comm::PageTls;

/// Connections at a time; a browser has six. For further ones those make room that have waited longest without a request.
const CONNECTIONS_MAX: usize = 1024;
/// How long a caller may take to send the head of a request; also how long it may keep a connection that it does not use.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Pause after an accept that failed, such as for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on `host:port`, `:port` or a bare port. A port that is taken is replaced by a free one.
///
/// # Errors
/// When the system refuses, or the text is no such address.
pub async fn bind(wanted: &str) -> std::io::Result<TcpListener> {
    let (host, port) = match wanted.rsplit_once(':') {
        Some((host, port)) => (host.trim_matches(['[', ']']), port),
        None => ("", wanted),
    };
    let port: u16 = if port.is_empty() { 0 } else { port.parse().map_err(std::io::Error::other)? };
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    match TcpListener::bind((host, port)).await {
        Err(taken) if taken.kind() == std::io::ErrorKind::AddrInUse => {
            let listener = TcpListener::bind((host, 0)).await?;
            warn!(
                target: "distributed.node",
                "Port {port} is already in use.\nPerhaps you already have a cluster running?\n\
                 Hosting the HTTP server on port {} instead", listener.local_addr()?.port()
            );
            Ok(listener)
        }
        bound => bound,
    }
}

/// Serves until `closing`. `pages` makes what answers one caller.
pub async fn serve<F, S, B>(listener: TcpListener, tls: Option<PageTls>, closing: CancellationToken, pages: F)
where
    F: Fn(SocketAddr) -> S,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let room = Room::new(CONNECTIONS_MAX);
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => return,
            accepted = accept(&listener, &room) => accepted,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        let (pages, tls, closing, place) = (pages(peer), tls.clone(), closing.clone(), Arc::new(place));
        tokio::spawn(async move {
            let sent_away = place.sent_away.clone();
            tokio::select! {
                () = closing.cancelled() => {}
                () = sent_away.cancelled() => debug!(target: "distributed.http", %peer, "made room for another caller"),
                () = greet(stream, peer, tls, pages, place) => {}
            }
        });
    }
}

/// The next caller, once there is room.
async fn accept(listener: &TcpListener, room: &Arc<Room>) -> Option<(TcpStream, SocketAddr, Place)> {
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, room.enter().await)),
        Err(error) => {
            debug!(target: "distributed.http", %error, "no connection to the HTTP server");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Speaks TLS first, if there is a certificate.
async fn greet<S, B>(stream: TcpStream, peer: SocketAddr, tls: Option<PageTls>, pages: S, place: Arc<Place>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Some(tls) = tls else { return converse(stream, peer, pages, place).await };
    match timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => converse(stream, peer, pages, place).await,
        Ok(Err(error)) => debug!(target: "distributed.http", %peer, %error, "no TLS with a caller of the HTTP server"),
        Err(_) => debug!(target: "distributed.http", %peer, "a caller of the HTTP server is too slow for TLS"),
    }
}

async fn converse<I, S, B>(stream: I, peer: SocketAddr, pages: S, place: Arc<Place>)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let service = service_fn(move |request| {
        place.set_busy(true);
        let (answer, place) = (pages.call(request), Arc::clone(&place));
        async move {
            let answer = answer.await;
            place.set_busy(false);
            answer
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = serving.await {
        debug!(target: "distributed.http", %peer, %error, "an HTTP connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_replaced() {
        let first = bind("127.0.0.1:0").await.expect("a free port");
        let port = first.local_addr().expect("bound").port();
        let second = bind(&format!("127.0.0.1:{port}")).await.expect("another port");
        assert_ne!(second.local_addr().expect("bound").port(), port);
    }
}
