//! Reaching a peer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::Rng;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::config::{CommConfig, Scheme};
use super::connection::{Comm, tls_failure};
use super::handshake::Offer;
use super::websocket::{self, boxed};
use super::{local, tls};
use crate::address::Address;
use crate::error::CommError;

/// The first of several attempts may take this share of the whole time; later ones half as much again.
const ATTEMPTS_PLANNED: u32 = 5;
/// Longest pause before the second attempt; it doubles from there.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest pause between attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How long a host may take to say that nobody listens.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after the first question whether somebody listens; it doubles from there. A process that dies closes its
/// sockets one after the other, so the first answer may come too early.
const PROBE_PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest such pause.
const PROBE_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Unanswered keep-alive probes before a connection counts as cut, as upstream.
const KEEPALIVE_PROBES: u32 = 10;

impl Comm {
    /// Connects and shakes hands, trying again until `config.connect_timeout` has passed.
    ///
    /// # Errors
    /// [`CommError::Connect`] with the last failure when the time is over; [`CommError::Tls`] at once when the
    /// certificates do not verify; [`CommError::Handshake`] or [`CommError::Timeout`] when the peer does not answer
    /// as a dask peer; [`CommError::Address`] when the address cannot be used at all.
    pub async fn connect(address: &Address, config: &CommConfig) -> Result<Comm, CommError> {
        let scheme = config.scheme(address)?;
        if let Some(comm) = local::connect(address) {
            return Ok(comm);
        }
        let stream = dial(address, config).await?;
        let what = || format!("handshake with {address}");
        timeout(config.handshake_timeout, open(stream, scheme, address, config))
            .await
            .map_err(|_| CommError::Timeout { what: what(), seconds: config.handshake_timeout.as_secs_f64() })?
    }
}

async fn open(stream: TcpStream, scheme: Scheme, address: &Address, config: &CommConfig) -> Result<Comm, CommError> {
    let (local_ip, peer_ip) = (stream.local_addr()?, stream.peer_addr()?);
    let local = socket_address(scheme, local_ip);
    let halves = match &config.tls {
        Some(tls) if scheme.is_encrypted() => {
            let name = tls::server_name(config.server_name.as_deref(), peer_ip.ip())?;
            let stream = tls.connector(config.server_name.is_some()).connect(name, stream).await;
            let stream = stream.map_err(|e| match tls_failure(&e) {
                Some(reason) => CommError::Tls(format!("{address}: {reason}")),
                None => CommError::Tls(format!("{address}: {e}")),
            })?;
            boxed(tokio::io::split(stream))
        }
        _ => boxed(stream.into_split()),
    };
    let mut comm = if scheme.is_websocket() {
        let name = config.server_name.as_deref().filter(|_| scheme.is_encrypted());
        let (reader, writer) =
            Box::pin(websocket::connect(halves, name.unwrap_or(address.host_port()), address)).await?;
        Comm::from_websocket(reader, writer, local, address.clone())
    } else {
        Comm::from_boxes(halves, local, address.clone())
    };
    comm.shake_hands(offer(config, local_ip, peer_ip)).await?;
    Ok(comm)
}

/// Between processes of one host compression costs more than it saves; on others nobody need know which host this is.
pub(super) fn offer(config: &CommConfig, local: SocketAddr, peer: SocketAddr) -> Offer<'_> {
    let is_near = local.ip().to_canonical() == peer.ip().to_canonical();
    Offer { compression: config.compression.filter(|_| !is_near), host: config.host.as_deref().filter(|_| is_near) }
}

/// A socket's address in dask's spelling.
pub(super) fn socket_address(scheme: Scheme, socket: SocketAddr) -> Address {
    Address::from_parts(scheme.name(), &socket.ip().to_canonical().to_string(), socket.port())
}

/// A TCP connection, with pauses of random length between attempts so that many workers do not knock together.
async fn dial(address: &Address, config: &CommConfig) -> Result<TcpStream, CommError> {
    let deadline = Instant::now() + config.connect_timeout;
    let (mut attempt_time, mut backoff) = (config.connect_timeout / ATTEMPTS_PLANNED, BACKOFF_MIN);
    loop {
        let reason = match timeout_at(deadline, timeout(attempt_time, dial_once(address))).await {
            Ok(Ok(Ok(stream))) => {
                set_options(&stream, config.tcp_timeout)?;
                return Ok(stream);
            }
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(_)) | Err(_) => "no answer".to_owned(),
        };
        tracing::debug!(%address, reason, "could not connect yet");
        let pause = backoff.mul_f64(rand::rng().random::<f64>());
        if Instant::now() + pause >= deadline {
            let seconds = config.connect_timeout.as_secs_f64();
            return Err(CommError::Connect { address: address.clone(), seconds, reason });
        }
        tokio::time::sleep(pause).await;
        attempt_time = attempt_time.mul_f64(1.5);
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Waits until the host of this address has answered for so long that nobody listens there, as it does once the process is
/// gone. Silence says nothing, and a connection begins the time anew.
pub async fn refused(address: &Address, patience: Duration) {
    let (mut pause, mut since) = (PROBE_PAUSE_MIN, None);
    loop {
        match timeout(PROBE_TIMEOUT, dial_once(address)).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if since.get_or_insert_with(Instant::now).elapsed() >= patience {
                    return;
                }
            }
            Ok(_) | Err(_) => since = None,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PROBE_PAUSE_MAX);
    }
}

async fn dial_once(address: &Address) -> io::Result<TcpStream> {
    let port = address.port().ok_or_else(|| io::Error::other("the address has no port"))?;
    TcpStream::connect((address.host(), port)).await
}

/// Sends at once, and notices within `tcp_timeout` when the other host is gone.
pub(super) fn set_options(stream: &TcpStream, tcp_timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let interval = Duration::from_secs((tcp_timeout / 2 / KEEPALIVE_PROBES).as_secs().max(1));
    let idle = Duration::from_secs((tcp_timeout.saturating_sub(interval * KEEPALIVE_PROBES)).as_secs().max(2));
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval);
    #[cfg(target_os = "linux")]
    let keepalive = keepalive.with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(tcp_timeout))?;
    Ok(())
}

/// The same address with its host name replaced by an IP address, as the scheduler keys its workers.
///
/// # Errors
/// [`CommError::Address`] when the name cannot be resolved.
pub async fn resolve(address: &Address) -> Result<Address, CommError> {
    if address.host().parse::<IpAddr>().is_ok() {
        return Ok(address.clone());
    }
    let invalid = |reason: String| CommError::Address { address: address.as_str().to_owned(), reason };
    let port = address.port().ok_or_else(|| invalid("no port given".to_owned()))?;
    let found = tokio::net::lookup_host((address.host(), port)).await.map_err(|e| invalid(e.to_string()))?;
    let found: Vec<SocketAddr> = found.collect();
    // Like upstream's resolver, IPv4 first where a name has both.
    let first = found.iter().find(|socket| socket.is_ipv4()).or(found.first());
    let first = first.ok_or_else(|| invalid("the name has no IP address".to_owned()))?;
    Ok(Address::from_parts(address.scheme(), &first.ip().to_string(), port))
}
