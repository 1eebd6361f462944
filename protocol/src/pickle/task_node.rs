//! Recognising the nodes of `dask._task_spec`, and reading keys.
//!
//! Layouts are those of dask 2026.8.0: a `Task` is an empty instance whose state is its slots in sorted order,
//! `_data_producer, _dependencies, _is_coro, _repr, _token, args, func, key, kwargs`; containers add `constructor` and
//! `klass` and use a list; `P2PBarrierTask` adds `spec`. `Alias` and `DataNode` are calls of their class.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::arena::{Arena, EMPTY_TUPLE, Effect, FALSE, Node, NodeId, TRUE};
use super::error::PickleError;
use super::graph::NodeClass;
use super::numpy_scalar::scalar_key;
use super::python_task::{FUNCTION_SLOT, native_name};
use crate::key::{KEY_DEPTH_MAX, Key};

/// Module of dask's graph nodes.
pub(crate) const TASK_SPEC: &str = "dask._task_spec";

/// Most parts of one key, in all its nested tuples: sharing could make a few bytes an astronomic key.
const KEY_PARTS_MAX: usize = 256;

/// Longest text or bytes in a key.
const KEY_BYTES_MAX: usize = 1 << 14;

/// Most dependencies of all tasks together: a set of dependencies may be shared. About 2 GiB.
const DEPENDENCIES_MAX: usize = 1 << 26;

/// Slots of a `Task`, of a container and of a `P2PBarrierTask`.
const TASK_SLOTS: usize = 9;
const CONTAINER_SLOTS: usize = 11;
const BARRIER_SLOTS: usize = 10;

/// What the graph needs to know of a node beside its pickle.
pub(crate) struct TaskNode {
    pub class: NodeClass,
    pub dependencies: Vec<Key>,
    pub data_producer: bool,
    pub native: bool,
}

/// Reads keys and nodes of one arena; equal key nodes give one shared key.
pub(crate) struct TaskReader<'a> {
    arena: &'a Arena,
    /// Keys of shared nodes and how many parts they have.
    keys: FxHashMap<NodeId, (Key, usize)>,
    dependencies_left: usize,
}

