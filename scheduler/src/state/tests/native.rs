//! The policy `native`: what is used together stays together, and is held back all the same.

use super::super::TaskState::{Processing, Queued};
use super::super::testing::*;
use super::super::{Config, NewTask, Policy};

const CLOSING: &str = "sum";

fn kit(threads: &[u32]) -> Kit {
    kit_of(Policy::Native, threads)
}

fn kit_of(policy: Policy, threads: &[u32]) -> Kit {
    Kit::with(Config { policy, ..Config::default() }, threads)
}

fn pinned(key: &str, inputs: &[&str], worker: &str) -> NewTask {
    annotated(task_of(key, inputs), |annotations| annotations.workers = vec![worker.to_owned()])
}

fn names(count: usize) -> Vec<String> {
    (0..count).flat_map(|i| [format!("a-{i}"), format!("b-{i}")]).collect()
}

/// `sum(a + b for a, b in ...)`: pairs of sources, each pair added, and everything summed.
fn pairs(count: usize) -> Vec<NewTask> {
    let mut tasks = Vec::new();
    let mut sums = Vec::new();
    for i in 0..count {
        let inputs = [format!("a-{i}"), format!("b-{i}")];
        for (input, order) in inputs.iter().zip(3 * i..) {
            tasks.push(NewTask { data_producer: true, order: order as f64, ..task(input.as_str()) });
        }
        let add = task_of(format!("add-{i}"), &[&inputs[0], &inputs[1]]);
        tasks.push(NewTask { order: (3 * i + 2) as f64, ..add });
        sums.push(format!("add-{i}"));
    }
    let sums: Vec<&str> = sums.iter().map(String::as_str).collect();
    tasks.push(NewTask { order: 3.0 * count as f64, ..task_of(CLOSING, &sums) });
    tasks
}

#[test]
fn what_is_used_together_runs_on_one_worker() {
    let mut kit = kit(&[2, 2, 2]);
    kit.submit(pairs(40), &[CLOSING]);
    let mut done = Vec::new();
    while done.len() < 120 {
        let (_, key, _) = kit.runs[done.len()].clone();
        let key = key.to_string();
        kit.finish_in(&key, 1_000_000, 0.5);
        done.push(key);
    }
    // The last ones are spread over whoever is free.
    for i in 0..35 {
        let at =
            [kit.worker_of(&format!("a-{i}")), kit.worker_of(&format!("b-{i}")), kit.worker_of(&format!("add-{i}"))];
        assert!(at.windows(2).all(|pair| pair[0] == pair[1]), "pair {i} on {at:?}");
    }
}

#[test]
fn no_worker_is_given_more_than_its_slots() {
    let mut kit = kit(&[2, 2]);
    kit.submit(pairs(20), &[CLOSING]);
    let processing = names(20).iter().filter(|name| kit.state_of(name) == Some(Processing)).count();
    assert_eq!(processing, 6, "three slots for two threads");
}

#[test]
fn a_free_worker_helps_out_when_nothing_else_is_left() {
    let mut kit = kit(&[2]);
    kit.submit(pairs(3), &[CLOSING]);
    kit.assert_states([("b-1", Some(Queued)), ("b-2", Some(Queued))]);
    kit.add_worker(worker(2, 4));
    let queued = names(3).iter().filter(|name| kit.state_of(name) == Some(Queued)).count();
    assert_eq!(queued, 0, "what was kept for the first worker went to the second");
}

#[test]
fn tasks_kept_for_a_worker_that_leaves_go_to_others() {
    let mut kit = kit(&[8, 8]);
    kit.submit(pairs(30), &[CLOSING]);
    kit.lose(1);
    kit.lose(2);
    let queued = names(30).iter().filter(|name| kit.state_of(name) == Some(Queued)).count();
    assert_eq!(queued, 60);
    kit.add_worker(worker(3, 8));
    let processing = names(30).iter().filter(|name| kit.state_of(name) == Some(Processing)).count();
    assert_eq!(processing, 9);
}

#[test]
fn a_better_user_priority_goes_before_a_run() {
    let mut kit = kit(&[8]);
    kit.submit(pairs(30), &[CLOSING]);
    let urgent = NewTask { data_producer: true, ..task("urgent") };
    kit.submit(vec![annotated(urgent, |annotations| annotations.priority = 1.0)], &["urgent"]);
    kit.assert_states([("urgent", Some(Queued))]);
    kit.finish("a-0");
    assert_eq!(kit.computed_keys(), ["urgent"]);
}

#[test]
fn what_is_kept_for_a_busy_worker_is_given_up_in_the_end() {
    let mut kit = kit(&[4, 1]);
    // Ten at a time meet, so the large worker has some kept for it.
    let mut tasks = Vec::new();
    for i in 0..300 {
        tasks.push(NewTask { data_producer: true, order: i as f64, ..task(format!("x-{i}")) });
    }
    let mut wanted = Vec::new();
    for i in 0..30 {
        let inputs: Vec<String> = (10 * i..10 * i + 10).map(|j| format!("x-{j}")).collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        tasks.push(NewTask { order: 300.0 + i as f64, ..task_of(format!("merge-{i}"), &inputs) });
        wanted.push(format!("merge-{i}"));
    }
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    kit.submit(tasks, &wanted);
    let first: Vec<String> = kit.runs.iter().map(|(_, key, _)| key.to_string()).collect();
    assert_eq!(first.len(), 7, "five slots and two");
    // Only the small worker ever finishes anything.
    let mut next = 0;
    for _ in 0..60 {
        while kit.runs[next].0 != address(2) {
            next += 1;
        }
        let key = kit.runs[next].1.to_string();
        kit.finish_in(&key, 28, 0.5);
        next += 1;
    }
    let order: Vec<usize> = (0..300).filter(|i| kit.state_of(&format!("x-{i}")) == Some(Queued)).collect();
    assert!(order.iter().all(|i| *i > 12), "nothing early is left behind: {order:?}");
}

