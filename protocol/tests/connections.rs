//! Two ends of real sockets: handshake, TLS, streams, deadlines, children.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use dask_protocol::comm::{BatchedSender, Comm, CommConfig, Listener, ResumeError, TlsConfig};
use dask_protocol::compression::Compression;
use dask_protocol::message::Message;
use dask_protocol::{Address, CommError, Payload, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn any_port(scheme: &str) -> Address {
    Address::from_parts(scheme, "127.0.0.1", 0)
}

async fn listener(config: &CommConfig) -> Listener {
    let scheme = if config.tls.is_some() { "tls" } else { "tcp" };
    Listener::bind(&any_port(scheme), config).await.expect("a free port")
}

async fn pair(config: &CommConfig) -> (Comm, Comm) {
    pair_over(if config.tls.is_some() { "tls" } else { "tcp" }, config).await
}

async fn pair_over(scheme: &str, config: &CommConfig) -> (Comm, Comm) {
    let listener = Listener::bind(&any_port(scheme), config).await.expect("a free port");
    let address = listener.local_address();
    let accept = async { listener.accept().await.expect("accepts").handshake().await };
    let (client, server) = tokio::join!(Comm::connect(&address, config), accept);
    (client.expect("connects"), server.expect("shakes hands"))
}

fn message(value: &Value) -> Message {
    Message::encode(value).expect("packs")
}

fn rich_body(bulk: usize) -> Value {
    let pickle = Bytes::from_static(b"\x80\x04N.");
    let payload = Payload::serialized_pickle(pickle.clone(), vec![Bytes::new(), Bytes::from(vec![5; bulk])]);
    let inner = Value::map([("run_spec", Value::Payload(Payload::pickled(pickle, vec![])))]);
    Value::Map(vec![
        (Value::from("set"), Value::Set(vec![Value::Int(1), Value::from("two")])),
        (Value::from("status"), Value::enum_member("init", "distributed.core", "Status")),
        (Value::Array(vec![Value::from("x"), Value::Int(3)]), Value::Payload(payload)),
        (Value::from("deep"), Value::Array(vec![Value::Array(vec![inner])])),
        (Value::from("inf"), Value::Float(f64::INFINITY)),
    ])
}

fn certificate(names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("makes a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// What `Security.temporary()` makes: one certificate for everything.
fn temporary_tls() -> CommConfig {
    let (cert, key) = certificate(&["dask-internal"]);
    CommConfig { tls: Some(TlsConfig::load(&cert, &cert, &key).expect("valid")), ..CommConfig::default() }
}

#[tokio::test]
async fn messages_arrive_as_sent_over_every_transport() {
    for scheme in ["tcp", "tls", "ws", "wss"] {
        let (mut client, mut server) = pair_over(scheme, &temporary_tls()).await;
        assert_eq!((client.peer().scheme(), server.peer().scheme()), (scheme, scheme));
        for bulk in [0, 100, 3_000_000] {
            let body = rich_body(bulk);
            let sent = message(&body);
            let (sending, got) = tokio::join!(client.send(&sent), server.recv());
            sending.expect("sent");
            assert_eq!(got.expect("received").decode::<Value>().expect("decodes"), body);
        }
        client.close().await;
        assert!(matches!(server.recv().await, Err(CommError::Closed { .. })));
    }
}

#[tokio::test]
async fn frames_no_placeholder_refers_to_are_ignored() {
    let (mut client, mut server) = pair(&CommConfig::default()).await;
    let mut frames = message(&rich_body(10)).frames().to_vec();
    frames.extend([Bytes::from_static(b"orphan"), Bytes::new()]);
    client.send(&Message::from_frames(frames)).await.expect("sent");
    assert_eq!(server.recv().await.expect("received").decode::<Value>().expect("decodes"), rich_body(10));
}

#[tokio::test]
async fn certificates_of_another_authority_are_refused_by_both_ends() {
    let (ours, theirs) = (temporary_tls(), temporary_tls());
    let listener = listener(&ours).await;
    let address = listener.local_address();
    let accept = async { listener.accept().await.expect("accepts").handshake().await };
    let (client, server) = tokio::join!(Comm::connect(&address, &theirs), accept);
    assert!(matches!(client, Err(CommError::Tls(_))), "{client:?}");
    assert!(matches!(server, Err(CommError::Tls(_))), "{server:?}");
}

#[tokio::test]
async fn leaves_signed_by_the_authority_are_accepted_whatever_their_names() {
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let mut ca = rcgen::CertificateParams::new(Vec::<String>::new()).expect("valid");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).expect("signs");
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let leaf_key = rcgen::KeyPair::generate().expect("a key");
    let leaf = rcgen::CertificateParams::new(vec!["somewhere.else".to_owned()]).expect("valid");
    let leaf = leaf.signed_by(&leaf_key, &issuer).expect("signs");
    let tls = TlsConfig::load(&ca_cert.pem(), &leaf.pem(), &leaf_key.serialize_pem()).expect("valid");
    let (mut client, mut server) = pair(&CommConfig { tls: Some(tls), ..CommConfig::default() }).await;
    client.send(&message(&Value::from("hello"))).await.expect("sent");
    assert_eq!(server.recv().await.expect("received").decode::<Value>().expect("decodes"), Value::from("hello"));
}

#[tokio::test]
async fn unusable_addresses_say_why() {
    let plain = CommConfig::default();
    let strict = CommConfig { require_encryption: true, ..CommConfig::default() };
    for (address, config, reason) in [
        ("tcp://127.0.0.1:1", &strict, "encryption is required"),
        ("tls://127.0.0.1:1", &plain, "needs certificates"),
        ("ws://127.0.0.1:1", &strict, "use wss://"),
        ("wss://127.0.0.1:1", &plain, "needs certificates"),
        ("ucx://127.0.0.1:1", &plain, "unknown scheme"),
    ] {
        let address = Address::from(address);
        let connect = Comm::connect(&address, config).await.expect_err("refused");
        let bind = Listener::bind(&address, config).await.expect_err("refused");
        assert!(connect.to_string().contains(reason) && bind.to_string().contains(reason), "{connect} / {bind}");
    }
}

#[tokio::test]
async fn a_peer_that_cannot_be_reached_is_named_when_the_time_is_over() {
    let free = listener(&CommConfig::default()).await.local_address();
    let config = CommConfig { connect_timeout: Duration::from_millis(50), ..CommConfig::default() };
    let error = Comm::connect(&free, &config).await.expect_err("nobody listens");
    assert!(matches!(&error, CommError::Connect { address, .. } if *address == free), "{error}");
}

#[tokio::test]
async fn a_peer_that_starts_listening_later_is_reached() {
    let config = CommConfig::default();
    let address = listener(&config).await.local_address();
    let late = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let listener = Listener::bind(&address, &config).await.expect("still free");
        listener.accept().await.expect("accepts").handshake().await
    };
    let (client, server) = tokio::join!(Comm::connect(&address, &config), late);
    assert_eq!(client.expect("connects").local().as_str(), server.expect("shakes hands").peer().as_str());
}

#[tokio::test]
async fn half_a_handshake_times_out_and_others_are_served_meanwhile() {
    half_a_handshake("tcp", &[58, 0, 0]).await;
    half_a_handshake("ws", b"GET / HTTP/1.1\r\n").await;
}

async fn half_a_handshake(scheme: &str, half: &[u8]) {
    let config = CommConfig { handshake_timeout: Duration::from_millis(200), ..CommConfig::default() };
    let listener = Listener::bind(&any_port(scheme), &config).await.expect("a free port");
    let address = listener.local_address();
    let mut silent = TcpStream::connect(address.host_port()).await.expect("connects");
    silent.write_all(half).await.expect("writes");
    let slow = listener.accept().await.expect("accepts").handshake();
    let quick = async {
        let accept = async { listener.accept().await.expect("accepts").handshake().await };
        tokio::join!(Comm::connect(&address, &config), accept)
    };
    let (slow, (client, server)) = tokio::join!(slow, quick);
    assert!(matches!(slow, Err(CommError::Timeout { .. })), "{slow:?}");
    assert!(client.is_ok() && server.is_ok());
}

#[tokio::test]
async fn strangers_are_refused_without_believing_their_lengths() {
    let config = CommConfig::default();
    let listener = listener(&config).await;
    let address = listener.local_address();
    let mut huge = Vec::new();
    [16_u64, 1, 1 << 35].iter().for_each(|&word| huge.put_u64_le(word));
    for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &huge, &[0; 64]] {
        let mut stranger = TcpStream::connect(address.host_port()).await.expect("connects");
        stranger.write_all(bytes).await.expect("writes");
        let refused = listener.accept().await.expect("accepts").handshake().await.expect_err("refused");
        assert!(matches!(refused, CommError::Decode(_) | CommError::Handshake { .. }), "{refused}");
        let mut rest = Vec::new();
        // Closing with unread bytes resets: either way the stranger is let go.
        let _ = stranger.read_to_end(&mut rest).await;
    }
}

