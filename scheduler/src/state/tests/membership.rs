//! Workers that come, pause, retire and go, and what becomes of their tasks and data.

use super::super::TaskState::{Erred, Memory, NoWorker, Processing, Waiting};
use super::super::testing::{CLIENT, Kit, add_keys, address, annotated, task, task_of, worker};
use super::super::{Action, Annotations, Event, NewTask, NewWorker, Runtime, ScalingReason};
use dask_protocol::Key;
use dask_protocol::message::{SchedulerToWorker, WorkerStatus};

fn retire(kit: &mut Kit, workers: &[usize], close: bool) {
    kit.handle(Event::RetireWorkers {
        workers: workers.iter().map(|n| address(*n)).collect(),
        remove: true,
        close,
        token: 7,
        stimulus_id: "retire-workers".into(),
    });
}

fn retired(actions: &[Action]) -> Option<(usize, usize)> {
    actions.iter().find_map(|action| match action {
        Action::WorkersRetired { token: 7, retired, kept } => Some((retired.len(), kept.len())),
        _ => None,
    })
}

fn scatter(kit: &mut Kit, key: &str, n: usize) {
    kit.handle(Event::UpdateData {
        data: vec![(key.into(), vec![address(n)], 100)],
        client: Some(CLIENT.into()),
        stimulus_id: "update-data".into(),
    });
}

#[test]
fn tasks_wait_for_the_first_worker() {
    let mut kit = Kit::new(&[]);
    // Restricted to any resource of nothing, lest it counts as root-ish in a cluster without threads.
    let needs_nothing = |a: &mut Annotations| a.resources = vec![("any".to_owned(), 0.0)];
    kit.submit(vec![annotated(task("x"), needs_nothing)], &["x"]);
    kit.assert_states([("x", Some(NoWorker))]);
    let resources: dask_protocol::message::Resources = [("any".to_owned(), 0.0)].into_iter().collect();
    kit.add_worker(NewWorker { status: WorkerStatus::Init, resources, ..worker(1, 1) });
    kit.assert_states([("x", Some(NoWorker))]);
    kit.set_status(1, WorkerStatus::Running);
    assert_eq!(kit.computed_keys(), ["x"]);
}

#[test]
fn lost_worker_reschedules_only_unfinished_tasks() {
    let mut kit = Kit::new(&[2, 2]);
    kit.submit(vec![task("a"), task("b"), task("c"), task("d")], &["a", "b", "c", "d"]);
    let lost = kit.worker_of("a");
    let on_lost: Vec<&str> = ["a", "b", "c", "d"].into_iter().filter(|key| kit.worker_of(key) == lost).collect();
    let before = kit.runs.len();
    kit.lose(lost);
    assert_eq!(kit.runs.len() - before, on_lost.len());
    assert!(on_lost.iter().all(|key| kit.worker_of(key) != lost));
    assert!(kit.worker_ops(3 - lost).contains(&"remove-worker"));
    assert!(kit.actions.iter().any(|action| matches!(action, Action::WorkerRemoved { last: false, .. })));
}

#[test]
fn lost_results_are_reported_and_computed_again() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.finish("x");
    kit.lose(kit.worker_of("x"));
    assert_eq!(kit.client_ops(), ["lost-data"]);
    kit.assert_states([("x", Some(Processing))]);
    kit.finish("x");
    assert_eq!(kit.client_ops(), ["key-in-memory"]);
}

#[test]
fn a_lost_input_sends_its_dependents_back_to_waiting() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![task("x"), task("other"), task_of("y", &["x", "other"])], &["y"]);
    kit.finish("x");
    kit.finish("other");
    kit.assert_states([("y", Some(Processing))]);
    let runs_y = kit.worker_of("y");
    kit.lose(runs_y);
    assert!(matches!(kit.state_of("y"), Some(Waiting | Processing)));
    for _ in 0..2 {
        for key in ["x", "other"] {
            if kit.state_of(key) == Some(Processing) {
                kit.finish(key);
            }
        }
    }
    kit.finish("y");
    kit.assert_states([("y", Some(Memory))]);
}

#[test]
fn replicas_save_a_result_from_recomputation() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.finish("x");
    let holder = kit.worker_of("x");
    kit.say(3 - holder, add_keys(&["x"]));
    kit.lose(holder);
    assert!(kit.client_ops().is_empty());
    assert_eq!(kit.state.who_has(&"x".into()), [address(3 - holder)]);
}

#[test]
fn scattered_data_is_gone_with_its_last_holder() {
    let mut kit = Kit::new(&[1, 1]);
    scatter(&mut kit, "d", 1);
    assert_eq!(kit.client_ops(), ["key-in-memory"]);
    kit.submit(vec![task_of("y", &["d"])], &["y"]);
    assert_eq!(kit.worker_of("y"), 1, "it goes where its data is");
    kit.lose(1);
    assert!(kit.client_ops().contains(&"cancelled-keys"));
    kit.assert_states([("d", None), ("y", None)]);
}

