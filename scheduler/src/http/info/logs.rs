//! Logs and call stacks: what peers are asked for when somebody looks.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use dask_protocol::{Address, Key, Value};
use serde::Serialize;
use tokio::time::timeout;

use super::super::html::escape;
use super::super::site::{Site, Unavailable};
use super::{named, not_found, page as info_page, task_link, worker_link};
use crate::server::rpc::explain::explain_text;

/// Lines of a log on one page.
const LINES_MAX: usize = 1_000;
/// How long a worker may take to answer.
const WORKER_TIMEOUT: Duration = Duration::from_secs(10);
/// Most frames of call stacks on one page.
const FRAMES_MAX: usize = 2_000;

/// `/info/main/logs.html`.
pub(super) async fn scheduler(State(site): State<Arc<Site>>) -> Response {
    let lines = site.server.options.logs.as_ref().map_or_else(Vec::new, |logs| logs(LINES_MAX));
    let lines: Vec<(String, String)> = lines.into_iter().map(|(_, level, line)| (level, line)).collect();
    info_page("The scheduler's log", &log(&lines), true)
}

/// `/info/logs/WORKER.html`.
pub(super) async fn worker(
    State(site): State<Arc<Site>>,
    Path(segment): Path<String>,
) -> Result<Response, Unavailable> {
    #[derive(Serialize)]
    struct Args {
        n: usize,
    }
    let Some(address) = registered(&site, named(&segment)).await? else {
        return Ok(not_found("There is no such worker."));
    };
    let answer = call(&site, &address, "get_logs", &Args { n: LINES_MAX }).await;
    Ok(match answer {
        Ok(lines) => {
            let line = |line: &Value| {
                let [level, text] = line.as_items()? else { return None };
                Some((level.as_str()?.to_owned(), text.as_str()?.to_owned()))
            };
            let lines: Vec<_> = lines.as_items().unwrap_or_default().iter().filter_map(line).collect();
            let back = format!("<p>{}</p>", worker_link(address.as_str(), "the worker's page"));
            info_page(&format!("Log of {address}"), &(back + &log(&lines)), true)
        }
        Err(why) => info_page(&format!("Log of {address}"), &format!("<p>{}</p>", escape(&why)), false),
    })
}

/// Lines, newest first, as pages show them.
fn log(lines: &[(String, String)]) -> String {
    if lines.is_empty() {
        return "<p>Nothing was logged.</p>".to_owned();
    }
    let mut text = "<pre class=\"log\">".to_owned();
    for (level, line) in lines {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "<span class=\"{}\">{}</span>", escape(level), escape(line));
    }
    text + "</pre>"
}

#[derive(Serialize)]
struct Keys {
    keys: Option<Vec<Key>>,
}

/// `/info/call-stacks/WORKER.html`.
pub(super) async fn call_stacks(
    State(site): State<Arc<Site>>,
    Path(segment): Path<String>,
) -> Result<Response, Unavailable> {
    let Some(address) = registered(&site, named(&segment)).await? else {
        return Ok(not_found("There is no such worker."));
    };
    let answer = call(&site, &address, "call_stack", &Keys { keys: None }).await;
    let body = answer.map_or_else(|why| format!("<p>{}</p>", escape(&why)), |stacks| frames(&stacks));
    Ok(info_page(&format!("Call stacks at {address}"), &body, true))
}

/// `/info/call-stack/KEY.html`.
pub(super) async fn call_stack(
    State(site): State<Arc<Site>>,
    Path(segment): Path<String>,
) -> Result<Response, Unavailable> {
    let wanted = named(&segment);
    let found = site.ask(move |core| {
        let key = explain_text(core, &wanted).key;
        let on = core.state.task(&key).and_then(|task| task.processing_on.cloned());
        (key, on)
    });
    let (key, on) = found.await?;
    let title = format!("Call stack of {key}");
    let Some(address) = on else {
        let body = format!("<p>{} is not running: it is finished, or not yet started.</p>", task_link(&key));
        return Ok(info_page(&title, &body, true));
    };
    let answer = call(&site, &address, "call_stack", &Keys { keys: Some(vec![key]) }).await;
    let body = answer.map_or_else(|why| format!("<p>{}</p>", escape(&why)), |stacks| frames(&stacks));
    Ok(info_page(&title, &body, true))
}

/// The address of a worker that was named by it, or by its name.
async fn registered(site: &Site, named: String) -> Result<Option<Address>, Unavailable> {
    site.ask(move |core| {
        let address = core.state.worker_named(&named).cloned().unwrap_or_else(|| Address::from(named.as_str()));
        core.workers.contains_key(&address).then_some(address)
    })
    .await
}

/// A worker's answer, or why there is none.
async fn call<A: Serialize>(site: &Site, worker: &Address, op: &str, args: &A) -> Result<Value, String> {
    match timeout(WORKER_TIMEOUT, site.server.pool.call::<_, Value>(worker, op, args)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("No answer from {worker}: {error}")),
        Err(_) => Err(format!("No answer from {worker} for {} s.", WORKER_TIMEOUT.as_secs())),
    }
}

/// The stacks by key: frames as texts.
fn frames(stacks: &Value) -> String {
    let Value::Map(tasks) = stacks else { return "<p>Nothing is running.</p>".to_owned() };
    if tasks.is_empty() {
        return "<p>Nothing is running.</p>".to_owned();
    }
    let (mut text, mut left) = (String::new(), FRAMES_MAX);
    for (key, stack) in tasks {
        let name = key.to_key().as_ref().map_or_else(String::new, task_link);
        let _ = write!(text, "<h2>{name}</h2><pre>");
        for frame in stack.as_items().unwrap_or_default().iter().filter_map(Value::as_str).take(left) {
            left -= 1;
            text += &escape(frame);
            text.push('\n');
        }
        text += "</pre>";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_text_and_bounded() {
        let stack = Value::from(vec!["File \"<x>\""; FRAMES_MAX + 5]);
        let html = frames(&Value::map([("inc-1", stack)]));
        assert!(html.contains("../task/inc-1.html") && html.contains("&lt;x&gt;"));
        assert_eq!(html.matches("File").count(), FRAMES_MAX);
        assert!(frames(&Value::Nil).contains("Nothing is running"));
    }
}
