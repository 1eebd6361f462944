use std::sync::Arc;

use dask_protocol::message::{Keys, NativeTask, Pairs, UpdateNativeGraph};

use super::*;
use crate::state::{Runtime, TaskSpec};

fn intake_without_python() -> Intake {
    Intake::new(HelperOptions { python: Some("/nowhere/python".into()), helpers_max: 1 })
}

fn message(expr_ser: Value) -> UpdateGraphMessage {
    UpdateGraphMessage {
        expr_ser,
        keys: Keys(vec!["a".into(), "b".into(), "a".into()]),
        internal_priority: None,
        submitting_task: None,
        fifo_timeout: "100 ms".into(),
        actors: Value::Nil,
        code: Value::Nil,
        annotations: Value::Nil,
        span_metadata: Value::Nil,
        client: None,
        user_priority: None,
    }
}

async fn take(message: UpdateGraphMessage) -> Result<MaterializedGraph, IntakeError> {
    intake_without_python().materialize("Client-1".into(), message, "update-graph-1".into()).await
}

#[tokio::test]
async fn an_empty_graph_asks_for_known_keys_only() {
    let graph = take(message(Value::Map(vec![]))).await.expect("empty").update;
    assert!(graph.tasks.is_empty());
    assert_eq!(graph.keys, ["a".into(), "b".into()] as [Key; 2], "each key once");
    assert!((graph.fifo_timeout - 0.1).abs() < 1e-9);
}

#[tokio::test]
async fn without_python_the_user_learns_what_to_do() {
    let expression = Payload::serialized_pickle(Bytes::from_static(b"\x80\x05cos\nsystem\n."), vec![]);
    let error = take(message(expression.into())).await.expect_err("needs Python");
    let info = error.to_error_info();
    assert!(info.exception_text.starts_with("RuntimeError("), "{}", info.exception_text);
    assert!(info.exception_text.contains("--python"), "{}", info.exception_text);
    assert!(matches!(info.exception, Value::Bin(_)));
}

#[tokio::test]
async fn malformed_fields_are_type_errors_naming_the_field() {
    let mut wrong = [(); 4].map(|()| message(Value::Map(vec![])));
    wrong[0].expr_ser = Value::Int(1);
    wrong[1].fifo_timeout = "soon".into();
    wrong[2].actors = Value::Int(1);
    wrong[3].annotations = Value::Bool(true);
    for (message, field) in wrong.into_iter().zip(["expr_ser", "fifo_timeout", "actors", "annotations"]) {
        let info = take(message).await.expect_err(field).to_error_info();
        assert!(info.exception_text.starts_with("TypeError("), "{}", info.exception_text);
        assert!(info.exception_text.contains(field), "{}", info.exception_text);
    }
}

fn native(key: &str, needs: &[&str], annotations: Value) -> NativeTask {
    NativeTask {
        key: key.into(),
        run_spec: Payload::serialized("dask-rs", None, vec![Bytes::from_static(b"spec")]),
        dependencies: needs.iter().map(|&need| need.into()).collect(),
        annotations,
    }
}

#[test]
fn native_graphs_are_culled_ordered_and_annotated() {
    let priority = Value::map([("priority", Value::Int(5))]);
    let tasks = vec![
        native("sum", &["x", "y", "known"], priority.clone()),
        native("x", &[], Value::Nil),
        native("y", &[], priority),
        native("unwanted", &["x"], Value::Nil),
    ];
    let message = UpdateNativeGraph { tasks, keys: Keys(vec!["sum".into()]), submitting_task: None };
    let graph = take_native("Client-1".into(), message, "s".into()).expect("well formed");
    let by_key = |key: &str| graph.tasks.iter().find(|task| task.key == key.into()).expect("kept");
    assert_eq!(graph.tasks.len(), 3);
    assert!(by_key("x").order < by_key("sum").order && by_key("y").order < by_key("sum").order);
    assert_eq!(by_key("sum").dependencies.len(), 3);
    assert!((by_key("y").annotations.priority - 5.0).abs() < f64::EPSILON);
    assert!(by_key("x").annotations.priority.abs() < f64::EPSILON);
    assert!(Arc::ptr_eq(&by_key("y").annotations, &by_key("sum").annotations));
}

#[test]
fn repeated_native_keys_and_dependencies_count_once() {
    let tasks = vec![native("a", &[], Value::Nil), native("a", &["x", "x"], Value::Nil)];
    let message = UpdateNativeGraph { tasks, keys: Keys(vec!["a".into()]), submitting_task: None };
    let graph = take_native("Client-1".into(), message, "s".into()).expect("well formed");
    assert_eq!(graph.tasks.len(), 1);
    assert_eq!(graph.tasks[0].dependencies, ["x".into()] as [Key; 1]);
}

#[test]
fn a_native_graph_in_circles_is_an_error() {
    let tasks = vec![native("a", &["b"], Value::Nil), native("b", &["a"], Value::Nil)];
    let message = UpdateNativeGraph { tasks, keys: Keys(vec!["a".into()]), submitting_task: None };
    let error = take_native("Client-1".into(), message, "s".into()).expect_err("cyclic");
    assert!(error.to_string().contains("-> a\n  -> b"), "{error}");
}

#[test]
fn keys_the_client_did_not_order_go_first() {
    let task = |key: &str| Node {
        key: key.into(),
        dependencies: vec![],
        spec: TaskSpec::Payload(Payload::pickled(Bytes::new(), vec![])),
        runtime: Runtime::Python,
        data_producer: false,
        is_task: true,
        is_barrier: false,
    };
    let mut message = message(Value::Nil);
    message.internal_priority = Some(Pairs(vec![("b".into(), 4.0)]));
    message.actors = Value::Bool(true);
    let settled = settle(&message).expect("well formed");
    let table = Table::new(&[], &[], 2, 0.0).expect("no annotations");
    let tasks = assemble(vec![task("a"), task("b")], &table, &settled).expect("acyclic");
    assert_eq!(tasks.iter().map(|task| task.order).collect::<Vec<_>>(), [-1.0, 4.0]);
    assert!(tasks.iter().all(|task| task.actor));
}
