//! Idle workers take tasks from busy ones.

use super::super::TaskState::{Memory, Processing};
use super::super::testing::{Kit, address, annotated, steal_response, task, task_of, worker};
use super::super::{Action, Config, Declined, Event, Policy, Rule};
use dask_protocol::Value;
use dask_protocol::message::{SchedulerToWorker, StealRequest, WorkerStatus};

/// Ten tasks of known duration on worker 1, then an idle worker 2.
fn busy() -> Kit {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("warm-up")], &["warm-up"]);
    kit.finish_in("warm-up", 1, 1.0);
    let names: Vec<String> = (0..10).map(|i| format!("warm-up-{i}")).collect();
    for name in &names {
        kit.submit(vec![task_of(name.as_str(), &["warm-up"])], &[name.as_str()]);
    }
    kit.add_worker(worker(2, 1));
    kit
}

fn requests(actions: &[Action]) -> Vec<StealRequest> {
    let request = |action: &Action| match action {
        Action::ToWorker { worker, message: SchedulerToWorker::StealRequest(request) } => {
            assert_eq!(*worker, address(1), "the victim is asked");
            Some(request.clone())
        }
        _ => None,
    };
    actions.iter().filter_map(request).collect()
}

fn key(request: &StealRequest) -> String {
    request.key.to_string()
}

#[test]
fn a_confirmed_task_moves_without_a_transition() {
    let mut kit = busy();
    let asked = requests(&kit.pass(1.5));
    assert!(!asked.is_empty());
    let name = key(&asked[0]);
    let run_id = kit.last_run(&name).1;
    let transitions = kit.state.transition_counter();
    kit.say(1, steal_response(&name, Some("ready"), &asked[0].stimulus_id));
    assert_eq!(kit.worker_of(&name), 2);
    assert!(kit.last_run(&name).1 > run_id, "under a new run id");
    assert_eq!(kit.state.transition_counter(), transitions);
    assert!(kit.worker_ops(1).is_empty(), "no free-keys");
    kit.finish(&name);
    kit.assert_states([(&name, Some(Memory))]);
}

#[test]
fn a_running_task_stays() {
    let mut kit = busy();
    let asked = requests(&kit.pass(1.5));
    let name = key(&asked[0]);
    kit.say(1, steal_response(&name, Some("executing"), &asked[0].stimulus_id));
    assert_eq!(kit.worker_of(&name), 1);
    kit.finish(&name);
    kit.assert_states([(&name, Some(Memory))]);
}

#[test]
fn stale_answers_are_ignored() {
    let mut kit = busy();
    let asked = requests(&kit.pass(1.5));
    let name = key(&asked[0]);
    kit.say(1, steal_response(&name, Some("ready"), "steal-99999"));
    kit.say(2, steal_response(&name, Some("ready"), &asked[0].stimulus_id));
    assert_eq!(kit.worker_of(&name), 1);
    kit.finish(&name);
    kit.say(1, steal_response(&name, Some("memory"), &asked[0].stimulus_id));
    kit.assert_states([(&name, Some(Memory))]);
}

#[test]
fn a_task_the_victim_does_not_know_is_rescheduled() {
    let mut kit = busy();
    let asked = requests(&kit.pass(1.5));
    let name = key(&asked[0]);
    let runs = kit.runs.len();
    kit.say(1, steal_response(&name, None, &asked[0].stimulus_id));
    assert_eq!(kit.runs.len(), runs + 1);
    kit.assert_states([(&name, Some(Processing))]);
}

#[test]
fn a_thief_that_is_gone_gets_nothing() {
    for leaves in [true, false] {
        let mut kit = busy();
        let asked = requests(&kit.pass(1.5));
        let name = key(&asked[0]);
        if leaves {
            kit.lose(2);
        } else {
            kit.set_status(2, WorkerStatus::Paused);
        }
        kit.say(1, steal_response(&name, Some("waiting"), &asked[0].stimulus_id));
        assert_eq!(kit.worker_of(&name), 1);
        kit.assert_states([(&name, Some(Processing))]);
    }
}

#[test]
fn a_victim_that_dies_takes_the_request_along() {
    let mut kit = busy();
    let asked = requests(&kit.pass(1.5));
    kit.lose(1);
    kit.add_worker(worker(1, 1));
    let name = key(&asked[0]);
    kit.say(1, steal_response(&name, Some("ready"), &asked[0].stimulus_id));
    assert!(kit.computes().is_empty());
}

