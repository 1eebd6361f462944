//! Where ready tasks go: data, restrictions, resources, root-ish tasks and the queue.

use super::super::TaskState::{NoWorker, Processing, Queued};
use super::super::testing::{Kit, annotated, long_running, task, task_of, worker};
use super::super::{Config, NewTask, NewWorker, TaskState};
use dask_protocol::message::WorkerStatus;

fn roots(count: usize) -> Vec<NewTask> {
    let root = |i: usize| NewTask { order: i as f64, ..task(format!("root-{i}").as_str()) };
    (0..count).map(root).collect()
}

fn root_keys(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("root-{i}")).collect()
}

fn submit_roots(kit: &mut Kit, count: usize) {
    let keys = root_keys(count);
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    kit.submit(roots(count), &keys);
}

fn count(kit: &Kit, state: TaskState) -> usize {
    kit.state.state_counts().get(state)
}

#[test]
fn independent_tasks_spread_round_robin() {
    let mut kit = Kit::new(&[1, 1, 1]);
    kit.submit(vec![task("a"), task("b"), task("c")], &["a", "b", "c"]);
    let mut workers: Vec<usize> = ["a", "b", "c"].iter().map(|key| kit.worker_of(key)).collect();
    workers.sort_unstable();
    assert_eq!(workers, [1, 2, 3]);
}

#[test]
fn a_task_goes_to_its_largest_input() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![task("small"), task("large")], &["small", "large"]);
    kit.finish_in("small", 1_000, 0.01);
    kit.finish_in("large", 1_000_000_000, 0.01);
    assert_ne!(kit.worker_of("small"), kit.worker_of("large"));
    kit.submit(vec![task_of("y", &["small", "large"])], &["y"]);
    assert_eq!(kit.worker_of("y"), kit.worker_of("large"));
}

#[test]
fn restrictions_name_workers_by_name_address_or_host() {
    for place in ["w2", "tcp://10.0.0.2:4000", "10.0.0.2:4000", "10.0.0.2"] {
        let mut kit = Kit::new(&[1, 1, 1]);
        kit.submit(vec![annotated(task("x"), |a| a.workers = vec![place.to_owned()])], &["x"]);
        assert_eq!(kit.worker_of("x"), 2, "restricted to {place}");
    }
}

#[test]
fn restricted_tasks_wait_for_their_worker_unless_loose() {
    let mut kit = Kit::new(&[1]);
    let restricted = |key| annotated(task(key), |a| a.workers = vec!["10.0.0.9".to_owned()]);
    let loose = annotated(restricted("loose"), |a| a.allow_other_workers = true);
    kit.submit(vec![restricted("x"), loose], &["x", "loose"]);
    kit.assert_states([("x", Some(NoWorker)), ("loose", Some(Processing))]);
    kit.add_worker(worker(9, 1));
    assert_eq!(kit.worker_of("x"), 9);
}

#[test]
fn a_loose_actor_goes_to_whoever_has_fewest_actors() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![NewTask { actor: true, ..task("first") }], &["first"]);
    kit.finish("first");
    let busy = kit.worker_of("first");
    kit.submit(vec![annotated(task("x"), |a| a.workers = vec![format!("w{busy}")])], &["x"]);
    kit.finish("x");
    let second = NewTask { actor: true, ..task_of("second", &["x"]) };
    let loose = annotated(second, |a| (a.workers, a.allow_other_workers) = (vec!["10.0.0.9".to_owned()], true));
    kit.submit(vec![loose], &["second"]);
    assert_eq!(kit.worker_of("second"), 3 - busy);
}

#[test]
fn a_group_is_no_rootish_one_because_its_inputs_are_forgotten() {
    let mut kit = Kit::new(&[4]);
    let inputs = ["in-0", "in-1", "in-2", "in-3", "in-4"];
    let mut tasks: Vec<NewTask> = inputs.iter().map(|key| task(*key)).collect();
    tasks.push(task_of("root-20", &inputs));
    kit.submit(tasks, &["root-20"]);
    submit_roots(&mut kit, 10);
    assert_eq!(count(&kit, Queued), 0, "a group that reads five tasks is not queued");
    kit.release(&["root-20"]);
    kit.assert_states([("in-0", None), ("root-9", Some(Processing))]);
    kit.submit(vec![task("root-21")], &["root-21"]);
    kit.assert_states([("root-21", Some(Processing))]);
}

#[test]
fn a_restriction_outweighs_data() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![task("x")], &["x"]);
    kit.finish("x");
    let other = 3 - kit.worker_of("x");
    kit.submit(vec![annotated(task_of("y", &["x"]), |a| a.workers = vec![format!("w{other}")])], &["y"]);
    assert_eq!(kit.worker_of("y"), other);
}

