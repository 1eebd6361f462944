//! The ordinary life of tasks: submitted, placed, computed, used, forgotten.

use super::super::TaskState::{Memory, Processing, Released, Waiting};
use super::super::testing::{CLIENT, Kit, finished, task, task_of};
use super::super::{Action, Event, NewTask, TaskState};
use dask_protocol::Key;
use dask_protocol::message::SchedulerToClient;

#[test]
fn a_submitted_task_is_computed_reported_and_forgotten() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x")], &["x"]);
    assert_eq!(kit.worker_ops(1), ["compute-task"]);
    let compute = kit.computes()[0];
    assert_eq!((compute.run_id, compute.actor, &compute.who_has.0[..]), (0, false, &[][..]));
    assert_eq!(compute.priority.0[..], [0.0, 1.0, 0.0]);
    kit.finish("x");
    let [SchedulerToClient::KeyInMemory(told)] = kit.to_client()[..] else { panic!("{:?}", kit.actions) };
    assert_eq!((told.key.as_str(), told.type_pickle.as_deref()), (Some("x"), Some(&b"type"[..])));
    kit.release(&["x"]);
    assert_eq!(kit.worker_ops(1), ["free-keys"]);
    assert_eq!(kit.state.task_count(), 0);
    assert_eq!(kit.state.groups().count(), 0);
}

#[test]
fn a_dependent_is_sent_with_holders_and_sizes_of_its_inputs() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x"), task_of("y", &["x"])], &["y"]);
    kit.assert_states([("x", Some(Processing)), ("y", Some(Waiting))]);
    kit.finish_in("x", 100, 0.1);
    let compute = kit.computes()[0];
    assert_eq!(compute.key, Key::from("y"));
    assert_eq!(compute.who_has.0, [(Key::from("x"), vec![super::super::testing::address(1)])]);
    assert_eq!(compute.nbytes.0, [(Key::from("x"), 100)]);
    assert!(kit.to_client().is_empty(), "nobody asked for x");
    kit.finish("y");
    kit.assert_states([("x", Some(Released)), ("y", Some(Memory))]);
    assert_eq!(kit.worker_ops(1), ["free-keys"], "x is freed once its last dependent is done");
    kit.release(&["y"]);
    assert_eq!(kit.state.task_count(), 0);
}

#[test]
fn only_what_is_wanted_is_taken_in() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x"), task("unwanted"), task_of("y", &["x"])], &["y"]);
    kit.assert_states([("unwanted", None), ("x", Some(Processing))]);
}

#[test]
fn released_intermediates_are_made_again_when_wanted() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x"), task_of("y", &["x"])], &["y"]);
    kit.finish("x");
    kit.finish("y");
    kit.assert_states([("x", Some(Released))]);
    kit.submit(vec![task("x")], &["x"]);
    assert_eq!(kit.computed_keys(), ["x"]);
}

#[test]
fn a_known_result_is_reported_again_and_not_computed() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.finish("x");
    kit.submit(vec![task("x")], &["x"]);
    assert!(kit.computes().is_empty());
    assert!(kit.client_ops().iter().all(|op| *op == "key-in-memory") && !kit.client_ops().is_empty());
}

#[test]
fn run_ids_are_never_reused() {
    let mut kit = Kit::new(&[2]);
    kit.submit(vec![task("a"), task("b")], &["a", "b"]);
    kit.finish("a");
    kit.release(&["a"]);
    kit.submit(vec![task("a")], &["a"]);
    let ids: Vec<i64> = kit.runs.iter().map(|(_, _, run_id)| *run_id).collect();
    assert_eq!(ids, [0, 1, 2]);
}

#[test]
fn ready_dependents_are_sent_best_first() {
    let mut kit = Kit::new(&[1]);
    let ordered = |key, order| super::super::NewTask { order, ..task_of(key, &["x"]) };
    kit.submit(vec![task("x"), ordered("c", 3.0), ordered("a", 1.0), ordered("b", 2.0)], &["c", "a", "b"]);
    kit.finish("x");
    assert_eq!(kit.computed_keys(), ["a", "b", "c"]);
}

#[test]
fn graphs_within_the_fifo_timeout_share_a_generation() {
    let mut kit = Kit::new(&[8]);
    kit.submit(vec![task("a")], &["a"]);
    let submit = |kit: &mut Kit, key: &str, fifo_timeout, submitting_task: Option<Key>| {
        kit.handle(Event::UpdateGraph(Box::new(super::super::UpdateGraph {
            client: CLIENT.into(),
            tasks: vec![task(key)],
            keys: vec![key.into()],
            submitting_task,
            fifo_timeout,
            stimulus_id: "update-graph".into(),
        })));
        kit.computes()[0].priority.0[1]
    };
    assert_eq!(submit(&mut kit, "b", 60.0, None), 1.0);
    assert_eq!(submit(&mut kit, "c", 0.0, None), 2.0);
    let child = submit(&mut kit, "d", 0.0, Some("c".into()));
    assert!((child - -0.01).abs() < 1e-12, "upstream takes the parent's user priority: {child}");
    assert_eq!(submit(&mut kit, "e", 0.0, Some("unknown".into())), 2.0);
}

#[test]
fn a_collision_keeps_the_old_definition() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("a"), task("b"), task_of("x", &["a"])], &["x"]);
    kit.submit(vec![task("a"), task("b"), task_of("x", &["b"])], &["x"]);
    let x = kit.state.task(&"x".into()).expect("x is known");
    assert_eq!(x.dependencies, [&Key::from("a")]);
}

