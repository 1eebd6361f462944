//! Slots, priorities, resources, and the ways an execution ends.

use dask_protocol::Address;
use dask_protocol::message::Pairs;

use super::rig::*;
use crate::state::*;

#[test]
fn task_without_inputs_runs_at_once_and_is_reported() {
    let mut rig = Rig::new(1);
    let (run, actions) = rig.compute(compute("x"));
    assert_eq!(brief(&actions), [format!("execute x {run}")]);
    assert_eq!(rig.name("x"), Some("executing"));
    assert_eq!(brief(&rig.succeed("x", run)), [format!("task-finished x {run}")]);
    assert_eq!(rig.name("x"), Some("memory"));
    assert_eq!(brief(&rig.free(&["x"])), ["drop x", "release-worker-data x"]);
    assert_eq!(rig.state.task_count(), 0);
}

#[test]
fn slots_are_filled_by_priority_and_later_tasks_win_ties() {
    let mut rig = Rig::new(1);
    let (run, _) = rig.compute(compute("first"));
    rig.compute(compute("low").priority(5.0));
    rig.compute(compute("old"));
    rig.compute(compute("new"));
    let order: Vec<String> = ["first", "new", "old", "low"].into_iter().map(str::to_owned).collect();
    let mut seen = vec!["first".to_owned()];
    let mut last = ("first".to_owned(), run);
    while let Some(Action::Execute { key, run_id, .. }) = rig.succeed(&last.0, last.1).pop() {
        seen.push(key.to_string());
        last = (key.to_string(), run_id);
    }
    assert_eq!(seen, order);
}

#[test]
fn failure_is_reported_and_kept_until_freed() {
    let mut rig = Rig::new(1);
    let (run, _) = rig.compute(compute("x"));
    assert_eq!(brief(&rig.fail("x", run)), [format!("task-erred x {run}")]);
    assert_eq!(rig.name("x"), Some("error"));
    assert!(rig.free(&["x"]).is_empty());
    assert_eq!(rig.name("x"), None);
}

#[test]
fn erred_task_can_be_computed_again() {
    let mut rig = Rig::new(1);
    let (run, _) = rig.compute(compute("x"));
    rig.fail("x", run);
    let (run, actions) = rig.compute(compute("x"));
    assert_eq!(brief(&actions), [format!("execute x {run}")]);
}

#[test]
fn rescheduled_task_is_forgotten() {
    let mut rig = Rig::new(1);
    let (run, _) = rig.compute(compute("x"));
    assert_eq!(brief(&rig.done("x", run, ExecuteOutcome::Reschedule)), ["reschedule x"]);
    assert_eq!(rig.state.task_count(), 0);
}

#[test]
fn result_of_a_cancelled_task_is_dropped() {
    let mut rig = Rig::new(1);
    let (run, _) = rig.compute(compute("x"));
    assert_eq!(brief(&rig.free(&["x"])), [format!("interrupt x {run}")]);
    assert_eq!(rig.state_of("x"), Some(TaskState::Cancelled(Previous::Executing)));
    assert_eq!(brief(&rig.succeed("x", run)), ["drop x"]);
    assert_eq!(rig.state.task_count(), 0);
}

#[test]
fn cancelled_failure_and_reschedule_are_silent() {
    for outcome in [
        ExecuteOutcome::Failure { error: boom(), thread: dask_protocol::Value::Nil, startstops: Vec::new() },
        ExecuteOutcome::Reschedule,
    ] {
        let mut rig = Rig::new(1);
        let (run, _) = rig.compute(compute("x"));
        rig.free(&["x"]);
        assert!(rig.done("x", run, outcome).is_empty());
        assert_eq!(rig.state.task_count(), 0);
    }
}

#[test]
fn cancelled_task_wanted_again_goes_on_and_reports_the_run_that_was_started() {
    let mut rig = Rig::new(1);
    let (first, _) = rig.compute(compute("x"));
    rig.free(&["x"]);
    let (_second, actions) = rig.compute(compute("x"));
    assert!(actions.is_empty());
    assert_eq!(rig.state_of("x"), Some(TaskState::Executing));
    assert_eq!(brief(&rig.succeed("x", first)), [format!("task-finished x {first}")]);
}

