//! How an HTTP connection becomes a WebSocket (RFC 6455, 4).

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tungstenite::handshake::client::{Response, generate_key};
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::{HeaderMap, StatusCode, Uri};

use super::{BoxedReader, BoxedWriter, UPGRADE_BYTES_MAX};
use crate::address::Address;
use crate::error::CommError;

/// What every dask peer is asked for.
const PATH: &str = "/";

/// Asks a server to upgrade. What it sent behind its answer.
pub(super) async fn ask(
    reader: &mut BoxedReader,
    writer: &mut BoxedWriter,
    host: &str,
    peer: &Address,
) -> Result<BytesMut, CommError> {
    let key = generate_key();
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: \
         13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    );
    writer.write_all(request.as_bytes()).await?;
    writer.flush().await?;
    let (response, rest) = read_head::<Response>(reader, peer).await?.map_err(|reason| failed(peer, reason))?;
    check_response(&response, &key).map_err(|reason| failed(peer, reason))?;
    Ok(rest)
}

fn check_response(response: &Response, key: &str) -> Result<(), String> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(format!("asked for a WebSocket, it answers {}", response.status()));
    }
    let headers = response.headers();
    if !header(headers, "upgrade").eq_ignore_ascii_case("websocket") {
        return Err("it upgrades to something else than a WebSocket".to_owned());
    }
    if header(headers, "sec-websocket-accept") != derive_accept_key(key.as_bytes()) {
        return Err("it answers somebody else's request for a WebSocket".to_owned());
    }
    if headers.contains_key("sec-websocket-extensions") || headers.contains_key("sec-websocket-protocol") {
        return Err("it uses a WebSocket extension that nobody asked for".to_owned());
    }
    Ok(())
}

/// Upgrades, if the caller asks for that, and tells it why not otherwise. What it sent behind its request.
pub(super) async fn answer(
    reader: &mut BoxedReader,
    writer: &mut BoxedWriter,
    peer: &Address,
) -> Result<BytesMut, CommError> {
    let answer = match read_head::<Request>(reader, peer).await? {
        Ok((request, rest)) => respond(&request).map(|response| (response, rest)),
        Err(reason) => Err((StatusCode::BAD_REQUEST, reason)),
    };
    match answer {
        Ok((response, rest)) => {
            writer.write_all(&response).await?;
            writer.flush().await?;
            Ok(rest)
        }
        Err((status, reason)) => {
            // Whether it listens makes no difference to how this ends.
            let _gone = writer.write_all(refusal(status, &reason).as_bytes()).await;
            let _gone = writer.shutdown().await;
            Err(failed(peer, reason))
        }
    }
}

fn respond(request: &Request) -> Result<Vec<u8>, (StatusCode, String)> {
    if request.uri().path() != PATH {
        let reason = format!("{:?} is not where WebSockets are; {PATH:?} is", request.uri().path());
        return Err((StatusCode::NOT_FOUND, reason));
    }
    check_origin(request.headers()).map_err(|reason| (StatusCode::FORBIDDEN, reason))?;
    let refused = |error: tungstenite::Error| (StatusCode::BAD_REQUEST, error.to_string());
    let response = create_response(request).map_err(refused)?;
    let mut head = Vec::new();
    write_response(&mut head, &response).map_err(refused)?;
    Ok(head)
}

/// A browser says which page asks: only pages of this very server may, as upstream. Else any page that somebody looks at
/// could talk to a cluster on the same machine.
fn check_origin(headers: &HeaderMap) -> Result<(), String> {
    let Some(origin) = headers.get("origin") else { return Ok(()) };
    let page = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    let page = page.as_ref().and_then(Uri::authority).map(|authority| authority.as_str());
    let ours = page.is_some_and(|page| page.eq_ignore_ascii_case(header(headers, "host")));
    if ours { Ok(()) } else { Err(format!("a page of another origin asks for a WebSocket: {origin:?}")) }
}

fn refusal(status: StatusCode, reason: &str) -> String {
    let length = reason.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: \
         close\r\n\r\n{reason}"
    )
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// The head of a request or a response and what came behind it; else why there is none.
async fn read_head<T: TryParse>(
    reader: &mut BoxedReader,
    peer: &Address,
) -> Result<Result<(T, BytesMut), String>, CommError> {
    let mut head = BytesMut::with_capacity(1 << 10);
    loop {
        match T::try_parse(&head) {
            Ok(Some((bytes, parsed))) => {
                head.advance(bytes);
                return Ok(Ok((parsed, head)));
            }
            Ok(None) if head.len() >= UPGRADE_BYTES_MAX => {
                return Ok(Err(format!("the head of its HTTP message is over {UPGRADE_BYTES_MAX} bytes")));
            }
            Ok(None) => {}
            Err(error) => return Ok(Err(format!("it does not speak HTTP ({error})"))),
        }
        if reader.read_buf(&mut head).await? == 0 {
            return Err(CommError::Closed { peer: peer.as_str().to_owned() });
        }
    }
}

fn failed(peer: &Address, reason: String) -> CommError {
    CommError::Handshake { peer: peer.as_str().to_owned(), reason }
}
