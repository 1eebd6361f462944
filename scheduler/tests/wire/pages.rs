//! The HTTP server: every route answers, only the right callers change anything, and callers who dawdle are in nobody's way.

use std::time::Duration;

use dask_protocol::Address;
use dask_protocol::message::{StartStop, TaskErred, TaskFinished};
use dask_protocol::{Payload, Value};
use dask_scheduler::{Scheduler, SchedulerOptions};
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::common::{Stream, Worker, client, in_time, worker};

async fn start(options: SchedulerOptions) -> (Scheduler, u16) {
    let options = SchedulerOptions {
        listen: vec![Address::from("tcp://127.0.0.1:0")],
        dashboard_address: Some("127.0.0.1:0".to_owned()),
        ..options
    };
    let scheduler = Box::pin(Scheduler::start(options)).await.expect("the scheduler starts");
    let port = scheduler.dashboard_port().expect("pages are served");
    (scheduler, port)
}

/// The answer to a request that is written as it is given: status, head, body.
async fn exchange(port: u16, request: &str) -> (u16, String, String) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
    socket.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("answers in text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head.to_owned(), body.to_owned())
}

async fn get(port: u16, path: &str) -> (u16, String, String) {
    exchange(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await
}

async fn json(port: u16, path: &str) -> Json {
    let (status, head, body) = get(port, path).await;
    assert_eq!(status, 200, "{path}: {head}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error} in {body}"))
}