#[test]
fn no_task_is_asked_back_twice() {
    let mut kit = busy();
    let mut asked: Vec<String> = requests(&kit.pass(5.0)).iter().map(key).collect();
    let count = asked.len();
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), count);
}

#[test]
fn restricted_and_unstealable_tasks_stay() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("slow")], &["slow"]);
    kit.finish_in("slow", 1, 1.0);
    let names: Vec<String> = (0..10).map(|i| format!("slow-{i}")).collect();
    for (i, name) in names.iter().enumerate() {
        let task = super::super::testing::annotated(task(name.as_str()), |a| {
            if i % 2 == 0 { a.workers = vec!["w1".to_owned()] } else { a.stealable = Some(false) }
        });
        kit.submit(vec![task], &[name.as_str()]);
    }
    kit.add_worker(worker(2, 1));
    assert!(requests(&kit.pass(5.0)).is_empty());
}

#[test]
fn stealing_can_be_switched_off() {
    let config = super::super::Config { work_stealing: false, ..Default::default() };
    let mut kit = Kit::with(config, &[1]);
    let names: Vec<String> = (0..10).map(|i| format!("x-{i}")).collect();
    for name in &names {
        kit.submit(vec![task(name.as_str())], &[name.as_str()]);
    }
    kit.add_worker(worker(2, 1));
    assert!(requests(&kit.pass(5.0)).is_empty());
    kit.handle(Event::Timeout);
    assert!(requests(&kit.actions).is_empty());
}

fn native(threads: &[u32]) -> Kit {
    Kit::with(Config { policy: Policy::Native, ..Config::default() }, threads)
}

/// All tasks asked back within this time, by any worker.
fn asked(kit: &mut Kit, seconds: f64) -> Vec<(String, StealRequest)> {
    let request = |action: &Action| match action {
        Action::ToWorker { worker, message: SchedulerToWorker::StealRequest(request) } => {
            Some((worker.to_string(), request.clone()))
        }
        _ => None,
    };
    kit.pass(seconds).iter().filter_map(request).collect()
}

#[test]
fn requests_and_answers_are_logged_as_upstream_does_with_the_reason() {
    let mut kit = busy();
    let actions = kit.pass(1.5);
    let events: Vec<&[Value]> = stealing_events(&actions);
    let [event] = events[..] else { panic!("one event per round: {events:?}") };
    let [what, rows, reasons] = event else { panic!("three parts: {event:?}") };
    assert_eq!(what.as_str(), Some("request"));
    let (rows, reasons) = (rows.as_items().expect("rows"), reasons.as_items().expect("texts"));
    assert_eq!(rows.len(), reasons.len());
    let row = rows[0].as_items().expect("a row");
    assert_eq!(row.len(), 8);
    assert_eq!((row[1].as_i64(), row[4].as_str()), (Some(3), Some(address(1).as_str())));
    assert_eq!(row[6].as_str(), Some(address(2).as_str()));
    assert!(reasons[0].as_str().expect("text").contains("is idle and could start it in"), "{reasons:?}");
    let request = requests(&actions).remove(0);
    kit.say(1, steal_response(&key(&request), Some("ready"), &request.stimulus_id));
    let told = stealing_events(&kit.actions);
    let names: Vec<Option<&str>> = told[0].iter().map(Value::as_str).collect();
    let key = key(&request);
    let (victim, thief) = (address(1), address(2));
    let expected = ["confirm", &key, "ready", victim.as_str(), thief.as_str(), &request.stimulus_id].map(Some).to_vec();
    assert_eq!(names, expected);
}

fn stealing_events(actions: &[Action]) -> Vec<&[Value]> {
    fn event(action: &Action) -> Option<&[Value]> {
        match action {
            Action::LogEvent { topic, msg } if topic.as_str() == Some("stealing") => msg.as_items(),
            _ => None,
        }
    }
    actions.iter().filter_map(event).collect()
}

#[test]
fn a_task_that_runs_is_not_asked_back_again() {
    let mut kit = busy();
    for (_, request) in asked(&mut kit, 1.5) {
        kit.say(1, steal_response(&key(&request), Some("executing"), &request.stimulus_id));
    }
    let first: Vec<String> = (0..10).map(|i| format!("warm-up-{i}")).filter(|name| refused(&kit, name)).collect();
    assert!(!first.is_empty());
    let again: Vec<String> = asked(&mut kit, 10.0).iter().map(|(_, request)| key(request)).collect();
    assert!(first.iter().all(|name| !again.contains(name)), "{first:?} and {again:?}");
}

fn refused(kit: &Kit, name: &str) -> bool {
    kit.state.explain(&name.into()).incidents.iter().any(|(_, what)| what.name() == "steal-refused")
}

