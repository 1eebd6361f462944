//! Calls to many peers over connections that are kept for the next call.
//!
//! dask does not pipeline: a connection carries one exchange at a time, so concurrent calls to one peer use several.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard};

use rustc_hash::FxBuildHasher;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::config::CommConfig;
use super::connection::Comm;
use crate::address::Address;
use crate::error::CommError;
use crate::message::Message;
use crate::scan;
use crate::value::Value;

/// Most connections one pool keeps open, as upstream's `ConnectionPool` of clients and workers.
pub const POOL_CONNECTIONS_MAX: usize = 512;

/// Makes calls, reusing connections. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct ConnectionPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: CommConfig,
    connections_max: usize,
    state: Mutex<State>,
    /// One of the open connections was closed or became idle.
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    idle: HashMap<Address, Vec<Idle>, FxBuildHasher>,
    /// Connections leased, being made, or idle.
    open: usize,
    /// Counts returns; the idle connection with the lowest number was used least recently.
    uses: u64,
    closed: bool,
}

#[derive(Debug)]
struct Idle {
    comm: Comm,
    used: u64,
}

/// What a lease may take without waiting.
enum Room {
    Reuse(Box<Comm>),
    Connect,
    Full,
}

impl State {
    fn take_idle(&mut self, address: &Address) -> Option<Comm> {
        let idle = self.idle.get_mut(address)?;
        let newest = idle.pop();
        if idle.is_empty() {
            self.idle.remove(address);
        }
        newest.map(|idle| idle.comm)
    }

    fn close_least_recently_used(&mut self) -> Option<Comm> {
        let oldest = |idle: &Vec<Idle>| idle.first().map_or(u64::MAX, |idle| idle.used);
        let address = self.idle.iter().min_by_key(|(_, idle)| oldest(idle)).map(|(address, _)| address.clone())?;
        let idle = self.idle.get_mut(&address)?;
        let comm = idle.remove(0).comm;
        if idle.is_empty() {
            self.idle.remove(&address);
        }
        self.open -= 1;
        Some(comm)
    }
}

impl ConnectionPool {
    /// An empty pool of at most [`POOL_CONNECTIONS_MAX`] connections.
    pub fn new(config: CommConfig) -> ConnectionPool {
        ConnectionPool::with_limit(config, POOL_CONNECTIONS_MAX)
    }

    /// An empty pool with its own limit (at least one).
    pub fn with_limit(config: CommConfig, connections_max: usize) -> ConnectionPool {
        let (state, freed) = (Mutex::default(), Notify::new());
        ConnectionPool { shared: Arc::new(Shared { config, connections_max: connections_max.max(1), state, freed }) }
    }

    /// How connections are made.
    pub fn config(&self) -> &CommConfig {
        &self.shared.config
    }

    /// Calls `op` with the fields of `args` (a struct or map; `()` for none) and decodes the reply.
    ///
    /// # Errors
    /// [`CommError::Remote`] when the peer answers with an error, [`CommError::Decode`] when the reply is not an `R`,
    /// else what [`Comm::connect`], [`Comm::send`] and [`Comm::recv`] say.
    pub async fn call<A, R>(&self, address: &Address, op: &str, args: &A) -> Result<R, CommError>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let request = request(op, args)?;
        let reply = self.call_message(address, &request).await?;
        check_reply(op, address, &reply)?;
        Ok(reply.decode()?)
    }

    /// Sends a request and returns its reply, whatever it says. A connection that was idle and turns out to be dead
    /// before a reply came is replaced once.
    ///
    /// # Errors
    /// What [`Comm::connect`], [`Comm::send`] and [`Comm::recv`] say.
    pub async fn call_message(&self, address: &Address, request: &Message) -> Result<Message, CommError> {
        let mut lease = self.lease(address).await?;
        let reply = match exchange(&mut lease, request).await {
            Err(CommError::Closed { .. }) if lease.reused && !lease.is_inside_message() => {
                tracing::debug!(%address, "an idle connection was dead; connecting again");
                drop(lease);
                self.remove(address);
                lease = self.lease(address).await?;
                exchange(&mut lease, request).await?
            }
            other => other?,
        };
        lease.release();
        Ok(reply)
    }

    /// A connection for an exchange of several steps. Waits while the limit is reached and no connection is idle.
    /// [`Lease::release`] gives it back; dropping the lease closes it, as its exchange may be half done.
    ///
    /// # Errors
    /// What [`Comm::connect`] says; [`CommError::Closed`] after [`ConnectionPool::close`].
    pub async fn lease(&self, address: &Address) -> Result<Lease, CommError> {
        loop {
            let mut freed = std::pin::pin!(self.shared.freed.notified());
            // In line before looking, so that no connection given back meanwhile goes unnoticed.
            freed.as_mut().enable();
            match self.shared.room(address)? {
                Room::Reuse(mut comm) => {
                    if !comm.is_stale() {
                        return Ok(Lease { comm: Some(*comm), reused: true, slot: Slot(Arc::clone(&self.shared)) });
                    }
                    drop(Slot(Arc::clone(&self.shared)));
                }
                Room::Connect => {
                    let slot = Slot(Arc::clone(&self.shared));
                    let comm = Comm::connect(address, &self.shared.config).await?;
                    return Ok(Lease { comm: Some(comm), reused: false, slot });
                }
                Room::Full => freed.await,
            }
        }
    }

    /// Closes the idle connections to a peer, such as one known to be gone.
    pub fn remove(&self, address: &Address) {
        let mut state = self.shared.lock();
        let idle = state.idle.remove(address).unwrap_or_default();
        state.open -= idle.len();
        drop(state);
        self.shared.freed.notify_one();
    }

    /// Connections open now, leased or idle.
    pub fn open(&self) -> usize {
        self.shared.lock().open
    }

    /// Closes idle connections and refuses new leases; leased connections close when their exchange ends.
    pub fn close(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let idle = std::mem::take(&mut state.idle);
        state.open -= idle.values().map(Vec::len).sum::<usize>();
        drop(state);
        self.shared.freed.notify_waiters();
    }
}

