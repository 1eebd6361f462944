//! Whole graphs, built first and submitted in one message.

use std::marker::PhantomData;

use dask_protocol::message::NativeTask;
use dask_protocol::{Key, Payload};
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use rustc_hash::FxHashMap;

use crate::call::TaskCall;
use crate::error::TaskError;
use crate::future::Handle;

/// A graph of native tasks.
///
/// ```
/// # use dask_client::{GraphBuilder, TaskCall, IntoArg, Node};
/// # fn add(a: impl IntoArg<i64>, b: impl IntoArg<i64>) -> TaskCall<i64> { TaskCall::new("add", vec![a.into_arg(), b.into_arg()]) }
/// let mut graph = GraphBuilder::new("sums");
/// let a: Node<i64> = graph.add(add(1, 2))?;
/// let b = graph.add(add(&a, 10))?;
/// assert_eq!(graph.len(), 2);
/// assert!(graph.to_dot().contains("add"));
/// # Ok::<(), dask_client::GraphError>(())
/// ```
#[derive(Debug)]
pub struct GraphBuilder {
    name: String,
    graph: StableDiGraph<Entry, ()>,
    index: FxHashMap<Key, NodeIndex>,
    /// Futures that its tasks read: held until the graph is sent.
    held: Vec<Handle>,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    run_spec: Payload,
    reads: Vec<Key>,
    annotations: dask_protocol::Value,
}

/// A task of a [`GraphBuilder`], giving a `T`; an argument of further calls.
pub struct Node<T> {
    key: Key,
    value: PhantomData<fn() -> T>,
}

impl<T> Node<T> {
    /// The task's key.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

impl<T> Clone for Node<T> {
    fn clone(&self) -> Node<T> {
        Node { key: self.key.clone(), value: PhantomData }
    }
}

impl<T> std::fmt::Debug for Node<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({:?})", self.key)
    }
}

/// A graph that cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GraphError {
    /// Tasks wait for each other in a circle.
    #[error("the graph has a cycle through {}", keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(" -> "))]
    Cycle {
        /// The keys on it.
        keys: Vec<Key>,
    },
    /// Two tasks of one key.
    #[error("key {key} is in the graph already")]
    Duplicate {
        /// The key.
        key: Key,
    },
    /// A task outside the graph was named.
    #[error("key {key} is not in the graph")]
    Unknown {
        /// The key.
        key: Key,
    },
    /// An argument could not be packed.
    #[error(transparent)]
    Argument(#[from] TaskError),
}

impl GraphBuilder {
    /// An empty graph; `name` makes its keys unique on the cluster.
    pub fn new(name: impl Into<String>) -> GraphBuilder {
        GraphBuilder { name: name.into(), graph: StableDiGraph::new(), index: FxHashMap::default(), held: Vec::new() }
    }

    /// Adds a task. Its key is `("<function>-<name>", n)` unless the call has one.
    ///
    /// # Errors
    /// [`GraphError::Duplicate`] when the key is taken, [`GraphError::Argument`] when an argument cannot be packed.
    pub fn add<T>(&mut self, call: TaskCall<T>) -> Result<Node<T>, GraphError> {
        let key = call.key.clone().unwrap_or_else(|| self.next_key(&call.function));
        if self.index.contains_key(&key) {
            return Err(GraphError::Duplicate { key });
        }
        let (run_spec, reads) = call.run_spec(&key)?;
        let sources: Vec<NodeIndex> = reads.iter().filter_map(|key| self.index.get(key).copied()).collect();
        let node = self.graph.add_node(Entry { key: key.clone(), run_spec, reads, annotations: call.annotations() });
        self.index.insert(key.clone(), node);
        for source in sources {
            self.graph.update_edge(source, node, ());
        }
        self.held.extend(call.into_handles());
        Ok(Node { key, value: PhantomData })
    }

    fn next_key(&self, function: &str) -> Key {
        let n = i64::try_from(self.graph.node_count()).expect("a graph fits in memory");
        Key::tuple([Key::from(format!("{function}-{}", self.name)), Key::from(n)])
    }

    /// Makes `task` wait for `first` without reading its result.
    ///
    /// # Errors
    /// [`GraphError::Unknown`] when either is not in this graph.
    pub fn after<A, B>(&mut self, task: &Node<A>, first: &Node<B>) -> Result<(), GraphError> {
        let find = |key: &Key| self.index.get(key).copied().ok_or_else(|| GraphError::Unknown { key: key.clone() });
        let (task, first) = (find(&task.key)?, find(&first.key)?);
        self.graph.update_edge(first, task, ());
        Ok(())
    }