#[test]
fn a_stolen_task_explains_its_move() {
    let mut kit = busy();
    let request = asked(&mut kit, 1.5).remove(0).1;
    let name = key(&request);
    kit.say(1, steal_response(&name, Some("ready"), &request.stimulus_id));
    let explained = kit.state.explain(&name.as_str().into());
    let placement = explained.placement.as_ref().expect("just decided");
    assert_eq!((placement.rule, placement.worker.as_str()), (Rule::Stolen, address(2).as_str()));
    assert_eq!(explained.earlier.len(), 1, "{explained}");
    assert!(explained.to_string().contains("was asked to give it to tcp://10.0.0.2:4000"), "{explained}");
}

/// Workers that lie about nothing but swap who is idle: whoever has tasks lets go of whatever is asked for.
fn moves_of_the_most_moved_task(policy: Policy) -> usize {
    let mut kit = Kit::with(Config { policy, ..Config::default() }, &[1]);
    kit.submit(vec![task("slow")], &["slow"]);
    kit.finish_in("slow", 1, 100.0);
    let names: Vec<String> = (0..4).map(|i| format!("slow-{i}")).collect();
    for name in &names {
        kit.submit(vec![annotated(task_of(name.as_str(), &["slow"]), |_| {})], &[name.as_str()]);
    }
    // Each newcomer is idle while one of the others has a task that waits.
    for n in 2..12 {
        kit.add_worker(worker(n, 1));
        for (from, request) in asked(&mut kit, 1.5) {
            let from = (1..20).find(|n| address(*n).as_str() == from).expect("a worker");
            kit.say(from, steal_response(&key(&request), Some("waiting"), &request.stimulus_id));
        }
        // Its tasks seem short again, so that it is idle, and more arrive.
        for m in 0..3 {
            let name = format!("slow-{n}-{m}");
            kit.submit(vec![annotated(task(name.as_str()), |a| a.workers = vec![format!("w{n}")])], &[name.as_str()]);
        }
    }
    let runs = |name: &String| kit.runs.iter().filter(|(_, key, _)| key.to_string() == *name).count() - 1;
    names.iter().map(runs).max().unwrap_or(0)
}

#[test]
fn the_native_policy_bounds_the_moves_of_a_task() {
    let (upstream, native) =
        (moves_of_the_most_moved_task(Policy::Upstream), moves_of_the_most_moved_task(Policy::Native));
    assert!(upstream > 3, "the case is one in which upstream goes on: {upstream}");
    assert_eq!(native, 3);
}

/// A large input on worker 1 with two tasks on it, and an idle worker 2.
fn heavy(policy: Policy, nbytes: i64) -> Vec<String> {
    let mut kit = Kit::with(Config { policy, ..Config::default() }, &[2]);
    kit.submit(vec![task("load")], &["load"]);
    kit.finish_in("load", nbytes, 1.0);
    let names: Vec<String> = (0..5).map(|i| format!("load-{i}")).collect();
    for name in &names {
        kit.submit(vec![task_of(name.as_str(), &["load"])], &[name.as_str()]);
    }
    kit.add_worker(worker(2, 1));
    asked(&mut kit, 1.5).iter().map(|(_, request)| key(request)).collect()
}

#[test]
fn the_native_policy_leaves_a_task_whose_input_is_dearer_to_move_than_to_wait() {
    // Five seconds of work on two threads: the last task starts in 2 s. 250 MB take 2.5 s.
    assert!(!heavy(Policy::Upstream, 250_000_000).is_empty());
    assert!(heavy(Policy::Native, 250_000_000).is_empty());
    assert!(!heavy(Policy::Native, 50_000_000).is_empty(), "half a second is worth it");
}

#[test]
fn what_is_not_moved_is_counted_and_explained() {
    let mut kit = native(&[2]);
    kit.submit(vec![task("load")], &["load"]);
    kit.finish_in("load", 250_000_000, 1.0);
    for i in 0..5 {
        let name = format!("load-{i}");
        kit.submit(vec![task_of(name.as_str(), &["load"])], &[name.as_str()]);
    }
    kit.add_worker(worker(2, 1));
    assert!(asked(&mut kit, 1.5).is_empty());
    let [_, (Declined::SoonerWhereItIs, count)] = kit.state.stealing_declined() else { panic!("in this order") };
    assert!(count > 0);
    let told = kit.state.explain(&"load-4".into()).stealing.expect("it is processing");
    assert!(told.contains("it is not worth moving"), "{told}");
}
