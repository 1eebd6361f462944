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
