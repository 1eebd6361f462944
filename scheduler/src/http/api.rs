//! `/api/v1`: what autoscalers ask and do (`distributed.http.scheduler.api`), and `explain`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::{Extension, Router, routing};
use dask_protocol::Address;
use serde::Deserialize;
use serde_json::json;
use tracing::info;

use super::json::to_json;
use super::site::{Site, Unavailable};
use crate::server::peers::name_text;
use crate::server::rpc::explain::explain_text;
use crate::server::rpc::retire::retire_addresses;
use crate::state::WorkersToClose;

/// The routes below `/api/v1`.
pub(super) fn routes() -> Router<Arc<Site>> {
    Router::new()
        .route("/api/v1", routing::get(|| async { "API V1" }))
        .route("/api/v1/retire_workers", routing::post(retire_workers))
        .route("/api/v1/get_workers", routing::get(get_workers))
        .route("/api/v1/adaptive_target", routing::get(adaptive_target))
        .route("/api/v1/check_idle", routing::get(check_idle))
        .route("/api/v1/explain/{*key}", routing::get(explain))
}

#[derive(Deserialize)]
struct Retire {
    /// How many; which ones is for the scheduler to choose.
    #[serde(default)]
    n: usize,
    #[serde(default)]
    workers: Vec<Address>,
}

/// `{"n": 2}` or `{"workers": ["tcp://..."]}`; the answer has an identity for every worker that retired.
async fn retire_workers(
    State(site): State<Arc<Site>>,
    Extension(ConnectInfo(peer)): Extension<ConnectInfo<SocketAddr>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refused) = site.guard.check(Some(peer), &headers) {
        return refused.into_response();
    }
    let wanted: Retire = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => return (StatusCode::BAD_REQUEST, Json(json!({ "Error": error.to_string() }))).into_response(),
    };
    let Retire { n, workers } = wanted;
    let chosen = site.ask(move |core| {
        let alone = |address: &Address| address.as_str().to_owned();
        match n {
            0 => workers.into_iter().filter(|worker| core.workers.contains_key(worker)).collect(),
            n => core.state.workers_to_close(&WorkersToClose { n: Some(n), ..WorkersToClose::default() }, alone),
        }
    });
    let chosen = match chosen.await {
        Ok(chosen) => chosen,
        Err(unavailable) => return unavailable.into_response(),
    };
    info!(target: "distributed.scheduler", "Retire workers {chosen:?}, asked for over HTTP by {peer}");
    match retire_addresses(&site.server, chosen).await {
        Ok(retired) => {
            let retired = retired.0.iter().map(|(worker, identity)| (worker.as_str().to_owned(), to_json(identity)));
            Json(serde_json::Value::Object(retired.collect())).into_response()
        }
        Err(_) => Unavailable::Closing.into_response(),
    }
}

async fn get_workers(State(site): State<Arc<Site>>) -> Result<Response, Unavailable> {
    let workers = site.ask(|core| {
        let worker = |(address, peer): (&Address, &crate::server::peers::WorkerPeer)| {
            json!({ "name": name_text(&peer.info.name), "address": address.as_str() })
        };
        core.workers.iter().map(worker).collect::<Vec<_>>()
    });
    let workers = workers.await?;
    Ok(Json(json!({ "num_workers": workers.len(), "workers": workers })).into_response())
}

async fn adaptive_target(State(site): State<Arc<Site>>) -> Result<Response, Unavailable> {
    let advice = site.ask(|core| core.state.scaling_advice(core.clock.now())).await?;
    Ok(Json(json!({ "workers": advice.workers, "reason": advice.reason.to_string() })).into_response())
}

async fn check_idle(State(site): State<Arc<Site>>) -> Result<Response, Unavailable> {
    let since = site.ask(|core| core.state.idle_since()).await?;
    Ok(Json(json!({ "idle_since": since })).into_response())
}

/// JSON, or plain text where the reader prefers it or asks with `?format=text`.
async fn explain(
    State(site): State<Arc<Site>>,
    Path(key): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Unavailable> {
    let explanation = site.ask(move |core| explain_text(core, &key)).await?;
    let status = if explanation.state.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    if wants_text(query.as_deref(), &headers) {
        return Ok((status, format!("{explanation}\n")).into_response());
    }
    Ok((status, Json(to_json(&explanation.to_value()))).into_response())
}

fn wants_text(query: Option<&str>, headers: &HeaderMap) -> bool {
    let asked = query.is_some_and(|query| query.split('&').any(|part| part == "format=text"));
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    asked || accepted.is_some_and(|accept| accept.trim_start().starts_with("text/plain"))
}
