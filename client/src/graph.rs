//! Whole graphs, built first and submitted in one message.

use std::marker::PhantomData;

use dask_protocol::message::NativeTask;
use dask_protocol::{Key, Payload};
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use rustc_hash::FxHashMap;

use crate::call::TaskCall;
use crate::draw::Picture;
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
    /// How many tasks were ever added: culling leaves gaps.
    added: usize,
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
#[non_exhaustive]
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
        let (graph, index) = (StableDiGraph::new(), FxHashMap::default());
        GraphBuilder { name: name.into(), graph, index, added: 0, held: Vec::new() }
    }

    /// Adds a task. Its key is `("<function>-<name>", n)` unless the call has one.
    ///
    /// # Errors
    /// [`GraphError::Duplicate`] when the key is taken, [`GraphError::Argument`] when an argument cannot be packed.
    pub fn add<T>(&mut self, call: TaskCall<T>) -> Result<Node<T>, GraphError> {
        let key = call.key.clone().unwrap_or_else(|| self.next_key(&call.function.name));
        if self.index.contains_key(&key) {
            return Err(GraphError::Duplicate { key });
        }
        let (run_spec, reads) = call.run_spec(&key, false)?;
        let sources: Vec<NodeIndex> = reads.iter().filter_map(|key| self.index.get(key).copied()).collect();
        let node = self.graph.add_node(Entry { key: key.clone(), run_spec, reads, annotations: call.annotations() });
        self.index.insert(key.clone(), node);
        self.added += 1;
        for source in sources {
            self.graph.update_edge(source, node, ());
        }
        self.held.extend(call.into_handles());
        Ok(Node { key, value: PhantomData })
    }

    fn next_key(&self, function: &str) -> Key {
        let n = i64::try_from(self.added).expect("a graph fits in memory");
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

    /// Each task's key and the keys it waits for, those it waits for first. Keys of futures are not in the graph.
    ///
    /// # Errors
    /// [`GraphError::Cycle`] when tasks wait for each other in a circle.
    pub fn dependencies(&self) -> Result<Vec<(Key, Vec<Key>)>, GraphError> {
        let waits = |node: &NodeIndex| (self.graph[*node].key.clone(), self.waits_for(*node));
        Ok(self.order()?.iter().map(waits).collect())
    }

    /// Drops what none of these tasks needs.
    ///
    /// # Errors
    /// [`GraphError::Unknown`] when one of them is not in this graph.
    pub fn cull<T>(&mut self, wanted: &[Node<T>]) -> Result<(), GraphError> {
        let mut needed = rustc_hash::FxHashSet::default();
        let find = |node: &Node<T>| self.index.get(&node.key).copied();
        let unknown = |node: &Node<T>| GraphError::Unknown { key: node.key.clone() };
        let mut pending =
            wanted.iter().map(|node| find(node).ok_or_else(|| unknown(node))).collect::<Result<Vec<_>, _>>()?;
        while let Some(node) = pending.pop() {
            if needed.insert(node) {
                pending.extend(self.graph.neighbors_directed(node, petgraph::Incoming));
            }
        }
        self.graph.retain_nodes(|_, node| needed.contains(&node));
        self.index.retain(|_, node| needed.contains(node));
        Ok(())
    }

    /// The graph in Graphviz' DOT language.
    pub fn to_dot(&self) -> String {
        self.picture().0.to_dot()
    }

    /// The graph as an SVG picture, those that wait above those they wait for.
    ///
    /// # Errors
    /// [`GraphError::Cycle`] when tasks wait for each other in a circle.
    pub fn to_svg(&self) -> Result<String, GraphError> {
        let (picture, places) = self.picture();
        let order: Vec<usize> = self.order()?.iter().map(|node| places[node]).collect();
        Ok(picture.to_svg(&order))
    }

    fn picture(&self) -> (Picture, FxHashMap<NodeIndex, usize>) {
        let places: FxHashMap<NodeIndex, usize> = self.graph.node_indices().zip(0..).collect();
        let labels = self.graph.node_weights().map(|entry| entry.key.to_string()).collect();
        let ends = |edge| self.graph.edge_endpoints(edge).expect("edges of a stable graph have ends");
        let edges = self.graph.edge_indices().map(ends).map(|(from, to)| (places[&from], places[&to])).collect();
        (Picture { labels, edges }, places)
    }

    fn order(&self) -> Result<Vec<NodeIndex>, GraphError> {
        petgraph::algo::toposort(&self.graph, None).map_err(|cycle| self.cycle(cycle.node_id()))
    }

    /// What a task reads, and what it only waits for.
    fn waits_for(&self, node: NodeIndex) -> Vec<Key> {
        let before = self.graph.neighbors_directed(node, petgraph::Incoming).map(|n| self.graph[n].key.clone());
        let mut keys = self.graph[node].reads.clone();
        keys.extend(before);
        dedup(&mut keys);
        keys
    }

    /// The tasks as they travel, dependencies first, and the futures to hold until they are sent.
    ///
    /// # Errors
    /// [`GraphError::Cycle`] naming the keys that wait for each other.
    pub(crate) fn into_tasks(self) -> Result<(Vec<NativeTask>, Vec<Handle>), GraphError> {
        let order = self.order()?;
        let waits: Vec<Vec<Key>> = order.iter().map(|&node| self.waits_for(node)).collect();
        let mut graph = self.graph;
        let task = |(node, dependencies): (NodeIndex, Vec<Key>)| {
            let entry = graph.remove_node(node).expect("each node is ordered once");
            NativeTask { key: entry.key, run_spec: entry.run_spec, dependencies, annotations: entry.annotations }
        };
        Ok((order.into_iter().zip(waits).map(task).collect(), self.held))
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
    fn culling_keeps_what_is_needed_and_keys_unique() {
        let mut graph = GraphBuilder::new("g");
        let a = graph.add(add(1, 2)).expect("new");
        let b = graph.add(add(&a, 3)).expect("new");
        let unused = graph.add(add(&a, 4)).expect("new");
        graph.cull(std::slice::from_ref(&b)).expect("there");
        assert_eq!(
            graph.dependencies().expect("no cycle"),
            [(a.key().clone(), vec![]), (b.key().clone(), vec![a.key().clone()])]
        );
        assert_eq!(graph.cull(std::slice::from_ref(&unused)), Err(GraphError::Unknown { key: unused.key().clone() }));
        assert_ne!(graph.add(add(5, 6)).expect("a key of its own").key(), unused.key());
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
