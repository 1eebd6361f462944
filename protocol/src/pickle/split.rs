//! Cuts the nodes of a graph out of its pickle, each as a pickle of its own.
//!
//! What many tasks have in common, above all their function, is written once into a prefix that these tasks share. The
//! work is linear in the pickle: a part that several tasks reach is looked into once, by the first of them.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::arena::{Arena, Node, NodeId};
use super::error::PickleError;
use super::graph::TaskSpec;
use super::task_node::TASK_SPEC;
use super::writer::{Writer, Written};

/// A part goes into a prefix when at least this many tasks have it.
const SHARING_MIN: u32 = 8;

/// A part that is not a dependency's name is worth a place in a prefix from this many pickled bytes on.
const PART_BYTES_MIN: u32 = 40;

/// Keys are shared by a task and its dependents: only large strings, tuples and references count as common parts.
const DATA_BYTES_MIN: u32 = 512;

/// ... and a string that at least one in this many tasks has, such as a layer's name.
const COMMON_TEXT_FRACTION: u64 = 16;
const COMMON_TEXT_BYTES_MIN: u32 = 16;

/// Bytes that all tasks may take together, per byte of pickle, beyond [`SPLIT_BYTES_BASE`]: small parts and those that
/// few tasks share are repeated.
const SPLIT_BYTES_FACTOR: usize = 64;
const SPLIT_BYTES_BASE: usize = 1 << 24;

/// Bodies of this many bytes together share one allocation.
const CHUNK_BYTES: usize = 1 << 16;

/// Nodes that the tasks of one bucket have in common.
type Parts = SmallVec<[NodeId; 6]>;

/// Indices of the tasks that have the same common parts.
type Buckets = IndexMap<Parts, Vec<usize>, FxBuildHasher>;

/// Writes each of `tasks` as a self-contained pickle.
pub(crate) fn split(
    arena: &Arena,
    tasks: &[NodeId],
    buffers: &[Bytes],
    pickle_len: usize,
) -> Result<Vec<TaskSpec>, PickleError> {
    let bytes_max = SPLIT_BYTES_BASE.saturating_add(pickle_len.saturating_mul(SPLIT_BYTES_FACTOR));
    let mut writer = Writer::new(arena, bytes_max);
    let mut specs = vec![TaskSpec::default(); tasks.len()];
    let mut chunk = BytesMut::new();
    let select = |indices: Vec<u32>| indices.into_iter().map(|index| buffers[index as usize].clone());
    for (parts, members) in bucket(arena, tasks, bytes_max)? {
        let alone = members.len() == 1;
        let prefix = writer.prefix(if alone { &[] } else { &parts })?;
        let prefix_buffers: Vec<Bytes> = select(prefix.buffers).collect();
        let prefix = Some(Arc::new(Bytes::from(prefix.opcodes)));
        for index in members {
            let Written { opcodes, buffers } = writer.body(tasks[index])?;
            let buffers = prefix_buffers.iter().cloned().chain(select(buffers)).collect();
            specs[index] = TaskSpec::new(prefix.clone(), pack(&mut chunk, &opcodes), buffers);
        }
    }
    Ok(specs)
}

fn pack(chunk: &mut BytesMut, opcodes: &[u8]) -> Bytes {
    if opcodes.len() > CHUNK_BYTES / 4 {
        return Bytes::copy_from_slice(opcodes);
    }
    if chunk.capacity() < opcodes.len() {
        *chunk = BytesMut::with_capacity(CHUNK_BYTES);
    }
    chunk.extend_from_slice(opcodes);
    chunk.split().freeze()
}

/// Groups the tasks by the common parts they have.
fn bucket(arena: &Arena, tasks: &[NodeId], steps_max: usize) -> Result<Buckets, PickleError> {
    let mut common = CommonParts::count(arena, tasks);
    let mut buckets = Buckets::default();
    for (index, &task) in tasks.iter().enumerate() {
        buckets.entry(common.of(task)).or_default().push(index);
        if common.steps > steps_max {
            return Err(PickleError::TooLarge { what: "a repeated size", actual: common.steps, limit: steps_max });
        }
    }
    Ok(buckets)
}

/// Which nodes are worth writing once.
struct CommonParts<'a> {
    arena: &'a Arena,
    task_count: usize,
    nodes: Vec<Sharing>,
    stack: Vec<NodeId>,
    stamp: u32,
    /// Nodes looked at for all tasks together: about what will be written.
    steps: usize,
}

