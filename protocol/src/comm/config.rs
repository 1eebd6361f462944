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
    /// Certificates; required for `tls://` and `wss://` addresses.
    pub tls: Option<TlsConfig>,
    /// Whether `tcp://` and `ws://` are refused both ways (`distributed.comm.require-encryption`).
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
    Ws,
    Wss,
}

impl Scheme {
    /// As it stands before `://`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Scheme::Tcp => "tcp",
            Scheme::Tls => "tls",
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
        }
    }

    /// Whether it is spoken over TLS.
    pub(super) fn is_encrypted(self) -> bool {
        match self {
            Scheme::Tls | Scheme::Wss => true,
            Scheme::Tcp | Scheme::Ws => false,
        }
    }

    /// Whether messages are sent as those of a WebSocket.
    pub(super) fn is_websocket(self) -> bool {
        match self {
            Scheme::Ws | Scheme::Wss => true,
            Scheme::Tcp | Scheme::Tls => false,
        }
    }
}

impl CommConfig {
    /// The transport of an address, if this configuration allows it.
    pub(super) fn scheme(&self, address: &Address) -> Result<Scheme, CommError> {
        let refuse = |reason: String| Err(CommError::Address { address: address.as_str().to_owned(), reason });
        let (scheme, encrypted) = match address.scheme() {
            "tcp" => (Scheme::Tcp, "tls"),
            "tls" => (Scheme::Tls, "tls"),
            "ws" => (Scheme::Ws, "wss"),
            "wss" => (Scheme::Wss, "wss"),
            _ => return refuse("unknown scheme; tcp://, tls://, ws:// and wss:// are supported".to_owned()),
        };
        let name = scheme.name();
        if scheme.is_encrypted() && self.tls.is_none() {
            return refuse(format!("{name}:// needs certificates: set the CA file, certificate and key"));
        }
        if !scheme.is_encrypted() && self.require_encryption {
            return refuse(format!("encryption is required, so {name}:// is refused; use {encrypted}://"));
        }
        Ok(scheme)
    }
}