#[test]
fn scattered_data_stops_the_computation_of_its_key() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![task("d"), task_of("y", &["d"])], &["d", "y"]);
    scatter(&mut kit, "d", 2);
    kit.assert_states([("d", Some(Memory)), ("y", Some(Processing))]);
    kit.finish("y");
    kit.assert_states([("y", Some(Memory))]);
}

#[test]
fn an_actor_is_lost_with_its_worker() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![NewTask { actor: true, ..task("counter") }], &["counter"]);
    assert!(kit.computes()[0].actor);
    kit.finish("counter");
    kit.lose(kit.worker_of("counter"));
    kit.assert_states([("counter", Some(Erred))]);
    let (_, error) = kit.state.error(&"counter".into()).expect("erred");
    assert_eq!(&*error.exception_text, "RuntimeError('Worker holding Actor was lost')");
}

#[test]
fn what_waits_for_a_lost_actor_errs() {
    let mut kit = Kit::new(&[1, 1]);
    let actor = NewTask { actor: true, ..task("counter") };
    kit.submit(vec![actor, task("other"), task_of("y", &["counter", "other"])], &["y"]);
    kit.finish("counter");
    kit.lose(kit.worker_of("counter"));
    kit.assert_states([("counter", Some(Erred)), ("y", Some(Erred))]);
}

#[test]
fn actors_spread_over_workers() {
    let mut kit = Kit::new(&[1, 1, 1]);
    let actor = |key| NewTask { actor: true, ..task_of(key, &["x"]) };
    kit.submit(vec![task("x"), actor("a"), actor("b"), actor("c")], &["a", "b", "c"]);
    kit.finish("x");
    let mut workers: Vec<usize> = ["a", "b", "c"].iter().map(|key| kit.worker_of(key)).collect();
    workers.sort_unstable();
    assert_eq!(workers, [1, 2, 3]);
}

#[test]
fn paused_workers_keep_what_they_have_and_get_nothing_new() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![task("x")], &["x"]);
    let paused = kit.worker_of("x");
    kit.set_status(paused, WorkerStatus::Paused);
    kit.assert_states([("x", Some(Processing))]);
    kit.submit(vec![task("a"), task("b"), task("c")], &["a", "b", "c"]);
    assert!(["a", "b", "c"].iter().all(|key| kit.worker_of(key) != paused));
    kit.finish("x");
    kit.submit(vec![task_of("y", &["x"])], &["y"]);
    assert_ne!(kit.worker_of("y"), paused, "not even to its data");
}

#[test]
fn nothing_runs_while_all_workers_are_paused() {
    let mut kit = Kit::new(&[1]);
    kit.set_status(1, WorkerStatus::Paused);
    kit.submit(vec![task("x")], &["x"]);
    kit.assert_states([("x", Some(NoWorker))]);
    kit.set_status(1, WorkerStatus::Running);
    kit.assert_states([("x", Some(Processing))]);
}

#[test]
fn a_worker_without_data_retires_at_once() {
    let mut kit = Kit::new(&[1, 1]);
    retire(&mut kit, &[2], true);
    assert_eq!(retired(&kit.actions), Some((1, 0)));
    assert_eq!(kit.worker_ops(2), ["worker-status-change", "close"]);
    assert_eq!(kit.state.worker_count(), 1);
}

#[test]
fn a_retiring_worker_hands_over_its_data_first() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.finish("x");
    let old = kit.worker_of("x");
    let new = 3 - old;
    retire(&mut kit, &[old], true);
    assert_eq!(retired(&kit.actions), None);
    let [SchedulerToWorker::AcquireReplicas(acquire)] = kit.to_worker(new)[..] else { panic!("{:?}", kit.actions) };
    assert_eq!(acquire.who_has.0, [(Key::from("x"), vec![address(old)])]);
    kit.pass(1.0);
    assert_eq!(kit.state.worker_count(), 2);
    kit.say(new, add_keys(&["x"]));
    let actions = kit.pass(1.0);
    assert_eq!(retired(&actions), Some((1, 0)));
    assert_eq!(kit.state.who_has(&"x".into()), [address(new)]);
    kit.assert_states([("x", Some(Memory))]);
}

