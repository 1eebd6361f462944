//! `/json/graph.json`, `/json/groups.json` and `/json/events.json`: asked for by the pages that show them.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use serde_json::{Value as Json, json};

use super::frame::STATES;
use super::json::{fresh, to_json};
use super::site::{Site, Unavailable};

/// Most tasks drawn as a graph; of more, the groups are shown.
const GRAPH_TASKS_MAX: usize = 3_000;
/// Most groups drawn.
const GROUPS_MAX: usize = 500;
/// Most edges of either.
const EDGES_MAX: usize = 20_000;
/// Events shown, and characters of each.
const EVENTS_SHOWN: usize = 200;
const EVENT_CHARACTERS_MAX: usize = 600;

/// Nodes `[key, prefix, state, generation, order]` and edges `[from, to]` by position.
pub(super) async fn tasks(State(site): State<Arc<Site>>) -> Result<Response, Unavailable> {
    type Node = (usize, dask_protocol::Key, String, &'static str, Option<(f64, f64)>, Vec<usize>);
    let taken = site.ask(|core| {
        let count = core.state.task_count();
        let node = |task: crate::state::TaskNode<'_>| -> Node {
            (task.number, task.key.clone(), task.prefix.to_owned(), task.state.name(), task.order, task.dependencies)
        };
        let shown = count <= GRAPH_TASKS_MAX;
        (count, if shown { core.state.task_graph().map(node).collect() } else { Vec::new() })
    });
    let (count, nodes) = taken.await?;
    let places: HashMap<usize, usize> = nodes.iter().enumerate().map(|(at, node)| (node.0, at)).collect();
    let edges = |(to, node): (usize, &Node)| {
        node.5.iter().filter_map(|from| Some([*places.get(from)?, to])).collect::<Vec<_>>()
    };
    let edges: Vec<[usize; 2]> = nodes.iter().enumerate().flat_map(edges).take(EDGES_MAX).collect();
    let row = |(_, key, prefix, state, order, _): &Node| json!([key.to_string(), prefix, state, order]);
    let nodes: Vec<Json> = nodes.iter().map(row).collect();
    Ok(fresh(json!({ "count": count, "most": GRAPH_TASKS_MAX, "nodes": nodes, "edges": edges })))
}

/// Nodes `[name, prefix, tasks per state]` and edges by position.
pub(super) async fn groups(State(site): State<Arc<Site>>) -> Result<Response, Unavailable> {
    type Node = (usize, dask_protocol::Key, String, [usize; STATES.len()], Vec<usize>);
    let taken = site.ask(|core| {
        let node = |group: crate::state::GroupView<'_>| -> Node {
            let tasks = STATES.map(|state| group.states.get(state));
            (group.number, group.name.clone(), group.prefix.to_owned(), tasks, group.dependencies)
        };
        let nodes: Vec<Node> = core.state.group_graph().take(GROUPS_MAX).map(node).collect();
        (core.state.group_count(), nodes)
    });
    let (count, nodes) = taken.await?;
    let places: HashMap<usize, usize> = nodes.iter().enumerate().map(|(at, node)| (node.0, at)).collect();
    let edges = |(to, node): (usize, &Node)| {
        node.4.iter().filter_map(|from| Some([*places.get(from)?, to])).collect::<Vec<_>>()
    };
    let edges: Vec<[usize; 2]> = nodes.iter().enumerate().flat_map(edges).take(EDGES_MAX).collect();
    let row = |(_, name, prefix, tasks, _): &Node| json!([name.to_string(), prefix, tasks]);
    let nodes: Vec<Json> = nodes.iter().map(row).collect();
    let states = STATES.map(crate::state::TaskState::name);
    Ok(fresh(json!({ "count": count, "states": states, "nodes": nodes, "edges": edges })))
}

/// The newest events of all topics, or of `?topic=`: `[time, topic, text]`, newest first.
pub(super) async fn events(State(site): State<Arc<Site>>, RawQuery(query): RawQuery) -> Result<Response, Unavailable> {
    let topic = query.as_deref().and_then(|query| query.strip_prefix("topic=")).map(str::to_owned);
    let newest = site.ask(move |core| core.events.newest(EVENTS_SHOWN, topic.as_deref())).await?;
    let row = |(at, topic, packed): (f64, dask_protocol::Key, crate::server::events::Packed)| {
        let text: String = to_json(&packed.unpack()).to_string().chars().take(EVENT_CHARACTERS_MAX).collect();
        json!([at, topic.to_string(), text])
    };
    let rows: Vec<Json> = newest.into_iter().map(row).collect();
    Ok(fresh(json!({ "events": rows })))
}
