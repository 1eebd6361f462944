//! Why a task is where it is.

use dask_protocol::Value;
use dask_protocol::message::{SchedulerToClient, TopicEvent, WorkerStatus};

use super::super::testing::{Kit, add_keys, address, annotated, release_worker_data, task, task_of, worker};
use super::super::{Config, Explanation, Incident, NewTask, NewWorker, Reason, Rule, Runtime, TaskState};

fn explain(kit: &Kit, key: &str) -> Explanation {
    kit.state.explain(&key.into())
}

fn warnings(kit: &Kit) -> Vec<String> {
    let warning = |message: &&SchedulerToClient| match message {
        SchedulerToClient::TopicEvent(TopicEvent { topic, event: (_, msg) }) if topic.as_str() == Some("warn") => {
            msg.as_str().map(str::to_owned)
        }
        _ => None,
    };
    kit.to_client().iter().filter_map(warning).collect()
}

#[test]
fn an_unknown_key_is_said_to_be_unknown() {
    let explained = explain(&Kit::new(&[1]), "nobody");
    assert_eq!((explained.state, &explained.reason), (None, &Reason::Unknown));
    assert!(explained.to_string().starts_with("nobody is unknown."), "{explained}");
}

#[test]
fn a_waiting_task_names_what_it_waits_for_and_what_is_behind_that() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("a"), task_of("b", &["a"]), task_of("c", &["b"]), task_of("d", &["c", "a"])], &["d"]);
    let explained = explain(&kit, "d");
    let Reason::WaitsFor { inputs, missing: 2, of: 2, behind } = &explained.reason else { panic!("{explained}") };
    let mut keys: Vec<String> = inputs.iter().map(|input| input.key.to_string()).collect();
    keys.sort();
    assert_eq!(keys, ["a", "c"]);
    assert!(behind.is_empty(), "a is named already: {explained}");
    let Reason::WaitsFor { inputs, behind, .. } = explain(&kit, "c").reason else { panic!("c waits") };
    assert_eq!((inputs[0].key.to_string(), inputs[0].state), ("b".to_owned(), TaskState::Waiting));
    assert_eq!((behind[0].key.to_string(), behind[0].state), ("a".to_owned(), TaskState::Processing));
}

#[test]
fn the_score_table_is_that_of_the_decision() {
    let mut kit = Kit::new(&[1, 1, 2]);
    kit.submit(vec![task("x"), task("y")], &["x", "y"]);
    kit.finish_in("x", 1_000_000, 0.1);
    kit.finish_in("y", 1_000, 0.1);
    let (of_x, of_y) = (kit.worker_of("x"), kit.worker_of("y"));
    assert_ne!(of_x, of_y);
    kit.submit(vec![task_of("z", &["x", "y"])], &["z"]);
    // What changes later must not show.
    kit.say(of_y, add_keys(&["x"]));
    let placement = explain(&kit, "z").placement.expect("just decided");
    assert_eq!((placement.rule, placement.candidates), (Rule::SoonestStart, 2));
    assert_eq!(placement.worker, address(of_x).to_string());
    let rows: Vec<(String, u64)> = placement.scores.iter().map(|row| (row.worker.clone(), row.missing)).collect();
    assert_eq!(rows, [(address(of_x).to_string(), 1_000), (address(of_y).to_string(), 1_000_000)]);
    assert!(placement.scores[0].start < placement.scores[1].start);
}

#[test]
fn a_queued_task_knows_its_place() {
    let mut kit = Kit::new(&[1]);
    let names: Vec<String> = (0..10).map(|i| format!("root-{i}")).collect();
    let tasks = names.iter().zip(0..).map(|(name, n)| NewTask { order: f64::from(n), ..task(name.as_str()) });
    kit.submit(tasks.collect(), &names.iter().map(String::as_str).collect::<Vec<_>>());
    // ceil(1.1 * 1) = 2 are sent out.
    let explained = explain(&kit, "root-5");
    assert_eq!(explained.reason, Reason::Queued { ahead: 3, workers: 1, saturation: 1.1 });
    assert_eq!(explain(&kit, "root-0").placement.map(|placement| placement.rule), Some(Rule::FreeSlot));
}

#[test]
fn a_task_nobody_may_run_says_what_each_worker_lacks() {
    let mut kit = Kit::new(&[1, 1]);
    let gpu = |amount| [("GPU".to_owned(), amount)].into_iter().collect();
    kit.add_worker(NewWorker { resources: gpu(1.0), ..worker(3, 1) });
    kit.submit(vec![annotated(task("x"), |a| a.resources = vec![("GPU".to_owned(), 2.0)])], &["x"]);
    let explained = explain(&kit, "x");
    let Reason::NoSuitableWorker { refusals, workers: 3, hopeless: true } = &explained.reason else {
        panic!("{explained}")
    };
    let told: Vec<(&str, usize)> = refusals.iter().map(|refusal| (refusal.why.as_str(), refusal.workers)).collect();
    assert_eq!(told, [("offers 0 of the 2 GPU needed", 2), ("offers 1 of the 2 GPU needed", 1)]);
}

