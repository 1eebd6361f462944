//! The HTTP server: health, metrics, JSON, pages of text and a live dashboard.
//!
//! Start with [`site::Site`]: pages ask the driver through it, and all of them together get a small part of its time. What
//! many readers look at is copied once ([`frame::Frame`], [`stream::Stream`]); JSON and pages are made elsewhere. Only
//! `/api/v1/retire_workers` changes anything, and [`guard::Guard`] says for whom.

mod api;
mod assets;
mod frame;
mod graphs;
mod guard;
mod html;
mod info;
mod json;
mod jupyter;
mod live;
mod live_pages;
mod metrics;
mod process;
mod profile;
mod proxy;
pub(crate) mod report;
mod site;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, OriginalUri, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use axum::{Extension, Router};
use dask_protocol::pages;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::runtime::Handle;
use tracing::error;

use self::guard::Guard;
pub use self::json::to_json;
use self::site::Site;
use crate::server::{SchedulerOptions, Server};

/// Starts serving, if a dashboard address is set. A port that is taken is replaced by a free one.
pub(crate) async fn start(server: &Arc<Server>) {
    let Some(wanted) = &server.options.dashboard_address else { return };
    let tls = server.options.http_tls.clone();
    let proxy = match proxy::Proxy::new(tls.as_ref(), &server.options.comm) {
        Ok(proxy) => proxy,
        Err(error) => {
            error!(target: "distributed.scheduler", "No dashboard: {error}");
            return;
        }
    };
    let runtime = server.options.pages.clone().unwrap_or_else(Handle::current);
    let bound = {
        let wanted = wanted.clone();
        runtime.spawn(async move { pages::bind(&wanted).await })
    };
    let listener = match bound.await.unwrap_or_else(|ended| Err(std::io::Error::other(ended))) {
        Ok(listener) => listener,
        Err(error) => {
            error!(target: "distributed.scheduler", "No dashboard: cannot listen on {wanted:?}: {error}");
            return;
        }
    };
    let Ok(address) = listener.local_addr() else { return };
    // Set once here, before anybody can ask.
    let _ = server.dashboard_port.set(address.port());
    let guard = Guard::new(server.options.http_token.clone(), server.options.http_api);
    let site = Arc::new(Site::new(Arc::clone(server), guard));
    let router = with_prefix(router(site, proxy), prefix(&server.options));
    let router = match server.jupyter.get() {
        Some(jupyter) => router.merge(jupyter::routes(Arc::clone(jupyter))),
        None => router,
    };
    let pages_for =
        move |peer| TowerToHyperService::new(router.clone().layer(Extension(ConnectInfo::<SocketAddr>(peer))));
    runtime.spawn(pages::serve(listener, tls, server.closing.clone(), pages_for));
}

/// The path below which a proxy passes requests on, without slashes around it; empty for none. Braces would be a pattern.
pub(crate) fn prefix(options: &SchedulerOptions) -> &str {
    let prefix = options.dashboard_prefix.as_deref().unwrap_or_default().trim_matches('/');
    if prefix.contains(['{', '}']) { "" } else { prefix }
}

/// Everything at the top, and below the prefix of a proxy that passes it on.
fn with_prefix(router: Router, prefix: &str) -> Router {
    if prefix.is_empty() {
        return router.layer(from_fn(protected));
    }
    let below = format!("/{prefix}");
    // A nested router answers at `/prefix`, but not at `/prefix/`.
    Router::new()
        .route(&format!("{below}/"), get(top))
        .nest(&below, router.clone())
        .merge(router)
        .layer(from_fn(protected))
}

/// Leads from the top of the site to its first page.
async fn top(OriginalUri(uri): OriginalUri) -> Response {
    match uri.path().rsplit_once('/') {
        Some((_, last)) if !last.is_empty() => moved(&format!("{last}/status")),
        _ => moved("status"),
    }
}

/// Upstream's `301`. The target is relative, so that it is right behind any proxy.
fn moved(to: &str) -> Response {
    let to = HeaderValue::from_str(to).unwrap_or_else(|_| HeaderValue::from_static("status"));
    (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, to)]).into_response()
}

fn router(site: Arc<Site>, proxy: proxy::Proxy) -> Router {
    Router::new()
        .route("/", get(top))
        .route("/health", get(|| async { "ok" }))
        .route("/metrics", get(metrics::page))
        .route("/sitemap.json", get(|| async { Json(json!({ "paths": sitemap() })) }))
        .route("/proxy/{port}/{host}/{*path}", get(proxy::proxy))
        .merge(api::routes())
        .merge(assets::routes())
        .merge(info::routes())
        .merge(json::routes())
        .merge(live_pages::routes())
        .layer(Extension(proxy))
        .with_state(site)
}

/// Pages load nothing from elsewhere, and text is not taken for something else.
async fn protected(request: Request, next: Next) -> Response {
    const POLICY: &str =
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'";
    let mut response = next.run(request).await;
    let headers: [(HeaderName, &str); 3] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Every path that needs no name.
fn sitemap() -> Vec<String> {
    let fixed =
        ["/", "/health", "/metrics", "/sitemap.json", "/individual-plots.json", "/counters", "/info", "/api/v1"];
    let api = ["/api/v1/get_workers", "/api/v1/adaptive_target", "/api/v1/check_idle", live_pages::CLUSTER_MAP];
    let texts = fixed.into_iter().chain(api).chain(assets::PATHS).chain(info::PATHS).chain(json::PATHS);
    let pages = live_pages::PAGES.iter().map(|(path, _, _)| format!("/{path}"));
    let panels = live_pages::PANELS.iter().map(|panel| format!("/individual-{panel}"));
    let mut paths: Vec<String> = texts.map(str::to_owned).chain(pages).chain(panels).collect();
    paths.sort_unstable();
    paths
}
