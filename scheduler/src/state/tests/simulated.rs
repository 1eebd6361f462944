//! Faults that simulated clusters brought up, each in its smallest form.

use super::super::TaskState::{Erred, NoWorker, Processing, Waiting};
use super::super::testing::{CLIENT, Kit, address, annotated, release_worker_data, task, task_of, worker};
use super::super::{Config, Event, NewTask, NewWorker};
use dask_protocol::message::{SchedulerToWorker, WorkerStatus};

fn actor(key: &str) -> NewTask {
    NewTask { actor: true, ..task(key) }
}

fn retire(worker: usize) -> Event {
    Event::RetireWorkers {
        workers: vec![address(worker)],
        remove: true,
        close: true,
        token: 1,
        stimulus_id: "retire-workers".into(),
    }
}

fn told_status(message: &SchedulerToWorker) -> Option<WorkerStatus> {
    match message {
        SchedulerToWorker::WorkerStatusChange(change) => Some(change.status),
        _ => None,
    }
}

#[test]
fn what_only_a_colliding_definition_reads_is_not_taken_in() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.submit(vec![task("b"), task_of("x", &["b"])], &["x"]);
    kit.assert_states([("x", Some(Processing)), ("b", None)]);
    kit.release(&["x"]);
    assert_eq!(kit.state.task_count(), 0);
}

#[test]
fn loose_restrictions_do_not_loosen_resources() {
    let mut kit = Kit::new(&[1]);
    let picky = annotated(task("x"), |a| {
        a.workers = vec!["10.9.9.9".to_owned()];
        a.allow_other_workers = true;
        a.resources = vec![("GPU".to_owned(), 1.0)];
    });
    kit.submit(vec![picky], &["x"]);
    kit.assert_states([("x", Some(NoWorker))]);
}

#[test]
fn actor_whose_worker_lost_it_leaves_nothing_behind() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![actor("a")], &["a"]);
    kit.finish("a");
    kit.say(1, release_worker_data("a"));
    kit.assert_states([("a", Some(Erred))]);
    kit.release(&["a"]);
    assert_eq!(kit.state.task_count(), 0);
}

#[test]
fn task_erred_by_the_loss_of_an_actor_is_freed_on_its_worker() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![actor("a")], &["a"]);
    kit.finish("a");
    let lost = kit.worker_of("a");
    let other = 3 - lost;
    let reader = annotated(task_of("y", &["a"]), |a| a.workers = vec![address(other).as_str().to_owned()]);
    kit.submit(vec![reader], &["y"]);
    assert_eq!(kit.worker_of("y"), other);
    kit.lose(lost);
    kit.assert_states([("a", Some(Erred)), ("y", Some(Erred))]);
    assert!(kit.worker_ops(other).contains(&"free-keys"));
}

#[test]
fn worker_retired_twice_in_vain_runs_again() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.finish("x");
    kit.handle(retire(1));
    // The answer to the first request comes; the one to its roll-back is still under way.
    kit.set_status(1, WorkerStatus::ClosingGracefully);
    kit.handle(retire(1));
    let told = kit.to_worker(1).into_iter().filter_map(told_status);
    assert_eq!(told.last(), Some(WorkerStatus::Running));
}

#[test]
fn task_killed_while_an_actor_that_reads_it_is_lost_stays_erred_with_all_that_wait() {
    let config = Config { allowed_failures: 0, ..Config::default() };
    let mut kit = Kit::with(config, &[1]);
    let actor = NewTask { actor: true, ..task_of("a", &["r"]) };
    kit.submit(vec![task("r"), actor, task_of("b", &["r"])], &["a", "b"]);
    for key in ["r", "b", "a"] {
        kit.finish(key);
    }
    kit.submit(vec![task_of("x", &["r"]), task_of("w", &["x", "b"])], &["w"]);
    kit.assert_states([("r", Some(Processing)), ("x", Some(Waiting)), ("w", Some(Waiting))]);
    // The worker's death errs `r`; the losses of the actor and of `b` in the same round do not bring it back, and leave
    // nobody waiting for it.
    kit.lose(1);
    kit.assert_states([("r", Some(Erred)), ("b", Some(Erred)), ("x", Some(Erred)), ("w", Some(Erred))]);
}

#[test]
fn worker_retired_in_vain_while_it_starts_is_told_to_run() {
    let mut kit = Kit::new(&[1]);
    kit.add_worker(NewWorker { status: WorkerStatus::Init, ..worker(2, 1) });
    kit.handle(Event::UpdateData {
        data: vec![("x".into(), vec![address(2)], 8)],
        client: Some(CLIENT.into()),
        stimulus_id: "scatter".into(),
    });
    kit.set_status(1, WorkerStatus::Paused);
    kit.handle(retire(2));
    let told = kit.to_worker(2).into_iter().filter_map(told_status);
    assert_eq!(told.collect::<Vec<_>>(), [WorkerStatus::ClosingGracefully, WorkerStatus::Running]);
}
