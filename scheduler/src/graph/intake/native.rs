//! Graphs of native tasks: nothing to read or materialise, only to cull, order and annotate.

use dask_protocol::message::{NativeTask, StimulusId, UpdateNativeGraph};
use dask_protocol::{Key, Payload, PayloadKind, Value};
use indexmap::{IndexMap, IndexSet};
use rustc_hash::FxBuildHasher;

use super::annotations::Table;
use super::assemble::{Node, assemble, new_task};
use super::error::IntakeError;
use super::fields::Settled;
use crate::graph::helper::AnnotationColumn;
use crate::state::{ClientId, NewTask, Runtime, TaskSpec, UpdateGraph};

/// Native graphs that arrive within this time of each other share a generation, as those of `submit`.
const NATIVE_FIFO_TIMEOUT_SECONDS: f64 = 0.1;

/// What a worker needs to run this: native clients submit Python's functions, too.
fn runtime(spec: &Payload) -> Runtime {
    match spec.kind() {
        PayloadKind::Serialized => Runtime::Native,
        PayloadKind::Pickled => Runtime::Python,
    }
}

/// Each key once.
fn unique(keys: Vec<Key>) -> Vec<Key> {
    if keys.len() < 2 {
        return keys;
    }
    keys.into_iter().collect::<IndexSet<Key, FxBuildHasher>>().into_iter().collect()
}

/// Takes in the graph of a native client. Of several tasks with one key the last one counts.
///
/// # Errors
/// [`IntakeError`]: `to_error_info()` is the exception for every requested key.
pub fn take_native(
    client: ClientId,
    message: UpdateNativeGraph,
    stimulus_id: StimulusId,
) -> Result<UpdateGraph, IntakeError> {
    let UpdateNativeGraph { tasks, keys, submitting_task } = message;
    let tasks: IndexMap<Key, NativeTask, FxBuildHasher> =
        tasks.into_iter().map(|task| (task.key.clone(), task)).collect();
    let columns = annotation_columns(tasks.values().map(|task| &task.annotations))?;
    let nodes: Vec<Node> = tasks
        .into_iter()
        .map(|(key, task)| Node {
            key,
            dependencies: unique(task.dependencies),
            runtime: runtime(&task.run_spec),
            spec: TaskSpec::Payload(task.run_spec),
            data_producer: false,
            is_task: true,
            is_barrier: false,
        })
        .collect();
    let settled = Settled {
        keys: keys.0,
        actors: Default::default(),
        internal_priority: None,
        fifo_timeout: NATIVE_FIFO_TIMEOUT_SECONDS,
        user_priority: 0.0,
    };
    let table = Table::new(&[], &columns, nodes.len(), settled.user_priority)?;
    let tasks =
        if is_flat(&nodes, &settled.keys) { as_given(nodes, &table) } else { assemble(nodes, &table, &settled)? };
    Ok(UpdateGraph {
        client,
        tasks,
        keys: settled.keys,
        submitting_task,
        fifo_timeout: settled.fifo_timeout,
        stimulus_id,
    })
}

/// Whether all tasks are wanted and none waits for another: there is nothing to cull or to order.
fn is_flat(nodes: &[Node], wanted: &[Key]) -> bool {
    nodes.len() == wanted.len()
        && nodes.iter().zip(wanted).all(|(node, key)| node.dependencies.is_empty() && node.key == *key)
}

/// The tasks of a flat graph, which run in the order in which they were submitted.
fn as_given(nodes: Vec<Node>, table: &Table) -> Vec<NewTask> {
    let numbered = (0_u32..).map(f64::from).zip(nodes).enumerate();
    numbered.map(|(at, (order, node))| new_task(node, order, table.of(at), false)).collect()
}

/// One column per annotation name, from one map per task.
fn annotation_columns<'a>(maps: impl Iterator<Item = &'a Value>) -> Result<Vec<AnnotationColumn>, IntakeError> {
    let mut columns: IndexMap<&str, AnnotationColumn, FxBuildHasher> = IndexMap::default();
    for (task, map) in (0_u32..).zip(maps) {
        let entries = match map {
            Value::Nil => continue,
            Value::Map(entries) => entries,
            other => return Err(IntakeError::field("annotations", "a map", other)),
        };
        for (name, value) in entries {
            let name = name.as_str().ok_or_else(|| IntakeError::field("annotation name", "text", name))?;
            let column = columns.entry(name).or_insert_with(|| AnnotationColumn {
                name: name.to_owned(),
                values: Vec::new(),
                entries: Vec::new(),
            });
            // Tasks made by one loop have equal annotations one after the other.
            if column.values.last() != Some(value) {
                column.values.push(value.clone());
            }
            let last = u32::try_from(column.values.len() - 1).expect("no more values than tasks");
            column.entries.push((task, last));
        }
    }
    Ok(columns.into_values().collect())
}
