use dask_protocol::{Key, Value};

use super::{Everything, FinishedTasks, GroupBy, Progress, TaskMetadata, Tracker, Trackers, Transition};
use crate::state::testing::{Kit, task, task_of};

/// A scheduler whose transitions go to trackers.
struct Followed {
    kit: Kit,
    trackers: Trackers,
}

impl Followed {
    fn new() -> Followed {
        let mut kit = Kit::new(&[4]);
        kit.state.observe_transitions(true);
        Followed { kit, trackers: Trackers::default() }
    }

    fn pass_on(&mut self) {
        let passed = self.kit.state.take_observed().into_iter().map(|seen| Transition {
            record: Some(Value::map([("key", Value::from(&seen.key))])),
            key: seen.key,
            start: seen.start,
            finish: seen.finish,
            stimulus_id: seen.stimulus_id,
        });
        let transitions: Vec<Transition> = passed.collect();
        self.trackers.transitions(&transitions, &self.kit.state);
    }

    fn finish(&mut self, key: &str) {
        self.kit.finish(key);
        self.pass_on();
    }

    fn progress(&mut self, keys: &[&str], complete: bool, group_by: GroupBy) -> u64 {
        let keys: Vec<Key> = keys.iter().map(|key| Key::from(*key)).collect();
        let progress = Progress::new(&keys, complete, group_by, &self.kit.state).expect("known keys");
        self.trackers.add(Tracker::Progress(progress)).expect("room")
    }

    fn told(&mut self, id: u64, field: &str) -> Value {
        let report = self.trackers.report(id, &self.kit.state).expect("a tracker");
        report.get(field).cloned().unwrap_or_default()
    }
}

#[test]
fn a_progress_bar_counts_what_its_keys_need() {
    let mut followed = Followed::new();
    followed.kit.submit(vec![task("a-1"), task("a-2"), task_of("b-1", &["a-1", "a-2"])], &["b-1"]);
    followed.finish("a-1");
    let (new_only, complete) =
        (followed.progress(&["b-1"], false, GroupBy::Nothing), followed.progress(&["b-1"], true, GroupBy::Prefix));
    assert_eq!(followed.told(new_only, "all"), Value::from(2_usize));
    assert_eq!(followed.told(complete, "all").get("a"), Some(&Value::from(2_usize)));
    assert_eq!(followed.told(complete, "remaining").get("a"), Some(&Value::from(1_usize)));
    followed.finish("a-2");
    followed.finish("b-1");
    for bar in [new_only, complete] {
        assert_eq!(followed.told(bar, "status"), Value::from("finished"));
    }
    assert_eq!(followed.told(new_only, "remaining"), Value::from(0_usize));
}

#[test]
fn a_progress_bar_waits_until_its_keys_are_known() {
    let followed = Followed::new();
    assert!(Progress::new(&[Key::from("late")], true, GroupBy::Nothing, &followed.kit.state).is_none());
}

#[test]
fn a_progress_bar_ends_with_what_is_forgotten_or_restarted() {
    let mut followed = Followed::new();
    followed.kit.submit(vec![task("x"), task("y")], &["x", "y"]);
    let (forgotten, restarted) =
        (followed.progress(&["x"], true, GroupBy::Nothing), followed.progress(&["y"], true, GroupBy::Nothing));
    followed.kit.release(&["x"]);
    followed.pass_on();
    assert_eq!(followed.told(forgotten, "status"), Value::from("error"));
    assert_eq!(followed.told(restarted, "status"), Value::Nil);
    followed.trackers.restart();
    assert_eq!(followed.told(restarted, "status"), Value::from("finished"));
}

#[test]
fn everything_counts_tasks_and_bytes_by_prefix() {
    let mut followed = Followed::new();
    followed.kit.submit(vec![task("a-1"), task("a-2"), task("b-1")], &["a-1", "a-2", "b-1"]);
    followed.finish("a-1");
    let everything = Everything::new(&followed.kit.state);
    let id = followed.trackers.add(Tracker::Everything(everything)).expect("room");
    let one = followed.told(id, "nbytes").get("a").and_then(Value::as_i64).expect("bytes of a");
    assert!(one > 0);
    followed.finish("a-2");
    assert_eq!(followed.told(id, "nbytes").get("a").and_then(Value::as_i64), Some(2 * one));
    assert_eq!(followed.told(id, "memory").get("a"), Some(&Value::from(2_usize)));
    assert_eq!(followed.told(id, "processing").get("b"), Some(&Value::from(1_usize)));
    followed.kit.release(&["a-1", "a-2"]);
    followed.pass_on();
    assert_eq!(followed.told(id, "all").get("a"), None);
    assert_eq!(followed.told(id, "nbytes").get("a"), None);
}

#[test]
fn finished_tasks_are_told_once() {
    let mut followed = Followed::new();
    let id = followed.trackers.add(Tracker::Finished(FinishedTasks::default())).expect("room");
    followed.kit.submit(vec![task("x")], &["x"]);
    followed.finish("x");
    let told = followed.trackers.report(id, &followed.kit.state).expect("a tracker");
    assert_eq!(told, Value::Array(vec![Value::map([("key", Value::from("x"))])]));
    assert_eq!(followed.trackers.report(id, &followed.kit.state), Some(Value::Array(Vec::new())));
}

#[test]
fn metadata_is_of_tasks_asked_for_within_the_block() {
    let mut followed = Followed::new();
    followed.kit.submit(vec![task("before")], &["before"]);
    followed.trackers.add(Tracker::Metadata(TaskMetadata::new("block".to_owned()))).expect("room");
    followed.trackers.graph(&[Key::from("within")]);
    followed.kit.submit(vec![task("within")], &["within"]);
    followed.finish("before");
    followed.finish("within");
    let metadata = followed.trackers.remove_metadata("block").expect("the block's").into_reply();
    assert_eq!(metadata.get("state"), Some(&Value::map([("within", Value::from("memory"))])));
    assert!(followed.trackers.remove_metadata("block").is_none() && followed.trackers.is_empty());
}
