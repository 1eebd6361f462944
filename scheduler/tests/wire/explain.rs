//! `explain` on the wire and over HTTP.

use dask_protocol::{Address, Value};
use dask_scheduler::{Scheduler, SchedulerOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::common::{call, client, in_time, worker};

async fn get(port: u16, path: &str, accept: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("answers in text");
    answer
}

#[tokio::test]
async fn a_task_is_explained_to_programs_and_to_people() {
    in_time(async {
        let options = SchedulerOptions {
            listen: vec![Address::from("tcp://127.0.0.1:0")],
            dashboard_address: Some("127.0.0.1:0".to_owned()),
            ..SchedulerOptions::default()
        };
        let scheduler = Scheduler::start(options).await.expect("the scheduler starts");
        let mut worker = worker(scheduler.address(), "w").await;
        let mut client = client(scheduler.address(), "Client-1").await;
        client.submit(&[("x/1 a", &[]), ("y", &["x/1 a"])]).await;
        worker.next_task().await;

        let answer = call(scheduler.address(), "explain", &[("key", "y".into())]).await;
        assert_eq!(answer.get("state").and_then(Value::as_str), Some("waiting"));
        let text = answer.get("text").and_then(Value::as_str).expect("always there").to_owned();
        assert!(text.contains("It waits for 1 of its 1 input(s)") && text.contains("x/1 a (processing)"), "{text}");
        let tuple = Value::from(vec![Value::from("x"), Value::from(1_i64)]);
        let unknown = call(scheduler.address(), "explain", &[("key", tuple)]).await;
        assert_eq!(unknown.get("state"), Some(&Value::Nil));

        let port = scheduler.dashboard_port().expect("served");
        let json = get(port, "/api/v1/explain/x/1%20a", "*/*").await;
        assert!(json.starts_with("HTTP/1.1 200") && json.contains("\"state\":\"processing\""), "{json}");
        let told = get(port, "/api/v1/explain/y?format=text", "*/*").await;
        assert!(told.contains("y has been waiting for"), "{told}");
        let told = get(port, "/api/v1/explain/y", "text/plain").await;
        assert!(told.contains("y has been waiting for"), "{told}");
        let nobody = get(port, "/api/v1/explain/nobody", "*/*").await;
        assert!(nobody.starts_with("HTTP/1.1 404") && nobody.contains("\"kind\":\"unknown\""), "{nobody}");
        scheduler.close("test").await;
    })
    .await;
}
