use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Mutex;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::decoder::MessageDecoder;
use super::writer::put_frame;
use super::*;
use crate::comm::Comm;
use crate::error::DecodeError;
use crate::frame::{FRAMES_MAX, FrameLimits, HANDSHAKE_BYTES_MAX, OWN_MEMORY_BYTES_MIN, TRUST_BYTES_MAX};
use crate::message::Message;

const BINARY: OpCode = OpCode::Data(Data::Binary);

/// What one side writes for a message with these frames.
async fn wire(side: Side, frames: &[Bytes]) -> BytesMut {
    let (near, mut far) = tokio::io::duplex(1 << 30);
    let mut writer = WebSocketWriter::new(Arc::new(Mutex::new(Box::new(near) as BoxedWriter)), side);
    writer.send(frames).await.expect("room for all");
    drop(writer);
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).await.expect("readable");
    BytesMut::from(&bytes[..])
}

/// One frame with a header of these two bytes, unmasked.
fn raw(first: u8, payload: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_u8(first);
    bytes.put_u8(u8::try_from(payload.len()).expect("small"));
    bytes.put_slice(payload);
    bytes
}

fn client() -> MessageDecoder {
    MessageDecoder::new(Side::Client)
}

fn fails(decoder: &mut MessageDecoder, bytes: &[u8], expected: &str) {
    let error = decoder.decode(&mut BytesMut::from(bytes)).expect_err("refused").to_string();
    assert!(error.contains(expected), "{error}");
}

#[tokio::test]
async fn messages_are_what_upstream_sends() {
    let frames = [Bytes::from_static(b"body"), Bytes::new()];
    let bytes = wire(Side::Server, &frames).await;
    assert_eq!(bytes, b"\x82\x08\x02\0\0\0\0\0\0\0\x82\x04body\x82\x00"[..]);
}

#[tokio::test]
async fn messages_arrive_piece_by_piece_from_either_side() {
    let large = Bytes::from((0..OWN_MEMORY_BYTES_MIN * 9).map(|i| i as u8).collect::<Vec<_>>());
    let frames = [Bytes::from_static(b"body"), large.clone(), Bytes::new(), large.slice(..70_000), large.slice(..300)];
    for (sender, reader) in [(Side::Client, Side::Server), (Side::Server, Side::Client)] {
        let bytes = wire(sender, &frames).await;
        for step in [7, 64, 100_000, bytes.len()] {
            let (mut decoder, mut src, mut got) = (MessageDecoder::new(reader), BytesMut::new(), Vec::new());
            for piece in bytes.chunks(step).chain(bytes.chunks(step)) {
                src.extend_from_slice(piece);
                got.extend(decoder.decode(&mut src).expect("legal"));
            }
            assert_eq!(got, [&frames[..], &frames[..]]);
            assert!(decoder.at_boundary() && src.is_empty());
        }
    }
}

#[tokio::test]
async fn frames_too_large_for_tornado_are_sent_in_fragments() {
    let large = Bytes::from(vec![3; FRAGMENT_BYTES_MAX + 10]);
    for (sender, reader) in [(Side::Client, Side::Server), (Side::Server, Side::Client)] {
        let mut src = wire(sender, &[large.clone(), Bytes::from_static(b"x")]).await;
        let frames = MessageDecoder::new(reader).decode(&mut src).expect("legal").expect("complete");
        assert!(frames[0] == large && frames[1] == b"x"[..]);
    }
}

#[test]
fn fragments_of_others_are_put_together_around_a_ping() {
    let mut src = raw(0x82, &1_u64.to_le_bytes());
    src.unsplit([raw(0x02, b"bo"), raw(0x89, b"there?"), raw(0x00, b""), raw(0x80, b"dy")].concat()[..].into());
    let mut decoder = client();
    assert_eq!(decoder.decode(&mut src).expect("legal"), Some(vec![Bytes::from_static(b"body")]));
    assert_eq!(decoder.take_ping().as_deref(), Some(&b"there?"[..]));
    assert!(decoder.take_ping().is_none());
}

