//! What is kept of workers that died.

use dask_protocol::Value;
use dask_protocol::message::SchedulerToClient;

use super::super::testing::{Kit, address, task};
use super::super::{Config, Event, TaskState};

fn report(n: usize, fields: Vec<(&'static str, Value)>) -> Event {
    Event::PostMortem { worker: address(n), report: Value::map(fields) }
}

/// A scheduler that forgives no death, whose worker 1 runs `x`.
fn kit() -> Kit {
    let mut kit = Kit::with(Config { allowed_failures: 0, ..Config::default() }, &[1]);
    kit.submit(vec![task("x")], &["x"]);
    kit
}

fn exception_bytes(kit: &Kit) -> Vec<u8> {
    let erred = kit.to_client().into_iter().find_map(|message| match message {
        SchedulerToClient::ClientTaskErred(erred) => Some(erred.exception.clone()),
        _ => None,
    });
    match erred.expect("the client hears of it") {
        Value::Bin(bytes) => bytes.to_vec(),
        other => panic!("an exception is bytes: {other:?}"),
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn what_a_dying_worker_tells_is_in_the_exception_of_its_task() {
    let mut kit = kit();
    let log = Value::Array(vec!["the last line".into()]);
    kit.handle(report(1, vec![("exit", "ended with status 9".into()), ("log", log)]));
    kit.lose(1);
    kit.assert_states([("x", Some(TaskState::Erred))]);
    let pickle = exception_bytes(&kit);
    for text in ["__notes__", "ended with status 9", "it was executing x", "the last line"] {
        assert!(contains(&pickle, text), "{text}");
    }
}

#[test]
fn what_a_nanny_tells_later_is_kept_too_and_does_not_replace_the_workers_own_word() {
    let mut kit = kit();
    kit.lose(1);
    assert!(contains(&exception_bytes(&kit), "in a way that nobody has told yet"));
    let memory = Value::Array(vec![Value::Array(vec![1.0.into(), Value::Int(7 << 20)])]);
    kit.handle(report(1, vec![("exit", "was killed by signal 9".into()), ("memory", memory)]));
    kit.handle(report(1, vec![("exit", "something else".into())]));
    let death = kit.state.post_mortem(&address(1)).expect("it died");
    assert_eq!(death.exit.as_deref(), Some("was killed by signal 9"));
    assert_eq!(death.memory, [(1.0, 7 << 20)]);
    let explained = kit.state.explain(&"x".into()).to_string();
    assert!(explained.contains("was killed by signal 9") && explained.contains("7.00 MiB"), "{explained}");
}

#[test]
fn a_worker_that_leaves_as_planned_has_no_post_mortem() {
    let mut kit = kit();
    kit.remove(1, true);
    assert!(kit.state.post_mortem(&address(1)).is_none());
}

#[test]
fn reports_are_bounded_and_junk_is_left_out() {
    let mut kit = kit();
    let lines = (0..1000).map(|_| Value::from("x".repeat(10_000))).collect();
    let junk = vec![("exit", Value::Int(3)), ("memory", "much".into()), ("log", Value::Array(lines))];
    kit.handle(report(1, junk));
    for n in 2..300 {
        kit.handle(report(n, Vec::new()));
    }
    assert!(kit.state.post_mortem(&address(1)).is_none(), "the oldest is forgotten");
    assert_eq!(kit.state.post_mortems().count(), 100);
    let lines = vec![("log", Value::Array(vec![Value::from("x".repeat(10_000)); 1000]))];
    kit.handle(report(1, lines));
    let death = kit.state.post_mortem(&address(1)).expect("told");
    assert!(death.log.len() == 20 && death.log.iter().all(|line| line.len() == 500));
}
