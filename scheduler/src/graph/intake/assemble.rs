//! From split nodes to the tasks the state takes: cull, order, annotate.

use std::sync::Arc;

use dask_protocol::Key;
use dask_protocol::pickle::{Graph, GraphTask, NodeClass};
use indexmap::{IndexMap, IndexSet};
use rustc_hash::FxBuildHasher;

use super::annotations::Table;
use super::error::IntakeError;
use super::fields::Settled;
use crate::graph::cull::cull;
use crate::graph::order::order;
use crate::graph::topology::Topology;
use crate::state::{Annotations, NewTask, Runtime, TaskSpec};

/// The order of tasks that the client gave none, when it gave one for others: first, because those others need them.
const UNORDERED: f64 = -1.0;

/// What a graph's node becomes, apart from what the whole graph decides.
pub(super) struct Node {
    pub(super) key: Key,
    pub(super) dependencies: Vec<Key>,
    pub(super) spec: TaskSpec,
    pub(super) runtime: Runtime,
    pub(super) data_producer: bool,
    pub(super) is_task: bool,
    pub(super) is_barrier: bool,
}

impl From<GraphTask> for Node {
    fn from(task: GraphTask) -> Node {
        let GraphTask { key, dependencies, spec, class, data_producer, native } = task;
        let (is_task, is_barrier) = match class {
            NodeClass::Task | NodeClass::Alias | NodeClass::Container | NodeClass::Other => (true, false),
            NodeClass::DataNode => (false, false),
            NodeClass::P2PBarrier => (true, true),
        };
        Node {
            key,
            dependencies,
            spec: TaskSpec::Pickled(spec),
            runtime: if native { Runtime::Native } else { Runtime::Python },
            data_producer: data_producer || !is_task,
            is_task,
            is_barrier,
        }
    }
}

/// The nodes of a graph as split, in its order.
pub(super) fn nodes(graph: Graph) -> Vec<Node> {
    graph.tasks.into_iter().map(Node::from).collect()
}

/// Culls to the wanted keys and numbers what is left.
///
/// # Errors
/// [`IntakeError::Cycle`].
pub(super) fn assemble(nodes: Vec<Node>, annotations: &Table, settled: &Settled) -> Result<Vec<NewTask>, IntakeError> {
    let (topology, external) = Topology::of_keys(nodes.iter().map(|node| (&node.key, node.dependencies.as_slice())));
    let reached = cull(&topology, wanted_ids(&nodes, settled));
    let numbers = match &settled.internal_priority {
        Some(given) => given_order(&nodes, given),
        None => static_order(&nodes, &topology, &external)?,
    };
    let tasks = nodes.into_iter().zip(numbers).enumerate().filter(|&(at, _)| reached[at]).map(|(at, (node, order))| {
        let actor = settled.actors.contains(&node.key);
        new_task(node, order, annotations.of(at), actor)
    });
    Ok(tasks.collect())
}

/// A node with what the whole graph decides about it.
pub(super) fn new_task(node: Node, order: f64, annotations: Arc<Annotations>, actor: bool) -> NewTask {
    let Node { key, dependencies, spec, runtime, data_producer, is_task, is_barrier } = node;
    NewTask { key, dependencies, spec, runtime, data_producer, is_task, is_barrier, order, actor, annotations }
}

fn wanted_ids(nodes: &[Node], settled: &Settled) -> Vec<u32> {
    let wanted: IndexSet<&Key, FxBuildHasher> = settled.keys.iter().collect();
    (0_u32..).zip(nodes).filter(|(_, node)| wanted.contains(&node.key)).map(|(id, _)| id).collect()
}

fn given_order(nodes: &[Node], given: &[(Key, f64)]) -> Vec<f64> {
    let given: IndexMap<&Key, f64, FxBuildHasher> = given.iter().map(|(key, number)| (key, *number)).collect();
    nodes.iter().map(|node| given.get(&node.key).copied().unwrap_or(UNORDERED)).collect()
}

fn static_order(nodes: &[Node], topology: &Topology, external: &[Key]) -> Result<Vec<f64>, IntakeError> {
    let names: Vec<&Key> = nodes.iter().map(|node| &node.key).chain(external).collect();
    let numbers = order(topology, |id| nodes.get(id as usize).is_none_or(|node| node.is_task), &names)?;
    Ok(numbers.into_iter().map(f64::from).collect())
}
