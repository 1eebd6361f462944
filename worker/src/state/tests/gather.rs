//! Fetching inputs.

use dask_protocol::Address;

use super::rig::*;
use crate::state::*;

#[test]
fn inputs_are_fetched_in_one_request_before_the_task_runs() {
    let mut rig = Rig::new(1);
    let (run, actions) = rig.compute(compute("x").needs("a", &[PEER]).needs("b", &[PEER]));
    assert_eq!(actions.len(), 1);
    assert!(brief(&actions)[0].starts_with("gather 10.0.0.2 "));
    assert_eq!((rig.name("x"), rig.name("a"), rig.name("b")), (Some("waiting"), Some("flight"), Some("flight")));
    let actions = rig.gathered(PEER, &["a", "b"]);
    assert_eq!(brief(&actions), ["add-keys a".to_owned(), "add-keys b".to_owned(), format!("execute x {run}")]);
    let finished = rig.succeed("x", run).remove(0);
    let Action::Send(dask_protocol::message::WorkerToScheduler::TaskFinished(finished)) = finished else {
        panic!("reported")
    };
    assert_eq!(finished.startstops[0].source, Some(Address::new(PEER)), "the transfer is told with the task");
}

#[test]
fn inputs_in_memory_count_at_once() {
    let mut rig = Rig::new(1);
    rig.scatter(&["a"]);
    let (run, actions) = rig.compute(compute("x").needs("a", &[OWN]));
    assert_eq!(brief(&actions), [format!("execute x {run}")]);
}

#[test]
fn absent_keys_are_fetched_from_another_holder() {
    let mut rig = Rig::new(1);
    rig.compute(compute("x").needs("a", &[PEER, OTHER]));
    let asked = |rig: &Rig| rig.state.transfer_stats().incoming_count;
    assert_eq!(asked(&rig), 1);
    let first = if brief(&rig.gathered(PEER, &[])) == ["gather 10.0.0.3 a"] { OTHER } else { PEER };
    assert_eq!(asked(&rig), 1, "one request at a time for one key");
    assert_eq!(brief(&rig.gathered(first, &["a"]))[0], "add-keys a");
}

#[test]
fn key_without_holders_is_missing_until_the_scheduler_knows_one() {
    let mut rig = Rig::new(1);
    rig.compute(compute("x").needs("a", &[PEER]));
    assert!(rig.gathered(PEER, &[]).is_empty());
    assert_eq!(rig.name("a"), Some("missing"));
    assert_eq!(rig.state.next_timeout(), Some((1.0, "find-missing")));
    assert_eq!(brief(&rig.at(1.0)), ["request-refresh-who-has a"]);
    assert_eq!(rig.state.next_timeout(), Some((2.0, "find-missing")));
    assert!(rig.refresh("a", &[]).is_empty());
    assert_eq!(brief(&rig.refresh("a", &[OTHER])), ["gather 10.0.0.3 a"]);
    rig.gathered(OTHER, &["a"]);
    assert!(rig.at(2.0).is_empty());
    assert_eq!(rig.state.next_timeout(), None);
}

#[test]
fn busy_peer_is_left_alone_for_a_while() {
    let mut rig = Rig::new(1);
    rig.compute(compute("x").needs("a", &[PEER]));
    assert_eq!(brief(&rig.gather_done(PEER, GatherOutcome::Busy)), ["request-refresh-who-has a"]);
    assert_eq!(rig.name("a"), Some("fetch"));
    let (at, why) = rig.state.next_timeout().expect("a pause ends");
    assert_eq!(why, "retry-busy-worker");
    assert_eq!(brief(&rig.at(at)), ["gather 10.0.0.2 a"]);
}

#[test]
fn other_holder_of_a_busy_peers_key_is_asked_at_once() {
    let mut rig = Rig::new(1);
    rig.compute(compute("x").needs("a", &[PEER, OTHER]));
    let done = if rig.gather_done(PEER, GatherOutcome::Busy).is_empty() { OTHER } else { PEER };
    if done == OTHER {
        assert_eq!(brief(&rig.gather_done(OTHER, GatherOutcome::Busy)), ["gather 10.0.0.2 a"]);
    }
    assert_eq!(rig.name("a"), Some("flight"));
}

#[test]
fn unreachable_peer_holds_nothing_any_more() {
    let mut config = Config::new(Address::new(OWN), 1);
    config.transfer_message_bytes_max = 1;
    let mut rig = Rig::with(config);
    rig.compute(compute("x").needs("a", &[PEER]).needs("b", &[PEER]));
    assert!(rig.gather_done(PEER, GatherOutcome::Unreachable).is_empty());
    assert_eq!((rig.name("a"), rig.name("b")), (Some("missing"), Some("missing")));
}

#[test]
fn what_came_of_a_transfer_before_it_failed_is_used() {
    for (outcome, rest) in [
        (GatherOutcome::Busy, "fetch"),
        (GatherOutcome::Unreachable, "missing"),
        (GatherOutcome::Failed { error: boom() }, "released"),
    ] {
        let mut rig = Rig::new(1);
        let (x, _) = rig.compute(compute("x").needs("a", &[PEER]));
        rig.compute(compute("y").needs("b", &[PEER]));
        rig.gather_done(PEER, GatherOutcome::Busy);
        let (at, _) = rig.state.next_timeout().expect("a pause ends");
        assert_eq!(brief(&rig.at(at)), ["gather 10.0.0.2 b a"]);
        let actions = brief(&rig.gathered_some(PEER, &["a"], outcome));
        assert!(actions.contains(&format!("execute x {x}")), "{actions:?}");
        assert_eq!((rig.name("a"), rig.name("b")), (Some("memory"), Some(rest)));
    }
}

