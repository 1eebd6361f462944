//! The HTTP server: health, metrics, JSON and a plain live page. It reads snapshots and changes nothing.

mod explain;
mod metrics;
mod pages;
mod proxy;
pub(crate) mod report;
mod snapshot;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Router};
use dask_protocol::{KeyRef, Value};
use serde_json::json;
use tokio::net::TcpListener;
use tracing::{error, warn};

use self::snapshot::Snapshot;
use crate::server::Server;

/// Starts serving, if a dashboard address is set. A port that is taken is replaced by a free one.
pub(crate) async fn start(server: &Arc<Server>) {
    let Some(wanted) = &server.options.dashboard_address else { return };
    let listener = match bind(wanted).await {
        Ok(listener) => listener,
        Err(error) => {
            error!(target: "distributed.scheduler", "No dashboard: cannot listen on {wanted:?}: {error}");
            return;
        }
    };
    let Ok(address) = listener.local_addr() else { return };
    // Set once here, before anybody can ask.
    let _ = server.dashboard_port.set(address.port());
    let router = router(Arc::clone(server));
    let closing = server.closing.clone();
    tokio::spawn(async move {
        let serving = axum::serve(listener, router).with_graceful_shutdown(closing.cancelled_owned());
        if let Err(error) = serving.await {
            error!(target: "distributed.scheduler", "The dashboard ended: {error}");
        }
    });
}

/// Listens on `host:port`, `:port` or a bare port.
async fn bind(wanted: &str) -> std::io::Result<TcpListener> {
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

fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::permanent("/status") }))
        .route("/health", get(|| async { "ok" }))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/workers", get(status))
        .route("/info/main/workers.html", get(status))
        .route("/info/worker/{worker}", get(worker))
        .route("/json/counts.json", get(counts))
        .route("/api/v1/explain/{*key}", get(explain::explain))
        .route("/json/identity.json", get(identity))
        .route("/individual-plots.json", get(plots))
        .route("/sitemap.json", get(sitemap))
        .route("/proxy/{port}/{host}/{*path}", get(proxy::proxy))
        .layer(Extension(proxy::Proxy::new()))
        .with_state(server)
}

/// A page made from a snapshot; 503 while the scheduler closes.
async fn with_snapshot(server: Arc<Server>, page: impl FnOnce(Snapshot) -> Response) -> Response {
    match Snapshot::take(&server).await {
        Ok(snapshot) => page(snapshot),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the scheduler is closing").into_response(),
    }
}

async fn metrics(State(server): State<Arc<Server>>) -> Response {
    with_snapshot(server, |snapshot| {
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::text(&snapshot)).into_response()
    })
    .await
}

async fn status(State(server): State<Arc<Server>>) -> Response {
    with_snapshot(server, |snapshot| Html(pages::status(&snapshot)).into_response()).await
}

async fn worker(State(server): State<Arc<Server>>, Path(worker): Path<String>) -> Response {
    let wanted = worker.trim_end_matches(".html").to_owned();
    with_snapshot(server, move |snapshot| match snapshot.workers.iter().find(|worker| worker.address == wanted) {
        Some(worker) => Html(pages::worker(worker)).into_response(),
        None => match snapshot.deaths.iter().find(|(worker, _)| *worker == wanted) {
            Some((worker, text)) => Html(pages::post_mortem(worker, text)).into_response(),
            None => (StatusCode::NOT_FOUND, format!("no worker {wanted}")).into_response(),
        },
    })
    .await
}

async fn counts(State(server): State<Arc<Server>>) -> Response {
    with_snapshot(server, |snapshot| Json(snapshot.counts()).into_response()).await
}

async fn identity(State(server): State<Arc<Server>>) -> Response {
    let shared = Arc::clone(&server);
    match server.driver.run(move |core| crate::server::identity::scheduler(&shared, core, -1)).await {
        Ok(identity) => Json(json(&identity)).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the scheduler is closing").into_response(),
    }
}

async fn plots() -> Json<serde_json::Value> {
    Json(json!({ "Status": "/status", "Workers": "/workers" }))
}

async fn sitemap() -> Json<serde_json::Value> {
    let paths = [
        "/health",
        "/metrics",
        "/status",
        "/workers",
        "/info/main/workers.html",
        "/json/counts.json",
        "/json/identity.json",
        "/individual-plots.json",
        "/sitemap.json",
    ];
    Json(json!({ "paths": paths }))
}

/// A message value as JSON. Bytes and payloads have no form there and become null.
pub fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Nil | Value::Bin(_) | Value::Payload(_) => serde_json::Value::Null,
        Value::Bool(b) => json!(b),
        Value::Int(i) => json!(i),
        Value::UInt(u) => json!(u),
        Value::Float(f) => json!(f),
        Value::Str(s) => json!(s),
        Value::Array(items) | Value::Set(items) => items.iter().map(json).collect(),
        Value::Map(entries) => {
            let entry = |(name, value): &(Value, Value)| (field_name(name), json(value));
            serde_json::Value::Object(entries.iter().map(entry).collect())
        }
        Value::Enum { name, .. } => json!(name),
    }
}

/// JSON's field names are text: other keys print as Python would.
fn field_name(name: &Value) -> String {
    match name.to_key() {
        None => String::new(),
        Some(key) => match key.as_ref() {
            KeyRef::Str(text) => text.to_owned(),
            KeyRef::Int(_) | KeyRef::UInt(_) | KeyRef::Float(_) | KeyRef::Bytes(_) | KeyRef::Tuple(_) => {
                key.to_string()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_json() {
        let value = Value::map([("a", Value::from(vec![1_i64, 2])), ("b", Value::Bin(vec![1].into()))]);
        assert_eq!(json(&value), json!({ "a": [1, 2], "b": null }));
        let tuple_key = Value::Map(vec![(Value::from(vec!["x", "y"]), Value::Nil)]);
        assert_eq!(json(&tuple_key), json!({ "('x', 'y')": null }));
    }

    #[tokio::test]
    async fn a_taken_port_is_replaced() {
        let first = bind("127.0.0.1:0").await.expect("a free port");
        let port = first.local_addr().expect("bound").port();
        let second = bind(&format!("127.0.0.1:{port}")).await.expect("another port");
        assert_ne!(second.local_addr().expect("bound").port(), port);
    }
}