#[test]
fn inputs_of_a_kept_definition_are_not_reported() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("a"), task_of("x", &["a"])], &["a", "x"]);
    kit.finish("a");
    kit.handle(Event::AddClient { client: "Client-2".into() });
    kit.submit_for("Client-2", vec![task("b"), task_of("x", &["b"])], &["x"]);
    kit.assert_states([("x", Some(Processing)), ("b", None)]);
    let told = kit.actions.iter().any(|action| matches!(action, Action::ToClient { .. }));
    assert!(!told, "Client-2 asked for x only: {:?}", kit.actions);
}

#[test]
fn only_what_has_not_run_yet_becomes_an_actor() {
    let mut kit = Kit::new(&[1]);
    let tasks = || vec![task("ran"), task("runs"), task_of("waits", &["runs"])];
    kit.submit(tasks(), &["ran", "runs", "waits"]);
    kit.finish("ran");
    let actors = tasks().into_iter().map(|task| NewTask { actor: true, ..task });
    kit.submit(actors.collect(), &["ran", "runs", "waits"]);
    let is_actor = |key: &str| kit.state.task(&key.into()).is_some_and(|task| task.actor);
    assert_eq!(["ran", "runs", "waits"].map(is_actor), [false, false, true]);
}

#[test]
fn durations_are_rounded_to_even_microseconds_as_python_rounds() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x-1"), task_of("y-1", &["x-1"])], &["y-1"]);
    kit.finish_in("x-1", 28, 0.195_312_5);
    let average = kit.state.prefixes().find(|prefix| prefix.name == "x").and_then(|prefix| prefix.duration_average);
    assert_eq!(average, Some(0.195_312));
}

#[test]
fn integer_and_float_keys_are_one_task() {
    let mut kit = Kit::new(&[1]);
    let integer = super::super::NewTask { key: Key::from(5), ..task("unused") };
    let graph = |task| {
        Event::UpdateGraph(Box::new(super::super::UpdateGraph {
            client: CLIENT.into(),
            tasks: vec![task],
            keys: vec![Key::from(5.0)],
            submitting_task: None,
            fifo_timeout: 0.0,
            stimulus_id: "update-graph".into(),
        }))
    };
    kit.handle(graph(integer));
    assert_eq!(kit.state.task_count(), 1);
    assert_eq!(kit.state.task_state(&Key::float(5.0)), Some(Processing));
}

#[test]
fn a_result_of_an_old_run_is_not_taken() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![task("x")], &["x"]);
    let (old, run_id) = kit.last_run("x");
    let old_number = kit.worker_of("x");
    kit.say(old_number, super::super::testing::reschedule("x"));
    let new_number = kit.worker_of("x");
    if new_number == old_number {
        // The assigned worker speaks of a run it should have dropped: the task starts over.
        kit.handle(Event::WorkerMessage { worker: old, message: finished("x", run_id, 1, 0.1).into() });
        assert!(kit.worker_ops(old_number).contains(&"free-keys"));
    } else {
        kit.handle(Event::WorkerMessage { worker: old, message: finished("x", run_id, 1, 0.1).into() });
        assert_eq!(kit.worker_ops(old_number), ["free-keys"]);
    }
    kit.assert_states([("x", Some(Processing))]);
    kit.finish("x");
    kit.assert_states([("x", Some(Memory))]);
}

#[test]
fn results_of_unknown_tasks_are_freed() {
    let mut kit = Kit::new(&[1]);
    kit.say(1, finished("gone", 7, 1, 0.1));
    assert_eq!(kit.worker_ops(1), ["free-keys"]);
}

#[test]
fn a_worker_cannot_finish_what_another_one_processes() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![task("x")], &["x"]);
    let (_, run_id) = kit.last_run("x");
    let other = 3 - kit.worker_of("x");
    kit.say(other, finished("x", run_id, 1, 0.1));
    assert_eq!(kit.worker_ops(other), ["free-keys"]);
    kit.assert_states([("x", Some(Processing))]);
}

#[test]
fn every_transition_is_in_the_story() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.finish("x");
    let rows = kit.state.story(&["x".into()]);
    let path: Vec<(TaskState, TaskState)> = rows.iter().map(|row| (row.start, row.finish)).collect();
    assert_eq!(path, [(Released, Waiting), (Waiting, Processing), (Processing, Memory)]);
    assert_eq!(rows[0].recommendations[..], [(Key::from("x"), Processing)]);
    assert!(kit.state.story(&["task-finished".into()]).iter().all(|row| &*row.stimulus_id == "task-finished"));
}

#[test]
fn long_chains_and_wide_graphs_are_followed_without_recursion() {
    const LENGTH: usize = 20_000;
    let config = super::super::Config { validate: false, ..Default::default() };
    let mut kit = Kit::with(config, &[1]);
    let name = |i: usize| format!("chain-{i}");
    let mut tasks = vec![task(name(0).as_str())];
    tasks.extend((1..LENGTH).map(|i| task_of(name(i).as_str(), &[&name(i - 1)])));
    kit.submit(tasks, &[&name(LENGTH - 1)]);
    assert_eq!(kit.computed_keys(), [name(0)]);
    kit.release(&[&name(LENGTH - 1)]);
    assert_eq!(kit.state.task_count(), 0);
}

#[test]
fn idle_time_counts_from_the_last_work() {
    let mut kit = Kit::new(&[1]);
    assert!(kit.state.idle_since().is_some());
    kit.submit(vec![task("x")], &["x"]);
    assert_eq!(kit.state.idle_since(), None);
    kit.finish("x");
    assert_eq!(kit.state.idle_since(), Some(kit.now));
    let since = kit.state.idle_since();
    kit.pass(10.0);
    assert_eq!(kit.state.idle_since(), since);
    assert_eq!(kit.state.next_timeout(), None, "an idle scheduler is not woken");
}
