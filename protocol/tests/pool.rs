//! Calls over pooled connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dask_protocol::comm::{Comm, CommConfig, ConnectionPool, Listener};
use dask_protocol::message::{ErrorReply, Request};
use dask_protocol::{Address, CommError, Value};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Echo {
    data: Value,
}

#[derive(Debug, Default)]
struct Server {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

impl Server {
    /// Answers `echo`; fails `fail`; on `leave` replies and then closes the connection, on `break_off` within its reply.
    async fn start() -> (Address, Arc<Server>) {
        let listener =
            Listener::bind(&Address::from("tcp://127.0.0.1:0"), &CommConfig::default()).await.expect("a free port");
        let (address, server) = (listener.local_address(), Arc::new(Server::default()));
        let shared = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok(incoming) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let comm = incoming.handshake().await?;
                    shared.serve(comm).await
                });
            }
        });
        (address, server)
    }

    async fn serve(&self, mut comm: Comm) -> Result<(), CommError> {
        loop {
            let request = Request::from_message(comm.recv().await?)?;
            self.requests.fetch_add(1, Ordering::SeqCst);
            match request.op() {
                "echo" => comm.send_value(&request.args::<Echo>()?.data).await?,
                "leave" => {
                    comm.send_value("OK").await?;
                    return Ok(());
                }
                "vanish" => return Ok(()),
                "break_off" => {
                    comm.begin(&[100]).await?;
                    return comm.write_part("half".into()).await;
                }
                _ => comm.send_value(&ErrorReply::uncaught("text", "ValueError('no')")).await?,
            }
        }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn echo(pool: &ConnectionPool, address: &Address, n: i64) -> Result<i64, CommError> {
    pool.call(address, "echo", &Echo { data: Value::Int(n) }).await
}

#[tokio::test]
async fn calls_in_turn_share_one_connection() {
    let (address, server) = Server::start().await;
    let pool = ConnectionPool::new(CommConfig::default());
    for n in 0..20 {
        assert_eq!(echo(&pool, &address, n).await.expect("answers"), n);
    }
    assert_eq!((server.connections(), pool.open()), (1, 1));
}

#[tokio::test]
async fn calls_at_once_use_several_connections_up_to_the_limit() {
    let (address, server) = Server::start().await;
    let pool = ConnectionPool::with_limit(CommConfig::default(), 4);
    let calls = (0..50).map(|n| {
        let (pool, address) = (pool.clone(), address.clone());
        tokio::spawn(async move { echo(&pool, &address, n).await })
    });
    for (n, call) in (0..).zip(calls.collect::<Vec<_>>()) {
        assert_eq!(call.await.expect("no panic").expect("answers"), n);
    }
    assert!(server.connections() <= 4 && pool.open() <= 4);
}

#[tokio::test]
async fn the_least_recently_used_idle_connection_makes_room() {
    let (pool, mut servers) = (ConnectionPool::with_limit(CommConfig::default(), 2), Vec::new());
    for _ in 0..3 {
        servers.push(Server::start().await);
    }
    for i in [0, 1, 0, 2, 0] {
        echo(&pool, &servers[i].0, 1).await.expect("answers");
    }
    assert_eq!(servers.iter().map(|(_, server)| server.connections()).collect::<Vec<_>>(), [1, 1, 1]);
    echo(&pool, &servers[1].0, 1).await.expect("answers");
    assert_eq!(servers[1].1.connections(), 2);
}

#[tokio::test]
async fn a_call_that_was_answered_in_part_is_not_made_again() {
    let (address, server) = Server::start().await;
    let pool = ConnectionPool::new(CommConfig::default());
    echo(&pool, &address, 1).await.expect("answers");
    let broken = pool.call::<_, Value>(&address, "break_off", &()).await;
    assert!(matches!(broken, Err(CommError::Closed { .. })));
    assert_eq!(server.requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_dead_idle_connection_is_replaced() {
    let (address, server) = Server::start().await;
    let pool = ConnectionPool::new(CommConfig::default());
    assert_eq!(pool.call::<_, String>(&address, "leave", &()).await.expect("answers"), "OK");
    assert_eq!(echo(&pool, &address, 5).await.expect("answers"), 5);
    assert_eq!((server.connections(), pool.open()), (2, 1));
}

#[tokio::test]
async fn a_peer_that_never_answers_is_not_asked_for_ever() {
    let (address, server) = Server::start().await;
    let pool = ConnectionPool::new(CommConfig::default());
    echo(&pool, &address, 1).await.expect("answers");
    let vanished = pool.call::<_, Value>(&address, "vanish", &()).await;
    assert!(matches!(vanished, Err(CommError::Closed { .. })), "{vanished:?}");
    assert_eq!((server.requests.load(Ordering::SeqCst), pool.open()), (3, 0));
}

#[tokio::test]
async fn a_remote_exception_is_an_error_and_keeps_the_connection() {
    let (address, server) = Server::start().await;
    let pool = ConnectionPool::new(CommConfig::default());
    let failed = pool.call::<_, Value>(&address, "fail", &()).await.expect_err("the peer fails");
    assert_eq!(failed.to_string(), format!("fail at {address} failed: ValueError('no')"));
    echo(&pool, &address, 1).await.expect("answers");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_abandoned_call_closes_its_connection() {
    let (address, _server) = Server::start().await;
    let pool = ConnectionPool::new(CommConfig::default());
    let lease = pool.lease(&address).await.expect("connects");
    assert_eq!(pool.open(), 1);
    drop(lease);
    assert_eq!(pool.open(), 0);
    pool.lease(&address).await.expect("connects").release();
    pool.remove(&address);
    assert_eq!(pool.open(), 0);
    pool.close();
    assert!(pool.lease(&address).await.is_err());
}
