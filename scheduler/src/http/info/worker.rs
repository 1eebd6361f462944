//! One worker: what it is, what it does, what it holds; or how it died.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use dask_protocol::{Address, Key, Value};

use super::super::html::{bytes, duration, encoded, escape};
use super::super::json::to_json;
use super::super::site::{Site, Unavailable};
use super::{KEYS_MAX, facts, named, not_found, page as info_page, task_list};
use crate::server::peers::name_text;
use crate::server::{Core, identity};

struct Detail {
    name: String,
    status: &'static str,
    nthreads: u32,
    memory_limit: u64,
    memory: crate::state::MemoryState,
    occupancy: f64,
    processing: (Vec<Key>, usize),
    held: (Vec<Key>, usize, u64),
    resources: Vec<String>,
    nanny: Option<Address>,
    directory: String,
    dashboard: Option<i64>,
    away: bool,
    last_seen: f64,
    identity: Value,
}

/// A worker that there is, or what is known of its death.
enum Found {
    Alive(Box<Detail>),
    Dead(String),
    Unknown,
}

fn find(core: &Core, named: &str) -> (Address, Found) {
    let address = core.state.worker_named(named).cloned().unwrap_or_else(|| Address::from(named));
    let found = match detail(core, &address) {
        Some(detail) => Found::Alive(Box::new(detail)),
        None => {
            let death = core.state.post_mortems().find(|(worker, _)| **worker == address);
            death.map_or(Found::Unknown, |(worker, death)| Found::Dead(format!("Worker {worker} {death}")))
        }
    };
    (address, found)
}

fn detail(core: &Core, address: &Address) -> Option<Detail> {
    let (view, peer) = (core.state.worker(address)?, core.workers.get(address)?);
    let (processing, held) = core.state.tasks_at(address, KEYS_MAX)?;
    Some(Detail {
        name: name_text(&peer.info.name),
        status: view.status.name(),
        nthreads: view.nthreads,
        memory_limit: view.memory_limit,
        memory: view.memory,
        occupancy: view.occupancy,
        processing: (processing, view.processing),
        held: (held, view.in_memory, view.nbytes),
        resources: view.resources.iter().map(|(name, amount)| format!("{name}={amount}")).collect(),
        nanny: view.nanny.cloned(),
        directory: peer.info.local_directory.clone(),
        dashboard: peer.info.services.get("dashboard").and_then(Value::as_i64),
        away: peer.away.is_some(),
        last_seen: peer.last_seen,
        identity: identity::worker(core, address)?,
    })
}

/// `/info/worker/ADDRESS.html`; the name of a worker is taken as well.
pub(super) async fn page(State(site): State<Arc<Site>>, Path(segment): Path<String>) -> Result<Response, Unavailable> {
    let name = named(&segment);
    let wanted = name.clone();
    let (address, found) = site.ask(move |core| find(core, &wanted)).await?;
    Ok(match found {
        Found::Alive(detail) => alive(&address, &detail, site.server.clock.now()),
        Found::Dead(text) => info_page(&format!("Worker {address}"), &format!("<pre>{}</pre>", escape(&text)), true),
        Found::Unknown => not_found(&format!("There is no worker {name}.")),
    })
}

fn alive(address: &Address, detail: &Detail, now: f64) -> Response {
    let memory = &detail.memory;
    let (processing, processing_count) = &detail.processing;
    let (held, held_count, held_bytes) = &detail.held;
    let at = encoded(address.as_str());
    let own_page = detail.dashboard.map_or_else(
        || "none".to_owned(),
        |port| format!("<a href=\"../../proxy/{port}/{}/status\">through this scheduler</a>", escape(address.host())),
    );
    let limit = if detail.memory_limit == 0 { "no limit".to_owned() } else { bytes(detail.memory_limit) };
    let status = if detail.away { "away: its connection is cut and waited for" } else { detail.status };
    let body = facts(&[
        ("name", escape(&detail.name)),
        ("status", status.to_owned()),
        ("threads", detail.nthreads.to_string()),
        (
            "memory",
            format!(
                "{} of {limit}: {} of results, {} of anything else for long, {} of anything else lately; {} on disk",
                bytes(memory.process),
                bytes(memory.managed),
                bytes(memory.unmanaged_old),
                bytes(memory.unmanaged.saturating_sub(memory.unmanaged_old)),
                bytes(memory.spilled)
            ),
        ),
        ("occupancy", duration(detail.occupancy)),
        ("processing", task_list(processing, *processing_count)),
        ("in memory", format!("{} in {held_count} results: {}", bytes(*held_bytes), task_list(held, *held_count))),
        (
            "resources",
            if detail.resources.is_empty() { "none".to_owned() } else { escape(&detail.resources.join(", ")) },
        ),
        ("nanny", detail.nanny.as_ref().map_or_else(|| "none".to_owned(), |nanny| escape(nanny.as_str()))),
        ("directory", escape(&detail.directory)),
        ("last seen", format!("{} ago", duration((now - detail.last_seen).max(0.0)))),
        ("its own page", own_page),
        ("more", format!("<a href=\"../call-stacks/{at}.html\">call stacks</a> <a href=\"../logs/{at}.html\">log</a>")),
    ]);
    let identity = serde_json::to_string_pretty(&to_json(&detail.identity)).unwrap_or_default();
    let body = format!("{body}<details><summary>all it told</summary><pre>{}</pre></details>", escape(&identity));
    info_page(&format!("Worker {address}"), &body, true)
}
