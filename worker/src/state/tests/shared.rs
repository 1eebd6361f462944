//! One key wanted in both ways, values that come and go under waiting tasks, and values put here from outside.

use super::rig::*;
use crate::state::*;

/// A running task is cancelled, then wanted as an input that another worker computed.
fn resumed_to_fetch() -> (Rig, i64, i64) {
    let mut rig = Rig::new(2);
    let (x, _) = rig.compute(compute("x"));
    rig.free(&["x"]);
    let (y, actions) = rig.compute(compute("y").needs("x", &[PEER]));
    assert!(actions.is_empty());
    assert_eq!(rig.state_of("x"), Some(TaskState::Resumed(Previous::Executing)));
    (rig, x, y)
}

#[test]
fn resumed_execution_that_succeeds_serves_as_the_copy() {
    let (mut rig, x, y) = resumed_to_fetch();
    assert_eq!(brief(&rig.succeed("x", x)), ["add-keys x".to_owned(), format!("execute y {y}")]);
}

#[test]
fn resumed_execution_that_fails_is_fetched() {
    let (mut rig, x, _) = resumed_to_fetch();
    assert_eq!(brief(&rig.fail("x", x)), ["gather 10.0.0.2 x"]);
}

#[test]
fn resumed_execution_that_reschedules_is_fetched() {
    let (mut rig, x, _) = resumed_to_fetch();
    assert_eq!(brief(&rig.done("x", x, ExecuteOutcome::Reschedule)), ["gather 10.0.0.2 x"]);
}

#[test]
fn resumed_execution_released_again_is_cancelled() {
    let (mut rig, x, _) = resumed_to_fetch();
    rig.free(&["y"]);
    assert_eq!(rig.state_of("x"), Some(TaskState::Cancelled(Previous::Executing)));
    assert_eq!(brief(&rig.succeed("x", x)), ["drop x"]);
    assert_eq!(rig.state.task_count(), 0);
}

#[test]
fn resumed_execution_wanted_computed_again_just_runs() {
    let (mut rig, x, y) = resumed_to_fetch();
    rig.free(&["y"]);
    rig.compute(compute("x"));
    assert_eq!(rig.state_of("x"), Some(TaskState::Executing));
    assert_eq!(brief(&rig.succeed("x", x)), [format!("task-finished x {x}")]);
    assert_eq!((rig.name("y"), y), (None, 2));
}

/// A key in flight is released, then to be computed here.
fn resumed_to_compute() -> (Rig, i64) {
    let mut rig = Rig::new(1);
    rig.compute(compute("y").needs("x", &[PEER]));
    rig.free(&["y"]);
    let (x, actions) = rig.compute(compute("x"));
    assert!(actions.is_empty());
    assert_eq!(rig.state_of("x"), Some(TaskState::Resumed(Previous::Flight)));
    (rig, x)
}

#[test]
fn resumed_transfer_that_arrives_counts_as_the_result() {
    let (mut rig, x) = resumed_to_compute();
    assert_eq!(brief(&rig.gathered(PEER, &["x"])), [format!("task-finished x {x}")]);
}

#[test]
fn resumed_transfer_that_fails_is_computed() {
    for outcome in [GatherOutcome::Answered, GatherOutcome::Unreachable, GatherOutcome::Failed { error: boom() }] {
        let (mut rig, x) = resumed_to_compute();
        assert_eq!(brief(&rig.gather_done(PEER, outcome)), [format!("execute x {x}")]);
    }
}

#[test]
fn resumed_transfer_released_again_is_cancelled() {
    let (mut rig, _) = resumed_to_compute();
    rig.free(&["x"]);
    assert_eq!(brief(&rig.gathered(PEER, &["x"])), ["drop x"]);
    assert_eq!(rig.state.task_count(), 0);
}

#[test]
fn inputs_of_a_resumed_transfer_are_fetched_only_if_it_fails() {
    let mut rig = Rig::new(1);
    rig.acquire("x", &[PEER]);
    rig.compute(compute("x").needs("a", &[OTHER]));
    assert_eq!(rig.name("a"), Some("released"));
    assert_eq!(brief(&rig.gathered(PEER, &[])), ["gather 10.0.0.3 a"]);
}

