//! Addresses such as `tcp://10.0.0.1:8786`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::CommError;

/// A peer's contact address, `scheme://host:port`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Arc<str>);

/// The scheme used where an address has none (`distributed.comm.default-scheme`).
pub const DEFAULT_SCHEME: &str = "tcp";

impl Address {
    /// Takes the text as it is, as received from a peer.
    pub fn new(text: impl Into<Arc<str>>) -> Address {
        Address(text.into())
    }

    /// Builds `scheme://host:port`, bracketing IPv6 hosts.
    pub fn from_parts(scheme: &str, host: &str, port: u16) -> Address {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.contains(':') {
            Address(format!("{scheme}://[{host}]:{port}").into())
        } else {
            Address(format!("{scheme}://{host}:{port}").into())
        }
    }

    /// Adds the default scheme where there is none, and `port` where there is none.
    ///
    /// # Errors
    /// [`CommError::Address`] when no host or no valid port can be read.
    pub fn normalize(text: &str, default_port: Option<u16>) -> Result<Address, CommError> {
        let invalid = |reason: &str| CommError::Address { address: text.to_owned(), reason: reason.to_owned() };
        let (scheme, rest) = text.split_once("://").unwrap_or((DEFAULT_SCHEME, text));
        let (host, port) = split_host_port(rest).ok_or_else(|| invalid("expected host:port"))?;
        let port = match (port, default_port) {
            ("", Some(port)) => port,
            ("", None) => return Err(invalid("no port given")),
            (digits, _) => digits.parse().map_err(|_| invalid("the port is not a number below 65536"))?,
        };
        if host.is_empty() {
            return Err(invalid("no host given"));
        }
        Ok(Address::from_parts(scheme, host, port))
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before `://`.
    pub fn scheme(&self) -> &str {
        self.0.split_once("://").map_or(DEFAULT_SCHEME, |(scheme, _)| scheme)
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        split_host_port(self.after_scheme()).map_or(self.after_scheme(), |(host, _)| host)
    }

    /// The port, if there is a valid one.
    pub fn port(&self) -> Option<u16> {
        split_host_port(self.after_scheme()).and_then(|(_, port)| port.parse().ok())
    }

    /// `host:port` as a resolver wants it.
    pub fn host_port(&self) -> &str {
        self.after_scheme()
    }

    fn after_scheme(&self) -> &str {
        self.0.split_once("://").map_or(&*self.0, |(_, rest)| rest)
    }
}

fn split_host_port(rest: &str) -> Option<(&str, &str)> {
    if let Some(bracketed) = rest.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']')?;
        return Some((host, after.strip_prefix(':').unwrap_or("")));
    }
    match rest.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => Some((rest, "")),
        Some((host, port)) => Some((host, port)),
        None => Some((rest, "")),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl From<&str> for Address {
    fn from(text: &str) -> Address {
        Address::new(text)
    }
}
impl From<String> for Address {
    fn from(text: String) -> Address {
        Address::new(text)
    }
}
impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        Arc::<str>::deserialize(deserializer).map(Address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read() {
        let a = Address::normalize("10.0.0.1:8786", None).expect("valid");
        assert_eq!(
            (a.as_str(), a.scheme(), a.host(), a.port()),
            ("tcp://10.0.0.1:8786", "tcp", "10.0.0.1", Some(8786))
        );
        let b = Address::normalize("tls://[::1]", Some(8786)).expect("valid");
        assert_eq!((b.as_str(), b.host(), b.port()), ("tls://[::1]:8786", "::1", Some(8786)));
        assert!(Address::normalize("host", None).is_err());
        assert!(Address::normalize("host:99999", None).is_err());
    }
}
