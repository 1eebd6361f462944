//! Graphs in dask's older spelling, `{"y": (inc, "x"), "x": 1}`, as `Client.get` may send them: turned into the nodes that
//! dask's `convert_legacy_graph` makes.
//!
//! What a tuple means depends on whether its first element can be called. Here a global or a function counts as callable
//! and a plain value does not; whatever else comes first is for Python to judge, as are futures and nodes inside values.

use std::rc::Rc;

use indexmap::IndexMap;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use super::arena::{Arena, EMPTY_TUPLE, Effect, FALSE, NONE, Name, Node, NodeId};
use super::error::PickleError;
use super::map_expr::is_reference_class;
use super::python_task::NATIVE;
use super::task_node::{TASK_SPEC, TaskReader};
use crate::key::Key;

/// Deepest nesting of tuples and lists that is followed; deeper ones are for Python.
const NESTING_MAX: usize = 64;

/// Conversions per node of the pickle, and dependencies that a part has brought to another place that uses it.
const CONVERSIONS_PER_NODE: usize = 4;
/// As many are always allowed: 2,000 tasks that each read the same 2,000 share one list in the pickle, and have 4 million
/// dependencies of some 50 bytes.
const CONVERSIONS_MIN: usize = 1 << 22;

static TASK_SPEC_NAME: Name = Name(TASK_SPEC);
static BUILTINS_NAME: Name = Name("builtins");
static TASK_NAME: Name = Name("Task");
static ALIAS_NAME: Name = Name("Alias");
static DATA_NODE_NAME: Name = Name("DataNode");
static IDENTITY_CAST_NAME: Name = Name("_identity_cast");
static TYP_NAME: Name = Name("typ");
static LIST_NAME: Name = Name("list");
static TUPLE_NAME: Name = Name("tuple");
static SET_NAME: Name = Name("set");
static FROZENSET_NAME: Name = Name("frozenset");

/// Entries (keys and values, alternating) of which some values are no nodes yet, with those made into nodes.
pub(crate) fn convert(arena: &mut Arena, entries: Vec<NodeId>) -> Result<Vec<NodeId>, PickleError> {
    if entries.chunks_exact(2).all(|entry| is_node(arena, entry[1])) {
        return Ok(entries);
    }
    let mut converter = Converter::new(arena, &entries)?;
    let mut converted = Vec::with_capacity(entries.len());
    for entry in entries.chunks_exact(2) {
        let (key, value) = (entry[0], entry[1]);
        let node = if is_node(converter.arena, value) { value } else { converter.top_level(key, value)? };
        converted.extend([key, node]);
    }
    Ok(converted)
}

/// Whether a value is a graph node already.
fn is_node(arena: &Arena, id: NodeId) -> bool {
    let class = match arena.node(id) {
        Node::NewObj { class, .. } => class,
        Node::Reduce { function, .. } => function,
        _ => return false,
    };
    arena.global(class).is_some_and(|(module, name)| module == TASK_SPEC && name != "TaskRef")
}

/// What became of a value inside a task.
#[derive(Clone)]
enum Converted {
    /// It stays what it is.
    Plain,
    /// A node, with the keys that it reads.
    Node(NodeId, Rc<Dependencies>),
}

/// Key nodes by the key they spell.
type Dependencies = IndexMap<Key, NodeId, FxBuildHasher>;

struct Converter<'a> {
    arena: &'a mut Arena,
    keys: FxHashSet<Key>,
    task_class: NodeId,
    alias_class: NodeId,
    data_node_class: NodeId,
    conversions_left: usize,
    /// What became of parts that read several keys: other tasks may share them.
    converted: FxHashMap<NodeId, Converted>,
    /// Nodes known to lead to no future and no node of a graph.
    plain: FxHashSet<NodeId>,
}

