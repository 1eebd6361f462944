//! Exceptions, retries, and what errs with them.

use super::super::TaskState::{Erred, Memory, NoWorker, Processing, Queued, Released, Waiting};
use super::super::testing::{Kit, annotated, erred, task, task_of};
use super::super::{Config, Event};
use dask_protocol::message::SchedulerToClient;
use dask_protocol::{Key, Value};

fn exception(kit: &Kit) -> Value {
    let exception = kit.to_client().into_iter().find_map(|message| match message {
        SchedulerToClient::ClientTaskErred(message) => Some(message.exception.clone()),
        _ => None,
    });
    exception.expect("the client was told of an error")
}

fn retry(kit: &mut Kit, keys: &[&str]) {
    let keys = keys.iter().map(|key| Key::from(*key)).collect();
    kit.handle(Event::Retry { keys, stimulus_id: "stimulus-retry".into() });
}

#[test]
fn an_exception_errs_the_task_and_all_that_wait_for_it() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x"), task_of("y", &["x"]), task_of("z", &["y"])], &["z"]);
    kit.err("x");
    kit.assert_states([("x", Some(Erred)), ("y", Some(Erred)), ("z", Some(Erred))]);
    assert_eq!(kit.client_ops(), ["task-erred"]);
    assert_eq!(exception(&kit), Value::Bin((&b"exception"[..]).into()));
    assert_eq!(kit.state.error_cause(&["z".into()]), Some(&Key::from("x")));
    assert_eq!(kit.state.erred_tasks().map(|erred| erred.key.to_string()).collect::<Vec<_>>(), ["x"]);
}

#[test]
fn retries_are_invisible_to_the_client() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![annotated(task("x"), |a| a.retries = 1)], &["x"]);
    kit.err("x");
    assert!(kit.client_ops().is_empty());
    assert_eq!(kit.worker_ops(1), ["free-keys", "compute-task"]);
    kit.err("x");
    assert_eq!(kit.client_ops(), ["task-erred"]);
}

#[test]
fn errors_of_old_runs_and_of_other_workers_do_not_count() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![task("x")], &["x"]);
    let number = kit.worker_of("x");
    let (_, run_id) = kit.last_run("x");
    kit.say(3 - number, erred("x", run_id));
    kit.assert_states([("x", Some(Processing))]);
    kit.say(number, erred("x", run_id - 1));
    assert_eq!(kit.worker_ops(number)[0], "free-keys", "the assigned worker missed something: start over");
    kit.assert_states([("x", Some(Processing))]);
}

#[test]
fn retry_goes_back_to_the_root() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x"), task_of("y", &["x"])], &["y"]);
    kit.err("x");
    assert_eq!(kit.state.retried_keys(&["y".into()]), [Key::from("y"), Key::from("x")]);
    retry(&mut kit, &["y"]);
    assert_eq!(kit.client_ops(), ["task-retried"]);
    assert_eq!(kit.worker_ops(1), ["free-keys", "compute-task"]);
    kit.assert_states([("x", Some(Processing)), ("y", Some(Waiting))]);
    kit.finish("x");
    kit.finish("y");
    kit.assert_states([("y", Some(Memory))]);
}

#[test]
fn retrying_one_of_two_erred_roots_leaves_nothing_waiting_for_ever() {
    let mut kit = Kit::new(&[2]);
    kit.submit(vec![task("a"), task("b"), task_of("x", &["a", "b"])], &["a", "b", "x"]);
    kit.err("a");
    kit.err("b");
    retry(&mut kit, &["a"]);
    kit.assert_states([("a", Some(Processing)), ("b", Some(Erred)), ("x", Some(Erred))]);
    kit.finish("a");
    retry(&mut kit, &["x"]);
    kit.finish("b");
    kit.finish("x");
    kit.assert_states([("x", Some(Memory))]);
}

