//! All workers, workers that died, and tasks that raised.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::super::frame::WorkerRow;
use super::super::html::{bytes, duration, escape};
use super::super::site::{Site, Unavailable};
use super::{page as info_page, task_link, worker_link};

/// Most workers in the table; the live page sorts and shows more.
const WORKERS_MAX: usize = 1_000;
/// Deaths of workers told here; each has a page of its own as well.
const DEATHS_SHOWN: usize = 10;
/// Erred tasks told.
const ERRED_SHOWN: usize = 100;

/// `/info/main/workers.html`.
pub(super) async fn page(State(site): State<Arc<Site>>) -> Result<Response, Unavailable> {
    let frame = site.frame().await?;
    let deaths = site.ask(|core| {
        let deaths = core.state.post_mortems().take(DEATHS_SHOWN);
        deaths.map(|(worker, death)| (worker.clone(), death.clone())).collect::<Vec<_>>()
    });
    let deaths = deaths.await?;
    let mut body = format!(
        "<p>Scheduler {}: {} workers, {} threads, {} clients, up {}</p><table class=\"rows\"><tr><th>worker</th><th>name\
         </th><th>status</th><th>threads</th><th>processing</th><th>in memory</th><th>stored</th><th>memory</th><th>limit\
         </th><th>cpu</th><th>last seen</th><th></th></tr>",
        escape(frame.address.as_str()),
        frame.workers.len(),
        frame.threads(),
        frame.clients,
        duration((frame.now - frame.started).max(0.0)),
    );
    frame.workers.iter().take(WORKERS_MAX).for_each(|worker| body += &row(worker, frame.now));
    body += "</table>";
    if !deaths.is_empty() {
        body += "<h2>Workers that died</h2>";
        for (worker, death) in &deaths {
            let text = escape(&death.to_string());
            // Writing to a String cannot fail, here and below.
            let _ = write!(body, "<p>{}</p><pre>{text}</pre>", worker_link(worker.as_str(), worker.as_str()));
        }
    }
    Ok(info_page("Workers", &body, true))
}

fn row(worker: &WorkerRow, now: f64) -> String {
    let address = worker.address.as_str();
    let own_page = worker.dashboard.map_or_else(String::new, |port| {
        format!("<a href=\"../../proxy/{port}/{}/status\">its own page</a>", escape(worker.address.host()))
    });
    let limit = if worker.memory_limit == 0 { "none".to_owned() } else { bytes(worker.memory_limit) };
    format!(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{limit}</td>\
         <td>{:.0}%</td><td>{:.1} s ago</td><td>{own_page}</td></tr>",
        worker_link(address, address),
        escape(&worker.name),
        worker.status.name(),
        worker.nthreads,
        worker.processing,
        worker.in_memory,
        bytes(worker.nbytes),
        bytes(worker.memory.process),
        worker.figures.cpu,
        (now - worker.last_seen).max(0.0),
    )
}

/// `/info/main/exceptions.html`.
pub(super) async fn exceptions(State(site): State<Arc<Site>>) -> Result<Response, Unavailable> {
    let erred = site.ask(|core| core.state.erred_tasks().take(ERRED_SHOWN).cloned().collect::<Vec<_>>()).await?;
    let now = site.server.clock.now();
    let mut body = if erred.is_empty() { "<p>No task has raised.</p>".to_owned() } else { String::new() };
    for task in &erred {
        let on: Vec<String> = task.erred_on.iter().map(|on| worker_link(on.as_str(), on.as_str())).collect();
        let _ = write!(
            body,
            "<h2>{}</h2><p>{} ago on {}</p><p class=\"erred\">{}</p><pre>{}</pre>",
            task_link(&task.key),
            duration((now - task.timestamp).max(0.0)),
            on.join(", "),
            escape(&task.exception_text),
            escape(&task.traceback_text)
        );
    }
    Ok(info_page("Exceptions", &body, true))
}