impl<'a> Converter<'a> {
    fn new(arena: &'a mut Arena, entries: &[NodeId]) -> Result<Converter<'a>, PickleError> {
        let mut reader = TaskReader::new(arena);
        let keys = entries.chunks_exact(2).map(|entry| reader.key(entry[0])).collect::<Result<_, _>>()?;
        let conversions_left = (arena.len() * CONVERSIONS_PER_NODE).max(CONVERSIONS_MIN);
        let task_class = global(arena, &TASK_SPEC_NAME, &TASK_NAME);
        let alias_class = global(arena, &TASK_SPEC_NAME, &ALIAS_NAME);
        let data_node_class = global(arena, &TASK_SPEC_NAME, &DATA_NODE_NAME);
        Ok(Converter {
            arena,
            keys,
            task_class,
            alias_class,
            data_node_class,
            conversions_left,
            converted: FxHashMap::default(),
            plain: FxHashSet::default(),
        })
    }

    /// The node of one entry of the graph.
    fn top_level(&mut self, key: NodeId, value: NodeId) -> Result<NodeId, PickleError> {
        if self.key_in_graph(value).is_some() {
            return Ok(self.call(self.alias_class, &[key, value]));
        }
        Ok(match self.convert(key, value, 0)? {
            Converted::Node(node, _) => node,
            Converted::Plain => self.call(self.data_node_class, &[key, value]),
        })
    }

    /// `convert_legacy_task` of a value; `key` is the key of the task it makes, or none.
    fn convert(&mut self, key: NodeId, value: NodeId, depth: usize) -> Result<Converted, PickleError> {
        if key != NONE {
            return self.convert_anew(key, value, depth);
        }
        if let Some(known) = self.converted.get(&value).cloned() {
            if let Converted::Node(_, reads) = &known {
                self.spend(reads.len())?;
            }
            return Ok(known);
        }
        let converted = self.convert_anew(key, value, depth)?;
        if let Converted::Node(_, reads) = &converted
            && reads.len() > 1
        {
            self.converted.insert(value, converted.clone());
        }
        Ok(converted)
    }

    /// Counts conversions, so that what is shared very often cannot take any amount of memory.
    fn spend(&mut self, conversions: usize) -> Result<(), PickleError> {
        let left = self.conversions_left.checked_sub(conversions);
        self.conversions_left = left.ok_or_else(|| PickleError::unsupported("its graph shares very many parts"))?;
        Ok(())
    }

    fn convert_anew(&mut self, key: NodeId, value: NodeId, depth: usize) -> Result<Converted, PickleError> {
        self.spend(1)?;
        if depth > NESTING_MAX {
            return Err(PickleError::unsupported("its graph is nested very deeply"));
        }
        if let Some(function) = self.called_function(value)? {
            let items = self.arena.sequence(value).expect("a call is a tuple");
            let arguments = &items[1..];
            let parts = self.convert_all(arguments, depth)?;
            return Ok(self.task(key, function, arguments, parts, None));
        }
        if let Some(found) = self.key_in_graph(value) {
            let alias = self.call(self.alias_class, &[value, value]);
            return Ok(Converted::Node(alias, Rc::new(Dependencies::from_iter([(found, value)]))));
        }
        match self.arena.node(value) {
            Node::Tuple(_) => self.collection(key, value, &TUPLE_NAME, depth),
            Node::List => self.collection(key, value, &LIST_NAME, depth),
            Node::Set => self.collection(key, value, &SET_NAME, depth),
            Node::FrozenSet(_) => self.collection(key, value, &FROZENSET_NAME, depth),
            Node::None
            | Node::True
            | Node::False
            | Node::Int(_)
            | Node::Float(_)
            | Node::Str(_)
            | Node::Bytes(_)
            | Node::Raw(_)
            | Node::ByteArray(_)
            | Node::Name(_)
            | Node::Global { .. }
            | Node::Buffer(_)
            | Node::ReadonlyBuffer(_) => Ok(Converted::Plain),
            Node::Dict | Node::Reduce { .. } | Node::NewObj { .. } | Node::NewObjEx { .. } | Node::Obj(_) => {
                self.check_plain(value)?;
                Ok(Converted::Plain)
            }
        }
    }

    /// The function of a tuple that is a call.
    fn called_function(&self, value: NodeId) -> Result<Option<NodeId>, PickleError> {
        let Node::Tuple(items) = self.arena.node(value) else { return Ok(None) };
        let Some(&head) = self.arena.children(items).first() else { return Ok(None) };
        let callable = match self.arena.node(head) {
            Node::Global { .. } => {
                !matches!(self.arena.global(head), Some(("builtins", "Ellipsis" | "NotImplemented")))
            }
            Node::Reduce { function, .. } => match self.arena.global(function) {
                Some(("functools", "partial") | NATIVE) => true,
                Some((module, "_make_function")) if module.starts_with("cloudpickle") => true,
                Some((module, _)) if module.starts_with("numpy") => false,
                Some(_) | None => return Err(PickleError::unsupported("a tuple of its graph begins with an object")),
            },
            Node::NewObj { .. } | Node::NewObjEx { .. } | Node::Obj(_) => {
                return Err(PickleError::unsupported("a tuple of its graph begins with an object"));
            }
            Node::None
            | Node::True
            | Node::False
            | Node::Int(_)
            | Node::Float(_)
            | Node::Str(_)
            | Node::Bytes(_)
            | Node::Raw(_)
            | Node::ByteArray(_)
            | Node::Name(_)
            | Node::List
            | Node::Dict
            | Node::Set
            | Node::Tuple(_)
            | Node::FrozenSet(_)
            | Node::Buffer(_)
            | Node::ReadonlyBuffer(_) => false,
        };
        Ok(callable.then_some(head))
    }

    /// The key of the graph that a value spells. Python's `True` and `1` are one key.
    fn key_in_graph(&self, value: NodeId) -> Option<Key> {
        let key = match self.arena.node(value) {
            Node::True => Key::from(1),
            Node::False => Key::from(0),
            Node::Int(_) | Node::Float(_) | Node::Str(_) | Node::Raw(_) | Node::Tuple(_) => {
                TaskReader::new(self.arena).key(value).ok()?
            }
            _ => return None,
        };
        self.keys.contains(&key).then_some(key)
    }

    /// A list, tuple or set: rebuilt by a task if anything in it is a node.
    fn collection(
        &mut self,
        key: NodeId,
        value: NodeId,
        class: &'static Name,
        depth: usize,
    ) -> Result<Converted, PickleError> {
        let items = self.arena.sequence(value).or_else(|| self.arena.set_items(value));
        let items = items.ok_or_else(|| PickleError::unsupported("a collection of its graph changes itself"))?;
        let parts = self.convert_all(&items, depth)?;
        if parts.iter().all(|part| matches!(part, Converted::Plain)) {
            return Ok(Converted::Plain);
        }
        let function = global(self.arena, &TASK_SPEC_NAME, &IDENTITY_CAST_NAME);
        let class = global(self.arena, &BUILTINS_NAME, class);
        Ok(self.task(key, function, &items, parts, Some(class)))
    }

    fn convert_all(&mut self, items: &[NodeId], depth: usize) -> Result<Vec<Converted>, PickleError> {
        items.iter().map(|&item| self.convert(NONE, item, depth + 1)).collect()
    }

    /// `Task(key, function, *arguments)`, with `typ=class` for a collection.
    fn task(
        &mut self,
        key: NodeId,
        function: NodeId,
        arguments: &[NodeId],
        parts: Vec<Converted>,
        typ: Option<NodeId>,
    ) -> Converted {
        let mut dependencies = Dependencies::default();
        let mut converted = Vec::with_capacity(arguments.len());
        for (&argument, part) in arguments.iter().zip(parts) {
            match part {
                Converted::Plain => converted.push(argument),
                Converted::Node(node, reads) => {
                    dependencies.extend(reads.iter().map(|(key, node)| (key.clone(), *node)));
                    converted.push(node);
                }
            }
        }
        let args = self.arena.tuple(&converted);
        let reads: Vec<NodeId> = dependencies.values().copied().collect();
        let reads = self.arena.pool(&reads);
        let reads = self.arena.add(Node::FrozenSet(reads));
        let kwargs = self.arena.add(Node::Dict);
        if let Some(class) = typ {
            let name = self.arena.add(Node::Name(&TYP_NAME));
            let pair = self.arena.pool(&[name, class]);
            self.arena.add_effect(kwargs, Effect::SetItems(pair));
        }
        let state = self.arena.tuple(&[FALSE, reads, NONE, NONE, NONE, args, function, key, kwargs]);
        let task = self.arena.add(Node::NewObj { class: self.task_class, args: EMPTY_TUPLE });
        self.arena.add_effect(task, Effect::Build(state));
        Converted::Node(task, Rc::new(dependencies))
    }

    fn call(&mut self, function: NodeId, args: &[NodeId]) -> NodeId {
        let args = self.arena.tuple(args);
        self.arena.add(Node::Reduce { function, args })
    }

    /// Refuses values that hold futures or nodes: Python would look into some of them.
    fn check_plain(&mut self, value: NodeId) -> Result<(), PickleError> {
        let mut stack = vec![value];
        while let Some(id) = stack.pop() {
            if !self.plain.insert(id) {
                continue;
            }
            if is_reference_class(self.arena, id) {
                return Err(PickleError::unsupported("a value of its graph holds a future or a node"));
            }
            self.arena.push_references(id, &mut stack);
        }
        Ok(())
    }
}

fn global(arena: &mut Arena, module: &'static Name, name: &'static Name) -> NodeId {
    let module = arena.add(Node::Name(module));
    let name = arena.add(Node::Name(name));
    arena.add(Node::Global { module, name })
}