async fn exchange(comm: &mut Comm, request: &Message) -> Result<Message, CommError> {
    comm.send(request).await?;
    comm.recv().await
}

/// Fails when a reply tells of an exception at the peer.
///
/// # Errors
/// [`CommError::Remote`] with the peer's text; [`CommError::Decode`] when the reply is no message.
pub fn check_reply(op: &str, peer: &Address, reply: &Message) -> Result<(), CommError> {
    #[derive(Deserialize)]
    struct Text {
        #[serde(default)]
        exception_text: Value,
        #[serde(default)]
        exception: Value,
    }
    let is_map = scan::shape(reply.body())? == scan::Shape::Map;
    if !is_map || scan::text_field(reply.body(), "status")? != Some("uncaught-error") {
        return Ok(());
    }
    let Text { exception_text, exception } = reply.decode()?;
    let text = exception_text.as_str().or(exception.as_str()).unwrap_or("the peer gave no reason").to_owned();
    Err(CommError::Remote { op: op.to_owned(), peer: peer.as_str().to_owned(), text })
}

/// The message that calls `op` with the fields of `args` and waits for a reply.
///
/// # Errors
/// [`CommError::Encode`] when `args` is neither a struct, a map nor `()`, or cannot be packed.
pub fn request<A: Serialize + ?Sized>(op: &str, args: &A) -> Result<Message, CommError> {
    #[derive(Serialize)]
    struct Call<'a, A: ?Sized> {
        op: &'a str,
        reply: bool,
        #[serde(flatten)]
        args: &'a A,
    }
    Message::encode(&Call { op, reply: true, args })
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the pool")
    }

    /// Takes an idle connection, or a place for a new one.
    fn room(&self, address: &Address) -> Result<Room, CommError> {
        let mut state = self.lock();
        if state.closed {
            return Err(CommError::Closed { peer: address.as_str().to_owned() });
        }
        if let Some(comm) = state.take_idle(address) {
            return Ok(Room::Reuse(Box::new(comm)));
        }
        let evicted = if state.open < self.connections_max { None } else { state.close_least_recently_used() };
        if state.open >= self.connections_max {
            return Ok(Room::Full);
        }
        state.open += 1;
        drop(state);
        drop(evicted);
        Ok(Room::Connect)
    }
}

/// One of the open connections the limit allows; given back on drop.
#[derive(Debug)]
struct Slot(Arc<Shared>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.lock().open -= 1;
        self.0.freed.notify_one();
    }
}

/// A pooled connection in use.
#[derive(Debug)]
pub struct Lease {
    comm: Option<Comm>,
    reused: bool,
    slot: Slot,
}

impl Lease {
    /// Gives the connection back for the next call. Only right after an exchange that is complete.
    pub fn release(mut self) {
        let shared = Arc::clone(&self.slot.0);
        let mut state = shared.lock();
        let comm = self.comm.take().expect("only release takes the connection, and it takes the lease");
        if !state.closed {
            state.open += 1;
            state.uses += 1;
            let used = state.uses;
            state.idle.entry(comm.peer().clone()).or_default().push(Idle { comm, used });
        }
        // Dropping the lease gives its slot back, which is the one the idle connection now holds, and wakes a waiter.
    }
}

impl Deref for Lease {
    type Target = Comm;
    fn deref(&self) -> &Comm {
        self.comm.as_ref().expect("only release takes the connection")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Comm {
        self.comm.as_mut().expect("only release takes the connection")
    }
}
