//! Connections: [`Comm`] between two peers, [`Listener`] for incoming ones, [`ConnectionPool`] for calls.
//!
//! A [`Comm`] moves whole [`Message`](crate::message::Message)s. For a stream it is [split](Comm::split), and its
//! writing half usually becomes a [`BatchedSender`], whose task packs everything that waits into one message.

mod batched;
pub mod child;
mod config;
mod connect;
mod connection;
mod handshake;
mod listener;
mod local;
mod page_tls;
mod parts;
pub mod pool;
mod sent_log;
pub mod tls;
mod websocket;

pub use batched::{BatchedSender, ResumeError};
pub use config::CommConfig;
pub use connect::{refused, resolve};
pub use connection::{Comm, CommReader, CommWriter};
pub use listener::{Incoming, Listener, outgoing_ip};
pub use page_tls::PageTls;
pub use pool::ConnectionPool;
pub use sent_log::{Gap, SentLimits, SentLog};
pub use tls::{TlsConfig, TlsVersions};
