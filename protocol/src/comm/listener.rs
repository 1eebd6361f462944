//! Waiting for peers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::timeout;

use super::config::{CommConfig, Scheme};
use super::connect::{offer, set_options, socket_address};
use super::connection::{Comm, tls_failure};
use super::local::Entrance;
use super::tls::TlsConfig;
use super::websocket::{self, BoxedReader, BoxedWriter, Prompt, boxed};
use crate::address::Address;
use crate::error::CommError;

/// How often an ephemeral port is asked for again where the system's choice was taken meanwhile.
const EPHEMERAL_ATTEMPTS_MAX: u32 = 5;
/// Pause where the system has no file descriptor left for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that peers connect to.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    scheme: Scheme,
    bound: SocketAddr,
    config: CommConfig,
    /// For callers of this process, if they are let in without sockets.
    entrance: Option<AsyncMutex<Entrance>>,
}

impl Listener {
    /// Listens on `scheme://host:port`. Port 0 takes any free port; an empty host listens on every interface.
    ///
    /// # Errors
    /// [`CommError::Address`] for an address that cannot be used, [`CommError::Io`] when the system refuses it.
    pub async fn bind(address: &Address, config: &CommConfig) -> Result<Listener, CommError> {
        let scheme = config.scheme(address)?;
        let port = address.port().unwrap_or(0);
        let hosts = bind_hosts(address, port).await?;
        let mut attempt = 1;
        let socket = loop {
            match hosts.iter().map(|&host| listen(host, config.backlog)).find_or_last_error() {
                Err(e) if e.kind() == io::ErrorKind::AddrInUse && port == 0 && attempt < EPHEMERAL_ATTEMPTS_MAX => {
                    attempt += 1;
                }
                Err(e) => return Err(io::Error::new(e.kind(), format!("cannot listen on {address}: {e}")).into()),
                Ok(socket) => break socket,
            }
        };
        let bound = socket.local_addr()?;
        let mut listener = Listener { socket, scheme, bound, config: config.clone(), entrance: None };
        if config.in_process {
            listener.entrance = Some(AsyncMutex::new(Entrance::open(listener.contact_address())));
        }
        Ok(listener)
    }

    /// Where it listens; the host may be a wildcard.
    pub fn local_address(&self) -> Address {
        socket_address(self.scheme, self.bound)
    }

    /// The address to tell peers: wildcards become the IP of the interface that leads outside.
    pub fn contact_address(&self) -> Address {
        self.contact_address_towards(None)
    }

    /// As [`Listener::contact_address`], choosing the interface that leads to `peer` (for a worker, its scheduler).
    pub fn contact_address_towards(&self, peer: Option<IpAddr>) -> Address {
        let ip = if self.bound.ip().is_unspecified() { outgoing_ip(peer) } else { self.bound.ip() };
        socket_address(self.scheme, SocketAddr::new(ip, self.bound.port()))
    }

    /// The next connection, before anything was said on it. Cancel-safe.
    ///
    /// # Errors
    /// [`CommError::Io`] when the socket itself is broken; failures of single connections are skipped.
    pub async fn accept(&self) -> Result<Incoming, CommError> {
        tokio::select! {
            caller = self.caller() => Ok(Incoming(Caller::Local(Box::new(caller)))),
            incoming = self.accept_socket() => incoming,
        }
    }

    /// The next connection that was made within the process.
    async fn caller(&self) -> Comm {
        let Some(entrance) = &self.entrance else { return std::future::pending().await };
        match entrance.lock().await.callers.recv().await {
            Some(caller) => caller,
            // Another listener has taken the address over.
            None => std::future::pending().await,
        }
    }