#[test]
fn cancelled_task_keeps_its_slot() {
    let mut rig = Rig::new(1);
    let (x, _) = rig.compute(compute("x"));
    let (y, _) = rig.compute(compute("y"));
    assert_eq!(brief(&rig.free(&["x"])), [format!("interrupt x {x}")]);
    assert_eq!(rig.name("y"), Some("ready"));
    assert_eq!(brief(&rig.succeed("x", x)), ["drop x".to_owned(), format!("execute y {y}")]);
}

#[test]
fn second_compute_task_for_a_value_in_memory_is_answered_with_the_new_run() {
    let mut rig = Rig::new(1);
    let (run, _) = rig.compute(compute("x"));
    rig.succeed("x", run);
    let (again, actions) = rig.compute(compute("x"));
    assert_eq!(brief(&actions), [format!("task-finished x {again}")]);
}

#[test]
fn seceded_task_frees_its_slot() {
    let mut rig = Rig::new(1);
    let (x, _) = rig.compute(compute("x"));
    let (y, _) = rig.compute(compute("y"));
    assert_eq!(brief(&rig.secede("x")), ["long-running x Some(2.0)".to_owned(), format!("execute y {y}")]);
    assert_eq!(rig.name("x"), Some("long-running"));
    assert!(rig.secede("x").is_empty(), "the second time changes nothing");
    assert_eq!(brief(&rig.succeed("x", x)), [format!("task-finished x {x}")]);
}

#[test]
fn task_that_seceded_while_cancelled_says_so_when_wanted_again() {
    let mut rig = Rig::new(1);
    rig.compute(compute("x"));
    rig.free(&["x"]);
    assert!(rig.secede("x").is_empty());
    let (_, actions) = rig.compute(compute("x"));
    assert_eq!(brief(&actions), ["long-running x None"]);
}

#[test]
fn pause_starts_nothing_and_unpause_refills() {
    let mut rig = Rig::new(1);
    let stimulus_id: dask_protocol::message::StimulusId = "memory".into();
    let paused = rig.event(Event::Pause { stimulus_id: stimulus_id.clone() });
    assert_eq!(brief(&paused), ["status paused"]);
    let (run, actions) = rig.compute(compute("x"));
    assert!(actions.is_empty());
    let unpaused = rig.event(Event::Unpause { stimulus_id });
    assert_eq!(brief(&unpaused), ["status running".to_owned(), format!("execute x {run}")]);
}

fn with_gpu(amount: f64) -> Rig {
    let mut config = Config::new(Address::new(OWN), 4);
    config.resources = Pairs(vec![("GPU".to_owned(), amount)]);
    Rig::with(config)
}

#[test]
fn resources_limit_what_runs_together() {
    let mut rig = with_gpu(1.0);
    let (x, actions) = rig.compute(compute("x").resource("GPU", 1.0));
    assert_eq!(brief(&actions), [format!("execute x {x}")]);
    let (y, actions) = rig.compute(compute("y").resource("GPU", 1.0));
    assert!(actions.is_empty());
    assert_eq!(rig.name("y"), Some("constrained"));
    let actions = rig.succeed("x", x);
    assert_eq!(brief(&actions), [format!("task-finished x {x}"), format!("execute y {y}")]);
}

#[test]
fn only_the_head_of_the_constrained_queue_may_take_resources() {
    let mut rig = with_gpu(2.0);
    rig.compute(compute("running").resource("GPU", 1.0));
    rig.compute(compute("large").resource("GPU", 2.0).priority(-1.0));
    let (_, actions) = rig.compute(compute("small").resource("GPU", 1.0));
    assert!(actions.is_empty());
    let (plain, actions) = rig.compute(compute("plain").priority(9.0));
    assert_eq!(brief(&actions), [format!("execute plain {plain}")], "others are not held up");
}

#[test]
fn resources_set_later_let_waiting_tasks_start() {
    let mut rig = with_gpu(1.0);
    let (running, _) = rig.compute(compute("running").resource("GPU", 1.0));
    let (large, actions) = rig.compute(compute("large").resource("GPU", 2.0));
    assert!(actions.is_empty());
    let more = |supplies: &[(&str, f64)]| Event::SetResources {
        resources: supplies.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect(),
        stimulus_id: "set-resources".into(),
    };
    assert_eq!(brief(&rig.event(more(&[("licence", 1.0), ("GPU", 3.0)]))), [format!("execute large {large}")]);
    let (licensed, actions) = rig.compute(compute("licensed").resource("licence", 1.0));
    assert_eq!(brief(&actions), [format!("execute licensed {licensed}")]);
    rig.event(more(&[("GPU", 1.0)]));
    rig.succeed("running", running);
    assert_eq!(rig.state.resources_available().collect::<Vec<_>>(), [("GPU", -1.0), ("licence", 0.0)]);
}

