//! `/info`: pages of text about one thing each, complete without a script. The script, where there is one, loads them again
//! while somebody looks.

mod logs;
mod task;
mod worker;
mod workers;

use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use dask_protocol::Key;

use super::html::{Page, encoded, escape};
use super::site::Site;

/// How many folders deep all of these pages but `/info` are.
const DEPTH: usize = 2;
/// Most keys listed on one page.
const KEYS_MAX: usize = 100;
/// The pages without a name in their address.
pub(super) const PATHS: [&str; 3] = ["/info/main/workers.html", "/info/main/exceptions.html", "/info/main/logs.html"];

/// Their routes.
pub(super) fn routes() -> Router<Arc<Site>> {
    let to_workers = || async { (StatusCode::MOVED_PERMANENTLY, [("location", "info/main/workers.html")]) };
    Router::new()
        .route("/info", get(to_workers))
        .route("/info/", get(|| async { Redirect::temporary("main/workers.html") }))
        .route(PATHS[0], get(workers::page))
        .route(PATHS[1], get(workers::exceptions))
        .route(PATHS[2], get(logs::scheduler))
        .route("/info/worker/{worker}", get(worker::page))
        .route("/info/task/{key}", get(task::page))
        .route("/info/logs/{worker}", get(logs::worker))
        .route("/info/call-stacks/{worker}", get(logs::call_stacks))
        .route("/info/call-stack/{key}", get(logs::call_stack))
}

/// A page; `again` for one whose text is loaded again while it is looked at.
fn page(title: &str, body: &str, again: bool) -> Response {
    let panels = if again { "refresh" } else { "" };
    let tabs = format!(
        "<nav class=\"tabs\"><a href=\"../main/workers.html\">Workers</a><a href=\"../main/exceptions.html\">Exceptions</a>\
         <a href=\"../main/logs.html\">Scheduler's log</a></nav><h1>{}</h1>{body}",
        escape(title)
    );
    Page { title, section: Some("info"), depth: DEPTH, panels, body: &tabs }.html().into_response()
}

fn not_found(what: &str) -> Response {
    let body = format!("<p>{}</p>", escape(what));
    (StatusCode::NOT_FOUND, page("Not found", &body, false)).into_response()
}

/// The name in an address such as `NAME.html`.
fn named(segment: &str) -> String {
    segment.strip_suffix(".html").unwrap_or(segment).to_owned()
}

fn worker_link(address: &str, text: &str) -> String {
    format!("<a href=\"../worker/{}.html\">{}</a>", encoded(address), escape(text))
}

fn task_link(key: &Key) -> String {
    let text = key.to_string();
    format!("<a href=\"../task/{}.html\">{}</a>", encoded(&text), escape(&text))
}

/// Links to tasks, and how many more there are.
fn task_list<'a>(keys: impl IntoIterator<Item = &'a Key>, all: usize) -> String {
    let links: Vec<String> = keys.into_iter().map(task_link).collect();
    let more = all.saturating_sub(links.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    if links.is_empty() { "none".to_owned() } else { format!("<span class=\"keys\">{}</span>{more}", links.join(" ")) }
}

/// A table of names and what is known under them; the second is HTML.
fn facts(rows: &[(&str, String)]) -> String {
    let mut table = "<table class=\"facts\">".to_owned();
    for (name, html) in rows {
        // Writing to a String cannot fail.
        let _ = write!(table, "<tr><th>{}</th><td>{html}</td></tr>", escape(name));
    }
    table + "</table>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_linked_and_escaped() {
        let link = task_link(&Key::tuple(["<x>".into(), 0_i64.into()]));
        assert_eq!(link, "<a href=\"../task/%28%27%3Cx%3E%27%2C%200%29.html\">('&lt;x&gt;', 0)</a>");
        let keys: Vec<Key> = vec!["a".into()];
        assert!(task_list(&keys, 3).ends_with("</span> and 2 more"));
        assert_eq!((named("a.html.html"), named("b")), ("a.html".to_owned(), "b".to_owned()));
    }
}
