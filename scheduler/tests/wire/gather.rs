//! Results that are larger than what the scheduler holds of them.

use dask_protocol::comm::Comm;
use dask_protocol::message::Message;
use dask_protocol::{Address, Payload, Value};
use dask_scheduler::{Scheduler, SchedulerOptions};

use super::common::{Worker, call, call_on, client, connect, in_time, scheduler_with, worker};

/// What the scheduler may hold.
const WINDOW_BYTES: usize = 64 << 10;
/// Frames that do not fit in it.
const FRAME_BYTES: usize = 1 << 20;

async fn small_window() -> Scheduler {
    scheduler_with(SchedulerOptions { gather_window_bytes: WINDOW_BYTES, ..SchedulerOptions::default() }).await
}

fn value(fill: u8) -> Value {
    let frames = vec![vec![fill; FRAME_BYTES].into(), Default::default(), vec![fill; 3 * FRAME_BYTES / 2].into()];
    Payload::serialized("pickle", None, frames).into()
}

/// Says where data is; a client keeps it.
async fn place(scheduler: &Address, data: &[(&str, &[&Worker])]) {
    let workers =
        |workers: &[&Worker]| Value::Array(workers.iter().map(|worker| worker.address.as_str().into()).collect());
    let who_has = Value::map(data.iter().map(|(key, holders)| (*key, workers(holders))));
    let nbytes = Value::map(data.iter().map(|(key, _)| (*key, 8_i64.into())));
    call(scheduler, "update_data", &[("who_has", who_has), ("nbytes", nbytes), ("client", "Client-1".into())]).await;
}

async fn gather(scheduler: &Address, keys: &[&str]) -> Value {
    call(scheduler, "gather", &[("keys", Value::from(keys.to_vec()))]).await
}

/// Takes one `get_data` and gives the connection with the reply to make.
async fn asked(worker: &Worker, fill: u8) -> (Comm, Message) {
    let mut comm = worker.listener.accept().await.expect("a caller").handshake().await.expect("a peer");
    let request: Value = comm.recv().await.expect("a request").decode().expect("a value");
    let keys = request.get("keys").and_then(Value::as_items).expect("keys").to_vec();
    let data = Value::Map(keys.into_iter().map(|key| (key, value(fill))).collect());
    (comm, Message::encode(&Value::map([("status", "OK".into()), ("data", data)])).expect("packs"))
}

async fn serve(worker: &Worker, fill: u8) {
    let (mut comm, reply) = asked(worker, fill).await;
    comm.send(&reply).await.expect("sends");
    assert!(comm.recv().await.expect("acknowledges").is_ok());
}

#[tokio::test]
async fn what_the_window_has_no_room_for_goes_through_in_pieces() {
    in_time(async {
        let scheduler = small_window().await;
        let _client = client(scheduler.address(), "Client-1").await;
        let (one, other) = (worker(scheduler.address(), "one").await, worker(scheduler.address(), "other").await);
        place(scheduler.address(), &[("x", &[&one]), ("y", &[&other]), ("z", &[&one])]).await;
        let keys = [("keys", Value::from(vec!["x", "y", "z"]))];
        let mut comm = connect(scheduler.address()).await;
        let (gathered, (), ()) = tokio::join!(call_on(&mut comm, "gather", &keys), serve(&one, 1), serve(&other, 2));
        let data = gathered.get("data").expect("data");
        for (key, fill) in [("x", 1), ("y", 2), ("z", 1)] {
            assert_eq!(data.get(key), Some(&value(fill)), "{key}");
        }
        assert_eq!(call_on(&mut comm, "echo", &[("data", 5_i64.into())]).await, Value::Int(5), "the connection stays");
        scheduler.close("test").await;
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_hangs_up_before_its_values_came_is_replaced() {
    in_time(async {
        let scheduler = small_window().await;
        let _client = client(scheduler.address(), "Client-1").await;
        let (one, other) = (worker(scheduler.address(), "one").await, worker(scheduler.address(), "other").await);
        place(scheduler.address(), &[("x", &[&one, &other])]).await;
        let workers = async {
            let asked_again = tokio::select! {
                (comm, _) = asked(&one, 1) => { drop(comm); &other }
                (comm, _) = asked(&other, 1) => { drop(comm); &one }
            };
            serve(asked_again, 2).await;
        };
        let (gathered, ()) = tokio::join!(gather(scheduler.address(), &["x"]), workers);
        assert_eq!(gathered.get("data").and_then(|data| data.get("x")), Some(&value(2)));
        scheduler.close("test").await;
    })
    .await;
}

#[tokio::test]
async fn a_worker_lost_within_a_large_reply_cuts_it() {
    in_time(async {
        let scheduler = small_window().await;
        let _client = client(scheduler.address(), "Client-1").await;
        let worker = worker(scheduler.address(), "one").await;
        place(scheduler.address(), &[("x", &[&worker])]).await;
        let mut comm = connect(scheduler.address()).await;
        let request = [("op", "gather".into()), ("reply", true.into()), ("keys", Value::from(vec!["x"]))];
        comm.send_value(&Value::map(request)).await.expect("sends");
        let (mut serving, reply) = asked(&worker, 1).await;
        let lengths: Vec<usize> = reply.frames().iter().map(|frame| frame.len()).collect();
        serving.begin(&lengths).await.expect("sends");
        serving.write_part(reply.body().clone()).await.expect("sends");
        serving.write_part(reply.frames()[1].clone()).await.expect("sends");
        let head = comm.recv_head().await.expect("the reply begins");
        assert_eq!(head.lengths, lengths[1..]);
        drop(serving);
        while let Ok(part) = comm.recv_rest(FRAME_BYTES).await {
            assert!(part.is_some(), "an end of what cannot end");
        }
        assert_eq!(call(scheduler.address(), "echo", &[("data", 5_i64.into())]).await, Value::Int(5));
        scheduler.close("test").await;
    })
    .await;
}
