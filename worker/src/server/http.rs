//! The worker's small HTTP server: `/health`, `/status` and Prometheus' `/metrics`.

use std::fmt::Write as _;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use axum::extract::State as Of;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

use super::heartbeat::on_disk;
use super::shared::Shared;

/// Binds `host:port`; an empty host means every interface.
pub(crate) async fn bind(address: &str) -> io::Result<TcpListener> {
    let text = address.strip_prefix(':').map_or_else(|| address.to_owned(), |port| format!("0.0.0.0:{port}"));
    TcpListener::bind(text).await
}

/// Serves until the worker stops.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let stop = shared.stop.clone();
    let routes = Router::new()
        .route("/health", get(|| async { "ok" }))
        .route("/status", get(status))
        .route("/json/status.json", get(status_json))
        .route("/metrics", get(metrics))
        .with_state(shared);
    let served = axum::serve(listener, routes).with_graceful_shutdown(async move { stop.cancelled().await }).await;
    if let Err(error) = served {
        tracing::warn!(target: "distributed.worker", %error, "the HTTP server stopped");
    }
}

async fn status_json(Of(shared): Of<Arc<Shared>>) -> Json<serde_json::Value> {
    Json(summary(&shared).await)
}

async fn status(Of(shared): Of<Arc<Shared>>) -> Html<String> {
    let summary = summary(&shared).await;
    let pretty = serde_json::to_string_pretty(&summary).unwrap_or_default();
    Html(format!("<!doctype html><title>Dask worker</title><h1>Dask worker</h1><pre>{}</pre>", escape(&pretty)))
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

async fn metrics(Of(shared): Of<Arc<Shared>>) -> impl IntoResponse {
    let counts = shared.ask(|state| state.task_counts().collect::<Vec<_>>()).await.unwrap_or_default();
    let memory = shared.monitor.lock().unwrap_or_else(PoisonError::into_inner).recent().memory;
    let managed = u64::try_from(shared.store.nbytes_in_memory()).unwrap_or(0).min(memory);
    let mut text = Exposition::default();
    text.head("tasks", "gauge", "Number of tasks at worker.");
    for (state, count) in counts {
        text.row(&format!("tasks{{state=\"{state}\"}}"), count);
    }
    text.one("threads", "gauge", "Number of worker threads.", shared.identity.nthreads);
    text.one("latency_seconds", "gauge", "Latency of worker connection to the scheduler.", shared.metrics.latency());
    text.head("memory_bytes", "gauge", "Memory breakdown.");
    text.row("memory_bytes{type=\"managed\"}", managed);
    text.row("memory_bytes{type=\"unmanaged\"}", memory.saturating_sub(managed));
    text.row("memory_bytes{type=\"spilled\"}", on_disk(&shared));
    if let Some(spilling) = &shared.spilling {
        let counts = spilling.directory().counts();
        let families = [
            ("spill_bytes_total", "Total size of", &counts.written_bytes, &counts.read_bytes),
            ("spill_count_total", "Total number of", &counts.written, &counts.read),
        ];
        for (name, what, written, read) in families {
            text.head(
                name,
                "counter",
                &format!("{what} disk accesses caused by managed data since the worker's start."),
            );
            text.row(&format!("{name}{{activity=\"disk_write\"}}"), written.load(Ordering::Relaxed));
            text.row(&format!("{name}{{activity=\"disk_read\"}}"), read.load(Ordering::Relaxed));
        }
    }
    let transfers = &shared.metrics;
    let counts = [
        ("transfer_incoming_count", "gauge", "Transfers from peers in progress.", &transfers.incoming_count),
        ("transfer_incoming_count_total", "counter", "Transfers from peers.", &transfers.incoming_count_total),
        ("transfer_outgoing_count", "gauge", "Transfers to peers in progress.", &transfers.outgoing_count),
        ("transfer_outgoing_count_total", "counter", "Transfers to peers.", &transfers.outgoing_count_total),
    ];
    for (name, kind, help, counter) in counts {
        text.one(name, kind, help, counter.load(Ordering::Relaxed));
    }
    let bytes = [
        ("transfer_incoming_bytes", "gauge", "Bytes coming from peers.", &transfers.incoming_bytes),
        ("transfer_outgoing_bytes", "gauge", "Bytes going to peers.", &transfers.outgoing_bytes),
        ("transfer_outgoing_bytes_total", "counter", "Bytes sent to peers.", &transfers.outgoing_bytes_total),
    ];
    for (name, kind, help, counter) in bytes {
        text.one(name, kind, help, counter.load(Ordering::Relaxed));
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.0)
}

/// Prometheus' text format.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP dask_worker_{name} {help}\n# TYPE dask_worker_{name} {kind}")
            .expect("writing to a string does not fail");
    }

    fn row(&mut self, name: &str, value: impl std::fmt::Display) {
        writeln!(self.0, "dask_worker_{name} {value}").expect("writing to a string does not fail");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind, help);
        self.row(name, value);
    }
}
