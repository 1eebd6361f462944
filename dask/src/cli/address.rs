//! Addresses from the options `--host`, `--port`, `--interface` and `--protocol`, joined by upstream's rules.

use dask_protocol::Address;

use super::system::interface_ip;
use crate::config::SCHEMES;

/// What the user said about where to listen.
#[derive(Debug, Clone, Default)]
pub struct Where<'a> {
    /// A host, perhaps with a scheme before and a port after it; empty for every interface.
    pub host: Option<&'a str>,
    /// The port, unless it is in `host`.
    pub port: Option<u16>,
    /// A network interface instead of a host.
    pub interface: Option<&'a str>,
    /// `tcp`, `tls`, `ws` or `wss`, with or without `://`; wins over the scheme of `host`.
    pub protocol: Option<&'a str>,
}

impl Where<'_> {
    /// The address to listen on, with `scheme` and `port` where nothing else was said.
    ///
    /// # Errors
    /// When the parts contradict each other or one cannot be used.
    pub fn listen_address(&self, scheme: &str, port: u16) -> Result<Address, String> {
        let given = self.host.unwrap_or("");
        let (host_scheme, rest) = given.split_once("://").map_or((None, given), |(scheme, rest)| (Some(scheme), rest));
        let (host, host_port) = split_port(rest)?;
        let protocol = self.protocol.map(|protocol| protocol.trim_end_matches("://"));
        let scheme = supported(protocol.or(host_scheme).unwrap_or(scheme))?;
        let host = match self.interface {
            Some(name) if host.is_empty() => interface_ip(name).map_err(|error| error.to_string())?.to_string(),
            Some(name) => return Err(format!("Can not specify both interface ({name}) and host ({host})")),
            None => host.to_owned(),
        };
        Ok(Address::from_parts(scheme, &host, host_port.or(self.port).unwrap_or(port)))
    }
}

/// The scheme, if connections can be made with it.
///
/// # Errors
/// Naming those that can.
pub fn supported(scheme: &str) -> Result<&str, String> {
    if SCHEMES.contains(&scheme) {
        return Ok(scheme);
    }
    Err(format!("protocol {scheme:?} is not supported; use one of {}", SCHEMES.join(", ")))
}

fn split_port(rest: &str) -> Result<(&str, Option<u16>), String> {
    let number = |text: &str| match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| format!("{text:?} in {rest:?} is not a port number below 65536")),
    };
    if let Some((host, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return Ok((host, number(after.trim_start_matches(':'))?));
    }
    match rest.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => Ok((rest, None)),
        Some((host, port)) => Ok((host, number(port)?)),
        None => Ok((rest, None)),
    }
}

/// The scheduler's address from a user's text: a scheme and port 8786 are added where they are missing.
///
/// # Errors
/// When it has no host or its scheme is not supported.
pub fn scheduler_address(text: &str, scheme: &str) -> Result<Address, String> {
    let text = if text.contains("://") { text.to_owned() } else { format!("{scheme}://{text}") };
    let address = Address::normalize(&text, Some(SCHEDULER_PORT)).map_err(|error| error.to_string())?;
    supported(address.scheme())?;
    Ok(address)
}

/// The port dask's schedulers listen on.
pub const SCHEDULER_PORT: u16 = 8786;

/// An address the user must give in full (`--listen-address`, `--contact-address`).
///
/// # Errors
/// When a part is missing.
pub fn full_address(option: &str, text: &str) -> Result<Address, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    let (host, port) = split_port(rest)?;
    let port =
        port.ok_or_else(|| format!("Failed to launch worker. {option}: missing port number in address {text:?}"))?;
    Ok(Address::from_parts(supported(scheme)?, host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(at: &Where<'_>) -> Result<String, String> {
        at.listen_address("tcp", 8786).map(|address| address.as_str().to_owned())
    }

    #[test]
    fn nothing_said_means_every_interface_and_the_usual_port() {
        assert_eq!(listen(&Where::default()).as_deref(), Ok("tcp://:8786"));
        assert_eq!(listen(&Where { host: Some(""), port: Some(0), ..Where::default() }).as_deref(), Ok("tcp://:0"));
    }

    #[test]
    fn hosts_may_bring_scheme_and_port() {
        let cases = [
            ("tls://", "tls://:8786"),
            ("0.0.0.0", "tcp://0.0.0.0:8786"),
            ("10.0.0.1:99", "tcp://10.0.0.1:99"),
            ("tls://node:99", "tls://node:99"),
            ("::1", "tcp://[::1]:8786"),
            ("[::1]:99", "tcp://[::1]:99"),
            ("tcp://[::]", "tcp://[::]:8786"),
            ("ws://node", "ws://node:8786"),
        ];
        for (host, expected) in cases {
            assert_eq!(listen(&Where { host: Some(host), ..Where::default() }).as_deref(), Ok(expected), "{host}");
        }
    }

    #[test]
    fn protocol_wins_and_interface_excludes_host() {
        let at = Where { host: Some("tcp://a"), protocol: Some("tls://"), ..Where::default() };
        assert_eq!(listen(&at).as_deref(), Ok("tls://a:8786"));
        let at = Where { interface: Some("lo"), port: Some(5), ..Where::default() };
        assert_eq!(listen(&at).as_deref(), Ok("tcp://127.0.0.1:5"));
        assert!(listen(&Where { interface: Some("lo"), host: Some("a"), ..Where::default() }).is_err());
        assert!(listen(&Where { protocol: Some("ucx"), ..Where::default() }).expect_err("unknown").contains("ucx"));
        assert!(listen(&Where { host: Some("a:99999"), ..Where::default() }).is_err());
    }

    #[test]
    fn scheduler_addresses_are_completed() {
        let complete = |text, scheme| scheduler_address(text, scheme).map(|address| address.as_str().to_owned());
        assert_eq!(complete("host", "tcp").as_deref(), Ok("tcp://host:8786"));
        assert_eq!(complete("host:99", "tls").as_deref(), Ok("tls://host:99"));
        assert_eq!(complete("wss://host", "tcp").as_deref(), Ok("wss://host:8786"));
        assert_eq!(complete("tcp://host:99", "tls").as_deref(), Ok("tcp://host:99"));
        assert!(complete("inproc://x", "tcp").is_err());
        assert!(complete("", "tcp").is_err());
    }

    #[test]
    fn full_addresses_need_a_port() {
        assert_eq!(full_address("--listen-address", "tcp://:9000").expect("full").as_str(), "tcp://:9000");
        assert!(full_address("--listen-address", "tcp://0.0.0.0").is_err());
    }
}
