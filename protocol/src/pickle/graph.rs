//! The result of graph intake: every task with its key, dependencies and self-contained pickle.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::key::Key;
use crate::payload::Payload;

/// The tasks of one submitted graph, in the order the client's dict had.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// One entry per key, no key twice.
    pub tasks: Vec<GraphTask>,
}

/// One node of a graph.
#[derive(Debug, Clone)]
pub struct GraphTask {
    /// The node's key in the graph.
    pub key: Key,
    /// The keys it needs, sorted, no key twice. They need not be in the same graph.
    pub dependencies: Vec<Key>,
    /// What a worker unpickles and calls.
    pub spec: TaskSpec,
    /// Which kind of node it is.
    pub class: NodeClass,
    /// dask's `data_producer`: makes the task count as rootish.
    pub data_producer: bool,
    /// Whether its function is `dask_rs.native("name")`: a worker needs no Python for it.
    pub native: bool,
}

/// The class of a graph node, after `dask._task_spec`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeClass {
    /// `Task`: a call.
    Task,
    /// `Alias`: another key's value.
    Alias,
    /// `DataNode`: a literal; not a task for the purposes of ordering.
    DataNode,
    /// `List`, `Tuple`, `Set` or `Dict`: a container holding references.
    Container,
    /// `P2PBarrierTask` of a shuffle.
    P2PBarrier,
    /// Any other subclass of `Task`.
    Other,
}

/// A task's pickle in two parts: what many tasks of the graph have in common, kept once, and what is this task's own.
///
/// The pickle a worker loads is `prefix` followed by `body`, with `buffers` as its out-of-band buffers.
///
/// A scheduler has one for each task: small.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskSpec {
    prefix: Option<Arc<Bytes>>,
    body: Bytes,
    #[expect(clippy::box_collection, reason = "one word instead of three; few tasks have buffers")]
    buffers: Option<Box<Vec<Bytes>>>,
}

impl TaskSpec {
    /// From its parts; tasks with the same common parts share `prefix`.
    pub(crate) fn new(prefix: Option<Arc<Bytes>>, body: Bytes, buffers: Vec<Bytes>) -> TaskSpec {
        let buffers = (!buffers.is_empty()).then(|| Box::new(buffers));
        TaskSpec { prefix: prefix.filter(|prefix| !prefix.is_empty()), body, buffers }
    }

    /// A spec from one whole pickle.
    pub fn from_pickle(pickle: Bytes, buffers: Vec<Bytes>) -> TaskSpec {
        TaskSpec::new(None, pickle, buffers)
    }

    /// Opcodes that memoise the common parts (usually the function) and leave nothing on the stack. May be empty.
    pub fn prefix(&self) -> &[u8] {
        self.prefix.as_deref().map_or(&[], |prefix| prefix)
    }

    /// The opcodes that build the node; they refer to the memo entries of the prefix.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Out-of-band buffers, in the order in which prefix and body ask for them.
    pub fn buffers(&self) -> &[Bytes] {
        self.buffers.as_deref().map_or(&[], Vec::as_slice)
    }

    /// The whole pickle in one piece.
    pub fn pickle(&self) -> Bytes {
        let prefix = self.prefix();
        if prefix.is_empty() {
            return self.body.clone();
        }
        let mut whole = BytesMut::with_capacity(prefix.len() + self.body.len());
        whole.put_slice(prefix);
        whole.put_slice(&self.body);
        whole.freeze()
    }

    /// The `run_spec` of `compute-task`.
    pub fn to_payload(&self) -> Payload {
        Payload::pickled(self.pickle(), self.buffers().to_vec())
    }

    /// Bytes on the wire, without headers.
    pub fn nbytes(&self) -> usize {
        self.prefix().len() + self.body.len() + self.buffers().iter().map(Bytes::len).sum::<usize>()
    }
}
