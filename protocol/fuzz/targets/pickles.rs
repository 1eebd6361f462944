//! Any bytes as a pickle: the symbolic reader refuses them or understands them, and never runs them, panics or hangs. The
//! first byte of an input is the number of out-of-band buffers.
#![no_main]

use bytes::Bytes;
use dask_protocol::pickle::{self, Intake};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&count, pickle)) = input.split_first() else { return };
    let buffers = vec![Bytes::from_static(b"buffer"); usize::from(count % 8)];
    let pickle = Bytes::copy_from_slice(pickle);
    if let Ok(value) = pickle::loads_plain(&pickle, &buffers) {
        assert!(!format!("{value:?}").is_empty());
    }
    if let Ok(graph) = pickle::read_task_dict(&pickle, &buffers) {
        check(&graph);
    }
    match pickle::read_expression(&pickle, &buffers) {
        Ok(Intake::Graph(graph)) => check(&graph),
        Ok(Intake::NeedsPython(reason)) => assert!(!reason.is_empty()),
        Err(_) => {}
    }
});

/// No key twice, dependencies in order, and every task's pickle complete.
fn check(graph: &pickle::Graph) {
    let mut keys: Vec<_> = graph.tasks.iter().map(|task| &task.key).collect();
    keys.sort();
    assert!(keys.windows(2).all(|pair| pair[0] != pair[1]));
    for task in &graph.tasks {
        assert!(task.dependencies.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(task.spec.pickle().last(), Some(&b'.'));
    }
}
