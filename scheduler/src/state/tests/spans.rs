//! Spans of groups.

use dask_protocol::{Key, Value};

use super::super::testing::{Kit, annotated, task};

fn span(kit: &Kit, key: &str) -> (String, String) {
    let (name, id) = kit.state.span_of(&Key::from(key)).expect("a task with a span");
    (name.join("/"), id)
}

#[test]
fn tasks_without_a_span_share_the_default_one_until_all_is_done() {
    let mut kit = Kit::new(&[4]);
    kit.submit(vec![task("a-1")], &["a-1"]);
    kit.submit(vec![task("b-1")], &["b-1"]);
    let first = span(&kit, "a-1");
    assert_eq!(first.0, "default");
    assert_eq!(span(&kit, "b-1"), first);
    kit.finish("a-1");
    kit.submit(vec![task("c-1")], &["c-1"]);
    assert_eq!(span(&kit, "c-1"), first, "b-1 is still running");
    kit.finish("b-1");
    kit.finish("c-1");
    kit.submit(vec![task("d-1")], &["d-1"]);
    assert_eq!(span(&kit, "d-1").0, "default");
    assert_ne!(span(&kit, "d-1"), first);
}

#[test]
fn a_group_belongs_to_the_span_of_its_first_task() {
    let mut kit = Kit::new(&[4]);
    let in_span = |key: &str, id: &str| {
        annotated(task(key), |annotations| {
            annotations.span_ids = vec!["outer".to_owned(), id.to_owned()];
            let name = Value::map([("name", Value::from(vec!["work", "step"]))]);
            annotations.echoed = Value::map([("span", name)]);
        })
    };
    kit.submit(vec![in_span("a-1", "first")], &["a-1"]);
    kit.submit(vec![in_span("a-2", "second"), task("a-3")], &["a-2", "a-3"]);
    for key in ["a-1", "a-2", "a-3"] {
        assert_eq!(span(&kit, key), ("work/step".to_owned(), "first".to_owned()));
    }
}

#[test]
fn a_group_that_is_forgotten_leaves_the_default_span() {
    let mut kit = Kit::new(&[4]);
    kit.submit(vec![task("a-1")], &["a-1"]);
    let first = span(&kit, "a-1");
    kit.release(&["a-1"]);
    assert_eq!(kit.state.span_of(&Key::from("a-1")), None);
    kit.submit(vec![task("b-1")], &["b-1"]);
    assert_ne!(span(&kit, "b-1"), first);
}

#[test]
fn transitions_are_kept_only_while_somebody_wants_them() {
    let mut kit = Kit::new(&[4]);
    kit.submit(vec![task("a-1")], &["a-1"]);
    assert!(kit.state.take_observed().is_empty());
    kit.state.observe_transitions(true);
    kit.finish("a-1");
    let seen: Vec<String> = kit.state.take_observed().iter().map(|seen| seen.finish.name().to_owned()).collect();
    assert_eq!(seen, ["memory"]);
    assert!(kit.state.take_observed().is_empty());
    kit.state.observe_transitions(false);
    kit.release(&["a-1"]);
    assert!(kit.state.take_observed().is_empty());
}
