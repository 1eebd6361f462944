//! Interest of clients: desire, release, cancel, fire and forget, restart.

use super::super::TaskState::{Erred, Memory, Processing, Released, Waiting};
use super::super::testing::{CLIENT, Kit, task, task_of};
use super::super::{Event, FIRE_AND_FORGET, UpdateGraph, Usage};
use dask_protocol::Key;
use dask_protocol::message::{ErrorInfo, SchedulerToClient, SchedulerToWorker};

fn keys(names: &[&str]) -> Vec<Key> {
    names.iter().map(|name| Key::from(*name)).collect()
}

fn desire(kit: &mut Kit, client: &str, names: &[&str]) {
    kit.handle(Event::ClientDesiresKeys { client: client.into(), keys: keys(names) });
}

fn cancel(kit: &mut Kit, client: &str, names: &[&str], force: bool) {
    let reason = Some("because".to_owned());
    kit.handle(Event::CancelKeys { client: client.into(), keys: keys(names), force, reason, msg: None });
}

fn cancelled(kit: &Kit) -> Vec<String> {
    let cancelled = |message: &&SchedulerToClient| match message {
        SchedulerToClient::CancelledKeys(message) => Some(message.keys.iter().map(Key::to_string).collect::<Vec<_>>()),
        _ => None,
    };
    kit.to_client().iter().filter_map(cancelled).flatten().collect()
}

#[test]
fn a_second_client_keeps_a_result() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.finish("x");
    kit.handle(Event::AddClient { client: "Client-2".into() });
    desire(&mut kit, "Client-2", &["x"]);
    kit.release(&["x"]);
    kit.assert_states([("x", Some(Memory))]);
    kit.handle(Event::RemoveClient { client: "Client-2".into() });
    kit.assert_states([("x", None)]);
}

#[test]
fn releasing_a_running_task_calls_it_off() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x"), task_of("y", &["x"])], &["y"]);
    kit.release(&["y"]);
    assert_eq!(kit.worker_ops(1), ["free-keys"]);
    assert_eq!(kit.state.task_count(), 0);
    assert!(kit.state.idle_since().is_some());
}

#[test]
fn keys_freed_together_travel_together() {
    let mut kit = Kit::new(&[4]);
    kit.submit(vec![task("a"), task("b"), task("c")], &["a", "b", "c"]);
    for key in ["a", "b", "c"] {
        kit.finish(key);
    }
    kit.release(&["a", "b", "c"]);
    let [SchedulerToWorker::FreeKeys(message)] = kit.to_worker(1)[..] else { panic!("{:?}", kit.actions) };
    assert_eq!(message.keys.len(), 3);
}

#[test]
fn a_client_that_leaves_takes_its_interest_along() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.handle(Event::RemoveClient { client: CLIENT.into() });
    assert_eq!(kit.state.task_count(), 0);
    kit.submit(vec![task("z")], &["z"]);
    assert_eq!(kit.state.task_count(), 0, "its late graph is dropped");
}

#[test]
fn registering_again_is_a_new_session() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.handle(Event::AddClient { client: CLIENT.into() });
    assert_eq!(kit.state.task_count(), 0);
    kit.submit(vec![task("y")], &["y"]);
    kit.finish("y");
    assert_eq!(kit.client_ops(), ["key-in-memory"]);
}

#[test]
fn pseudo_clients_appear_with_their_interest_and_are_told_nothing() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x")], &["x"]);
    desire(&mut kit, "published-x", &["x"]);
    kit.release(&["x"]);
    kit.finish("x");
    assert!(kit.actions.iter().all(|action| !matches!(action, super::super::Action::ToClient { .. })));
    assert_eq!(kit.state.wants_what("published-x"), [Key::from("x")]);
}

#[test]
fn fire_and_forget_ends_with_the_result() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x"), task("y")], &["x", "y"]);
    desire(&mut kit, FIRE_AND_FORGET, &["x", "y"]);
    kit.release(&["x", "y"]);
    kit.assert_states([("x", Some(Processing))]);
    kit.finish("x");
    kit.assert_states([("x", None)]);
    kit.err("y");
    assert_eq!(kit.state.task_count(), 0);
}

#[test]
fn fire_and_forget_ends_at_once_for_what_is_settled() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.finish("x");
    desire(&mut kit, FIRE_AND_FORGET, &["x"]);
    assert!(kit.state.wants_what(FIRE_AND_FORGET).is_empty());
    kit.release(&["x"]);
    assert_eq!(kit.state.task_count(), 0);
}

#[test]
fn lost_dependencies_cancel_the_whole_graph() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("a"), task_of("x", &["a", "missing"])], &["x", "a"]);
    assert_eq!(cancelled(&kit), ["x", "a"]);
    assert_eq!(kit.state.task_count(), 0);
    kit.submit(vec![task("a")], &["a", "missing"]);
    assert_eq!(cancelled(&kit), ["a", "missing"]);
    assert_eq!(kit.state.task_count(), 0);
}

#[test]
fn a_failed_graph_errs_every_key_asked_for() {
    let mut kit = Kit::new(&[1]);
    let error = ErrorInfo { exception: "boom".into(), ..Default::default() };
    kit.handle(Event::UpdateGraphFailed { client: CLIENT.into(), keys: keys(&["a", "b"]), error });
    assert_eq!(kit.client_ops(), ["task-erred", "task-erred"]);
    assert_eq!(kit.state.task_count(), 0);
}

