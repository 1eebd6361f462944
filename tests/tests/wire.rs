//! Our comms and upstream's talk to each other, both ways round, plain, compressed and encrypted.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use bytes::Bytes;
use dask_protocol::comm::{Comm, CommConfig, ConnectionPool, Listener, TlsConfig};
use dask_protocol::compression::Compression;
use dask_protocol::message::{ErrorReply, Message, Request};
use dask_protocol::{Address, CommError, Payload, Value};
use dask_tests::venv;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

#[derive(Serialize, Deserialize)]
struct Echo {
    data: Value,
}

#[derive(Serialize)]
struct Text {
    text: &'static str,
}

fn python() -> Command {
    let target = venv::target_directory().expect("tests run from a target directory");
    let mut command = Command::new(venv::python(&target, |step| println!("{step}")).expect("a Python environment"));
    command.kill_on_drop(true);
    command
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python/wire").join(name)
}

/// Serves `echo` until the test ends.
async fn serve(address: &str, config: &CommConfig) -> Address {
    let listener = Listener::bind(&Address::from(address), config).await.expect("a free port");
    let address = listener.local_address();
    tokio::spawn(async move {
        while let Ok(incoming) = listener.accept().await {
            tokio::spawn(async move { answer(incoming.handshake().await?).await });
        }
    });
    address
}

async fn answer(mut comm: Comm) -> Result<(), CommError> {
    loop {
        let request = Request::from_message(comm.recv().await?)?;
        match request.op() {
            "echo" => comm.send_value(&request.args::<Echo>()?.data).await?,
            "close" => return Ok(()),
            other => comm.send_value(&ErrorReply::uncaught(format!("no {other}"), "")).await?,
        }
    }
}

/// Upstream's client calls our server.
async fn is_called(address: &Address, arguments: &[&str]) {
    let mut command = python();
    let output = command.arg(script("calls.py")).arg(address.as_str()).args(arguments).output().await;
    let output = output.expect("the interpreter starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn upstream_calls_us() {
    let address = serve("tcp://127.0.0.1:0", &CommConfig::default()).await;
    is_called(&address, &["none"]).await;
}

#[tokio::test]
async fn upstream_calls_us_with_compression_as_another_host() {
    for compression in [Compression::Lz4, Compression::Zstd] {
        let config = CommConfig { compression: Some(compression), ..CommConfig::default() };
        // The caller's end is 127.0.0.1, which makes this another host.
        let address = serve("tcp://127.0.0.2:0", &config).await;
        is_called(&address, &[compression.name()]).await;
    }
}

#[tokio::test]
async fn upstream_calls_us_over_tls() {
    let temporary = Temporary::new();
    let address = serve("tls://127.0.0.1:0", &temporary.config()).await;
    is_called(&address, &["none", &temporary.pem("cert"), &temporary.pem("cert"), &temporary.pem("key")]).await;
}

#[tokio::test]
async fn upstream_calls_us_over_websockets() {
    let address = serve("ws://127.0.0.1:0", &CommConfig::default()).await;
    is_called(&address, &["none"]).await;
    let temporary = Temporary::new();
    let address = serve("wss://127.0.0.1:0", &temporary.config()).await;
    is_called(&address, &["none", &temporary.pem("cert"), &temporary.pem("cert"), &temporary.pem("key")]).await;
}

/// What `Security.temporary()` makes: one self-signed certificate as the authority and as everybody's own.
struct Temporary(tempfile::TempDir);

impl Temporary {
    fn new() -> Temporary {
        let made = rcgen::generate_simple_self_signed(vec!["dask-internal".to_owned()]).expect("makes a certificate");
        let temporary = Temporary(tempfile::tempdir().expect("a temporary directory"));
        std::fs::write(temporary.pem("cert"), made.cert.pem()).expect("writes");
        std::fs::write(temporary.pem("key"), made.signing_key.serialize_pem()).expect("writes");
        temporary
    }

    fn pem(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    fn config(&self) -> CommConfig {
        let tls = TlsConfig::load(&self.pem("cert"), &self.pem("cert"), &self.pem("key")).expect("valid");
        CommConfig { tls: Some(tls), require_encryption: true, ..CommConfig::default() }
    }
}

/// A server of upstream's.
struct Upstream {
    address: Address,
    _process: Child,
}

impl Upstream {
    async fn start(arguments: &[&str]) -> Upstream {
        let mut command = python();
        command.arg(script("serves.py")).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the interpreter starts");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let address = lines.next_line().await.expect("readable").expect("the server tells its address");
        Upstream { address: Address::from(address), _process: process }
    }
}

fn values() -> Vec<Value> {
    let pickle = Bytes::from_static(b"\x80\x05\x97.");
    let bulk = vec![Bytes::new(), Bytes::from(vec![1; 80_000_000])];
    vec![
        Value::Nil,
        Value::Set(vec![Value::Int(1)]),
        Value::Map(vec![(Value::Array(vec![Value::from("x"), Value::Int(1)]), Value::Float(0.5))]),
        Value::Array(vec![Value::Payload(Payload::serialized_pickle(pickle, bulk))]),
    ]
}

async fn calls(upstream: &Upstream, config: CommConfig) {
    let pool = ConnectionPool::new(config);
    for data in values() {
        let back: Value = pool.call(&upstream.address, "echo", &Echo { data: data.clone() }).await.expect("answers");
        assert_eq!(back, data);
    }
    let failed = pool.call::<_, Value>(&upstream.address, "fail", &Text { text: "so there" });
    let failed = failed.await.expect_err("the peer fails");
    assert!(matches!(&failed, CommError::Remote { text, .. } if text.contains("so there")), "{failed}");
    assert_eq!(pool.open(), 1);
}

#[tokio::test]
async fn we_call_upstream() {
    calls(&Upstream::start(&["tcp"]).await, CommConfig::default()).await;
}

#[tokio::test]
async fn we_call_upstream_over_tls() {
    let temporary = Temporary::new();
    let (cert, key) = (temporary.pem("cert"), temporary.pem("key"));
    calls(&Upstream::start(&["tls", &cert, &cert, &key]).await, temporary.config()).await;
}

#[tokio::test]
async fn we_call_upstream_over_websockets() {
    calls(&Upstream::start(&["ws"]).await, CommConfig::default()).await;
    let temporary = Temporary::new();
    let (cert, key) = (temporary.pem("cert"), temporary.pem("key"));
    calls(&Upstream::start(&["wss", &cert, &cert, &key]).await, temporary.config()).await;
}

#[tokio::test]
async fn we_stream_with_upstream() {
    stream(&Upstream::start(&["tcp"]).await).await;
    stream(&Upstream::start(&["ws"]).await).await;
}

async fn stream(upstream: &Upstream) {
    let mut comm = Comm::connect(&upstream.address, &CommConfig::default()).await.expect("connects");
    comm.send_value(&Value::map([("op", "stream".into()), ("reply", false.into())])).await.expect("sent");
    let (mut reader, mut writer) = comm.split();
    for size in [1, 2, 1000] {
        writer.send_batch(&(0..size).collect::<Vec<i64>>()).await.expect("sent");
        let back: Vec<i64> = reader.recv().await.expect("answered").decode().expect("numbers");
        assert_eq!(back, (0..size).rev().collect::<Vec<_>>());
    }
    writer.send(&Message::encode(&Value::Array(vec![])).expect("packs")).await.expect("sent");
    assert!(reader.recv().await.expect("answered").is_ok());
}
