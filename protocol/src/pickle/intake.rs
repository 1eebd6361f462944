//! From the pickle a client submits, or the graph helper returns, to tasks.

use bytes::Bytes;
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use super::arena::{Arena, Node, NodeId};
use super::error::PickleError;
use super::graph::{Graph, GraphTask, NodeClass};
use super::legacy;
use super::map_expr;
use super::reader;
use super::split::split;
use super::task_node::TaskReader;
use crate::key::Key;

/// What became of a submitted expression.
#[derive(Debug, Clone)]
pub enum Intake {
    /// The tasks, split without any Python.
    Graph(Graph),
    /// The expression must be materialised by the graph helper; the text says why.
    NeedsPython(String),
}

/// Splits the expression of an `update-graph` message.
///
/// `LLGExpr` (from `submit` and `Client.get`) and `_MapExpr` (from `map`) become graphs; every other expression, and
/// whatever is unusual within these, needs Python. An empty pickle or an empty dict is an empty graph.
///
/// # Errors
/// [`PickleError`] when the bytes are malformed or over a limit.
pub fn read_expression(pickle: &Bytes, buffers: &[Bytes]) -> Result<Intake, PickleError> {
    if pickle.is_empty() {
        return Ok(Intake::Graph(Graph::default()));
    }
    match expression_graph(pickle, buffers) {
        Ok(graph) => Ok(Intake::Graph(graph)),
        Err(PickleError::Unsupported(reason)) => Ok(Intake::NeedsPython(reason)),
        Err(error @ (PickleError::Malformed { .. } | PickleError::TooLarge { .. })) => Err(error),
    }
}

/// Splits what the graph helper returns: one pickle of `{key: node}` with new-style nodes only.
///
/// # Errors
/// [`PickleError`] when the bytes are malformed, over a limit, or hold anything but such a dict.
pub fn read_task_dict(pickle: &Bytes, buffers: &[Bytes]) -> Result<Graph, PickleError> {
    let arena = reader::read(pickle, buffers.len())?;
    let entries = arena.dict_items(arena.root);
    let entries = entries.ok_or_else(|| PickleError::unsupported("the graph is not a plain dict"))?;
    split_entries(&arena, &entries, buffers, pickle.len(), Source::Helper)
}

/// Who made the dict of tasks.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    /// A client: whatever is not a node of a known class is for Python to judge.
    Client,
    /// The helper: every value is a node, if maybe of a class of the user's.
    Helper,
}

fn expression_graph(pickle: &Bytes, buffers: &[Bytes]) -> Result<Graph, PickleError> {
    let mut arena = reader::read(pickle, buffers.len())?;
    if arena.dict_items(arena.root).is_some_and(|items| items.is_empty()) {
        return Ok(Graph::default());
    }
    let entries = expression_entries(&mut arena, buffers)?;
    split_entries(&arena, &entries, buffers, pickle.len(), Source::Client)
}

/// Keys and nodes, alternating, of an expression: a call of `Expr._reconstruct` with the class, its operands, a token
/// and a dict of cached attributes.
fn expression_entries(arena: &mut Arena, buffers: &[Bytes]) -> Result<Vec<NodeId>, PickleError> {
    let odd = || PickleError::unsupported("it is not an expression of a known form");
    let Node::Reduce { function, args } = arena.node(arena.root) else { return Err(odd()) };
    if !arena.is_global(function, "dask._expr", "Expr._reconstruct") || arena.first_effect(arena.root).is_some() {
        return Err(odd());
    }
    let args = arena.sequence(args).ok_or_else(odd)?;
    let [class, operands @ .., _token, _cache] = args.as_slice() else { return Err(odd()) };
    match arena.global(*class) {
        Some(("dask._expr", "LLGExpr")) => {
            let &[dsk] = operands else { return Err(odd()) };
            let entries = arena.dict_items(dsk);
            let entries = entries.ok_or_else(|| PickleError::unsupported("its graph is not a plain dict"))?;
            legacy::convert(arena, entries)
        }
        Some(("distributed.client", "_MapExpr")) => map_expr::expand(arena, operands, buffers),
        Some((module, name)) => Err(PickleError::unsupported(format!("it is a {module}.{name}"))),
        None => Err(odd()),
    }
}

fn split_entries(
    arena: &Arena,
    entries: &[NodeId],
    buffers: &[Bytes],
    pickle_len: usize,
    source: Source,
) -> Result<Graph, PickleError> {
    let mut reader = TaskReader::new(arena);
    // As in a dict, a key that comes again keeps its place and first spelling but gets the last node.
    let mut nodes: IndexMap<Key, NodeId, FxBuildHasher> = IndexMap::default();
    nodes.reserve(entries.len() / 2);
    for entry in entries.chunks_exact(2) {
        nodes.insert(reader.key(entry[0])?, entry[1]);
    }
    let mut tasks = Vec::with_capacity(nodes.len());
    let mut ids = Vec::with_capacity(nodes.len());
    for (key, id) in nodes {
        let node = reader.task(id)?;
        if node.class == NodeClass::Other && source == Source::Client {
            return Err(PickleError::unsupported(format!("the node of {key:?} has a class of its own")));
        }
        // dask drops an alias of a key to itself when it converts a graph.
        if node.class == NodeClass::Alias && node.dependencies.contains(&key) {
            continue;
        }
        ids.push(id);
        tasks.push((key, node));
    }
    let specs = split(arena, &ids, buffers, pickle_len)?;
    let task = |((key, node), spec)| {
        let super::task_node::TaskNode { class, dependencies, data_producer, native } = node;
        GraphTask { key, dependencies, spec, class, data_producer, native }
    };
    Ok(Graph { tasks: tasks.into_iter().zip(specs).map(task).collect() })
}