#[test]
fn a_paused_worker_is_no_reason_to_despair() {
    let mut kit = Kit::new(&[1]);
    kit.set_status(1, WorkerStatus::Paused);
    kit.submit(vec![annotated(task("x"), |a| a.workers = vec!["w1".to_owned()])], &["x"]);
    assert!(warnings(&kit).is_empty());
    let Reason::NoSuitableWorker { refusals, hopeless, .. } = explain(&kit, "x").reason else { panic!("no-worker") };
    assert!(!hopeless);
    assert_eq!(refusals[0].why, "is paused");
}

#[test]
fn who_waits_for_what_can_never_run_is_warned_once() {
    let mut kit = Kit::new(&[1]);
    let gpu = |key: &str| annotated(task(key), |a| a.resources = vec![("GPU".to_owned(), 1.0)]);
    kit.submit(vec![gpu("x-1"), gpu("x-2"), task_of("y", &["x-1", "x-2"])], &["y"]);
    let warned = warnings(&kit);
    assert_eq!(warned.len(), 1, "one of its group is enough: {warned:?}");
    assert!(warned[0].contains("offers 0 of the 1 GPU needed"), "{warned:?}");
    kit.submit(vec![gpu("z")], &["z"]);
    assert_eq!(warnings(&kit).len(), 1, "another group is another matter");
}

#[test]
fn a_timeout_that_a_worker_does_not_know_is_warned_of_once() {
    let mut kit = Kit::new(&[]);
    kit.add_worker(NewWorker { runtimes: vec![Runtime::Python], ..worker(1, 2) });
    let limited = |key: &str| annotated(task(key), |a| a.timeout = Some(5.0));
    kit.submit(vec![limited("x-1"), limited("x-2")], &["x-1", "x-2"]);
    let warned = warnings(&kit);
    assert_eq!(warned.len(), 1, "one of its group is enough: {warned:?}");
    assert!(warned[0].contains("does not know timeouts"), "{warned:?}");
    let mut ours = Kit::new(&[1]);
    ours.submit(vec![limited("x-1")], &["x-1"]);
    assert!(warnings(&ours).is_empty());
}

#[test]
fn there_is_no_warning_while_there_are_no_workers() {
    let mut kit = Kit::new(&[]);
    kit.submit(vec![annotated(task("x"), |a| a.workers = vec!["w1".to_owned()])], &["x"]);
    assert!(warnings(&kit).is_empty());
    assert_eq!(explain(&kit, "x").reason, Reason::NoWorkers);
}

#[test]
fn a_worker_that_dies_explains_why_the_task_ran_elsewhere() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![task("x")], &["x"]);
    let first = kit.worker_of("x");
    kit.lose(first);
    let explained = explain(&kit, "x");
    assert_eq!(
        explained.incidents.iter().map(|(_, incident)| incident.clone()).collect::<Vec<_>>(),
        [Incident::WorkerLeft { worker: address(first), expected: false, suspicious: 1 }]
    );
    assert_eq!(explained.earlier[0].worker, address(first).to_string(), "remembered beyond its end");
    kit.finish("x");
    kit.lose(3 - first);
    let told = explain(&kit, "x").to_string();
    assert!(told.contains("its result was lost with tcp://10.0.0."), "{told}");
}

#[test]
fn what_dropped_a_result_explains_the_recomputation() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![task("x"), task("o"), task_of("y", &["x", "o"])], &["y"]);
    kit.finish("x");
    let holder = kit.worker_of("x");
    kit.finish("o");
    kit.say(holder, release_worker_data("x"));
    let kinds = |key| explain(&kit, key).incidents.iter().map(|(_, what)| what.name()).collect::<Vec<_>>();
    assert_eq!(kinds("x"), ["result-dropped"]);
    assert_eq!(kinds("y"), ["input-lost"]);
}

#[test]
fn an_erred_task_names_the_task_that_raised() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x"), task_of("y", &["x"])], &["y"]);
    kit.err("x");
    let told = explain(&kit, "y").to_string();
    assert!(told.contains("x raised ZeroDivisionError()"), "{told}");
}

#[test]
fn the_message_holds_the_same_as_the_text() {
    let mut kit = Kit::new(&[2, 2]);
    kit.submit(vec![task("x"), task_of("y", &["x"])], &["y"]);
    let value = explain(&kit, "y").to_value();
    assert_eq!(value.get("state").and_then(Value::as_str), Some("waiting"));
    let reason = value.get("reason").expect("always there");
    assert_eq!(reason.get("kind").and_then(Value::as_str), Some("waits-for"));
    let inputs = reason.get("inputs").and_then(Value::as_items).expect("a list");
    assert_eq!(inputs[0].get("key").and_then(Value::as_str), Some("x"));
    let text = value.get("text").and_then(Value::as_str).expect("always there");
    assert!(text.contains("x (processing): It is processing on tcp://"), "{text}");
}

#[test]
fn records_can_be_switched_off() {
    let config = Config { decision_log_length: 0, ..Config::default() };
    let mut kit = Kit::with(config, &[1, 1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.lose(kit.worker_of("x"));
    let explained = explain(&kit, "x");
    assert!(explained.placement.is_none() && explained.incidents.is_empty());
    assert!(matches!(explained.reason, Reason::Processing { since: None, .. }), "{explained}");
}
