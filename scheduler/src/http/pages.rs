//! The plain pages: no scripts, no assets; they load themselves again.

use std::fmt::Write;

use super::snapshot::{STATES, Snapshot, WorkerRow};
use crate::state::TaskState;

const RELOAD_SECONDS: u32 = 2;
/// Deaths of workers told on the page of all workers; each has a page of its own as well.
const DEATHS_SHOWN: usize = 10;
const STYLE: &str = "body{font-family:system-ui,sans-serif;margin:2em;color:#222}table{border-collapse:collapse;margin:1em 0}\
    th,td{padding:.3em .8em;text-align:right;border-bottom:1px solid #ddd}th{background:#f4f4f4}td:first-child,\
    th:first-child{text-align:left}h1{font-size:1.3em}.bar{background:#eee;width:8em;height:.8em;display:inline-block}\
    .bar>i{background:#f5a623;height:100%;display:block}.erred{color:#b00}";

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" \
         content=\"{RELOAD_SECONDS}\"><title>{}</title><style>{STYLE}</style></head><body>{body}</body></html>",
        escape(title)
    )
}

/// Text as it may stand in HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// `/status`: tasks by state, then a row per worker.
pub(super) fn status(snapshot: &Snapshot) -> String {
    let mut body = format!("<h1>Scheduler {}</h1>", escape(&snapshot.address));
    let threads: u64 = snapshot.workers.iter().map(|worker| u64::from(worker.nthreads)).sum();
    // Writing to a String cannot fail, here and below.
    let _ = write!(
        body,
        "<p>{} workers, {threads} threads, {} clients, up {:.0} s</p>",
        snapshot.workers.len(),
        snapshot.clients.len(),
        snapshot.now - snapshot.started
    );
    body += "<table><tr><th>tasks</th>";
    STATES.iter().for_each(|state| body += &format!("<th>{}</th>", state.name()));
    let _ = write!(body, "</tr><tr><td>{}</td>", snapshot.tasks.iter().sum::<usize>());
    for (state, count) in STATES.iter().zip(snapshot.tasks) {
        let class = if *state == TaskState::Erred && count > 0 { " class=\"erred\"" } else { "" };
        let _ = write!(body, "<td{class}>{count}</td>");
    }
    body += "</tr></table><table><tr><th>worker</th><th>name</th><th>status</th><th>threads</th><th>processing</th>\
        <th>in memory</th><th>stored</th><th>memory</th><th>cpu</th><th>last seen</th></tr>";
    snapshot.workers.iter().for_each(|worker| body += &row(worker, snapshot.now));
    body += "</table>";
    if !snapshot.deaths.is_empty() {
        body += "<h1>Workers that died</h1>";
        for (_, text) in snapshot.deaths.iter().take(DEATHS_SHOWN) {
            let _ = write!(body, "<pre>{}</pre>", escape(text));
        }
    }
    page("Dask: status", &body)
}

fn row(worker: &WorkerRow, now: f64) -> String {
    let address = escape(&worker.address);
    let link = worker.address.replace(':', "%3A").replace('/', "%2F");
    format!(
        "<tr><td><a href=\"/info/worker/{link}.html\">{address}</a></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
         <td>{}</td><td>{}</td><td>{} {}</td><td>{:.0}%</td><td>{:.1} s ago</td></tr>",
        escape(&worker.name),
        worker.status.name(),
        worker.nthreads,
        worker.processing,
        worker.in_memory,
        bytes(worker.nbytes),
        bytes(worker.memory),
        bar(worker.memory, worker.memory_limit),
        worker.cpu,
        (now - worker.last_seen).max(0.0),
    )
}

fn bar(used: u64, limit: u64) -> String {
    if limit == 0 {
        return String::new();
    }
    let percent = used.saturating_mul(100).checked_div(limit).unwrap_or(0).min(100);
    format!("<span class=\"bar\"><i style=\"width:{percent}%\"></i></span>")
}

/// `/info/worker/<address>.html`.
pub(super) fn worker(worker: &WorkerRow) -> String {
    let nanny = worker.nanny.as_deref().map_or_else(|| "none".to_owned(), escape);
    let metrics = serde_json::to_string_pretty(&worker.metrics).unwrap_or_default();
    let own_page = worker.dashboard.map_or_else(String::new, |port| {
        let host = escape(dask_protocol::Address::from(worker.address.as_str()).host());
        format!(" | <a href=\"/proxy/{port}/{host}/status\">its own page</a>")
    });
    let body = format!(
        "<p><a href=\"/status\">all workers</a>{own_page}</p><h1>Worker {}</h1><p>name {}, nanny {nanny}, directory {}, \
         memory limit {}</p><pre>{}</pre>",
        escape(&worker.address),
        escape(&worker.name),
        escape(&worker.local_directory),
        if worker.memory_limit == 0 { "none".to_owned() } else { bytes(worker.memory_limit) },
        escape(&metrics),
    );
    page(&format!("Worker {}", worker.name), &body)
}

/// The page of a worker that died.
pub(super) fn post_mortem(worker: &str, text: &str) -> String {
    let body = format!("<p><a href=\"/status\">all workers</a></p><pre>{}</pre>", escape(text));
    page(&format!("Worker {worker}"), &body)
}

/// As `dask.utils.format_bytes`.
#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u32); 5] = [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("kiB", 10)];
    for (unit, shift) in UNITS {
        let whole = 1_u64 << shift;
        if count as f64 >= whole as f64 * 0.9 {
            return format!("{:.2} {unit}", count as f64 / whole as f64);
        }
    }
    format!("{count} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_peers_cannot_become_markup() {
        assert_eq!(escape("<b a=\"1\">&"), "&lt;b a=&quot;1&quot;&gt;&amp;");
    }

    #[test]
    fn bytes_read_as_dask_prints_them() {
        assert_eq!([bytes(1), bytes(1024), bytes(25_280_000_000)], ["1 B", "1.00 kiB", "23.54 GiB"]);
    }
}