#[derive(Clone, Copy, Default)]
struct Sharing {
    /// The pass that saw the node last.
    stamp: u32,
    /// How many tasks reach it.
    tasks: u32,
    verdict: Verdict,
    is_task: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Verdict {
    #[default]
    Open,
    Common,
    Own,
}

impl<'a> CommonParts<'a> {
    fn count(arena: &'a Arena, tasks: &[NodeId]) -> CommonParts<'a> {
        let nodes = vec![Sharing::default(); arena.len()];
        let mut common = CommonParts { arena, task_count: tasks.len(), nodes, stack: Vec::new(), stamp: 0, steps: 0 };
        for &task in tasks {
            common.nodes[task as usize].is_task = true;
        }
        for &task in tasks {
            common.stamp += 1;
            common.stack.push(task);
            while let Some(id) = common.stack.pop() {
                let sharing = &mut common.nodes[id as usize];
                if sharing.stamp == common.stamp {
                    continue;
                }
                sharing.stamp = common.stamp;
                sharing.tasks += 1;
                // Another task that this one reaches, by way of the graph itself, will look into its parts on its own.
                let first = if sharing.is_task { id == task } else { sharing.tasks == 1 };
                if first {
                    arena.push_references(id, &mut common.stack);
                }
            }
        }
        common
    }

    /// The outermost common parts of a task, oldest first.
    fn of(&mut self, task: NodeId) -> Parts {
        let mut parts = Parts::new();
        self.stamp += 1;
        self.stack.push(task);
        while let Some(id) = self.stack.pop() {
            self.steps += 1;
            let sharing = &mut self.nodes[id as usize];
            if sharing.stamp == self.stamp {
                continue;
            }
            sharing.stamp = self.stamp;
            if sharing.tasks >= SHARING_MIN && id != task && self.is_worth_sharing(id) {
                parts.push(id);
            } else {
                self.arena.push_references(id, &mut self.stack);
            }
        }
        parts.sort_unstable();
        parts
    }

    fn is_worth_sharing(&mut self, id: NodeId) -> bool {
        let Sharing { tasks, verdict, .. } = self.nodes[id as usize];
        if verdict != Verdict::Open {
            return verdict == Verdict::Common;
        }
        let minimum = match self.arena.node(id) {
            Node::Str(_) | Node::Name(_) if u64::from(tasks) * COMMON_TEXT_FRACTION >= self.task_count as u64 => {
                COMMON_TEXT_BYTES_MIN
            }
            Node::Reduce { function, .. } if self.is_reference(function) => DATA_BYTES_MIN,
            Node::Global { .. }
            | Node::Reduce { .. }
            | Node::NewObj { .. }
            | Node::NewObjEx { .. }
            | Node::Obj(_)
            | Node::List
            | Node::Dict
            | Node::Set => PART_BYTES_MIN,
            Node::Str(_)
            | Node::Name(_)
            | Node::Bytes(_)
            | Node::ByteArray(_)
            | Node::Raw(_)
            | Node::Tuple(_)
            | Node::FrozenSet(_)
            | Node::Buffer(_)
            | Node::ReadonlyBuffer(_)
            | Node::None
            | Node::True
            | Node::False
            | Node::Int(_)
            | Node::Float(_) => DATA_BYTES_MIN,
        };
        let worth = is_heavier(self.arena, id, minimum);
        self.nodes[id as usize].verdict = if worth { Verdict::Common } else { Verdict::Own };
        worth
    }

    /// References to a dependency differ from task to task.
    fn is_reference(&self, function: NodeId) -> bool {
        matches!(self.arena.global(function), Some((TASK_SPEC, "TaskRef" | "Alias") | ("distributed.client", "Future")))
    }
}

/// Whether the pickle of a node takes at least `bytes`; looks no further than that.
fn is_heavier(arena: &Arena, id: NodeId, bytes: u32) -> bool {
    let mut weight = 0;
    let mut stack = vec![id];
    while let Some(id) = stack.pop() {
        weight += match arena.node(id) {
            Node::Str(span) | Node::Bytes(span) | Node::Raw(span) | Node::ByteArray(span) => span.len.saturating_add(2),
            Node::Name(name) => name.0.len() as u32 + 2,
            Node::Int(_) | Node::Float(_) => 3,
            _ => 1,
        };
        if weight >= bytes {
            return true;
        }
        // Each part takes at least a byte, so this many suffice.
        arena.for_each_reference(id, |part| {
            stack.push(part);
            stack.len() <= bytes as usize
        });
    }
    false
}
