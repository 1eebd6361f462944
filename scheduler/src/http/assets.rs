//! What pages load beside their text, from inside the binary.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::site::Site;

/// The script of all pages, in the order in which it is put together.
pub(super) const SCRIPT: &str = concat!(
    include_str!("../../assets/base.js"),
    include_str!("../../assets/stream.js"),
    include_str!("../../assets/bars.js"),
    include_str!("../../assets/lines.js"),
    include_str!("../../assets/tables.js"),
    include_str!("../../assets/graph.js"),
    include_str!("../../assets/map.js"),
    include_str!("../../assets/profile.js"),
    include_str!("../../assets/start.js"),
);
const STYLE: &str = include_str!("../../assets/dashboard.css");
const ICON: &str = include_str!("../../assets/icon.svg");
/// Where they are.
pub(super) const PATHS: [&str; 3] = ["/statics/dashboard.js", "/statics/dashboard.css", "/statics/icon.svg"];

/// Their routes.
pub(super) fn routes() -> Router<Arc<Site>> {
    Router::new()
        .route(PATHS[0], get(|| async { asset("text/javascript; charset=utf-8", SCRIPT) }))
        .route(PATHS[1], get(|| async { asset("text/css; charset=utf-8", STYLE) }))
        .route(PATHS[2], get(|| async { asset("image/svg+xml", ICON) }))
}

/// Kept by browsers for a minute only: another version of the scheduler may come to the same address.
fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=60")], text).into_response()
}
