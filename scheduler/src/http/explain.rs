//! `/api/v1/explain/KEY`: JSON, or plain text where the reader prefers it or asks with `?format=text`.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};

use super::json;
use crate::server::Server;
use crate::server::rpc::explain::explain_text;

pub(super) async fn explain(
    State(server): State<Arc<Server>>,
    Path(key): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Ok(explanation) = server.driver.run(move |core| explain_text(core, &key)).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the scheduler is closing").into_response();
    };
    let status = if explanation.state.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    if wants_text(query.as_deref(), &headers) {
        return (status, format!("{explanation}\n")).into_response();
    }
    (status, Json(json(&explanation.to_value()))).into_response()
}

fn wants_text(query: Option<&str>, headers: &HeaderMap) -> bool {
    let asked = query.is_some_and(|query| query.split('&').any(|part| part == "format=text"));
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    asked || accepted.is_some_and(|accept| accept.trim_start().starts_with("text/plain"))
}