    async fn accept_socket(&self) -> Result<Incoming, CommError> {
        loop {
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    let (scheme, config) = (self.scheme, self.config.clone());
                    return Ok(Incoming(Caller::Socket(Box::new(Socketed { stream, peer, scheme, config }))));
                }
                Err(error) if is_about_one_peer(&error) => {
                    tracing::debug!(%error, "a caller left before it was accepted")
                }
                Err(error) if is_shortage(&error) => {
                    tracing::warn!(%error, "cannot accept connections; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn is_about_one_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn is_shortage(error: &io::Error) -> bool {
    let shortages =
        [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::NOBUFS, rustix::io::Errno::NOMEM];
    shortages.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

trait FindOrLastError<T> {
    fn find_or_last_error(self) -> io::Result<T>;
}

impl<T, I: Iterator<Item = io::Result<T>>> FindOrLastError<T> for I {
    /// The first success, else the last failure.
    fn find_or_last_error(mut self) -> io::Result<T> {
        let mut last = Err(io::ErrorKind::AddrNotAvailable.into());
        while last.is_err() {
            match self.next() {
                Some(next) => last = next,
                None => break,
            }
        }
        last
    }
}

/// The sockets to try in order. Every interface means both IP versions where the system has both.
async fn bind_hosts(address: &Address, port: u16) -> Result<Vec<SocketAddr>, CommError> {
    if address.host().is_empty() {
        let any = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
        return Ok(any.map(|ip| SocketAddr::new(ip, port)).to_vec());
    }
    let found = tokio::net::lookup_host((address.host(), port)).await;
    let found =
        found.map_err(|e| CommError::Address { address: address.as_str().to_owned(), reason: e.to_string() })?;
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    Ok(found)
}

fn listen(at: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        socket.set_only_v6(!at.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(backlog)?;
    TcpListener::from_std(socket.into())
}

/// The IP of the interface over which `peer` (or the world) is reached. Connecting a UDP socket sends nothing.
pub fn outgoing_ip(peer: Option<IpAddr>) -> IpAddr {
    let world = IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8));
    let peer = peer.unwrap_or(world);
    let any: IpAddr = if peer.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let found = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((peer, 80))?;
        socket.local_addr()
    });
    match found {
        Ok(local) if !local.ip().is_unspecified() => local.ip(),
        Ok(_) | Err(_) => Ipv4Addr::LOCALHOST.into(),
    }
}

/// A connection just accepted. Its handshake belongs into the connection's own task, so that a slow caller delays
/// nobody else.
#[derive(Debug)]
pub struct Incoming(Caller);

#[derive(Debug)]
enum Caller {
    Socket(Box<Socketed>),
    /// Of this process: there is nothing to agree on.
    Local(Box<Comm>),
}

#[derive(Debug)]
struct Socketed {
    stream: TcpStream,
    peer: SocketAddr,
    scheme: Scheme,
    config: CommConfig,
}

impl Incoming {
    /// Where the caller comes from.
    pub fn peer(&self) -> Address {
        match &self.0 {
            Caller::Socket(socketed) => socket_address(socketed.scheme, socketed.peer),
            Caller::Local(comm) => comm.peer().clone(),
        }
    }

    /// TLS and the WebSocket, where asked for, and the handshake, within `config.handshake_timeout`.
    ///
    /// # Errors
    /// [`CommError::Timeout`] for a caller that does not speak in time, [`CommError::Handshake`], [`CommError::Decode`]
    /// or [`CommError::Tls`] for one that speaks something else.
    pub async fn handshake(self) -> Result<Comm, CommError> {
        let peer = self.peer();
        let socketed = match self.0 {
            Caller::Socket(socketed) => socketed,
            Caller::Local(comm) => return Ok(*comm),
        };
        let limit = socketed.config.handshake_timeout;
        let late = |_| CommError::Timeout { what: format!("handshake of {peer}"), seconds: limit.as_secs_f64() };
        timeout(limit, socketed.open()).await.map_err(late)?
    }
}

impl Socketed {
    async fn open(self) -> Result<Comm, CommError> {
        set_options(&self.stream, self.config.tcp_timeout)?;
        let (local_socket, peer) = (self.stream.local_addr()?, socket_address(self.scheme, self.peer));
        let local = socket_address(self.scheme, local_socket);
        let socket = self.stream.as_raw_fd();
        let halves = match &self.config.tls {
            Some(tls) if self.scheme == Scheme::Tls => encrypted(tls, self.stream, &peer).await?,
            Some(tls) if self.scheme == Scheme::Wss => encrypted(tls, Prompt(self.stream), &peer).await?,
            _ if self.scheme.is_websocket() => boxed(tokio::io::split(Prompt(self.stream))),
            _ => boxed(self.stream.into_split()),
        };
        let mut comm = if self.scheme.is_websocket() {
            let (reader, writer) = Box::pin(websocket::accept(halves, &peer)).await?;
            Comm::from_websocket(reader, writer, local, peer).on_socket(socket)
        } else {
            Comm::from_boxes(halves, local, peer).on_socket(socket)
        };
        comm.shake_hands(offer(&self.config, local_socket, self.peer)).await?;
        Ok(comm)
    }
}

/// The halves of a connection with TLS, which the caller begins.
async fn encrypted<S>(tls: &TlsConfig, stream: S, peer: &Address) -> Result<(BoxedReader, BoxedWriter), CommError>
where
    S: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
{
    let stream = tls.acceptor().accept(stream).await;
    let stream =
        stream.map_err(|e| CommError::Tls(format!("{peer}: {}", tls_failure(&e).unwrap_or_else(|| e.to_string()))))?;
    Ok(boxed(tokio::io::split(stream)))
}