#[test]
fn cancelled_task_keeps_its_resources_until_it_ends() {
    let mut rig = with_gpu(1.0);
    let (x, _) = rig.compute(compute("x").resource("GPU", 1.0));
    rig.free(&["x"]);
    assert_eq!(rig.state.resources_available().collect::<Vec<_>>(), [("GPU", 0.0)]);
    rig.succeed("x", x);
    assert_eq!(rig.state.resources_available().collect::<Vec<_>>(), [("GPU", 1.0)]);
}

#[test]
fn steal_request_gives_back_only_what_has_not_started() {
    let mut rig = Rig::new(1);
    rig.compute(compute("x"));
    rig.compute(compute("y"));
    assert_eq!(brief(&rig.steal("x")), ["steal-response x Some(\"executing\")"]);
    assert_eq!(brief(&rig.steal("y")), ["steal-response y Some(\"ready\")"]);
    assert_eq!(brief(&rig.steal("z")), ["steal-response z None"]);
    assert_eq!((rig.name("x"), rig.name("y")), (Some("executing"), None));
}

#[test]
fn closing_worker_starts_nothing() {
    let mut rig = Rig::new(1);
    let (x, _) = rig.compute(compute("x"));
    rig.compute(compute("y"));
    assert_eq!(brief(&rig.event(Event::Close { stimulus_id: "bye".into() })), ["status closing"]);
    assert_eq!(brief(&rig.succeed("x", x)), [format!("task-finished x {x}")]);
    assert_eq!(rig.name("y"), Some("ready"));
}

#[test]
fn counts_and_story_follow_the_tasks() {
    let mut rig = Rig::new(1);
    rig.compute(compute("x"));
    rig.compute(compute("y"));
    assert_eq!(rig.state.task_counts().collect::<Vec<_>>(), [("ready", 1), ("executing", 1)]);
    let keys = ["x".into()];
    let ends: Vec<What> = rig.state.story(&keys, &[]).map(|row| row.what).collect();
    assert_eq!(ends.last(), Some(&What::Transition { start: "ready", finish: "executing", end: "executing" }));
}

/// What starts when `first` ends, which took so long.
fn started(rig: &mut Rig, first: (&str, i64), seconds: f64) -> usize {
    let actions = rig.succeed_in(first.0, first.1, seconds);
    actions.iter().filter(|action| matches!(action, Action::Execute { .. })).count()
}

#[test]
fn short_tasks_are_handed_over_ahead_of_time() {
    let mut rig = Rig::new(2);
    let runs: Vec<(String, i64)> =
        (0..60).map(|i| format!("x-{i}")).map(|key| (key.clone(), rig.compute(compute(&key)).0)).collect();
    let run = |i: usize| (runs[i].0.as_str(), runs[i].1);
    assert_eq!(rig.state.executing().count(), 2, "nothing is known of them");
    // What began when nothing was known counts as slow.
    assert_eq!(started(&mut rig, run(0), 0.0005), 1);
    assert_eq!(started(&mut rig, run(1), 0.0005), 1 + 2 * 10, "as many as take 5 ms on each thread");
    let next =
        |rig: &Rig| rig.state.executing().map(|(key, run_id, _)| (key.to_string(), run_id)).next().expect("some");
    for _ in 0..4 {
        let (key, run_id) = next(&rig);
        rig.succeed_in(&key, run_id, 1e-6);
    }
    assert_eq!(rig.state.executing().count(), 2 * 17, "but no more than so many");
    assert_eq!(rig.state.executing_count(), 2);
    let (key, run_id) = next(&rig);
    assert_eq!(started(&mut rig, (&key, run_id), 0.06), 0, "one took long: the others wait for a thread again");
}

#[test]
fn nothing_goes_ahead_of_its_time_behind_a_task_with_a_limit() {
    let mut rig = Rig::new(1);
    let (run, _) = rig.compute(compute("x-0"));
    rig.succeed_in("x-0", run, 1e-4);
    let (_, actions) = rig.compute(compute("x-1").timeout(1.0));
    assert_eq!(actions.len(), 1);
    let (_, actions) = rig.compute(compute("x-2"));
    assert!(actions.is_empty(), "{actions:?}");
    let (_, actions) = rig.compute(compute("x-3").timeout(1.0));
    assert!(actions.is_empty(), "{actions:?}");
}