#[tokio::test]
async fn a_message_cut_by_the_peer_is_an_error() {
    let (client, mut server) = pair(&CommConfig::default()).await;
    let (reader, writer) = tokio::io::duplex(64);
    drop(client);
    assert!(matches!(server.recv().await, Err(CommError::Closed { .. })));
    let (_, mut raw) = tokio::io::split(writer);
    let (read_half, write_half) = tokio::io::split(reader);
    let mut comm = Comm::from_halves(read_half, write_half, Address::new("a"), Address::new("b"));
    raw.write_all(&[24, 0, 0, 0, 0, 0, 0, 0, 1]).await.expect("writes");
    raw.shutdown().await.expect("closes");
    drop(raw);
    assert!(matches!(comm.recv().await, Err(CommError::Closed { .. })));
}

#[tokio::test]
async fn an_abandoned_receive_resumes_where_it_stopped() {
    let (reader, writer) = tokio::io::duplex(7);
    let (read_half, write_half) = tokio::io::split(reader);
    let mut comm = Comm::from_halves(read_half, write_half, Address::new("a"), Address::new("b"));
    let (read_half, write_half) = tokio::io::split(writer);
    let mut peer = Comm::from_halves(read_half, write_half, Address::new("b"), Address::new("a"));
    let body = rich_body(1000);
    let sent = message(&body);
    let sending = async { peer.send(&sent).await.expect("sent") };
    let receiving = async {
        loop {
            tokio::select! {
                biased;
                got = comm.recv() => break got.expect("received"),
                () = tokio::task::yield_now() => {}
            }
        }
    };
    let ((), got) = tokio::join!(sending, receiving);
    assert_eq!(got.decode::<Value>().expect("decodes"), body);
}

