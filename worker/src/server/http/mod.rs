//! The worker's small HTTP server: `/health`, `/status` and Prometheus' `/metrics`.

mod metrics;

use std::fmt::Write as _;
use std::sync::{Arc, PoisonError};

use axum::extract::State as Of;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, header};
use axum::response::Html;
use axum::routing::get;
use axum::{Json, Router};
use dask_protocol::comm::PageTls;
use dask_protocol::pages;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::TcpListener;

use super::heartbeat::on_disk;
use super::shared::Shared;

const SCRIPT: &str = include_str!("../../../assets/worker.js");
const STYLE: &str = include_str!("../../../assets/worker.css");
/// Every path there is.
const PATHS: [&str; 10] = [
    "/",
    "/health",
    "/status",
    "/system",
    "/counters",
    "/metrics",
    "/json/status.json",
    "/sitemap.json",
    "/statics/worker.js",
    "/statics/worker.css",
];

/// Serves until the worker stops.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener, tls: Option<PageTls>) {
    let stop = shared.stop.clone();
    let routes = Router::new()
        // Relative, so that it is right through the scheduler's proxy as well.
        .route("/", get(|| async { (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, "status")]) }))
        .route("/health", get(|| async { "ok" }))
        .route("/status", get(status))
        .route("/system", get(status))
        .route("/counters", get(metrics::page))
        .route("/metrics", get(metrics::page))
        .route("/json/status.json", get(status_json))
        .route("/sitemap.json", get(|| async { Json(json!({ "paths": PATHS })) }))
        .route("/statics/worker.js", get(|| async { ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT) }))
        .route("/statics/worker.css", get(|| async { ([(CONTENT_TYPE, "text/css; charset=utf-8")], STYLE) }))
        .with_state(shared);
    pages::serve(listener, tls, stop, move |_| TowerToHyperService::new(routes.clone())).await;
}

async fn status_json(Of(shared): Of<Arc<Shared>>) -> Json<serde_json::Value> {
    Json(summary(&shared).await)
}

/// Complete without its script, which draws what changes.
async fn status(Of(shared): Of<Arc<Shared>>) -> Html<String> {
    let summary = summary(&shared).await;
    let text = |name: &str| match &summary[name] {
        serde_json::Value::String(text) => escape(text),
        other => escape(&other.to_string()),
    };
    let mut facts = String::new();
    for name in ["status", "scheduler", "nthreads", "memory_limit", "local_directory", "python", "native_tasks"] {
        // Writing to a String cannot fail.
        let _ = write!(facts, "<tr><th>{name}</th><td>{}</td></tr>", text(name));
    }
    let mut tasks = String::new();
    for (state, count) in summary["tasks"].as_object().into_iter().flatten() {
        let _ = write!(tasks, "<tr><th>{}</th><td>{count}</td></tr>", escape(state));
    }
    Html(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Dask worker</title><link rel=\"icon\" \
         href=\"data:,\"><link rel=\"stylesheet\" href=\"statics/worker.css\"><script type=\"module\" \
         src=\"statics/worker.js\"></script></head><body><h1>Dask worker {}</h1><nav><a href=\"metrics\">metrics</a>\
         <a href=\"json/status.json\">JSON</a></nav><section><h2>CPU</h2><canvas id=\"cpu\"></canvas></section><section>\
         <h2>Memory</h2><canvas id=\"memory\"></canvas></section><section><h2>Tasks</h2><table id=\"tasks\">{tasks}\
         </table></section><section><table>{facts}</table></section></body></html>",
        text("address")
    ))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

async fn summary(shared: &Shared) -> serde_json::Value {
    let tasks = shared.ask(|state| state.task_counts().map(|(name, n)| (name.to_owned(), json!(n))).collect()).await;
    let tasks: serde_json::Map<String, serde_json::Value> = tasks.unwrap_or_default();
    let sample = shared.monitor.lock().unwrap_or_else(PoisonError::into_inner).recent();
    let identity = &shared.identity;
    json!({
        "address": identity.address.as_str(),
        "scheduler": identity.scheduler.as_str(),
        "status": shared.status().name(),
        "nthreads": identity.nthreads,
        "memory_limit": identity.memory_limit,
        "local_directory": identity.local_directory,
        "python": shared.python().is_some(),
        "native_tasks": shared.registry.names(),
        "tasks": tasks,
        "managed_bytes": shared.store.nbytes(),
        "spilled_bytes": { "memory": shared.store.spilled_nbytes(), "disk": on_disk(shared) },
        "process_bytes": sample.memory,
        "cpu": sample.cpu,
    })
}