    /// How many tasks it has.
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.graph.node_count() == 0
    }

    /// The graph in Graphviz' DOT language.
    pub fn to_dot(&self) -> String {
        let label = |entry: &Entry| entry.key.to_string().replace('"', "'");
        let mut dot = String::from("digraph {\n  rankdir=BT;\n");
        for node in self.graph.node_indices() {
            dot.push_str(&format!("  {} [label=\"{}\"];\n", node.index(), label(&self.graph[node])));
        }
        for edge in self.graph.edge_indices() {
            let (from, to) = self.graph.edge_endpoints(edge).expect("edges of a stable graph have ends");
            dot.push_str(&format!("  {} -> {};\n", from.index(), to.index()));
        }
        dot.push_str("}\n");
        dot
    }

    /// The tasks as they travel, dependencies first, and the futures to hold until they are sent.
    ///
    /// # Errors
    /// [`GraphError::Cycle`] naming the keys that wait for each other.
    pub(crate) fn into_tasks(self) -> Result<(Vec<NativeTask>, Vec<Handle>), GraphError> {
        let order = petgraph::algo::toposort(&self.graph, None).map_err(|cycle| self.cycle(cycle.node_id()))?;
        let mut graph = self.graph;
        let mut extra: FxHashMap<NodeIndex, Vec<Key>> = FxHashMap::default();
        for &node in &order {
            let before = graph.neighbors_directed(node, petgraph::Incoming).map(|n| graph[n].key.clone());
            extra.insert(node, before.collect());
        }
        let task = |&node: &NodeIndex| {
            let entry = graph.remove_node(node).expect("each node is ordered once");
            let mut dependencies = entry.reads;
            dependencies.extend(extra.remove(&node).unwrap_or_default());
            dedup(&mut dependencies);
            NativeTask { key: entry.key, run_spec: entry.run_spec, dependencies, annotations: entry.annotations }
        };
        Ok((order.iter().map(task).collect(), self.held))
    }

    fn cycle(&self, inside: NodeIndex) -> GraphError {
        let components = petgraph::algo::tarjan_scc(&self.graph);
        let cycle = components.into_iter().find(|c| c.contains(&inside)).unwrap_or_else(|| vec![inside]);
        GraphError::Cycle { keys: cycle.into_iter().map(|n| self.graph[n].key.clone()).collect() }
    }
}

fn dedup(keys: &mut Vec<Key>) {
    let mut seen = rustc_hash::FxHashSet::default();
    keys.retain(|key| seen.insert(key.clone()));
}

#[cfg(test)]
mod tests {
    use dask_protocol::native::{NativeArg, NativeCall};

    use super::*;
    use crate::IntoArg;

    fn reads(args: &[NativeArg], key: &Key) -> bool {
        args.iter().any(|arg| match arg {
            NativeArg::Value(_) => false,
            NativeArg::Future(k) => k == key,
            NativeArg::List(inner) => reads(inner, key),
            NativeArg::Map(entries) => entries.iter().any(|(_, arg)| reads(std::slice::from_ref(arg), key)),
        })
    }

    fn add(a: impl IntoArg<i64>, b: impl IntoArg<i64>) -> TaskCall<i64> {
        TaskCall::new("add", vec![a.into_arg(), b.into_arg()])
    }

    #[test]
    fn tasks_come_after_what_they_read() {
        let mut graph = GraphBuilder::new("g");
        let a = graph.add(add(1, 2)).expect("new");
        let b = graph.add(add(&a, 3)).expect("new");
        let c = graph.add(add(&a, &b)).expect("new");
        let (tasks, _) = graph.into_tasks().expect("no cycle");
        let keys: Vec<_> = tasks.iter().map(|t| t.key.clone()).collect();
        assert_eq!(keys, [a.key().clone(), b.key().clone(), c.key().clone()]);
        assert_eq!(tasks[2].dependencies, [a.key().clone(), b.key().clone()]);
        let call = NativeCall::from_payload(&tasks[1].run_spec).expect("a native call");
        assert!(reads(&call.args, a.key()));
    }

    #[test]
    fn a_cycle_names_its_keys() {
        let mut graph = GraphBuilder::new("g");
        let a = graph.add(add(1, 2)).expect("new");
        let b = graph.add(add(&a, 3)).expect("new");
        graph.after(&a, &b).expect("both there");
        let Err(GraphError::Cycle { keys }) = graph.into_tasks() else { panic!("there is a cycle") };
        assert_eq!(keys.len(), 2);
    }

    #[test]
    fn ordering_edges_become_dependencies() {
        let mut graph = GraphBuilder::new("g");
        let a = graph.add(add(1, 2)).expect("new");
        let b = graph.add(add(3, 4)).expect("new");
        graph.after(&b, &a).expect("both there");
        let (tasks, _) = graph.into_tasks().expect("no cycle");
        assert_eq!(tasks[1].dependencies, [a.key().clone()]);
    }
}
