//! `/proxy/PORT/HOST/PATH`: workers' own pages through the scheduler's port, for readers who cannot reach the workers.
//! Only what a registered worker says it serves is fetched: the scheduler is no way into other machines.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::uri::Scheme;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use dask_protocol::comm::{CommConfig, PageTls};
use dask_protocol::{CommError, Value};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::site::Site;
use crate::server::Core;

/// How long a worker may take to begin its answer.
const WORKER_TIMEOUT: Duration = Duration::from_secs(10);

/// Headers of an answer that describe its content; the rest concern the connection to the worker.
const FORWARDED: [header::HeaderName; 3] = [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::LOCATION];

/// What the HTTP client keeps between pages.
#[derive(Clone)]
pub(super) struct Proxy {
    pages: Pages,
    scheme: Scheme,
}

#[derive(Clone)]
enum Pages {
    Plain(Client<HttpConnector, Body>),
    Tls(Client<HttpsConnector<HttpConnector>, Body>),
}

impl Proxy {
    /// Workers serve their pages as the scheduler does: one configuration says so for all.
    ///
    /// # Errors
    /// When there can be no TLS with this certificate.
    pub(super) fn new(tls: Option<&PageTls>, comm: &CommConfig) -> Result<Proxy, CommError> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(WORKER_TIMEOUT));
        let builder = Client::builder(TokioExecutor::new());
        let Some(tls) = tls else {
            return Ok(Proxy { pages: Pages::Plain(builder.build(connector)), scheme: Scheme::HTTP });
        };
        connector.enforce_http(false);
        let reader = HttpsConnectorBuilder::new().with_tls_config(tls.reader(comm.tls.as_ref())?);
        let connector = reader.https_only().enable_http1().wrap_connector(connector);
        Ok(Proxy { pages: Pages::Tls(builder.build(connector)), scheme: Scheme::HTTPS })
    }

    /// A worker's page, or why there is none.
    async fn fetch(&self, uri: Uri) -> Result<Response, (StatusCode, String)> {
        let unreachable = |why: String| (StatusCode::BAD_GATEWAY, format!("no answer from {uri}: {why}\n"));
        let asked = match &self.pages {
            Pages::Plain(client) => client.get(uri.clone()),
            Pages::Tls(client) => client.get(uri.clone()),
        };
        let answer = tokio::time::timeout(WORKER_TIMEOUT, asked)
            .await
            .map_err(|_| unreachable(format!("nothing for {} s", WORKER_TIMEOUT.as_secs())))?
            .map_err(|error| unreachable(whole(&error)))?;
        let (parts, body) = answer.into_parts();
        let headers = FORWARDED.into_iter().filter_map(|name| Some((name.clone(), parts.headers.get(name)?.clone())));
        Ok((parts.status, headers.collect::<HeaderMap>(), Body::new(body)).into_response())
    }
}

pub(super) async fn proxy(
    State(site): State<Arc<Site>>,
    Extension(proxy): Extension<Proxy>,
    Path((port, host, path)): Path<(u16, String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match site.ask(move |core| serves_dashboard(core, &host, port)).await {
        Ok(true) => {}
        Ok(false) => {
            let text = format!("Worker <{authority}> does not exist\n");
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
        Err(unavailable) => return unavailable.into_response(),
    }
    let target = query.map_or_else(|| format!("/{path}"), |query| format!("/{path}?{query}"));
    match Uri::builder().scheme(proxy.scheme.clone()).authority(authority).path_and_query(target).build() {
        Ok(uri) => proxy.fetch(uri).await.unwrap_or_else(IntoResponse::into_response),
        Err(error) => (StatusCode::BAD_REQUEST, format!("not a path: {error}\n")).into_response(),
    }
}

/// An error with what led to it.
fn whole(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Whether a registered worker has its dashboard there.
fn serves_dashboard(core: &Core, host: &str, port: u16) -> bool {
    core.workers.iter().any(|(address, peer)| {
        let dashboard = peer.info.services.get("dashboard").and_then(Value::as_i64);
        dashboard == Some(i64::from(port)) && address.host() == host
    })
}
