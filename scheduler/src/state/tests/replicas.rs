//! Copies of results: reported, dropped, refreshed.

use super::super::TaskState::{Memory, Processing};
use super::super::testing::{Kit, add_keys, address, release_worker_data, task, task_of};
use super::super::{Action, Config, Event, MemoryManager, MemoryPolicy};
use dask_protocol::Key;
use dask_protocol::message::{RequestRefreshWhoHas, SchedulerToWorker};

fn replicated(copies: usize) -> Kit {
    let mut kit = Kit::new(&vec![1; copies]);
    kit.submit(vec![task("x")], &["x"]);
    kit.finish_in("x", 100, 0.01);
    for n in (1..=copies).filter(|n| *n != kit.worker_of("x")).collect::<Vec<_>>() {
        kit.say(n, add_keys(&["x"]));
    }
    assert_eq!(kit.state.who_has(&"x".into()).len(), copies);
    kit
}

#[test]
fn copies_of_what_is_not_in_memory_are_to_be_dropped() {
    let mut kit = Kit::new(&[1, 1]);
    kit.submit(vec![task("x")], &["x"]);
    let other = 3 - kit.worker_of("x");
    kit.say(other, add_keys(&["x", "unknown"]));
    let [SchedulerToWorker::RemoveReplicas(remove)] = kit.to_worker(other)[..] else { panic!("{:?}", kit.actions) };
    assert_eq!(remove.keys.0, [Key::from("x"), Key::from("unknown")]);
}

#[test]
fn the_memory_manager_drops_superfluous_copies() {
    let mut kit = replicated(3);
    let actions = kit.pass(2.5);
    assert_eq!(kit.state.who_has(&"x".into()).len(), 1);
    assert_eq!(actions.len(), 2, "{actions:?}");
    assert_eq!(kit.state.next_timeout(), None);
}

#[test]
fn copies_that_tasks_will_use_are_kept() {
    let mut kit = replicated(2);
    kit.submit(vec![task_of("a", &["x"]), task_of("b", &["x"])], &["a", "b"]);
    assert_ne!(kit.worker_of("a"), kit.worker_of("b"));
    kit.pass(2.5);
    assert_eq!(kit.state.who_has(&"x".into()).len(), 2);
    kit.finish("a");
    kit.pass(2.5);
    assert_eq!(kit.state.who_has(&"x".into()), [address(kit.worker_of("b"))]);
}

#[test]
fn a_refused_drop_puts_the_copy_back() {
    let mut kit = replicated(2);
    kit.pass(2.5);
    let dropped = (1..=2).find(|n| kit.state.who_has(&"x".into()) != [address(*n)]).expect("one of two");
    kit.say(dropped, add_keys(&["x"]));
    assert_eq!(kit.state.who_has(&"x".into()).len(), 2);
}

#[test]
fn the_memory_manager_can_be_switched_off_and_run_by_hand() {
    let mut kit = replicated(2);
    kit.handle(Event::SetActiveMemoryManager { running: false });
    kit.pass(10.0);
    assert_eq!(kit.state.who_has(&"x".into()).len(), 2);
    kit.handle(Event::RunActiveMemoryManager);
    assert_eq!(kit.state.who_has(&"x".into()).len(), 1);
}

#[test]
fn a_dropped_last_copy_is_computed_again() {
    let mut kit = replicated(2);
    kit.say(1, release_worker_data("x"));
    kit.assert_states([("x", Some(Memory))]);
    kit.say(2, release_worker_data("x"));
    kit.assert_states([("x", Some(Processing))]);
    kit.say(2, release_worker_data("x"));
    kit.assert_states([("x", Some(Processing))]);
}

#[test]
fn refresh_names_holders_and_frees_the_unknown() {
    let mut kit = replicated(2);
    let keys = vec![Key::from("x"), Key::from("unknown")].into();
    kit.say(1, RequestRefreshWhoHas { keys, stimulus_id: "refresh".into() });
    assert_eq!(kit.worker_ops(1), ["refresh-who-has", "free-keys"]);
}

#[test]
fn sizes_follow_results() {
    let mut kit = replicated(2);
    assert_eq!(kit.state.worker(&address(1)).expect("known").nbytes, 100);
    assert_eq!(kit.state.nbytes_of(&"x".into()), Some(100));
    let data = vec![(Key::from("x"), vec![address(1)], 300)];
    kit.handle(Event::UpdateData { data, client: None, stimulus_id: "update-data".into() });
    assert!(kit.state.workers().all(|worker| worker.nbytes == 300));
}

#[test]
fn what_a_departed_client_scattered_is_let_go_of() {
    let mut kit = Kit::new(&[1]);
    let data = vec![("x".into(), vec![address(1)], 8)];
    kit.handle(Event::UpdateData { data, client: Some("Client-gone".into()), stimulus_id: "scatter".into() });
    assert_eq!(kit.state.task_count(), 0);
    assert_eq!(kit.worker_ops(1), ["free-keys"]);
}

/// Keeps a second copy of everything, on worker 3 where that is possible, and nothing on worker 1 that is elsewhere.
#[derive(Debug)]
struct Mirror;

impl MemoryPolicy for Mirror {
    fn name(&self) -> &str {
        "Mirror"
    }

    fn run(&mut self, manager: &mut MemoryManager<'_>) {
        let keys: Vec<_> = manager.state().tasks().map(|task| task.key.clone()).collect();
        for key in keys {
            if manager.copies(&key) == 1 {
                let before = manager.memory(&address(3));
                if manager.replicate(&key, Some(&[address(3)])).is_some() {
                    assert!(manager.memory(&address(3)) > before, "suggestions are seen at once");
                }
            }
            manager.drop_replica(&key, Some(&[address(1)]));
        }
    }
}

#[test]
fn policies_of_ones_own_make_and_drop_copies() {
    let config = Config { amm_reduce_replicas: false, ..Config::default() };
    let mut kit = Kit::with(config, &[1, 1, 1]);
    kit.state.add_memory_policy(Box::new(Mirror));
    kit.submit(vec![task("x")], &["x"]);
    kit.finish("x");
    assert_eq!(kit.worker_of("x"), 1);
    let asked = |action: &Action| matches!(action, Action::ToWorker { worker, message: SchedulerToWorker::AcquireReplicas(_) } if *worker == address(3));
    assert!(kit.pass(2.1).iter().any(asked), "a round comes without superfluous copies, too");
    kit.say(3, add_keys(&["x"]));
    kit.handle(Event::RunActiveMemoryManager);
    assert_eq!(kit.worker_ops(1), ["remove-replicas"]);
    assert_eq!(kit.state.who_has(&"x".into()), [address(3)]);
    // The last copy is never dropped, whatever a policy says.
    kit.say(1, add_keys(&["x"]));
    kit.lose(3);
    kit.handle(Event::RunActiveMemoryManager);
    assert_eq!(kit.state.who_has(&"x".into()), [address(1)]);
}

#[test]
fn a_copy_made_elsewhere_is_dropped_only_while_the_other_is_there() {
    let drop = |kit: &mut Kit| {
        let (worker, keys) = (address(1), vec![Key::from("x")]);
        kit.handle(Event::DropReplicas { worker, keys, stimulus_id: "rebalance".into() });
    };
    let mut kit = replicated(2);
    kit.lose(2);
    drop(&mut kit);
    assert!(kit.worker_ops(1).is_empty(), "it is the last copy now");
    let mut kit = replicated(2);
    drop(&mut kit);
    assert_eq!(kit.worker_ops(1), ["remove-replicas"]);
    assert_eq!(kit.state.who_has(&"x".into()), [address(2)]);
}