#[test]
fn inputs_on_their_way_are_not_missing() {
    let mut kit = kit(&[1, 1, 1]);
    kit.submit(vec![pinned("big", &[], "w1"), pinned("small", &[], "w2")], &["big", "small"]);
    kit.finish_in("big", 500_000_000, 0.1);
    kit.finish_in("small", 1_000_000, 0.1);
    // The first is made to fetch the big input at the second worker ...
    kit.submit(vec![pinned("first", &["big", "small"], "w2")], &["first"]);
    // ... and a long queue at the holder of the big one makes the second worker the better place for the next.
    let busy: Vec<String> = (0..30).map(|i| format!("busy-{i}")).collect();
    for key in &busy {
        kit.submit(vec![pinned(key, &[], "w1")], &[key]);
    }
    kit.submit(vec![task_of("second", &["big", "small"])], &["second"]);
    assert_eq!(kit.worker_of("second"), 2);
}

/// Three workers, the first with 500 MB and 100 MB, the second with another 100 MB.
fn with_data(policy: Policy, threads: &[u32]) -> Kit {
    let mut kit = kit_of(policy, threads);
    for (key, worker, nbytes) in [("big", "w1", 500_000_000), ("left", "w1", 100_000_000), ("right", "w2", 100_000_000)]
    {
        kit.submit(vec![pinned(key, &[], worker)], &[key]);
        kit.finish_in(key, nbytes, 0.1);
    }
    kit
}

#[test]
fn a_task_does_not_wait_for_a_busy_sender() {
    for (policy, expected) in [(Policy::Upstream, 2), (Policy::Native, 1)] {
        let mut kit = with_data(policy, &[1, 1, 1]);
        // The first worker has 500 MB to send before it could send "left".
        kit.submit(vec![pinned("copy", &["big"], "w3")], &["copy"]);
        kit.submit(vec![task_of("both", &["left", "right"])], &["both"]);
        assert_eq!(kit.worker_of("both"), expected, "{policy:?}");
    }
}

#[test]
fn more_threads_do_not_fetch_faster() {
    for (policy, expected) in [(Policy::Upstream, 2), (Policy::Native, 1)] {
        let mut kit = with_data(policy, &[1, 8, 1]);
        // The second worker has 500 MB to fetch first, and eight threads to use them; the first one has some work.
        kit.submit(vec![pinned("copy", &["big"], "w2")], &["copy"]);
        for key in ["busy-0", "busy-1", "busy-2"] {
            kit.submit(vec![pinned(key, &[], "w1")], &[key]);
        }
        kit.submit(vec![task_of("both", &["right", "left"])], &["both"]);
        assert_eq!(kit.worker_of("both"), expected, "{policy:?}");
    }
}

#[test]
fn tasks_that_no_worker_could_make_in_a_few_rounds_are_not_kept_together() {
    for (threads, together) in [(4, true), (2, false)] {
        let mut kit = kit(&[threads; 2]);
        let names: Vec<String> = (0..60).map(|i| format!("x-{i}")).collect();
        let mut tasks: Vec<NewTask> = Vec::new();
        for (name, order) in names.iter().zip(0..) {
            tasks.push(NewTask { data_producer: true, order: f64::from(order), ..task(name.as_str()) });
        }
        let inputs: Vec<&str> = names.iter().map(String::as_str).collect();
        tasks.extend(
            inputs
                .chunks(12)
                .enumerate()
                .map(|(i, inputs)| NewTask { order: 60.0 + i as f64, ..task_of(format!("mean-{i}"), inputs) }),
        );
        let wanted: Vec<String> = (0..5).map(|i| format!("mean-{i}")).collect();
        kit.submit(tasks, &wanted.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(kit.worker_of("x-0") == kit.worker_of("x-1"), together, "{threads} threads");
    }
}

#[test]
fn short_tasks_are_sent_ahead_of_time() {
    let mut kit = kit(&[1, 1]);
    let roots: Vec<NewTask> = (0..300).map(|i| NewTask { order: f64::from(i), ..task(format!("root-{i}")) }).collect();
    let keys: Vec<String> = (0..300).map(|i| format!("root-{i}")).collect();
    kit.submit(roots, &keys.iter().map(String::as_str).collect::<Vec<_>>());
    let processing = |kit: &Kit| keys.iter().filter(|key| kit.state_of(key) == Some(Processing)).count();
    assert_eq!(processing(&kit), 4, "nothing is known of them");
    kit.finish_in("root-0", 8, 1e-4);
    assert_eq!(processing(&kit), 2 + 20, "as many as are done in 2 ms");
    kit.finish_in("root-1", 8, 1e-6);
    kit.finish_in("root-2", 8, 1e-6);
    kit.finish_in("root-3", 8, 1e-6);
    assert_eq!(processing(&kit), 2 * 32, "but no more than so many");
    kit.finish_in("root-4", 8, 0.06);
    let before = processing(&kit);
    (5..15).for_each(|i| kit.finish_in(&format!("root-{i}"), 8, 1e-6));
    assert_eq!(processing(&kit), before - 10, "one took long: another may, and none shall wait behind it");
}