#[tokio::test]
async fn nothing_follows_a_message_that_was_begun_and_abandoned() {
    let (near, _far) = tokio::io::duplex(16);
    let (read_half, write_half) = tokio::io::split(near);
    let mut comm = Comm::from_halves(read_half, write_half, Address::new("a"), Address::new("b"));
    let large = message(&rich_body(1000));
    assert!(tokio::time::timeout(Duration::from_millis(5), comm.send(&large)).await.is_err());
    assert!(matches!(comm.send(&large).await, Err(CommError::Closed { .. })));
}

#[tokio::test]
async fn a_stream_keeps_its_order_and_packs_what_waits() {
    let (client, mut server) = pair(&CommConfig::default()).await;
    let (_reader, writer) = client.split();
    let sender = BatchedSender::<Value>::spawn(writer);
    let count = 20_000;
    assert!(sender.send_all((0..count / 2).map(Value::Int)));
    let other = sender.clone();
    (count / 2..count).for_each(|i| assert!(other.send(Value::Int(i))));
    drop(other);
    sender.close();
    let (mut got, mut messages) = (Vec::new(), 0);
    while let Ok(message) = server.recv().await {
        got.extend(message.decode::<Vec<i64>>().expect("numbers"));
        messages += 1;
    }
    assert_eq!(got, (0..count).collect::<Vec<_>>());
    assert!(messages < count / 2, "{messages} messages");
    sender.closed().await;
    assert!(sender.is_empty() && !sender.send(Value::Nil));
}

#[tokio::test]
async fn a_stream_closes_when_its_last_handle_goes() {
    let (client, mut server) = pair(&CommConfig::default()).await;
    let sender = BatchedSender::<Value>::spawn(client.split().1);
    sender.send(Value::Int(1));
    drop(sender);
    assert_eq!(server.recv().await.expect("received").decode::<Vec<i64>>().expect("a batch"), [1]);
    assert!(matches!(server.recv().await, Err(CommError::Closed { .. })));
}

#[tokio::test]
async fn aborting_a_stream_wakes_its_reader() {
    let (client, _server) = pair(&CommConfig::default()).await;
    let (mut reader, writer) = client.split();
    let sender = BatchedSender::<Value>::spawn(writer);
    let waiting = tokio::spawn(async move { reader.recv().await });
    sender.abort();
    assert!(matches!(waiting.await.expect("no panic"), Err(CommError::Closed { .. })));
    sender.closed().await;
    assert!(!sender.send(Value::Nil));
}

#[tokio::test]
async fn a_peer_that_leaves_ends_the_stream() {
    let (client, server) = pair(&CommConfig::default()).await;
    let (mut reader, writer) = client.split();
    let sender = BatchedSender::<Value>::spawn(writer);
    drop(server);
    assert!(matches!(reader.recv().await, Err(CommError::Closed { .. })));
    while sender.send(Value::Nil) {
        tokio::task::yield_now().await;
    }
    sender.closed().await;
}

