//! The pages that scheduler and workers serve.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{Scheduler, worker};

/// The `host:port` in a line such as `dashboard at:  http://127.0.0.1:8787/status`.
fn authority(line: &str) -> String {
    let url = line.split_whitespace().last().expect("the line ends in the address");
    url.trim_start_matches("http://").trim_end_matches("/status").to_owned()
}

/// The whole answer to a GET.
fn get(authority: &str, path: &str) -> String {
    ask(authority, &format!("GET {path} HTTP/1.1"), "")
}

/// The whole answer to a request with a body of JSON.
fn ask(authority: &str, request: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(authority).expect("the server listens");
    let head = format!("{request}\r\nHost: {authority}\r\nConnection: close\r\nContent-Type: application/json");
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers text and closes");
    answer
}

#[test]
fn workers_pages_are_reached_directly_and_through_the_scheduler() {
    let scheduler = Scheduler::start(&[]);
    let pages = authority(&scheduler.process.line_with("  dashboard at:"));
    let worker = worker("worker", &scheduler.address, &["--no-nanny"]);
    let own = authority(&worker.line_with("         dashboard at:"));
    scheduler.process.line_with("Register worker addr: ");

    let health = get(&own, "/health");
    assert!(health.starts_with("HTTP/1.1 200") && health.ends_with("ok"), "{health}");
    assert!(get(&own, "/status").contains("Dask worker"));
    assert!(get(&own, "/metrics").contains("dask_worker_tasks"));

    let (host, port) = own.rsplit_once(':').expect("host and port");
    let through = get(&pages, &format!("/proxy/{port}/{host}/status?a=b"));
    assert!(through.starts_with("HTTP/1.1 200") && through.contains("Dask worker"), "{through}");
    let missing = get(&pages, &format!("/proxy/{port}/{host}/no-such-page"));
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    // Not a worker: the scheduler's own port.
    let (host, port) = pages.rsplit_once(':').expect("host and port");
    let refused = get(&pages, &format!("/proxy/{port}/{host}/status"));
    assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("does not exist"), "{refused}");
}

#[test]
fn retired_workers_do_not_take_it_for_the_loss_of_their_scheduler() {
    let scheduler = Scheduler::start(&[]);
    let pages = authority(&scheduler.process.line_with("  dashboard at:"));
    let mut nanny = worker("nanny", &scheduler.address, &[]);
    let mut bare = worker("bare worker", &scheduler.address, &["--no-nanny"]);
    nanny.line_with("Registered to:");
    bare.line_with("Registered to:");
    scheduler.process.nth_line_with(2, "Starting worker compute stream");
    let answer = ask(&pages, "POST /api/v1/retire_workers HTTP/1.1", "{\"n\": 2}");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(nanny.wait().success());
    assert!(bare.wait().success());
    for log in [nanny.log(), bare.log(), scheduler.process.log()] {
        assert!(!log.contains("trying to take it up again") && !log.contains("Refused"), "{log}");
    }
}