#[test]
fn retry_of_a_diamond_tells_each_task_once() {
    let mut kit = Kit::new(&[2]);
    let tasks = vec![task("a"), task_of("b", &["a"]), task_of("c", &["b"]), task_of("x", &["c", "a"])];
    kit.submit(tasks, &["a", "b", "c", "x"]);
    kit.err("a");
    retry(&mut kit, &["x"]);
    assert_eq!(kit.client_ops(), ["task-retried"; 4]);
    for key in ["a", "b", "c", "x"] {
        kit.finish(key);
    }
    kit.assert_states([("x", Some(Memory))]);
}

#[test]
fn a_graph_on_top_of_an_erred_task_errs_at_once() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.err("x");
    kit.submit(vec![task("other"), task_of("y", &["x", "other"]), task_of("z", &["y"])], &["z"]);
    kit.assert_states([("y", Some(Erred)), ("z", Some(Erred))]);
    assert!(kit.client_ops().contains(&"task-erred"));
    assert_eq!(kit.state.error_cause(&["z".into()]), Some(&Key::from("x")));
}

#[test]
fn a_task_let_go_of_before_it_errs_carries_no_blame() {
    let mut kit = Kit::new(&[2]);
    // When `a` errs, `z` errs first and lets go of `m`, which nobody else needs.
    kit.submit(vec![task("a"), task_of("m", &["a"]), task_of("z", &["m", "a"])], &["z"]);
    kit.err("a");
    retry(&mut kit, &["a"]);
    kit.finish("a");
    kit.submit(vec![task("a"), task_of("m", &["a"])], &["m"]);
    kit.finish("m");
    kit.assert_states([("m", Some(Memory))]);
}

#[test]
fn retry_computes_only_what_is_wanted() {
    let mut kit = Kit::new(&[2]);
    kit.submit(vec![task("a"), task("b"), task_of("m", &["a"]), task_of("x", &["m", "b"])], &["x", "a"]);
    kit.err("b");
    kit.err("a");
    retry(&mut kit, &["a"]);
    kit.assert_states([("a", Some(Processing)), ("m", Some(Released)), ("x", Some(Erred))]);
}

#[test]
fn a_lost_result_that_cannot_be_made_again_errs() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![task("a"), task_of("x", &["a"])], &["x"]);
    kit.finish("a");
    kit.finish("x");
    kit.submit(vec![task("a")], &["a"]);
    kit.err("a");
    kit.lose(kit.worker_of("x"));
    assert_eq!(kit.client_ops(), ["lost-data", "task-erred"]);
    kit.assert_states([("x", Some(Erred))]);
}

#[test]
fn resubmitting_an_erred_task_reports_the_error_again() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.err("x");
    kit.submit(vec![task("x")], &["x"]);
    assert!(kit.client_ops().contains(&"task-erred"));
    assert!(kit.computes().is_empty());
}

#[test]
fn a_worker_that_dies_too_often_with_a_task_kills_it() {
    let mut kit = Kit::new(&[1, 1, 1, 1, 1]);
    kit.submit(vec![task("x"), task_of("y", &["x"])], &["y"]);
    for deaths in 1..=3 {
        kit.lose(kit.worker_of("x"));
        assert_eq!(kit.state.task(&"x".into()).expect("known").suspicious, deaths);
        kit.assert_states([("x", Some(Processing))]);
    }
    kit.lose(kit.worker_of("x"));
    kit.assert_states([("x", Some(Erred)), ("y", Some(Erred))]);
    let (cause, error) = kit.state.error(&"y".into()).expect("y is erred");
    assert_eq!(cause, &Key::from("x"));
    assert!(error.exception_text.starts_with("KilledWorker('x'"), "{}", error.exception_text);
    assert!(matches!(exception(&kit), Value::Bin(_)));
}

#[test]
fn expected_departures_are_nobodys_fault() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.remove(kit.worker_of("x"), true);
    assert_eq!(kit.state.task(&"x".into()).expect("known").suspicious, 0);
}

