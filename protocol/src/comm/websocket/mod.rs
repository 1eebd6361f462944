//! `ws://` and `wss://`: dask's messages over WebSockets (RFC 6455), as upstream's `distributed.comm.ws` sends them.
//!
//! A caller asks for the path `/`, and each frame of a dask message is one binary message; see [`decoder`] for the order.
//! Everything above, from the handshake on, is as over a byte stream.

mod decoder;
mod mask;
mod prompt;
mod reader;
#[cfg(test)]
mod tests;
mod upgrade;
mod writer;

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

pub(super) use self::prompt::Prompt;
pub(super) use self::reader::WebSocketReader;
pub(super) use self::writer::WebSocketWriter;
use crate::address::Address;
use crate::error::CommError;

/// The receiving half of a connection that bytes pass over.
pub(super) type BoxedReader = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// The sending half.
pub(super) type BoxedWriter = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// The halves of a connection, of whatever kind it is.
pub(super) fn boxed<R, W>((reader, writer): (R, W)) -> (BoxedReader, BoxedWriter)
where
    R: AsyncRead + Send + Sync + Unpin + 'static,
    W: AsyncWrite + Send + Sync + Unpin + 'static,
{
    (Box::new(reader), Box::new(writer))
}

/// Longest payload of a ping, a pong or a close (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: u64 = 125;
/// Frames of dask's above this size are sent in fragments. Tornado reads each as a whole, and none above 100 MB; upstream's
/// own frames have at most this size (`distributed.comm.websockets.shard`).
const FRAGMENT_BYTES_MAX: usize = 64 << 20;
/// Longest head of a request or a response: what hyper takes for one, too.
const UPGRADE_BYTES_MAX: usize = 16 << 10;

/// Which end of a connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// Asks a server for a WebSocket; `host` is what it is called.
///
/// # Errors
/// [`CommError::Handshake`] when it makes none, [`CommError::Io`] or [`CommError::Closed`] when the connection ends.
pub(super) async fn connect(
    (mut reader, mut writer): (BoxedReader, BoxedWriter),
    host: &str,
    peer: &Address,
) -> Result<(WebSocketReader, WebSocketWriter), CommError> {
    let rest = upgrade::ask(&mut reader, &mut writer, host, peer).await?;
    Ok(halves(reader, rest, writer, Side::Client))
}

/// Gives a caller the WebSocket it asks for.
///
/// # Errors
/// [`CommError::Handshake`] when it asks for anything else, [`CommError::Io`] or [`CommError::Closed`] when the connection
/// ends.
pub(super) async fn accept(
    (mut reader, mut writer): (BoxedReader, BoxedWriter),
    peer: &Address,
) -> Result<(WebSocketReader, WebSocketWriter), CommError> {
    let rest = upgrade::answer(&mut reader, &mut writer, peer).await?;
    Ok(halves(reader, rest, writer, Side::Server))
}

fn halves(
    reader: BoxedReader,
    rest: bytes::BytesMut,
    writer: BoxedWriter,
    side: Side,
) -> (WebSocketReader, WebSocketWriter) {
    let line = Arc::new(tokio::sync::Mutex::new(writer));
    (WebSocketReader::new(reader, rest, side, &line), WebSocketWriter::new(line, side))
}