#[test]
fn freed_input_puts_ready_dependents_back_to_waiting() {
    let mut rig = Rig::new(1);
    rig.scatter(&["a"]);
    rig.compute(compute("busy").priority(-1.0));
    let (x, _) = rig.compute(compute("x").needs("a", &[OWN]));
    assert_eq!(rig.name("x"), Some("ready"));
    assert_eq!(brief(&rig.free(&["a"])), ["drop a", "release-worker-data a"]);
    assert_eq!((rig.name("x"), rig.name("a")), (Some("waiting"), Some("missing")));
    rig.refresh("a", &[PEER]);
    rig.gathered(PEER, &["a"]);
    assert_eq!(rig.name("x"), Some("ready"));
    assert_eq!(brief(&rig.succeed("busy", 1)).last(), Some(&format!("execute x {x}")));
}

#[test]
fn lost_value_is_reported_and_looked_for_again() {
    let mut rig = Rig::new(1);
    rig.scatter(&["a"]);
    rig.compute(compute("x").needs("a", &[OWN]).needs("b", &[PEER]));
    let lost = rig.event(Event::DataLost { keys: vec!["a".into()], stimulus_id: "executor died".into() });
    assert_eq!(brief(&lost), ["release-worker-data a"]);
    assert_eq!((rig.name("x"), rig.name("a")), (Some("waiting"), Some("missing")));
}

#[test]
fn lost_value_nobody_here_needs_is_forgotten() {
    let mut rig = Rig::new(1);
    rig.scatter(&["a"]);
    rig.event(Event::DataLost { keys: vec!["a".into(), "unknown".into()], stimulus_id: "executor died".into() });
    assert_eq!(rig.state.task_count(), 0);
    assert_eq!(rig.state.nbytes_in_memory(), 0);
}

#[test]
fn removing_a_replica_under_a_running_dependent_does_not_disturb_it() {
    let mut rig = Rig::new(1);
    rig.scatter(&["a"]);
    let (x, _) = rig.compute(compute("x").needs("a", &[OWN]));
    assert_eq!(brief(&rig.remove_replicas(&["a"])), ["drop a", "release-worker-data a"]);
    assert_eq!(brief(&rig.succeed("x", x)), [format!("task-finished x {x}")]);
    rig.free(&["x"]);
    assert_eq!(rig.state.task_count(), 0);
}

#[test]
fn remove_replicas_touches_only_values() {
    let mut rig = Rig::new(1);
    rig.compute(compute("x"));
    rig.compute(compute("y").needs("a", &[PEER]));
    assert!(rig.remove_replicas(&["x", "a"]).is_empty());
    assert_eq!((rig.name("x"), rig.name("a")), (Some("executing"), Some("flight")));
}

#[test]
fn scattered_value_ends_a_wait() {
    let mut rig = Rig::new(1);
    let (x, _) = rig.compute(compute("x").needs("a", &[PEER]));
    assert_eq!(brief(&rig.scatter(&["a"])), ["add-keys a".to_owned(), format!("execute x {x}")]);
    assert!(rig.gathered(PEER, &["a"]).is_empty(), "the transfer brings nothing new");
}

#[test]
fn scattered_value_counts_as_the_result_of_a_task_to_be_computed() {
    let mut rig = Rig::new(1);
    let (x, _) = rig.compute(compute("x"));
    assert_eq!(brief(&rig.scatter(&["x"])), [format!("task-finished x {x}")]);
    assert_eq!(rig.state.executing_count(), 1, "the execution still has its slot");
    rig.free(&["x"]);
    assert_eq!(rig.state.task_count(), 0);
    assert_eq!(brief(&rig.succeed("x", x)), ["drop x"]);
    assert_eq!(rig.state.executing_count(), 0);
}

#[test]
fn scattered_value_survives_the_failure_of_its_execution() {
    let mut rig = Rig::new(1);
    let (x, _) = rig.compute(compute("x"));
    rig.scatter(&["x"]);
    assert!(rig.fail("x", x).is_empty());
    assert_eq!(rig.name("x"), Some("memory"));
}

#[test]
fn scatter_with_report_tells_the_scheduler() {
    let mut rig = Rig::new(1);
    let data = vec![("a".into(), 4)];
    let stored = Event::DataStored { data, report: true, stimulus_id: "gather".into() };
    assert_eq!(brief(&rig.event(stored.clone())), ["add-keys a"]);
    assert_eq!(brief(&rig.event(stored)), ["add-keys a"]);
    assert_eq!(rig.state.nbytes_in_memory(), 4);
}
