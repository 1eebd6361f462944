//! `/json/profile.json`: where the tasks of all workers spent their time, by Python function.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use dask_protocol::Value;
use serde_json::{Value as Json, json};
use tokio::sync::Mutex;

use super::json::fresh;
use super::site::{Site, Unavailable};
use crate::server::rpc::profile;

/// Readers within this time share what the workers answered: every worker is asked.
const AGE_MAX: Duration = Duration::from_secs(5);
/// Samples of the last while, in seconds.
const WINDOW_SECONDS: f64 = 600.0;
/// Deepest frame told of, and most frames.
const DEPTH_MAX: usize = 60;
const FRAMES_MAX: usize = 4_000;

/// The last answer of the workers.
#[derive(Default)]
pub(super) struct Kept(Mutex<Option<(Instant, Json)>>);

/// `[function, file and line, samples, [callees]]`, nested.
pub(super) async fn tree(State(site): State<Arc<Site>>) -> Result<Response, Unavailable> {
    let mut kept = site.profile.0.lock().await;
    if let Some((at, json)) = &*kept
        && at.elapsed() < AGE_MAX
    {
        return Ok(fresh(json.clone()));
    }
    let since = site.server.clock.now() - WINDOW_SECONDS;
    let tree = profile::of_tasks(&site.server, since).await.map_err(|_| Unavailable::Closing)?;
    let mut left = FRAMES_MAX;
    let json = json!({ "seconds": WINDOW_SECONDS, "root": node(&tree, 0, &mut left) });
    *kept = Some((Instant::now(), json.clone()));
    Ok(fresh(json))
}

fn node(tree: &Value, depth: usize, left: &mut usize) -> Json {
    let described = |name: &str| tree.get("description").and_then(|about| about.get(name));
    let text = |name: &str| described(name).and_then(Value::as_str).unwrap_or_default();
    let line = described("line_number").and_then(Value::as_i64).unwrap_or_default();
    let count = tree.get("count").and_then(Value::as_i64).unwrap_or_default();
    let mut children = Vec::new();
    if let Some(Value::Map(all)) = tree.get("children") {
        for (_, child) in all {
            if depth >= DEPTH_MAX || *left == 0 {
                break;
            }
            *left -= 1;
            children.push(node(child, depth + 1, left));
        }
    }
    json!([text("name"), format!("{}:{line}", text("filename")), count, children])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_and_odd_trees_are_cut() {
        let wrap = |inner: Value| Value::map([("count", 1_i64.into()), ("children", Value::map([("f", inner)]))]);
        let deep = (0..200).fold(Value::Nil, |inner, _| wrap(inner));
        let mut left = FRAMES_MAX;
        let json = node(&deep, 0, &mut left);
        assert_eq!(left, FRAMES_MAX - DEPTH_MAX);
        assert_eq!(json[2], 1);
        assert_eq!(node(&Value::Int(3), 0, &mut left), json!(["", ":0", 0, []]));
    }
}