#[test]
fn retirement_without_recipients_is_called_off() {
    let mut kit = Kit::new(&[1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.finish("x");
    retire(&mut kit, &[1], true);
    assert_eq!(retired(&kit.actions), Some((0, 1)));
    assert_eq!(kit.worker_ops(1), ["worker-status-change", "worker-status-change"]);
    kit.set_status(1, WorkerStatus::Running);
    kit.submit(vec![task("y")], &["y"]);
    kit.assert_states([("x", Some(Memory)), ("y", Some(Processing))]);
}

#[test]
fn a_worker_that_dies_while_it_retires_counts_as_retired() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.finish("x");
    let old = kit.worker_of("x");
    retire(&mut kit, &[old], true);
    kit.lose(old);
    let actions = kit.pass(1.0);
    assert_eq!(retired(&actions), Some((1, 0)));
    kit.assert_states([("x", Some(Processing))]);
}

#[test]
fn native_tasks_go_to_workers_that_have_the_runtime() {
    let mut kit = Kit::new(&[]);
    kit.add_worker(NewWorker { runtimes: vec![Runtime::Python], ..worker(1, 4) });
    let native = |key| NewTask { runtime: Runtime::Native, ..task(key) };
    let root = |key: &str| NewTask { runtime: Runtime::Native, data_producer: true, ..task(key) };
    kit.submit(vec![native("x"), root("r")], &["x", "r"]);
    assert!(kit.computes().is_empty());
    kit.submit(vec![task("p")], &["p"]);
    assert_eq!(kit.worker_of("p"), 1);
    kit.add_worker(NewWorker { runtimes: vec![Runtime::Native], ..worker(2, 1) });
    assert_eq!((kit.worker_of("x"), kit.worker_of("r")), (2, 2));
    kit.submit(vec![task("q")], &["q"]);
    assert_eq!(kit.worker_of("q"), 1);
}

#[test]
fn adaptive_scaling_asks_for_workers_and_lets_idle_ones_go() {
    let mut kit = Kit::new(&[]);
    assert_eq!(kit.state.adaptive_target(5.0), 0);
    kit.submit(vec![task("x")], &["x"]);
    assert_eq!(kit.state.adaptive_target(5.0), 1);
    kit.add_worker(worker(1, 1));
    kit.add_worker(worker(2, 1));
    kit.finish("x");
    assert_eq!(kit.state.adaptive_target(5.0), 2, "without memory limits data may stay where it is");
    let alone = |address: &dask_protocol::Address| address.to_string();
    let close = super::super::WorkersToClose { n: Some(1), ..Default::default() };
    assert_eq!(kit.state.workers_to_close(&close, alone), [address(3 - kit.worker_of("x"))]);
    kit.release(&["x"]);
    assert_eq!(kit.state.adaptive_target(5.0), 0);
}

#[test]
fn more_workers_are_advised_at_once_and_fewer_only_after_a_while() {
    let mut kit = Kit::new(&[]);
    let begin = kit.now;
    let advice = |kit: &mut Kit, seconds: f64| {
        let advice = kit.state.scaling_advice(begin + seconds);
        (advice.workers, advice.reason)
    };
    assert_eq!(advice(&mut kit, 0.0), (0, ScalingReason::NoWork));
    kit.submit(vec![task("x"), task("y")], &["x", "y"]);
    assert_eq!(advice(&mut kit, 0.0), (1, ScalingReason::Work { seconds: 1.0 }));
    for n in 1..=3 {
        kit.add_worker(worker(n, 1));
    }
    kit.finish("x");
    kit.finish("y");
    kit.release(&["x", "y"]);
    // The load is gone as soon as it came, as often happens between two graphs.
    assert_eq!(kit.state.adaptive_target(5.0), 0);
    assert_eq!(advice(&mut kit, 1.0), (3, ScalingReason::CoolingDown));
    kit.pass(2.0);
    kit.submit(vec![task("z")], &["z"]);
    // The one task is on its way; the other two could go, were they not new.
    assert_eq!(advice(&mut kit, 3.0).0, 3);
    kit.finish("z");
    kit.release(&["z"]);
    assert_eq!(advice(&mut kit, 5.5), (1, ScalingReason::Waiting { seconds: 0.0 }), "what z needed still counts");
    assert_eq!(advice(&mut kit, 9.0), (0, ScalingReason::NoWork));
    // A lost worker's task is to be done again: the worker is asked for again.
    kit.submit(vec![task("a")], &["a"]);
    for n in 1..=3 {
        kit.lose(n);
    }
    assert_eq!(advice(&mut kit, 9.0).0, 1);
}

#[test]
fn fewer_workers_are_advised_step_by_step_as_the_need_falls() {
    let mut kit = Kit::new(&[1, 1, 1]);
    kit.pass(10.0);
    let begin = kit.now;
    let mut advice = |seconds: f64| kit.state.scaling_advice(begin + seconds);
    assert_eq!(advice(0.0).reason, ScalingReason::Waiting { seconds: 0.0 });
    assert_eq!((advice(2.5).workers, advice(2.5).momentary), (3, 0));
    assert_eq!(advice(3.5).workers, 0);
    // Whoever asks seldom gets the same.
    assert_eq!(advice(60.0).workers, 0);
}

#[test]
fn a_result_that_comes_while_its_worker_retires_is_saved_too() {
    let mut kit = Kit::new(&[2, 2]);
    kit.submit(vec![task("x"), task("y"), task("z")], &["x", "y", "z"]);
    let old = kit.worker_of("x");
    let other = ["y", "z"].into_iter().find(|key| kit.worker_of(key) == old).expect("two of three on one of two");
    kit.finish("x");
    retire(&mut kit, &[old], true);
    // The copy is there, and the manager finds nothing left to do; then the other task ends.
    kit.say(3 - old, add_keys(&["x"]));
    kit.finish(other);
    kit.pass(1.9);
    assert_eq!(kit.state.worker_count(), 2, "it has the only copy of {other}");
    kit.pass(2.0);
    kit.say(3 - old, add_keys(&[other]));
    kit.pass(4.0);
    assert_eq!(kit.state.worker_count(), 1);
    kit.assert_states([("x", Some(Memory)), (other, Some(Memory))]);
}
