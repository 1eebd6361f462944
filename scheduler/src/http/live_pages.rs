//! The pages that are drawn by their script: which panels each shows.

use std::sync::Arc;

use axum::Router;
use axum::response::{Html, Json, Redirect};
use axum::routing::get;
use serde_json::{Map, Value as Json_, json};

use super::html::Page;
use super::site::Site;

/// Pages of several panels, by path.
pub(super) const PAGES: [(&str, &str, &str); 14] = [
    ("status", "Status", "summary task-stream progress workers-memory nprocessing memory-by-key"),
    ("workers", "Workers", "summary workers cpu occupancy workers-cpu-timeseries workers-memory-timeseries"),
    ("tasks", "Tasks", "summary task-stream progress compute-time-per-key aggregate-time-per-action"),
    ("memory", "Memory", "summary cluster-memory workers-memory memory-by-key workers-transfer-bytes"),
    ("graph", "Graph", "summary graph"),
    ("groups", "Groups", "summary groups group-progress"),
    ("map", "Cluster map", "summary cluster-map"),
    (
        "system",
        "System",
        "summary scheduler-system contention workers-cpu-timeseries workers-memory-timeseries \
         workers-network-timeseries workers-disk-timeseries",
    ),
    ("profile", "Profile", "summary profile"),
    ("profile-server", "Scheduler", "summary scheduler-system contention"),
    ("hardware", "Hardware", "summary bandwidth-workers workers-network workers-disk"),
    ("stealing", "Work stealing", "summary nprocessing occupancy events-stealing"),
    ("events", "Events", "summary events"),
    ("exceptions", "Exceptions", "summary exceptions"),
];

/// Panels that have a page of their own, `/individual-NAME`, by upstream's names.
pub(super) const PANELS: [&str; 29] = [
    "task-stream",
    "progress",
    "graph",
    "groups",
    "group-progress",
    "workers-memory",
    "cluster-memory",
    "workers-transfer-bytes",
    "cpu",
    "nprocessing",
    "occupancy",
    "workers",
    "exceptions",
    "bandwidth-workers",
    "workers-network",
    "workers-disk",
    "workers-network-timeseries",
    "workers-cpu-timeseries",
    "workers-memory-timeseries",
    "workers-disk-timeseries",
    "memory-by-key",
    "compute-time-per-key",
    "aggregate-time-per-action",
    "scheduler-system",
    "contention",
    "profile",
    "profile-server",
    "cluster-map",
    "events",
];

/// Where upstream has the cluster map.
pub(super) const CLUSTER_MAP: &str = "/statics/individual-cluster-map.html";

/// Their routes.
pub(super) fn routes() -> Router<Arc<Site>> {
    let mut router = Router::new()
        .route(CLUSTER_MAP, get(|| async { alone("cluster-map", 1) }))
        .route("/counters", get(|| async { Redirect::temporary("metrics") }))
        .route("/individual-plots.json", get(|| async { Json(plots()) }));
    for (path, title, panels) in PAGES {
        let page = move || async move { Page { title, section: Some(path), depth: 0, panels, body: "" }.html() };
        router = router.route(&format!("/{path}"), get(page));
    }
    for panel in PANELS {
        router = router.route(&format!("/individual-{panel}"), get(move || async move { alone(panel, 0) }));
    }
    router
}

/// One panel, as large as its window.
fn alone(panel: &str, depth: usize) -> Html<String> {
    let shown = if panel == "profile-server" { "scheduler-system" } else { panel };
    Page { title: &name(panel), section: None, depth, panels: shown, body: "" }.html()
}

/// `/individual-plots.json`: what the JupyterLab extension offers.
fn plots() -> Json_ {
    let mut plots: Map<String, Json_> = PANELS
        .iter()
        .filter(|panel| **panel != "cluster-map")
        .map(|panel| (format!("Individual {}", name(panel)), json!(format!("/individual-{panel}"))))
        .collect();
    plots.insert("Individual Cluster Map".to_owned(), json!(CLUSTER_MAP));
    Json_::Object(plots)
}

/// A panel's name as upstream writes it: every word with a capital.
fn name(panel: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
    };
    panel.split('-').map(word).collect::<Vec<String>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_are_named_as_upstream_names_them() {
        let plots = plots();
        assert_eq!(plots["Individual Task Stream"], "/individual-task-stream");
        assert_eq!(plots["Individual Memory By Key"], "/individual-memory-by-key");
        assert_eq!(plots["Individual Cpu"], "/individual-cpu");
        assert_eq!(plots["Individual Cluster Map"], CLUSTER_MAP);
        assert_eq!(plots.as_object().map(Map::len), Some(PANELS.len()));
    }

    #[test]
    fn every_panel_of_a_page_is_drawn_by_the_script() {
        let script = super::super::assets::SCRIPT;
        for panels in
            PAGES.iter().map(|(_, _, panels)| *panels).chain(PANELS.into_iter().filter(|p| *p != "profile-server"))
        {
            for panel in panels.split_whitespace() {
                assert!(script.contains(&format!("panel('{panel}'")), "nothing draws {panel}");
            }
        }
    }
}
