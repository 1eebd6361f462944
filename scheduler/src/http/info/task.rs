//! One task: what it is, why it is where it is, and its story.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use dask_protocol::{Address, Key};

use super::super::html::{bytes, duration, encoded, escape};
use super::super::json::to_json;
use super::super::site::{Site, Unavailable};
use super::{KEYS_MAX, facts, named, not_found, page as info_page, task_link, task_list, worker_link};
use crate::server::Core;
use crate::server::rpc::explain::explain_text;
use crate::state::{Explanation, Placement, StoryRow};

/// Transitions shown.
const STORY_SHOWN: usize = 100;

/// What is known of a task while it is known; a forgotten one has a story only.
struct Detail {
    explanation: Explanation,
    story: Vec<StoryRow>,
    task: Option<TaskDetail>,
}

struct TaskDetail {
    state: &'static str,
    group: Key,
    prefix: String,
    processing_on: Option<Address>,
    who_has: Vec<Address>,
    who_wants: Vec<String>,
    dependencies: (Vec<Key>, usize),
    dependents: (Vec<Key>, usize),
    waiting_on: (Vec<Key>, usize),
    priority: Option<[f64; 3]>,
    retries: u32,
    suspicious: u32,
    nbytes: i64,
    type_name: Option<String>,
    annotations: dask_protocol::Value,
    span: Vec<String>,
    /// The task that raised, the exception and the traceback.
    error: Option<(Key, String, String)>,
}

fn detail(core: &Core, text: &str) -> Detail {
    let explanation = explain_text(core, text);
    let key = &explanation.key;
    let some = |keys: &[&Key]| (keys.iter().take(KEYS_MAX).map(|key| (*key).clone()).collect(), keys.len());
    let task = core.state.task(key).map(|task| TaskDetail {
        state: task.state.name(),
        group: task.group.clone(),
        prefix: task.prefix.to_owned(),
        processing_on: task.processing_on.cloned(),
        who_has: task.who_has.iter().take(KEYS_MAX).map(|worker| (*worker).clone()).collect(),
        who_wants: task.who_wants.iter().take(KEYS_MAX).map(|client| (*client).to_owned()).collect(),
        dependencies: some(&task.dependencies),
        dependents: some(&task.dependents),
        waiting_on: some(&task.waiting_on),
        priority: task.priority,
        retries: task.retries,
        suspicious: task.suspicious,
        nbytes: task.nbytes,
        type_name: task.type_name.map(str::to_owned),
        annotations: task.annotations.clone(),
        span: core.state.span_of(key).map(|(tags, _)| tags).unwrap_or_default(),
        error: core
            .state
            .error(key)
            .map(|(cause, error)| (cause.clone(), error.exception_text.to_string(), error.traceback_text.to_string())),
    });
    Detail { story: core.state.latest_story(key, STORY_SHOWN), task, explanation }
}

/// `/info/task/KEY.html`.
pub(super) async fn page(State(site): State<Arc<Site>>, Path(segment): Path<String>) -> Result<Response, Unavailable> {
    let name = named(&segment);
    let wanted = name.clone();
    let Detail { explanation, story, task } = site.ask(move |core| detail(core, &wanted)).await?;
    if task.is_none() && story.is_empty() {
        return Ok(not_found(&format!("There is no task {name}, and none is remembered.")));
    }
    let now = explanation.now;
    let mut body = match &task {
        Some(task) => about(task, &explanation),
        None => "<p>It was forgotten.</p>".to_owned(),
    };
    // Writing to a String cannot fail, here and below.
    let _ = write!(body, "<h2>Explanation</h2><pre id=\"explanation\">{}</pre>", escape(&explanation.to_string()));
    if let Some(placement) = &explanation.placement {
        body += &scores(placement);
    }
    if let Some((cause, exception, traceback)) = task.as_ref().and_then(|task| task.error.as_ref()) {
        let _ = write!(
            body,
            "<h2>Exception</h2><p>raised by {}</p><p class=\"erred\">{}</p><pre>{}</pre>",
            task_link(cause),
            escape(exception),
            escape(traceback)
        );
    }
    body += &table(&story, now);
    Ok(info_page(&format!("Task {}", explanation.key), &body, true))
}