impl<'a> TaskReader<'a> {
    pub fn new(arena: &'a Arena) -> TaskReader<'a> {
        TaskReader { arena, keys: FxHashMap::default(), dependencies_left: DEPENDENCIES_MAX }
    }

    /// The key a node stands for.
    pub fn key(&mut self, id: NodeId) -> Result<Key, PickleError> {
        self.key_at(id, 0).map(|(key, _)| key)
    }

    /// A key and how many parts it has.
    fn key_at(&mut self, id: NodeId, depth: usize) -> Result<(Key, usize), PickleError> {
        if let Some(known) = self.keys.get(&id) {
            return Ok(known.clone());
        }
        if depth >= KEY_DEPTH_MAX {
            return Err(PickleError::TooLarge { what: "a key depth", actual: depth + 1, limit: KEY_DEPTH_MAX });
        }
        let odd = || PickleError::unsupported("a task key is neither text, number, bytes nor a tuple of keys");
        let known = match self.arena.node(id) {
            Node::Int(i) => return Ok((Key::from(i), 1)),
            Node::Float(f) => return Ok((Key::float(f), 1)),
            Node::Str(_) | Node::Name(_) => {
                let text = self.arena.str(id).ok_or_else(odd)?;
                check_max("a key length", text.len(), KEY_BYTES_MAX)?;
                (Key::from(text), 1)
            }
            Node::Bytes(span) => {
                check_max("a key length", span.len as usize, KEY_BYTES_MAX)?;
                (Key::bytes(self.arena.shared_bytes(span)), 1)
            }
            Node::Tuple(items) => {
                let items = self.arena.children(items);
                check_max("a key size", items.len(), KEY_PARTS_MAX)?;
                let mut size = 1;
                let mut parts = SmallVec::<[Key; 4]>::new();
                for &item in items {
                    let (part, part_size) = self.key_at(item, depth + 1)?;
                    size += part_size;
                    parts.push(part);
                }
                check_max("a key size", size, KEY_PARTS_MAX)?;
                (Key::tuple(parts), size)
            }
            Node::Reduce { .. } => (scalar_key(self.arena, id).ok_or_else(odd)?, 1),
            _ => return Err(odd()),
        };
        if self.arena.is_shared(id) {
            self.keys.insert(id, known.clone());
        }
        Ok(known)
    }

    /// The graph node that `id` is.
    ///
    /// # Errors
    /// [`PickleError::Unsupported`] when it is anything else.
    pub fn task(&mut self, id: NodeId) -> Result<TaskNode, PickleError> {
        match self.arena.node(id) {
            Node::NewObj { class, args: EMPTY_TUPLE } => self.instance(id, class),
            Node::Reduce { function, args } => self.call(id, function, args),
            _ => Err(PickleError::unsupported("a value of the graph is not a task object")),
        }
    }

    fn instance(&mut self, id: NodeId, class: NodeId) -> Result<TaskNode, PickleError> {
        let name = self.arena.global(class);
        let odd = || PickleError::unsupported(format!("a graph node of class {name:?} has an unknown layout"));
        let mut effects = self.arena.effects(id);
        let (Some(Effect::Build(state)), None) = (effects.next(), effects.next()) else { return Err(odd()) };
        let slots = self.arena.short_sequence(state).ok_or_else(odd)?;
        let (class, known) = match name {
            Some((TASK_SPEC, "Task")) => (NodeClass::Task, slots.len() == TASK_SLOTS),
            Some((TASK_SPEC, "List" | "Tuple" | "Set" | "Dict")) => {
                (NodeClass::Container, slots.len() == CONTAINER_SLOTS)
            }
            Some(("distributed.shuffle._core", "P2PBarrierTask")) => {
                (NodeClass::P2PBarrier, slots.len() == BARRIER_SLOTS)
            }
            // A subclass by value has no name, but the same slots come first.
            Some(_) | None => (NodeClass::Other, slots.len() >= TASK_SLOTS),
        };
        let data_producer = match slots.first() {
            Some(&TRUE) => true,
            Some(&FALSE) => false,
            Some(_) | None => return Err(odd()),
        };
        let dependencies = slots.get(1).and_then(|&slot| match self.arena.node(slot) {
            Node::FrozenSet(items) => Some(self.arena.children(items)),
            _ => None,
        });
        let dependencies = dependencies.filter(|_| known).ok_or_else(odd)?;
        let left = self.dependencies_left.checked_sub(dependencies.len());
        self.dependencies_left = left.ok_or(PickleError::TooLarge {
            what: "a dependency count",
            actual: DEPENDENCIES_MAX - self.dependencies_left + dependencies.len(),
            limit: DEPENDENCIES_MAX,
        })?;
        let mut dependencies = dependencies.iter().map(|&key| self.key(key)).collect::<Result<Vec<_>, _>>()?;
        // Python's set order changes from process to process.
        dependencies.sort_unstable();
        dependencies.dedup();
        let native = class == NodeClass::Task && native_name(self.arena, slots[FUNCTION_SLOT]).is_some();
        Ok(TaskNode { class, dependencies, data_producer, native })
    }

    fn call(&mut self, id: NodeId, function: NodeId, args: NodeId) -> Result<TaskNode, PickleError> {
        let name = self.arena.global(function);
        let odd = || PickleError::unsupported(format!("a value of the graph is made by {name:?}"));
        let Node::Tuple(args) = self.arena.node(args) else { return Err(odd()) };
        let (&[_, second], None) = (self.arena.children(args), self.arena.first_effect(id)) else { return Err(odd()) };
        match name {
            Some((TASK_SPEC, "Alias")) => {
                let dependencies = vec![self.key(second)?];
                Ok(TaskNode { class: NodeClass::Alias, dependencies, data_producer: false, native: false })
            }
            Some((TASK_SPEC, "DataNode")) => Ok(TaskNode {
                class: NodeClass::DataNode,
                dependencies: Vec::new(),
                data_producer: true,
                native: false,
            }),
            Some(_) | None => Err(odd()),
        }
    }
}

fn check_max(what: &'static str, actual: usize, limit: usize) -> Result<(), PickleError> {
    if actual > limit { Err(PickleError::TooLarge { what, actual, limit }) } else { Ok(()) }
}
