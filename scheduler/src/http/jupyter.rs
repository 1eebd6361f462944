//! `/jupyter/...`: the Jupyter server beside the scheduler, its websockets included.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Extension, Router};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::net::UnixStream;
use tracing::debug;

use crate::server::jupyter::Jupyter;

/// Its pages have their own headers: they may show what the scheduler's may not.
pub(super) fn routes(jupyter: Arc<Jupyter>) -> Router {
    let base = &jupyter.base;
    Router::new()
        .route(base, any(pass_on))
        .route(&format!("{base}/"), any(pass_on))
        .route(&format!("{base}/{{*path}}"), any(pass_on))
        .layer(Extension(jupyter))
}

async fn pass_on(Extension(jupyter): Extension<Arc<Jupyter>>, request: Request) -> Response {
    match exchange(&jupyter, request).await {
        Ok(response) => response,
        Err(error) => {
            let text = format!("the Jupyter server beside the scheduler does not answer: {error}\n");
            (StatusCode::BAD_GATEWAY, text).into_response()
        }
    }
}

async fn exchange(jupyter: &Jupyter, mut request: Request) -> io::Result<Response> {
    let stream = UnixStream::connect(&jupyter.socket).await?;
    let (mut sender, connection) = http1::handshake::<_, Body>(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection.with_upgrades());
    let caller = request.extensions_mut().remove::<OnUpgrade>();
    let wants_upgrade = request.headers().contains_key(header::UPGRADE);
    *request.version_mut() = Version::HTTP_11;
    if !wants_upgrade {
        // About the caller's connection, not about this one.
        request.headers_mut().remove(header::CONNECTION);
    }
    let mut response = sender.send_request(request).await.map_err(io::Error::other)?;
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(caller)) = (response.status(), caller) {
        tokio::spawn(join(caller, hyper::upgrade::on(&mut response)));
    }
    Ok(response.map(Body::new))
}

/// Passes on what both say until one of them leaves.
async fn join(caller: OnUpgrade, server: OnUpgrade) {
    let (caller, server) = match tokio::try_join!(caller, server) {
        Ok(both) => both,
        Err(error) => {
            debug!(target: "distributed.http", %error, "no websocket to the Jupyter server");
            return;
        }
    };
    // Either end may just go away.
    let _ = copy_bidirectional(&mut TokioIo::new(caller), &mut TokioIo::new(server)).await;
}