fn about(task: &TaskDetail, explanation: &Explanation) -> String {
    let workers = |all: &[Address]| {
        let links: Vec<String> = all.iter().map(|worker| worker_link(worker.as_str(), worker.as_str())).collect();
        if links.is_empty() { "none".to_owned() } else { links.join(" ") }
    };
    let (key, now) = (&explanation.key, explanation.now);
    let since = explanation.since.map_or_else(String::new, |at| format!(" for {}", duration((now - at).max(0.0))));
    let nbytes = u64::try_from(task.nbytes).map_or_else(|_| "not known yet".to_owned(), bytes);
    let mut rows = vec![
        ("state", format!("<b class=\"state {0}\">{0}</b>{since}", task.state)),
        ("group", escape(&task.group.to_string())),
        ("prefix", escape(&task.prefix)),
    ];
    if let Some(worker) = &task.processing_on {
        let stack = format!("<a href=\"../call-stack/{}.html\">call stack</a>", encoded(&key.to_string()));
        rows.push(("processing on", format!("{} {stack}", worker_link(worker.as_str(), worker.as_str()))));
    }
    rows.extend([
        ("in memory on", workers(&task.who_has)),
        ("size", nbytes),
        ("type", task.type_name.as_deref().map_or_else(|| "not known yet".to_owned(), escape)),
        ("wanted by", escape(&task.who_wants.join(", "))),
        ("reads", task_list(&task.dependencies.0, task.dependencies.1)),
        ("read by", task_list(&task.dependents.0, task.dependents.1)),
        ("waits for", task_list(&task.waiting_on.0, task.waiting_on.1)),
        ("priority", task.priority.map_or_else(|| "none".to_owned(), |priority| format!("{priority:?}"))),
        ("retries left", task.retries.to_string()),
        ("workers that died with it", task.suspicious.to_string()),
        ("span", escape(&task.span.join(" / "))),
        ("annotations", escape(&to_json(&task.annotations).to_string())),
    ]);
    facts(&rows)
}

/// The workers among which one was chosen.
fn scores(placement: &Placement) -> String {
    let mut table = format!(
        "<h2>Why on {}</h2><p>One of {} workers that could run it, by the rule <code>{}</code>.</p><table class=\"rows\">\
         <tr><th>worker</th><th>threads</th><th>processing</th><th>occupancy</th><th>to fetch</th><th>could start in</th>\
         <th>stored</th></tr>",
        escape(&placement.worker),
        placement.candidates,
        escape(placement.rule.name())
    );
    for row in &placement.scores {
        let _ = write!(
            table,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            worker_link(&row.worker, &row.worker),
            row.nthreads,
            row.processing,
            duration(row.occupancy),
            bytes(row.missing),
            duration(row.start),
            bytes(row.stored)
        );
    }
    table + "</table>"
}

/// Transitions, newest first.
fn table(story: &[StoryRow], now: f64) -> String {
    let mut table =
        "<h2>Story</h2><table class=\"rows\" id=\"story\"><tr><th>when</th><th>task</th><th>from</th><th>to</th>\
                     <th>because of</th><th>led to</th></tr>"
            .to_owned();
    for row in story {
        let led: Vec<String> = row.recommendations.iter().map(|(key, to)| format!("{key} {}", to.name())).collect();
        let (from, to) = (row.start.name(), row.finish.name());
        let _ = write!(
            table,
            "<tr><td>{} ago</td><td>{}</td><td>{from}</td><td class=\"state {to}\">{to}</td><td>{}</td><td>{}</td></tr>",
            duration((now - row.timestamp).max(0.0)),
            task_link(&row.key),
            escape(&row.stimulus_id),
            escape(&led.join(", "))
        );
    }
    table + "</table>"
}
