//! A server that answers `{"op": "echo", "data": ...}` with the data, untouched: the smallest dask peer.
//!
//! ```text
//! cargo run -p dask-protocol --example echo -- tcp://127.0.0.1:8790
//! cargo run -p dask-protocol --example echo -- ws://127.0.0.1:8790
//! cargo run -p dask-protocol --example echo -- tls://127.0.0.1:8790 CA.pem CERT.pem KEY.pem
//! ```

use dask_protocol::comm::{Comm, CommConfig, Listener, TlsConfig};
use dask_protocol::compression::Compression;
use dask_protocol::message::{ErrorReply, Request};
use dask_protocol::{Address, CommError, Value};

#[derive(serde::Deserialize)]
struct Echo {
    data: Value,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let address = args.first().map_or("tcp://127.0.0.1:8790", String::as_str);
    let tls = match &args[..] {
        [_, ca, cert, key] => Some(TlsConfig::load(ca, cert, key)?),
        _ => None,
    };
    let config = CommConfig { tls, compression: Some(Compression::Lz4), ..CommConfig::default() };
    let listener = Listener::bind(&Address::from(address), &config).await?;
    println!("listening on {}", listener.contact_address());
    loop {
        let incoming = listener.accept().await?;
        tokio::spawn(async move {
            let peer = incoming.peer();
            let served = match incoming.handshake().await {
                Ok(comm) => serve(comm).await,
                Err(error) => Err(error),
            };
            println!("{peer}: {}", served.map_or_else(|e| e.to_string(), |()| "left".to_owned()));
        });
    }
}

async fn serve(mut comm: Comm) -> Result<(), CommError> {
    loop {
        let request = match comm.recv().await {
            Ok(message) => Request::from_message(message)?,
            Err(CommError::Closed { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        if request.op() == "close" {
            return Ok(());
        }
        let reply = match request.op() {
            "echo" => request.args::<Echo>().map(|echo| echo.data).map_err(|e| e.to_string()),
            other => Err(format!("no operation {other:?} here")),
        };
        if request.reply {
            match reply {
                Ok(data) => comm.send_value(&data).await?,
                Err(text) => comm.send_value(&ErrorReply::uncaught(text.as_str(), text.clone())).await?,
            }
        }
    }
}
