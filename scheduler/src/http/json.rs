//! `/json`: what scripts read, and what the live pages are drawn from.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{Html, IntoResponse, Json, Response};
use axum::{Router, routing};
use dask_protocol::{KeyRef, Value};
use serde_json::json;

use super::site::{Site, Unavailable};
use super::stream::Asked;
use super::{graphs, live, profile};
use crate::server::identity;

/// Where they are.
pub(super) const PATHS: [&str; 9] = [
    "/json/counts.json",
    "/json/identity.json",
    "/json/live.json",
    "/json/stream.json",
    "/json/graph.json",
    "/json/groups.json",
    "/json/events.json",
    "/json/profile.json",
    "/json/index.html",
];

/// The routes below `/json`.
pub(super) fn routes() -> Router<Arc<Site>> {
    Router::new()
        .route("/json/counts.json", routing::get(counts))
        .route("/json/identity.json", routing::get(scheduler))
        .route("/json/live.json", routing::get(state))
        .route("/json/stream.json", routing::get(stream))
        .route("/json/graph.json", routing::get(graphs::tasks))
        .route("/json/groups.json", routing::get(graphs::groups))
        .route("/json/events.json", routing::get(graphs::events))
        .route("/json/profile.json", routing::get(profile::tree))
        .route("/json/index.html", routing::get(index))
}

/// JSON that no cache keeps.
pub(super) fn fresh(body: serde_json::Value) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn counts(State(site): State<Arc<Site>>) -> Result<Response, Unavailable> {
    Ok(fresh(site.frame().await?.counts()))
}

async fn scheduler(State(site): State<Arc<Site>>) -> Result<Response, Unavailable> {
    let server = Arc::clone(&site.server);
    let identity = site.ask(move |core| identity::scheduler(&server, core, -1)).await?;
    Ok(fresh(to_json(&identity)))
}

async fn state(State(site): State<Arc<Site>>) -> Result<Response, Unavailable> {
    Ok(fresh(live::json(&*site.frame().await?, &site.server.id)))
}

async fn stream(State(site): State<Arc<Site>>, RawQuery(query): RawQuery) -> Result<Response, Unavailable> {
    let asked = Asked::parse(query.as_deref().unwrap_or_default());
    // Taking a frame takes in what happened since the last one.
    let now = site.frame().await?.now;
    let answer = site.stream().answer(&asked, now);
    Ok(fresh(answer))
}

async fn index() -> Html<String> {
    let link = |path: &&str| {
        let name = path.trim_start_matches("/json/");
        format!("<li><a href=\"{name}\">{name}</a></li>")
    };
    let links: String = PATHS.iter().filter(|path| path.ends_with(".json")).map(link).collect();
    Html(format!("<!doctype html><title>Index of JSON routes</title><h2>Index of JSON routes</h2><ul>{links}</ul>"))
}

/// A message value as JSON. Bytes and payloads have no form there and become null.
pub fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Nil | Value::Bin(_) | Value::Payload(_) => serde_json::Value::Null,
        Value::Bool(b) => json!(b),
        Value::Int(i) => json!(i),
        Value::UInt(u) => json!(u),
        Value::Float(f) => json!(f),
        Value::Str(s) => json!(s),
        Value::Array(items) | Value::Set(items) => items.iter().map(to_json).collect(),
        Value::Map(entries) => {
            let entry = |(name, value): &(Value, Value)| (field_name(name), to_json(value));
            serde_json::Value::Object(entries.iter().map(entry).collect())
        }
        Value::Enum(member) => json!(member.name),
    }
}

/// JSON's field names are text: other keys print as Python would.
fn field_name(name: &Value) -> String {
    match name.to_key() {
        None => String::new(),
        Some(key) => match key.as_ref() {
            KeyRef::Str(text) => text.to_owned(),
            KeyRef::Int(_) | KeyRef::UInt(_) | KeyRef::Float(_) | KeyRef::Bytes(_) | KeyRef::Tuple(_) => {
                key.to_string()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_json() {
        let value = Value::map([("a", Value::from(vec![1_i64, 2])), ("b", Value::Bin(vec![1].into()))]);
        assert_eq!(to_json(&value), json!({ "a": [1, 2], "b": null }));
        let tuple_key = Value::Map(vec![(Value::from(vec!["x", "y"]), Value::Nil)]);
        assert_eq!(to_json(&tuple_key), json!({ "('x', 'y')": null }));
    }
}