#[tokio::test]
async fn compression_is_not_used_within_one_host() {
    let config = CommConfig { compression: Some(Compression::Lz4), ..CommConfig::default() };
    let (mut client, mut server) = pair(&config).await;
    let sent = message(&rich_body(100_000));
    client.send(&sent).await.expect("sent");
    assert_eq!(server.recv().await.expect("received").frames(), sent.frames());
}

#[tokio::test]
async fn a_wildcard_listener_has_an_address_others_can_use() {
    let config = CommConfig::default();
    for wildcard in ["tcp://:0", "tcp://0.0.0.0:0"] {
        let listener = Listener::bind(&Address::from(wildcard), &config).await.expect("a free port");
        let contact = listener.contact_address();
        assert!(!["0.0.0.0", "::", ""].contains(&contact.host()), "{contact}");
        let accept = async { listener.accept().await.expect("accepts").handshake().await };
        let (client, server) = tokio::join!(Comm::connect(&contact, &config), accept);
        assert_eq!(client.expect("connects").peer(), &contact);
        assert_eq!(server.expect("shakes hands").local(), &contact);
    }
}

#[tokio::test]
async fn a_child_process_is_a_peer() {
    let script = r#"
import os, socket, struct
s = socket.socket(fileno=int(os.environ["DASK_PARENT_FD"]))
def take(n):
    out = b""
    while len(out) < n:
        out += s.recv(n - len(out))
    return out
first, count = struct.unpack("<QQ", take(16))
lengths = struct.unpack(f"<{count}Q", take(8 * count))
frames = [take(n) for n in lengths]
s.sendall(struct.pack(f"<QQ{count}Q", first, count, *lengths) + b"".join(frames))
"#;
    let mut command = tokio::process::Command::new("python3");
    command.args(["-c", script]).kill_on_drop(true);
    let (mut child, mut comm) =
        dask_protocol::comm::child::spawn_with_socketpair(command).expect("python3 is installed");
    let body = rich_body(50_000);
    comm.send(&message(&body)).await.expect("sent");
    assert_eq!(comm.recv().await.expect("received").decode::<Value>().expect("decodes"), body);
    assert!(matches!(comm.recv().await, Err(CommError::Closed { .. })));
    assert!(child.wait().await.expect("waits").success());
}

/// A stream over connections that are cut while messages are on their way, and often before any arrives.
#[tokio::test]
async fn a_resumable_stream_loses_nothing_in_cuts() {
    let count = 3_000_i64;
    let (client, server) = pair(&CommConfig::default()).await;
    let (_reader, writer) = client.split();
    let sender = BatchedSender::<Value>::spawn_resumable(writer);
    let (mut server, mut taken, mut got) = (server, 0, Vec::new());
    for start in (0..count).step_by(100) {
        for i in start..start + 100 {
            assert!(sender.send(Value::Int(i)));
            if i % 3 == 0 {
                tokio::task::yield_now().await;
            }
        }
        // Some of what was sent arrives, some does not.
        while i64::try_from(got.len()).expect("small") < start + start / 100 % 90 {
            let message = server.recv().await.expect("more was sent");
            got.extend(message.decode::<Vec<i64>>().expect("numbers"));
            taken += 1;
        }
        let (client, replacement) = pair(&CommConfig::default()).await;
        drop(std::mem::replace(&mut server, replacement));
        if start % 300 == 0 {
            sender.confirm(taken);
        }
        sender.resume(client.split().1, taken).expect("nothing was forgotten");
    }
    sender.close();
    while let Ok(message) = server.recv().await {
        got.extend(message.decode::<Vec<i64>>().expect("numbers"));
    }
    assert_eq!(got, (0..count).collect::<Vec<_>>());
    sender.closed().await;
    let (client, _server) = pair(&CommConfig::default()).await;
    assert_eq!(sender.resume(client.split().1, taken), Err(ResumeError::Ended));
}

#[tokio::test]
async fn a_stream_that_was_cut_ends_when_it_is_closed() {
    let (client, server) = pair(&CommConfig::default()).await;
    let (mut reader, writer) = client.split();
    let sender = BatchedSender::<Value>::spawn_resumable(writer);
    drop(server);
    assert!(matches!(reader.recv().await, Err(CommError::Closed { .. })));
    assert_eq!(sender.detach(0), Ok(()));
    assert!(sender.send(Value::Nil), "it waits for another connection");
    assert_eq!(sender.detach(7).map_err(|error| matches!(error, ResumeError::Gap(_))), Err(true));
    sender.close();
    sender.closed().await;
    assert_eq!(sender.detach(0), Err(ResumeError::Ended));
}
