//! Executions with a limit.

use super::rig::*;
use crate::state::*;

const GRACE: f64 = 2.0;

fn rig(nthreads: u32) -> Rig {
    let mut config = Config::new(dask_protocol::Address::new(OWN), nthreads);
    config.interrupt_grace = GRACE;
    Rig::with(config)
}

fn due(rig: &Rig) -> Option<f64> {
    rig.state.next_timeout().map(|(at, _)| at)
}

#[test]
fn an_overdue_task_is_interrupted_once_and_then_its_executor_replaced_once() {
    let mut rig = rig(1);
    rig.now = 10.0;
    let (run, _) = rig.compute(compute("x").timeout(3.0));
    assert_eq!(due(&rig), Some(13.0));
    rig.now = 12.9;
    assert!(rig.event(Event::Timeout).is_empty());
    rig.now = 13.0;
    assert_eq!(brief(&rig.event(Event::Timeout)), [format!("interrupt-overdue x {run} 3")]);
    assert_eq!(due(&rig), Some(15.0));
    assert!(rig.event(Event::Timeout).is_empty());
    rig.now = 15.5;
    assert_eq!(brief(&rig.event(Event::Timeout)), [format!("replace-executor x {run} 3")]);
    assert_eq!(due(&rig), None);
    assert_eq!(brief(&rig.fail("x", run)), [format!("task-erred x {run}")]);
}

#[test]
fn a_task_that_ends_in_time_is_left_alone() {
    let mut rig = rig(1);
    let (run, _) = rig.compute(compute("x").timeout(3.0));
    rig.now = 2.0;
    rig.succeed("x", run);
    assert_eq!(due(&rig), None);
}

#[test]
fn the_limit_counts_from_the_start_and_not_from_the_queue() {
    let mut rig = rig(1);
    let (first, _) = rig.compute(compute("first"));
    rig.compute(compute("x").timeout(3.0));
    assert_eq!(due(&rig), None);
    rig.now = 100.0;
    rig.succeed("first", first);
    assert_eq!(due(&rig), Some(103.0));
}

#[test]
fn a_task_nobody_wants_any_more_keeps_its_limit() {
    let mut rig = rig(1);
    let (run, _) = rig.compute(compute("x").timeout(3.0));
    assert_eq!(brief(&rig.free(&["x"])), [format!("interrupt x {run}")]);
    rig.now = 3.0;
    assert_eq!(brief(&rig.event(Event::Timeout)), [format!("interrupt-overdue x {run} 3")]);
}
