//! How connections are made.

use std::sync::Arc;
use std::time::Duration;

use super::tls::TlsConfig;
use crate::address::Address;
use crate::compression::Compression;
use crate::error::CommError;

/// Settings of connections and listeners. Defaults are upstream's.
#[derive(Debug, Clone)]
pub struct CommConfig {
    /// How long to try to reach a peer (`distributed.comm.timeouts.connect`).
    pub connect_timeout: Duration,
    /// How long a peer may take for TLS and the handshake. Upstream waits for ever; we do not.
    pub handshake_timeout: Duration,
    /// How long a peer may stay silent on the TCP level (`distributed.comm.timeouts.tcp`).
    pub tcp_timeout: Duration,
    /// Certificates; required for `tls://` addresses.
    pub tls: Option<TlsConfig>,
    /// Whether `tcp://` is refused both ways (`distributed.comm.require-encryption`).
    pub require_encryption: bool,
    /// The compression to offer (`distributed.comm.compression`); never used towards the own host.
    pub compression: Option<Compression>,
    /// The name sent to a TLS server (`--scheduler-sni`); certificates are never checked against it.
    pub server_name: Option<String>,
    /// Connections that may wait to be accepted (`distributed.comm.socket-backlog`).
    pub backlog: i32,
    /// Whether listeners let their own process in without sockets: every `Comm::connect` to their address that is made in
    /// this process. Python peers and other processes still connect.
    pub in_process: bool,
    /// What peers on this machine are told so that both ends know that they are on one; nothing if they need not know. Peers
    /// of other makes pass it over.
    pub host: Option<Arc<str>>,
}

impl Default for CommConfig {
    fn default() -> CommConfig {
        CommConfig {
            connect_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(30),
            tcp_timeout: Duration::from_secs(30),
            tls: None,
            require_encryption: false,
            compression: None,
            server_name: None,
            backlog: 2048,
            in_process: false,
            host: None,
        }
    }
}

/// Which transport an address asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Tcp,
    Tls,
}

impl CommConfig {
    /// The transport of an address, if this configuration allows it.
    pub(super) fn scheme(&self, address: &Address) -> Result<Scheme, CommError> {
        let refuse =
            |reason: &str| Err(CommError::Address { address: address.as_str().to_owned(), reason: reason.to_owned() });
        match address.scheme() {
            "tcp" if self.require_encryption => refuse("encryption is required, so tcp:// is refused; use tls://"),
            "tcp" => Ok(Scheme::Tcp),
            "tls" if self.tls.is_none() => refuse("tls:// needs certificates: set the CA file, certificate and key"),
            "tls" => Ok(Scheme::Tls),
            _ => refuse("unknown scheme; tcp:// and tls:// are supported"),
        }
    }
}