/// A page once it says all of this: what a page is made of may be some milliseconds old.
async fn page_that_says(port: u16, path: &str, told: &[&str]) -> String {
    loop {
        let (status, head, page) = get(port, path).await;
        assert_eq!(status, 200, "{path}: {head}");
        if told.iter().all(|text| page.contains(text)) {
            return page;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn retire(port: u16, headers: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let request = format!(
        "POST /api/v1/retire_workers HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    let (status, _, body) = exchange(port, &request).await;
    (status, body)
}

const LOCAL_JSON: &str = "Host: localhost\r\nContent-Type: application/json\r\n";

#[tokio::test]
async fn every_path_of_the_sitemap_answers_and_below_the_prefix_too() {
    in_time(async {
        let options =
            SchedulerOptions { dashboard_prefix: Some("/user/ab/".to_owned()), ..SchedulerOptions::default() };
        let (_scheduler, port) = start(options).await;
        let paths = json(port, "/sitemap.json").await["paths"].as_array().expect("paths").clone();
        assert!(paths.len() > 60, "{paths:?}");
        for path in paths.iter().map(|path| path.as_str().expect("text")) {
            for path in [path.to_owned(), format!("/user/ab{path}")] {
                let (status, head, _) = get(port, &path).await;
                assert!([200, 301, 307].contains(&status), "{path}: {head}");
                assert!(head.contains("content-security-policy: "), "{path}: {head}");
            }
        }
        // Where the first page is, however a proxy calls this place.
        for (path, location) in [("/", "status"), ("/user/ab", "ab/status"), ("/user/ab/", "status")] {
            let (status, head, _) = get(port, path).await;
            assert!(status == 301 && head.contains(&format!("location: {location}\r\n")), "{path}: {head}");
        }
        assert_eq!(get(port, "/nowhere").await.0, 404);
        assert_eq!(get(port, "/info/worker/tcp%3A%2F%2F127.0.0.1%3A1.html").await.0, 404);
        assert_eq!(get(port, "/info/task/nobody.html").await.0, 404);
    })
    .await;
}

/// A worker says that the task it was sent last is done, which took it 20 ms, or that it raised.
async fn end_next(worker: &mut Worker, raised: bool) {
    let task = worker.next_task().await;
    let part = StartStop { action: "compute".into(), start: 100.0, stop: 100.02, source: None };
    if raised {
        let nothing = Value::from(Payload::pickled(Default::default(), Vec::new()));
        worker
            .send(TaskErred {
                key: task.key,
                run_id: task.run_id,
                exception: nothing.clone(),
                traceback: nothing,
                exception_text: "ValueError('<no>')".into(),
                traceback_text: "File \"x.py\"".into(),
                thread: Value::Int(5),
                startstops: vec![part],
                status: "error".into(),
                stimulus_id: "task-erred".into(),
            })
            .await;
        return;
    }
    worker
        .send(TaskFinished {
            key: task.key,
            run_id: task.run_id,
            nbytes: 2_000,
            type_pickle: None,
            typename: "bytes".into(),
            metadata: Value::Nil,
            thread: Value::Int(5),
            startstops: vec![part],
            value: None,
            status: "OK".into(),
            stimulus_id: "task-finished".into(),
        })
        .await;
}

/// Waits until the client heard that its tasks ended.
async fn hear(client: &mut Stream<dask_protocol::message::SchedulerToClient>, count: usize) {
    use dask_protocol::message::SchedulerToClient as To;
    for _ in 0..count {
        client.find(|message| matches!(message, To::KeyInMemory(_) | To::ClientTaskErred(_)).then_some(())).await;
    }
}

#[tokio::test]
async fn pages_tell_what_ran_and_why_it_did_not() {
    in_time(async {
        let (scheduler, port) = start(SchedulerOptions::default()).await;
        let mut worker = worker(scheduler.address(), "w <1>").await;
        let mut client = client(scheduler.address(), "Client-1").await;
        client.submit(&[("inc-1", &[]), ("use-1", &["inc-1"])]).await;
        end_next(&mut worker, false).await;
        hear(&mut client, 1).await;

        let live = json(port, "/json/live.json").await;
        assert_eq!((&live["tasks"]["memory"], &live["tasks"]["processing"]), (&Json::from(1), &Json::from(1)));
        assert_eq!(live["workers"][0].as_array().map(Vec::len), live["worker_columns"].as_array().map(Vec::len));
        let prefixes = live["prefixes"].as_array().expect("prefixes");
        assert_eq!(prefixes.iter().find(|row| row[0] == "inc").map(|row| &row[2]), Some(&Json::from(2_000)));
        let stream = json(port, "/json/stream.json").await;
        let block = &stream["blocks"][0];
        assert_eq!(
            (&stream["names"][0], &block[2], &block[6], &block[8]),
            (&"inc".into(), &"compute".into(), &1.into(), &"inc-1".into())
        );
        let again = json(port, "/json/stream.json?epoch=0&since=1&names=1&lanes=1").await;
        assert_eq!(again["blocks"], Json::Array(Vec::new()));
        let graph = json(port, "/json/graph.json").await;
        assert_eq!((graph["count"].as_u64(), graph["edges"].as_array().map(Vec::len)), (Some(2), Some(1)));

        end_next(&mut worker, true).await;
        hear(&mut client, 1).await;
        let told = ["<b class=\"state erred\">", "Explanation", "id=\"story\"", "ValueError('&lt;no&gt;')"];
        page_that_says(port, "/info/task/use-1.html", &told).await;
        let page = page_that_says(port, "/info/main/exceptions.html", &["use-1"]).await;
        assert!(!page.contains("<no>"), "{page}");
        page_that_says(port, "/info/worker/w%20%3C1%3E.html", &["w &lt;1&gt;", "../task/inc-1.html"]).await;
        let told = [
            "dask_scheduler_tasks_output_bytes{task_prefix_name=\"inc\"} 2000",
            "dask_scheduler_prefix_state_totals_total{task_prefix_name=\"use\",state=\"erred\"} 1",
            "dask_scheduler_tasks_suspicious_total{task_prefix_name=\"use\"} 0",
            "dask_stealing_request_count_total{cost_multiplier=\"1\"} 0",
            "dask_scheduler_tick_count_total ",
        ];
        page_that_says(port, "/metrics", &told).await;
    })
    .await;
}

#[tokio::test]
async fn autoscalers_are_answered_and_only_who_may_retires_workers() {
    in_time(async {
        let (scheduler, port) = start(SchedulerOptions::default()).await;
        let one = worker(scheduler.address(), "one").await;
        let two = worker(scheduler.address(), "two").await;
        assert_eq!(json(port, "/api/v1/get_workers").await["num_workers"], 2);
        // Two idle workers and nothing to do, but they have come only now.
        assert_eq!(json(port, "/api/v1/adaptive_target").await["workers"], 2);
        assert!(json(port, "/api/v1/check_idle").await["idle_since"].is_f64());

        let named = format!("{{\"workers\": [\"{}\"]}}", one.address);
        assert_eq!(retire(port, "Host: localhost\r\n", &named).await.0, 415, "not declared as JSON");
        assert_eq!(retire(port, "Host: evil\r\nContent-Type: application/json\r\n", &named).await.0, 403);
        assert_eq!(retire(port, LOCAL_JSON, "{\"workers\": 3}").await.0, 400);
        assert_eq!(json(port, "/api/v1/get_workers").await["num_workers"], 2, "nothing happened");

        let (status, retired) = retire(port, LOCAL_JSON, &named).await;
        let retired: Json = serde_json::from_str(&retired).expect("JSON");
        assert_eq!((status, &retired[one.address.as_str()]["name"]), (200, &Json::from("one")));
        let (status, retired) = retire(port, LOCAL_JSON, "{\"n\": 1}").await;
        assert!(status == 200 && retired.contains(two.address.as_str()), "{retired}");
        assert_eq!(json(port, "/api/v1/get_workers").await["num_workers"], 0);
    })
    .await;
}

#[tokio::test]
async fn a_token_is_asked_for_where_one_is_set() {
    in_time(async {
        let options = SchedulerOptions { http_token: Some("s3cret".to_owned()), ..SchedulerOptions::default() };
        let (_scheduler, port) = start(options).await;
        assert_eq!(retire(port, LOCAL_JSON, "{}").await.0, 401);
        assert_eq!(retire(port, "Host: far\r\nAuthorization: Bearer s3cret\r\n", "{}").await, (200, "{}".to_owned()));
        // Reading is for everybody.
        assert_eq!(get(port, "/json/counts.json").await.0, 200);
    })
    .await;
}

#[tokio::test]
async fn callers_who_dawdle_or_ask_for_too_much_are_in_nobodys_way() {
    in_time(async {
        let (_scheduler, port) = start(SchedulerOptions::default()).await;
        let mut idle = Vec::new();
        for _ in 0..200 {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
            socket.write_all(b"GET /status HTTP/1.1\r\nHo").await.expect("sends");
            idle.push(socket);
        }
        let mut large = TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n", "y".repeat(200_000));
        // The scheduler may close before all is written.
        let _ = large.write_all(head.as_bytes()).await;
        let mut refused = Vec::new();
        let _ = large.read_to_end(&mut refused).await;
        assert!(!String::from_utf8_lossy(&refused).starts_with("HTTP/1.1 200"));
        assert_eq!(get(port, "/health").await.2, "ok");
        assert_eq!(get(port, "/json/counts.json").await.0, 200);
    })
    .await;
}