#[test]
fn what_no_dask_peer_sends_is_refused() {
    fails(&mut client(), &raw(0x81, b"hello"), "a text frame");
    fails(&mut client(), &raw(0xc2, &1_u64.to_le_bytes()), "an extension");
    fails(&mut client(), &raw(0x83, b""), "malformed WebSocket frame");
    fails(&mut client(), &raw(0x80, b"dy"), "the fragments of two messages are mixed");
    fails(&mut client(), &[raw(0x02, b"bo"), raw(0x82, b"dy")].concat(), "the fragments of two messages are mixed");
    fails(&mut client(), &raw(0x09, b""), "a control frame comes in fragments");
    fails(&mut client(), &[0x89, 126, 0, 126], "size of a control frame");
    fails(&mut client(), &raw(0x82, b"short"), "a number of frames has eight bytes");
    fails(&mut client(), &raw(0x82, b"too long."), "size of the number of frames is 9");
    fails(&mut client(), &raw(0x82, &(FRAMES_MAX + 1).to_le_bytes()), "number of frames is");
    fails(&mut MessageDecoder::new(Side::Server), &raw(0x82, &1_u64.to_le_bytes()), "has no mask");
    fails(&mut client(), &[0x82, 0x88, 1, 2, 3, 4], "has a mask");
}

/// As on a byte stream: memory follows what arrives, never what is announced.
#[test]
fn announced_lengths_reserve_no_more_than_the_trusted_amount() {
    let mut src = raw(0x82, &1_u64.to_le_bytes());
    src.extend_from_slice(&[0x82, 127]);
    src.put_u64(1 << 37);
    let mut decoder = client();
    assert!(decoder.decode(&mut src).expect("legal so far").is_none());
    assert!(src.capacity() <= TRUST_BYTES_MAX);
    let mut src = raw(0x82, &1_u64.to_le_bytes());
    src.extend_from_slice(&[0x82, 127]);
    src.put_u64(1 << 39);
    assert!(matches!(client().decode(&mut src), Err(DecodeError::TooLarge { what: "message size", .. })));
}

#[test]
fn fragments_are_limited_together() {
    let mut decoder = client();
    decoder.set_limits(FrameLimits::HANDSHAKE);
    let mut src = raw(0x82, &1_u64.to_le_bytes());
    assert!(decoder.decode(&mut src).expect("legal").is_none());
    for opcode in [0x02, 0, 0, 0] {
        assert!(decoder.decode(&mut raw(opcode, b"")).expect("legal").is_none());
    }
    fails(&mut decoder, &raw(0x00, b""), "number of fragments is 5");

    let mut decoder = client();
    decoder.set_limits(FrameLimits::HANDSHAKE);
    let mut src = raw(0x82, &1_u64.to_le_bytes());
    src.extend_from_slice(&[0x02, 127]);
    src.put_u64(HANDSHAKE_BYTES_MAX);
    src.put_bytes(0, usize::try_from(HANDSHAKE_BYTES_MAX).expect("small"));
    src.extend_from_slice(&raw(0x80, b"x"));
    assert!(matches!(decoder.decode(&mut src), Err(DecodeError::TooLarge { what: "message size", .. })));
}

fn halves_of(stream: DuplexStream) -> (BoxedReader, BoxedWriter) {
    boxed(tokio::io::split(stream))
}

/// Both ends of a new WebSocket.
async fn pair() -> (Comm, Comm) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (caller, listener) = (Address::new("ws://127.0.0.1:1"), Address::new("ws://127.0.0.1:2"));
    let asked = connect(halves_of(near), "127.0.0.1:2", &listener);
    let (asked, answered) = tokio::join!(asked, accept(halves_of(far), &caller));
    let ((reader, writer), (far_reader, far_writer)) = (asked.expect("upgrades"), answered.expect("upgrades"));
    (
        Comm::from_websocket(reader, writer, caller.clone(), listener.clone()),
        Comm::from_websocket(far_reader, far_writer, listener, caller),
    )
}

#[tokio::test]
async fn a_message_in_parts_arrives_as_one_and_can_be_taken_in_parts() {
    let (mut ours, mut theirs) = pair().await;
    let frames = vec![Bytes::from_static(b"body"), Bytes::new(), Bytes::from(vec![1; 10]), Bytes::new()];
    let lengths: Vec<usize> = frames.iter().map(Bytes::len).collect();
    for pieces in [1, 3, 100] {
        ours.begin(&lengths).await.expect("open");
        for piece in frames.concat().chunks(pieces) {
            ours.write_part(Bytes::copy_from_slice(piece)).await.expect("open");
        }
    }
    ours.begin(&[0, 0]).await.expect("open");
    assert_eq!(theirs.recv().await.expect("whole").frames(), frames);
    let head = theirs.recv_head().await.expect("whole");
    assert_eq!((&head.body[..], &head.lengths[..]), (&b"body"[..], &[0, 10, 0][..]));
    assert_eq!(theirs.recv_rest(4).await.expect("whole").expect("a part").len(), 4);
    while theirs.recv_rest(4).await.expect("whole").is_some() {}
    let head = theirs.recv_head().await.expect("whole");
    assert_eq!(theirs.recv_whole(head).await.expect("untouched").frames(), frames);
    assert_eq!(theirs.recv().await.expect("whole").frames(), [Bytes::new(), Bytes::new()]);
    ours.close().await;
    assert!(matches!(theirs.recv().await, Err(CommError::Closed { .. })));
}

