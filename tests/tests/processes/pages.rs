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
    let mut stream = TcpStream::connect(authority).expect("the server listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n").expect("it reads");
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