#[test]
fn input_that_is_asked_for_again_when_its_holder_is_gone_is_missing() {
    let mut config = Config::new(Address::new(OWN), 1);
    config.transfer_message_bytes_max = 1;
    let mut rig = Rig::with(config);
    rig.acquire("x", &[PEER]);
    rig.acquire("a", &[PEER]);
    rig.compute(compute("x").needs("a", &[PEER]));
    assert_eq!((rig.name("x"), rig.name("a")), (Some("resumed"), Some("fetch")));
    rig.gather_done(PEER, GatherOutcome::Unreachable);
    assert_eq!((rig.name("x"), rig.name("a")), (Some("waiting"), Some("missing")));
}

#[test]
fn removed_worker_is_not_asked() {
    let mut rig = Rig::new(1);
    rig.event(Event::Pause { stimulus_id: "memory".into() });
    rig.compute(compute("x").needs("a", &[PEER]));
    assert_eq!(rig.name("a"), Some("fetch"));
    rig.remove_worker(PEER);
    assert_eq!(rig.name("a"), Some("missing"));
}

#[test]
fn unusable_value_fails_the_tasks_that_wait_for_it() {
    let mut rig = Rig::new(1);
    let (run, _) = rig.compute(compute("x").needs("a", &[PEER]));
    let actions = rig.gather_done(PEER, GatherOutcome::Failed { error: boom() });
    assert_eq!(brief(&actions), [format!("task-erred x {run}")]);
    rig.free(&["x"]);
    assert_eq!(rig.state.task_count(), 0);
}

#[test]
fn requests_are_cut_at_the_message_limit() {
    let mut config = Config::new(Address::new(OWN), 1);
    config.transfer_message_bytes_max = 10;
    let mut rig = Rig::with(config);
    rig.compute(compute("x").needs("a", &[PEER]).needs("b", &[PEER]).nbytes(6));
    let counts: Vec<_> = rig.state.task_counts().collect();
    assert_eq!(counts, [("waiting", 1), ("fetch", 1), ("flight", 1)]);
}

#[test]
fn incoming_limit_lets_one_large_value_through() {
    let mut config = Config::new(Address::new(OWN), 1);
    config.transfer_incoming_bytes_max = Some(10);
    let mut rig = Rig::with(config);
    let (_, actions) = rig.compute(compute("x").needs("a", &[PEER]).needs("b", &[OTHER]).nbytes(100));
    assert_eq!(actions.len(), 1);
    assert_eq!(rig.state.transfer_stats().incoming_bytes, 100);
}

#[test]
fn values_of_freed_inputs_are_dropped_when_they_arrive() {
    let mut rig = Rig::new(1);
    rig.compute(compute("x").needs("a", &[PEER]));
    rig.free(&["x"]);
    assert_eq!(rig.state_of("a"), Some(TaskState::Cancelled(Previous::Flight)));
    assert_eq!(brief(&rig.gathered(PEER, &["a"])), ["drop a"]);
    assert_eq!(rig.state.task_count(), 0);
    assert_eq!(rig.state.transfer_stats().incoming_count, 0);
}

#[test]
fn cancelled_transfer_wanted_again_goes_on() {
    let mut rig = Rig::new(1);
    rig.compute(compute("x").needs("a", &[PEER]));
    rig.free(&["x"]);
    let (run, actions) = rig.compute(compute("y").needs("a", &[PEER]));
    assert!(actions.is_empty());
    assert_eq!(rig.state_of("a"), Some(TaskState::Flight));
    let actions = rig.gathered(PEER, &["a"]);
    assert_eq!(brief(&actions), ["add-keys a".to_owned(), format!("execute y {run}")]);
}

#[test]
fn replicas_are_acquired_and_removed() {
    let mut rig = Rig::new(1);
    assert_eq!(brief(&rig.acquire("a", &[PEER])), ["gather 10.0.0.2 a"]);
    assert_eq!(brief(&rig.gathered(PEER, &["a"])), ["add-keys a"]);
    assert_eq!(brief(&rig.remove_replicas(&["a"])), ["drop a", "release-worker-data a"]);
    assert_eq!(rig.state.task_count(), 0);
}

#[test]
fn replica_that_cannot_be_found_is_given_up() {
    let mut rig = Rig::new(1);
    rig.acquire("a", &[PEER]);
    assert!(rig.gathered(PEER, &[]).is_empty());
    assert_eq!(rig.state.task_count(), 0);
}

#[test]
fn own_address_is_no_holder() {
    let mut rig = Rig::new(1);
    rig.compute(compute("x").needs("a", &[OWN]));
    assert_eq!(rig.name("a"), Some("missing"));
}

#[test]
fn values_nobody_asked_for_are_dropped() {
    let mut rig = Rig::new(1);
    assert_eq!(brief(&rig.gathered(PEER, &["a"])), ["drop a"]);
    rig.scatter(&["b"]);
    assert!(rig.gathered(PEER, &["b"]).is_empty());
}

#[test]
fn peers_on_the_same_host_come_first() {
    let mut rig = Rig::new(1);
    let near = "tcp://10.0.0.1:9";
    let (_, actions) = rig.compute(compute("x").needs("a", &[PEER, OTHER, near]));
    assert_eq!(brief(&actions), ["gather 10.0.0.1 a"]);
}
