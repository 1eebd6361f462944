//! Who may change something over HTTP.

use std::net::SocketAddr;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// The rule for one scheduler.
#[derive(Debug, Clone, Default)]
pub(super) struct Guard {
    token: Option<String>,
    /// Whether everybody may, as upstream once the routes are switched on.
    open: bool,
}

/// Why a request that changes something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The caller did not show the token.
    Token,
    /// The caller is on another machine, or a page of another site, and there is no token.
    Stranger,
    /// The body is not declared as JSON.
    NotJson,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Refused::Token => {
                let headers = [(header::WWW_AUTHENTICATE, "Bearer")];
                (StatusCode::UNAUTHORIZED, headers, "this needs the header Authorization: Bearer TOKEN\n")
                    .into_response()
            }
            Refused::Stranger => {
                let text = "only callers on this machine may do this: give the scheduler a token \
                            (DASK_DISTRIBUTED__SCHEDULER__HTTP__TOKEN), or add distributed.http.scheduler.api to \
                            DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES to let everybody\n";
                (StatusCode::FORBIDDEN, text).into_response()
            }
            Refused::NotJson => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "this needs the header Content-Type: application/json\n")
                    .into_response()
            }
        }
    }
}

impl Guard {
    pub(super) fn new(token: Option<String>, open: bool) -> Guard {
        Guard { token: token.filter(|token| !token.is_empty()), open }
    }

    /// Whether a request from this peer may change something.
    ///
    /// Pages of other sites can make a browser send requests here, but not with these headers: that the body must be
    /// declared as JSON, or the token shown, keeps them out. A name in `Host` may have been pointed at this machine by
    /// its owner, so that without a token callers must use an address, or `localhost`.
    pub(super) fn check(&self, peer: Option<SocketAddr>, headers: &HeaderMap) -> Result<(), Refused> {
        let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
        if let Some(token) = &self.token {
            let shown = text(header::AUTHORIZATION).and_then(|shown| shown.strip_prefix("Bearer "));
            return if shown.is_some_and(|shown| same(shown, token)) { Ok(()) } else { Err(Refused::Token) };
        }
        if !text(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json")) {
            return Err(Refused::NotJson);
        }
        let local = peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
            && text(header::HOST).is_some_and(is_no_name)
            && text(header::ORIGIN).is_none();
        if self.open || local { Ok(()) } else { Err(Refused::Stranger) }
    }
}

/// Whether a `Host` is an address or `localhost`.
fn is_no_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name == "localhost" || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
}

/// Compares in a time that tells nothing about where they differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.clone(), header::HeaderValue::from_static(value))).collect()
    }

    fn from(address: &str) -> Option<SocketAddr> {
        Some(address.parse().expect("an address"))
    }

    const JSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/json");

    #[test]
    fn with_a_token_only_who_shows_it() {
        let guard = Guard::new(Some("secret".to_owned()), true);
        let with = |shown| guard.check(from("127.0.0.1:1"), &headers(&[JSON, (header::AUTHORIZATION, shown)]));
        assert_eq!(with("Bearer secret"), Ok(()));
        assert_eq!([with("Bearer secrex"), with("secret"), with("Bearer ")], [Err(Refused::Token); 3]);
        assert_eq!(guard.check(from("127.0.0.1:1"), &headers(&[JSON])), Err(Refused::Token));
    }

    #[test]
    fn without_a_token_only_this_machine() {
        let guard = Guard::new(Some(String::new()), false);
        let at = |host| headers(&[JSON, (header::HOST, host)]);
        assert_eq!(guard.check(from("127.0.0.1:1"), &at("127.0.0.1:8787")), Ok(()));
        assert_eq!(guard.check(from("[::ffff:127.0.0.1]:1"), &at("localhost")), Ok(()));
        assert_eq!(guard.check(from("[::1]:1"), &at("[::1]:8787")), Ok(()));
        assert_eq!(guard.check(from("192.0.2.1:1"), &at("192.0.2.2:8787")), Err(Refused::Stranger));
        assert_eq!(guard.check(None, &at("127.0.0.1")), Err(Refused::Stranger));
    }

    #[test]
    fn pages_of_other_sites_are_kept_out() {
        let guard = Guard::new(None, false);
        let sent = |more: &[_]| guard.check(from("127.0.0.1:1"), &headers(more));
        assert_eq!(sent(&[(header::CONTENT_TYPE, "text/plain"), (header::HOST, "localhost")]), Err(Refused::NotJson));
        assert_eq!(sent(&[JSON, (header::HOST, "evil.example:8787")]), Err(Refused::Stranger));
        let crossed = [JSON, (header::HOST, "localhost"), (header::ORIGIN, "http://evil.example")];
        assert_eq!(sent(&crossed), Err(Refused::Stranger));
    }

    #[test]
    fn opened_as_upstream_anybody_may() {
        let guard = Guard::new(None, true);
        assert_eq!(guard.check(from("192.0.2.1:1"), &headers(&[JSON, (header::HOST, "dask:8787")])), Ok(()));
    }
}