#[test]
fn resources_are_needed_in_full() {
    let mut kit = Kit::new(&[4]);
    let gpu = |amount| [("GPU".to_owned(), amount)].into_iter().collect();
    kit.add_worker(NewWorker { resources: gpu(1.0), ..worker(2, 1) });
    let needs = |key, amount| annotated(task(key), |a| a.resources = vec![("GPU".to_owned(), amount)]);
    kit.submit(vec![needs("one", 1.0), needs("two", 2.0)], &["one", "two"]);
    assert_eq!(kit.worker_of("one"), 2);
    assert_eq!(kit.computes()[0].resource_restrictions, Some(gpu(1.0)));
    kit.assert_states([("two", Some(NoWorker))]);
    kit.handle(super::super::Event::SetResources { worker: super::super::testing::address(1), resources: gpu(2.0) });
    assert_eq!(kit.worker_of("two"), 1);
}

#[test]
fn root_tasks_are_queued_beyond_the_saturation() {
    let mut kit = Kit::new(&[2, 2]);
    submit_roots(&mut kit, 30);
    // ceil(1.1 * 2) = 3 on each worker.
    assert_eq!((count(&kit, Processing), count(&kit, Queued)), (6, 24));
    kit.finish("root-0");
    assert_eq!(kit.computed_keys(), ["root-6"], "the best of the queue follows");
    kit.say(kit.worker_of("root-1"), long_running("root-1", kit.last_run("root-1").1));
    assert_eq!(kit.computed_keys(), ["root-7"], "a task that seceded leaves its slot");
    kit.add_worker(worker(3, 1));
    assert_eq!(kit.computed_keys(), ["root-8", "root-9"]);
}

#[test]
fn dependents_run_before_more_roots() {
    let mut kit = Kit::new(&[1]);
    let mut tasks = roots(10);
    tasks.push(NewTask { order: 0.5, ..task_of("use", &["root-0"]) });
    let keys: Vec<String> = root_keys(10).into_iter().chain(["use".to_owned()]).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    kit.submit(tasks, &keys);
    assert_eq!(count(&kit, Processing), 2);
    kit.finish("root-0");
    assert_eq!(kit.computed_keys(), ["use"], "the slot goes to the dependent");
}

#[test]
fn the_queue_survives_without_workers() {
    let mut kit = Kit::new(&[]);
    let producer = |key| NewTask { data_producer: true, ..task(key) };
    kit.submit(vec![producer("a"), producer("b")], &["a", "b"]);
    assert_eq!(count(&kit, Queued), 2);
    kit.release(&["b"]);
    assert_eq!(count(&kit, Queued), 1);
    kit.add_worker(worker(1, 1));
    assert_eq!(kit.computed_keys(), ["a"]);
    kit.set_status(1, WorkerStatus::Paused);
    kit.lose(1);
    kit.assert_states([("a", Some(Queued))]);
}

#[test]
fn without_queuing_neighbours_go_to_one_worker() {
    let config = Config { worker_saturation: f64::INFINITY, ..Config::default() };
    let mut kit = Kit::with(config, &[1, 1]);
    submit_roots(&mut kit, 10);
    assert_eq!(count(&kit, Processing), 10);
    let workers: Vec<usize> = root_keys(10).iter().map(|key| kit.worker_of(key)).collect();
    let changes = workers.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(changes, 1, "two batches: {workers:?}");
    assert_eq!(workers.iter().filter(|worker| **worker == 1).count(), 5);
}

#[test]
fn a_paused_worker_does_not_stop_the_dealing() {
    let mut kit = Kit::new(&[2; 30]);
    kit.set_status(30, WorkerStatus::Paused);
    let names: Vec<String> = (0..29).map(|i| format!("x{i}")).collect();
    for name in &names {
        kit.submit(vec![task(name.as_str())], &[name.as_str()]);
    }
    let mut workers: Vec<usize> = names.iter().map(|name| kit.worker_of(name)).collect();
    workers.sort_unstable();
    workers.dedup();
    assert_eq!(workers, (1..30).collect::<Vec<_>>());
}

#[test]
fn many_idle_workers_are_dealt_to_in_turn() {
    let mut kit = Kit::new(&[2; 30]);
    let names: Vec<String> = (0..30).map(|i| format!("x{i}")).collect();
    for name in &names {
        kit.submit(vec![task(name.as_str())], &[name.as_str()]);
    }
    let mut workers: Vec<usize> = names.iter().map(|name| kit.worker_of(name)).collect();
    workers.sort_unstable();
    workers.dedup();
    assert_eq!(workers.len(), 30);
}