#[test]
fn tasks_without_any_worker_err_after_the_timeout() {
    let config = Config { no_workers_timeout: Some(5.0), ..Config::default() };
    let mut kit = Kit::with(config, &[]);
    let producer = super::super::NewTask { data_producer: true, ..task("q") };
    // Restricted tasks are not root-ish, hence not queued.
    let restricted = annotated(task("x"), |a| a.workers = vec!["w1".to_owned()]);
    kit.submit(vec![restricted, producer, task_of("y", &["x"])], &["y", "q"]);
    kit.assert_states([("x", Some(NoWorker)), ("q", Some(Queued))]);
    kit.pass(4.0);
    kit.assert_states([("x", Some(NoWorker)), ("q", Some(Queued))]);
    kit.pass(2.0);
    kit.assert_states([("x", Some(Erred)), ("q", Some(Erred)), ("y", Some(Erred))]);
    let (_, error) = kit.state.error(&"y".into()).expect("erred");
    assert!(error.exception_text.starts_with("NoWorkerError('x'"), "{}", error.exception_text);
}

#[test]
fn tasks_that_no_worker_may_run_err_after_the_timeout() {
    let config = Config { no_workers_timeout: Some(5.0), ..Config::default() };
    let mut kit = Kit::with(config, &[1]);
    kit.submit(vec![annotated(task("x"), |a| a.resources = vec![("GPU".to_owned(), 1.0)])], &["x"]);
    kit.assert_states([("x", Some(NoWorker))]);
    kit.pass(6.0);
    let (_, error) = kit.state.error(&"x".into()).expect("erred");
    assert!(error.exception_text.starts_with("NoValidWorkerError('x'"), "{}", error.exception_text);
}

#[test]
fn inputs_beyond_a_workers_memory_err_at_once() {
    let mut kit = Kit::new(&[]);
    kit.add_worker(super::super::NewWorker { memory_limit: 1000, ..super::super::testing::worker(1, 1) });
    kit.submit(vec![task("x"), task_of("y", &["x"])], &["y"]);
    kit.finish_in("x", 2000, 0.1);
    kit.assert_states([("y", Some(Erred))]);
    let (_, error) = kit.state.error(&"y".into()).expect("erred");
    assert!(error.exception_text.starts_with("MemoryError("), "{}", error.exception_text);
}

/// A worker whose memory holds no inputs of 1000 bytes.
fn small_worker() -> Kit {
    let mut kit = Kit::new(&[]);
    kit.add_worker(super::super::NewWorker { memory_limit: 1000, ..super::super::testing::worker(1, 1) });
    kit
}

#[test]
fn a_retry_that_fails_at_once_leaves_other_erred_tasks_alone() {
    let mut kit = small_worker();
    let loads = [task_of("load-0", &["x"]), task_of("load-1", &["x"]), task_of("load-2", &["x"])];
    let total = task_of("total", &["load-0", "load-1", "load-2"]);
    kit.submit([task("x")].into_iter().chain(loads).chain([total]).collect(), &["x", "total"]);
    kit.finish_in("x", 2000, 0.1);
    kit.submit(vec![task_of("other", &["load-1"])], &["other"]);
    retry(&mut kit, &["total"]);
    kit.assert_states([("total", Some(Erred)), ("other", Some(Erred)), ("x", Some(Memory))]);
}

#[test]
fn queued_tasks_that_err_at_once_make_room_for_the_next() {
    let mut kit = small_worker();
    let roots = ["('root-1', 0)", "('root-1', 1)", "('root-1', 2)", "('root-1', 3)", "('root-1', 4)"];
    let tasks = roots.iter().map(|key| super::super::NewTask { data_producer: true, ..task_of(*key, &["x"]) });
    kit.submit([task("x")].into_iter().chain(tasks).collect(), &roots);
    kit.finish_in("x", 2000, 0.1);
    for root in roots {
        assert_eq!(kit.state_of(root), Some(Erred), "{root}");
    }
}