#[tokio::test]
async fn pings_are_answered_while_nobody_sends() {
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let (reader, writer) = halves_of(far);
    let (mut reader, _writer) = halves(reader, BytesMut::new(), writer, Side::Server);
    tokio::spawn(async move { reader.recv().await.map(|_| ()) });
    let mut ping = BytesMut::new();
    put_frame(&mut ping, Side::Client, OpCode::Control(Control::Ping), b"there?");
    near.write_all(&ping).await.expect("open");
    let mut pong = [0; 8];
    near.read_exact(&mut pong).await.expect("answered");
    assert_eq!(&pong, b"\x8a\x06there?");
}

#[tokio::test]
async fn what_came_of_a_message_before_the_end_is_none() {
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let (reader, writer) = halves_of(far);
    let (mut reader, _writer) = halves(reader, BytesMut::new(), writer, Side::Server);
    let mut bytes = BytesMut::new();
    put_frame(&mut bytes, Side::Client, BINARY, &2_u64.to_le_bytes());
    put_frame(&mut bytes, Side::Client, OpCode::Control(Control::Close), b"");
    near.write_all(&bytes).await.expect("open");
    assert!(reader.recv().await.expect("an end").is_none());
}

/// What a caller gets that sends this, and what we say of it.
async fn refused(request: &[u8]) -> (String, String) {
    let (mut near, far) = tokio::io::duplex(1 << 20);
    near.write_all(request).await.expect("open");
    let error = accept(halves_of(far), &Address::new("ws://127.0.0.1:1")).await.err().expect("refused");
    let mut answer = String::new();
    near.read_to_string(&mut answer).await.expect("text");
    (answer, error.to_string())
}

fn request(path: &str, more: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: here:1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: \
         websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n{more}\r\n",
        tungstenite::handshake::client::generate_key()
    )
    .into_bytes()
}

#[tokio::test]
async fn callers_that_ask_for_something_else_are_told_so() {
    let page = b"GET / HTTP/1.1\r\nHost: here:1\r\n\r\n".to_vec();
    let endless = [&b"GET / HTTP/1.1\r\nX: "[..], &vec![b'x'; UPGRADE_BYTES_MAX]].concat();
    let tcp = Message::encode("not HTTP at all").expect("packs").frames().concat();
    for (bytes, status, reason) in [
        (page, "400", "Connection: upgrade"),
        (request("/status", ""), "404", "/status"),
        (request("/", "Origin: http://elsewhere:1\r\n"), "403", "another origin"),
        (endless, "400", "over 16384 bytes"),
        (tcp, "400", "does not speak HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), "400", "does not speak HTTP"),
    ] {
        let (answer, error) = refused(&bytes).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(error.contains(reason), "{error}");
    }
    let (mut near, far) = tokio::io::duplex(1 << 20);
    near.write_all(&request("/", "Origin: http://HERE:1\r\n")).await.expect("open");
    assert!(accept(halves_of(far), &Address::new("ws://127.0.0.1:1")).await.is_ok());
}

#[tokio::test]
async fn servers_that_answer_something_else_are_refused() {
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    for (answer, reason) in [
        ("HTTP/1.1 404 Not Found\r\n\r\n".to_owned(), "404 Not Found"),
        (format!("{upgrade}Sec-WebSocket-Accept: none\r\n\r\n"), "somebody else's request"),
        ("\x3a\0\0\0".to_owned(), "does not speak HTTP"),
    ] {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        far.write_all(answer.as_bytes()).await.expect("open");
        let error = connect(halves_of(near), "here:1", &Address::new("ws://here:1")).await.err().expect("refused");
        assert!(error.to_string().contains(reason), "{error}");
    }
}