#[test]
fn cancel_takes_dependents_along() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x"), task_of("y", &["x"])], &["x", "y"]);
    cancel(&mut kit, CLIENT, &["x"], false);
    assert_eq!(cancelled(&kit), ["y", "x"]);
    assert_eq!(kit.state.task_count(), 0);
}

#[test]
fn cancel_passes_through_unwanted_dependents() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x"), task_of("y", &["x"]), task_of("z", &["y"])], &["x", "z"]);
    cancel(&mut kit, CLIENT, &["x"], false);
    assert_eq!(cancelled(&kit), ["z", "x"]);
    assert_eq!(kit.state.task_count(), 0);
}

#[test]
fn cancel_without_force_spares_what_others_want() {
    let mut kit = Kit::new(&[1]);
    kit.handle(Event::AddClient { client: "Client-2".into() });
    kit.submit(vec![task("x")], &["x"]);
    desire(&mut kit, "Client-2", &["x"]);
    cancel(&mut kit, CLIENT, &["x"], false);
    assert_eq!(cancelled(&kit), Vec::<String>::new());
    kit.assert_states([("x", Some(Processing))]);
    cancel(&mut kit, CLIENT, &["x"], true);
    assert_eq!(cancelled(&kit), ["x"]);
    kit.assert_states([("x", None)]);
}

#[test]
fn cancel_of_an_unwanted_intermediate_reaches_its_dependents() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x"), task_of("y", &["x"])], &["y"]);
    cancel(&mut kit, CLIENT, &["x"], false);
    assert_eq!(cancelled(&kit), ["y"]);
    assert_eq!(kit.state.task_count(), 0);
}

#[test]
fn report_key_tells_how_a_key_stands() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x"), task("y"), task("z")], &["x", "y", "z"]);
    let report = |kit: &mut Kit, key: &str| {
        kit.handle(Event::ReportKey { client: CLIENT.into(), key: key.into() });
        kit.client_ops()
    };
    assert!(report(&mut kit, "x").is_empty());
    kit.finish("x");
    assert_eq!(report(&mut kit, "x"), ["key-in-memory"]);
    kit.finish("y");
    kit.err("z");
    assert_eq!(report(&mut kit, "z"), ["task-erred"]);
    assert_eq!(report(&mut kit, "unknown"), ["cancelled-keys"]);
}

#[test]
fn restart_forgets_everything() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("a"), task_of("b", &["a"]), task("e"), task_of("f", &["e"])], &["b", "f"]);
    kit.finish("a");
    kit.err("e");
    kit.assert_states([("b", Some(Processing)), ("f", Some(Erred))]);
    desire(&mut kit, "queue-q", &["b"]);
    kit.handle(Event::Restart { stimulus_id: "restart".into() });
    assert_eq!(kit.state.task_count(), 0);
    assert_eq!(kit.client_ops().last(), Some(&"restart"));
    kit.submit(vec![task("a")], &["a"]);
    assert_eq!(kit.computed_keys(), ["a"]);
}

#[test]
fn an_erred_task_with_dependents_outlives_its_client() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x"), task_of("y", &["x"])], &["x", "y"]);
    kit.err("x");
    kit.release(&["x"]);
    kit.assert_states([("x", Some(Erred)), ("y", Some(Erred))]);
    kit.release(&["y"]);
    assert_eq!(kit.state.task_count(), 0);
}

#[test]
fn a_forgotten_dependency_is_forgotten_in_waiting_dependents() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x"), task_of("y", &["x"]), task_of("z", &["y"])], &["z", "y"]);
    kit.assert_states([("y", Some(Waiting)), ("z", Some(Waiting))]);
    kit.release(&["z"]);
    kit.assert_states([("z", None), ("y", Some(Waiting)), ("x", Some(Processing))]);
    kit.finish("x");
    kit.finish("y");
    kit.assert_states([("x", Some(Released)), ("y", Some(Memory))]);
}

#[test]
fn tasks_are_charged_to_the_client_that_brought_them_in() {
    let mut kit = Kit::new(&[4]);
    kit.handle(Event::AddClient { client: "Client-2".into() });
    kit.submit(vec![task("x"), task_of("y", &["x"])], &["y"]);
    kit.submit_for("Client-2", vec![task("x"), task("z")], &["x", "z"]);
    kit.finish_in("x", 100, 0.5);
    kit.finish_in("y", 10, 0.25);
    kit.err("z");
    kit.submit_for("Client-2", vec![task("w")], &["w"]);
    kit.handle(Event::UpdateGraph(Box::new(UpdateGraph {
        client: CLIENT.into(),
        tasks: vec![task("v")],
        keys: vec!["v".into()],
        submitting_task: Some("w".into()),
        fifo_timeout: 0.0,
        stimulus_id: "update-graph".into(),
    })));
    kit.finish_in("v", 1, 0.125);
    let usage = |client: &str| kit.state.usages().find(|(name, _)| *name == client).map(|(_, usage)| *usage);
    let first = Usage { finished: 2, compute: 0.75, nbytes: 110, ..Usage::default() };
    assert_eq!(usage(CLIENT), Some(first), "both wanted x, the first one asked for it");
    let second = Usage { finished: 1, erred: 1, compute: 0.125, nbytes: 1, ..Usage::default() };
    assert_eq!(usage("Client-2"), Some(second), "w submitted v");
    assert_eq!(usage("others"), None);
}
