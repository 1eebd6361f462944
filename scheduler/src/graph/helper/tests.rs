use std::path::Path;

use super::*;

fn pool_of(program: &Path) -> HelperPool {
    HelperPool::new(HelperOptions { python: Some(program.to_owned()), helpers_max: 1 })
}

#[tokio::test]
async fn a_missing_python_is_named_with_what_was_tried() {
    let pool = pool_of(Path::new("/nowhere/python"));
    let error = pool.versions(&[]).await.expect_err("there is none").to_string();
    assert!(error.contains("/nowhere/python (from --python)"), "{error}");
    assert!(error.contains("DASK_PYTHON"), "{error}");
}

#[tokio::test]
async fn a_program_that_is_no_python_is_reported_with_its_end() {
    let error = pool_of(Path::new("/bin/false")).warm_up().await.expect_err("it ends at once");
    assert!(matches!(&error, HelperError::NoPython(text) if text.contains("exit status: 1")), "{error}");
}

fn reply(body: &Value, frames: &[&'static [u8]]) -> Vec<Bytes> {
    let body = rmp_serde::to_vec_named(body).expect("packs");
    std::iter::once(Bytes::from(body)).chain(frames.iter().map(|&frame| Bytes::from_static(frame))).collect()
}

fn seconds() -> Value {
    Value::map(["load", "materialize", "pickle"].map(|name| (name, Value::Float(0.5))))
}

fn graph_body(graph: [i64; 2], entries: Vec<Value>) -> Value {
    let marked = |mark: i64, value: Value| Value::Array(vec![Value::Int(mark), value]);
    let values = vec![marked(0, Value::Int(3)), marked(1, Value::Bin(Bytes::from_static(b"pickle")))];
    let column = Value::Array(vec!["priority".into(), Value::Array(values), Value::Array(entries)]);
    Value::map([
        ("status", "ok".into()),
        ("graph", Value::from(graph.to_vec())),
        ("annotations", Value::Array(vec![column])),
        ("barriers", Value::Array(vec![])),
        ("seconds", seconds()),
    ])
}

#[test]
fn a_materialised_graph_is_read() {
    let entries = vec![Value::from(vec![0_i64, 0]), Value::from(vec![4_i64, 1])];
    let frames = reply(&graph_body([1, 2], entries), &[b"graph", b"buffer"]);
    let read = Materialized::read(&frames).expect("well formed");
    assert_eq!(read.graph, (Bytes::from_static(b"graph"), vec![Bytes::from_static(b"buffer")]));
    let column = &read.annotations[0];
    assert_eq!(column.values[0], Value::Int(3));
    assert!(matches!(column.values[1], Value::Payload(_)));
    assert_eq!(column.entries, [(0, 0), (4, 1)]);
}

#[test]
fn answers_that_contradict_themselves_are_errors() {
    for body in [
        graph_body([1, 9], vec![]),
        graph_body([7, 1], vec![]),
        graph_body([1, 0], vec![]),
        graph_body([1, 1], vec![Value::from(vec![0_i64, 2])]),
        Value::map([("status", "ok".into())]),
        Value::map([("status", "error".into())]),
        Value::Nil,
    ] {
        let error = Materialized::read(&reply(&body, &[b"graph"])).expect_err("malformed");
        assert!(matches!(error, HelperError::Answer(_)), "{body:?}: {error}");
    }
    assert!(matches!(Materialized::read(&[]), Err(HelperError::Answer(_))));
}

#[test]
fn a_raised_exception_is_passed_on_as_it_is() {
    let body = Value::map([
        ("status", "error".into()),
        ("exception", Value::Int(1)),
        ("traceback", Value::Int(2)),
        ("exception_text", "ValueError('no')".into()),
        ("traceback_text", "somewhere".into()),
    ]);
    let error = Materialized::read(&reply(&body, &[b"exc", b"tb"])).expect_err("raised");
    let HelperError::Raised(info) = error else { panic!("{error}") };
    assert_eq!(info.exception, Value::Bin(Bytes::from_static(b"exc")));
    assert_eq!(info.traceback, Value::Bin(Bytes::from_static(b"tb")));
    assert_eq!(&*info.exception_text, "ValueError('no')");
}
/// A program in place of Python: reads the helper's script and says hello, then does as `then` says. `$DIR` is its own folder.
struct FakePython {
    folder: tempfile::TempDir,
}

impl FakePython {
    fn new(then: &str) -> FakePython {
        let folder = tempfile::tempdir().expect("a folder");
        let hello = br#"{"ready":true,"python":"0","executable":"fake"}"#;
        std::fs::write(folder.path().join("hello"), message(&[hello])).expect("written");
        let program = folder.path().join("python");
        let script = format!(
            "#!/bin/sh\nDIR={}\nIFS= read -r size\nhead -c \"$size\" >/dev/null\ncat $DIR/hello\n{then}\n",
            folder.path().display()
        );
        // Written by another process: a program that this one holds open for writing, be it in a child that another test is
        // just starting, could not be run ("text file busy").
        let install = std::process::Command::new("install")
            .args(["-m", "755", "/dev/stdin"])
            .arg(&program)
            .stdin({
                use std::io::{Seek, Write};
                let mut file = tempfile::tempfile().expect("a file");
                file.write_all(script.as_bytes()).and_then(|()| file.rewind()).expect("written");
                file
            })
            .status();
        assert!(install.is_ok_and(|status| status.success()));
        FakePython { folder }
    }

    fn pool(&self) -> HelperPool {
        pool_of(&self.folder.path().join("python"))
    }
}

fn message(frames: &[&[u8]]) -> Vec<u8> {
    let mut message = (frames.len() as u64).to_le_bytes().to_vec();
    frames.iter().for_each(|frame| message.extend((frame.len() as u64).to_le_bytes()));
    frames.iter().for_each(|frame| message.extend_from_slice(frame));
    message
}

#[tokio::test]
async fn a_helper_that_dies_fails_its_request_only() {
    // The first one reads a little of the request, complains and dies; the next one answers.
    let fake = FakePython::new(
        "head -c 1 >/dev/null\n\
         if [ ! -e $DIR/died ]; then touch $DIR/died; echo 'out of luck' >&2; exit 7; fi\n\
         cat $DIR/reply; cat >/dev/null",
    );
    let body = Value::map([("status", "ok".into()), ("versions", "all".into())]);
    let body = rmp_serde::to_vec_named(&body).expect("packs");
    std::fs::write(fake.folder.path().join("reply"), message(&[&body])).expect("written");
    let pool = fake.pool();
    let error = pool.versions(&[]).await.expect_err("died");
    assert!(matches!(&error, HelperError::Died(text) if text.contains("exit status: 7")), "{error}");
    assert_eq!(pool.versions(&[]).await.expect("a new helper answers"), Value::from("all"));
}

#[tokio::test]
async fn a_request_given_up_ends_its_helper() {
    let fake = FakePython::new("echo $$ >$DIR/pid.new; mv $DIR/pid.new $DIR/pid; exec sleep 1000");
    let pool = fake.pool();
    let pid_file = fake.folder.path().join("pid");
    let request = pool.versions(&[]);
    let started = async {
        loop {
            if let Ok(pid) = std::fs::read_to_string(&pid_file) {
                return pid.trim().to_owned();
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let pid = tokio::select! {
        pid = started => pid,
        answer = request => panic!("the fake never answers: {answer:?}"),
    };
    // The request was dropped above: its process goes, be it as a zombie until it is reaped.
    while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_helper_that_says_it_is_unfit_is_not_used() {
    let fake = FakePython::new("exit 0");
    let hello = br#"{"ready":false,"problem":"ModuleNotFoundError: dask","python":"3.9","executable":"fake"}"#;
    std::fs::write(fake.folder.path().join("hello"), message(&[hello])).expect("written");
    let error = fake.pool().warm_up().await.expect_err("no dask");
    assert!(matches!(&error, HelperError::NoPython(text) if text.contains("ModuleNotFoundError: dask")), "{error}");
}
