//! `/metrics`: Prometheus text by upstream's names.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use axum::extract::State as Of;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::super::heartbeat::on_disk;
use super::super::shared::Shared;

/// `/metrics`.
pub(super) async fn page(Of(shared): Of<Arc<Shared>>) -> impl IntoResponse {
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
        (
            "transfer_borrowed_bytes_total",
            "counter",
            "Bytes copied from the memory of peers on this machine.",
            &transfers.borrowed_bytes_total,
        ),
    ];
    for (name, kind, help, counter) in bytes {
        text.one(name, kind, help, counter.load(Ordering::Relaxed));
    }
    let (ticks, longest) = transfers.take_ticks();
    text.one("tick_count_total", "counter", "Ticks of the worker's loop.", ticks);
    let help = "Longest tick of the worker's loop since these figures were last read.";
    text.one("tick_duration_maximum_seconds", "gauge", help, longest);
    text.one("gc_collection_seconds_total", "counter", "Seconds of garbage collection: there is none.", 0);
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
