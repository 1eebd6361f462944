//! Idle workers take tasks from busy ones.

use super::super::TaskState::{Memory, Processing};
use super::super::testing::{Kit, address, steal_response, task, task_of, worker};
use super::super::{Action, Event};
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
