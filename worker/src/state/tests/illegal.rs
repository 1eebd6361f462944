//! What a scheduler must not send is a value, and nothing of it is taken over.

use dask_protocol::message::{WorkerStatus, WorkerStatusChange};

use super::rig::*;
use crate::state::*;

#[test]
fn task_that_depends_on_itself_is_refused() {
    let mut rig = Rig::new(1);
    let (_, actions) = rig.compute(compute("x").needs("x", &[PEER]));
    assert_eq!(brief(&actions), ["illegal"]);
    assert_eq!(rig.state.task_count(), 0);
}

#[test]
fn unknown_resource_is_refused() {
    let mut rig = Rig::new(1);
    let (_, actions) = rig.compute(compute("x").resource("GPU", 1.0));
    let [Action::Illegal { reason }] = &actions[..] else { panic!("refused") };
    assert!(reason.contains("'x'") && reason.contains("GPU"), "{reason}");
}

#[test]
fn amounts_that_are_none_are_refused() {
    for amount in [f64::NAN, f64::INFINITY, -1.0] {
        let mut config = Config::new(dask_protocol::Address::new(OWN), 1);
        config.resources.0.push(("GPU".to_owned(), 1.0));
        let mut rig = Rig::with(config);
        let (_, actions) = rig.compute(compute("x").resource("GPU", amount));
        assert_eq!(brief(&actions), ["illegal"]);
    }
}

#[test]
fn strange_status_is_refused() {
    let mut rig = Rig::new(1);
    let change = WorkerStatusChange { status: WorkerStatus::Closed, stimulus_id: "odd".into() };
    assert_eq!(brief(&rig.scheduler(change)), ["illegal"]);
}

#[test]
fn tasks_that_wait_for_each_other_wait_and_can_be_freed() {
    let mut rig = Rig::new(1);
    rig.compute(compute("x").needs("y", &[OWN]));
    rig.compute(compute("y").needs("x", &[OWN]));
    rig.free(&["x"]);
    rig.free(&["y", "x"]);
    assert!(rig.state.executing().next().is_none());
}

#[test]
fn events_about_unknown_keys_change_nothing() {
    let mut rig = Rig::new(1);
    assert!(rig.succeed("x", 1).len() == 1, "only the stray value is dropped");
    assert!(rig.fail("x", 1).is_empty());
    assert!(rig.secede("x").is_empty());
    assert!(rig.free(&["x"]).is_empty());
    assert!(rig.remove_worker(PEER).is_empty());
    assert!(rig.refresh("x", &[PEER]).is_empty());
    assert!(rig.gather_done(PEER, GatherOutcome::Busy).is_empty());
    assert_eq!(rig.state.task_count(), 0);
}

#[test]
fn retiring_and_its_roll_back_are_acknowledged() {
    let mut rig = Rig::new(1);
    let told = |rig: &mut Rig, status| {
        let actions = rig.scheduler(WorkerStatusChange { status, stimulus_id: "retire".into() });
        brief(&actions)
    };
    assert_eq!(told(&mut rig, WorkerStatus::ClosingGracefully), ["status closing_gracefully"]);
    assert!(rig.event(Event::Pause { stimulus_id: "memory".into() }).is_empty());
    assert_eq!(told(&mut rig, WorkerStatus::Running), ["status paused"], "memory is still full");
}
