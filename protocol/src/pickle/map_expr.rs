//! Expanding `distributed.client._MapExpr` into the tasks that its `_layer` would make.

use bytes::Bytes;

use super::arena::{Arena, EMPTY_TUPLE, Effect, FALSE, NODES_MAX, NONE, Name, Node, NodeId, Span};
use super::error::PickleError;
use super::task_node::TASK_SPEC;

/// `_MapExpr` ships a keyword argument as a task of its own from this size on, as told by `dask.sizeof`, in bytes.
const KWARG_BYTES_MAX: usize = 100_000;

static TASK_SPEC_NAME: Name = Name(TASK_SPEC);
static TASK_NAME: Name = Name("Task");
static ALIAS_NAME: Name = Name("Alias");
static DATA_NODE_NAME: Name = Name("DataNode");

/// Most keyword arguments of a map that are looked at; each costs a look at [`KWARG_BYTES_MAX`] bytes.
const KWARGS_MAX: usize = 1000;

/// Nodes that one task of a map adds besides those of its arguments: dependencies, arguments, state, task, and what a
/// range or a string adds per element.
const NODES_PER_TASK: usize = 8;

/// Keys and nodes, alternating, of the tasks of a map.
///
/// Upstream measures keyword arguments with `dask.sizeof`; here their size is estimated. The estimate only decides
/// whether an argument travels in each task or as one more task, never what is computed.
pub(crate) fn expand(arena: &mut Arena, operands: &[NodeId], buffers: &[Bytes]) -> Result<Vec<NodeId>, PickleError> {
    let &[function, iterables, key, _pure, _annotations, kwargs, cached_keys] = operands else {
        return Err(PickleError::unsupported("its map has an unknown layout"));
    };
    let keys = if cached_keys == NONE { key } else { cached_keys };
    let keys = arena.sequence(keys).ok_or_else(|| PickleError::unsupported("its map has no list of keys"))?;
    let iterables = arena.sequence(iterables);
    let iterables = iterables.ok_or_else(|| PickleError::unsupported("its map has no plain iterables"))?;
    if arena.len() + keys.len().saturating_mul(NODES_PER_TASK + iterables.len()) > NODES_MAX {
        return Err(PickleError::TooLarge { what: "a map", actual: keys.len(), limit: NODES_MAX / NODES_PER_TASK });
    }
    let columns = iterables.iter().map(|&iterable| iterate(arena, iterable, keys.len()));
    // `iterate` adds nodes, so the columns are made one after the other.
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let mut expansion = Expansion::new(arena, function)?;
    let mut entries = Vec::with_capacity(keys.len() * 2);
    let kwargs = expansion.kwargs(kwargs, buffers, &mut entries)?;
    let rows = columns.iter().map(Vec::len).min().unwrap_or(0);
    for (row, &key) in keys.iter().enumerate().take(rows) {
        let args: Vec<NodeId> = columns.iter().map(|column| column[row]).collect();
        entries.extend([key, expansion.task(key, &args, &kwargs)?]);
    }
    Ok(entries)
}

/// The first `limit` elements of a plain iterable.
fn iterate(arena: &mut Arena, id: NodeId, limit: usize) -> Result<Vec<NodeId>, PickleError> {
    let items = match arena.node(id) {
        Node::Tuple(_) | Node::List => arena.sequence(id),
        // The pickled order is the client's iteration order, by which it named the keys.
        Node::Set | Node::FrozenSet(_) => arena.set_items(id),
        Node::Dict => arena.dict_items(id).map(|items| items.into_iter().step_by(2).collect()),
        Node::Str(span) => characters(arena, id, span, limit),
        Node::Reduce { function, args } if arena.is_global(function, "builtins", "range") => range(arena, args, limit),
        _ => None,
    };
    items.ok_or_else(|| PickleError::unsupported("it maps over something that is not a plain collection"))
}

fn characters(arena: &mut Arena, id: NodeId, span: Span, limit: usize) -> Option<Vec<NodeId>> {
    let lens: Vec<usize> = arena.str(id)?.chars().take(limit).map(char::len_utf8).collect();
    let mut start = span.start;
    let spans = lens.into_iter().map(|len| {
        let len = u32::try_from(len).expect("a character has at most four bytes");
        let span = Span { start, len };
        start += len;
        span
    });
    Some(spans.map(|span| arena.add(Node::Str(span))).collect())
}

fn range(arena: &mut Arena, args: NodeId, limit: usize) -> Option<Vec<NodeId>> {
    let args = arena.sequence(args)?;
    let int = |&id: &NodeId| if let Node::Int(i) = arena.node(id) { Some(i) } else { None };
    let [start, stop, step] = args.iter().map(int).collect::<Option<Vec<_>>>()?.try_into().ok()?;
    let inside = |i: &i64| if step > 0 { *i < stop } else { *i > stop };
    let numbers = std::iter::successors(Some(start), |i| i.checked_add(step)).take_while(inside).take(limit);
    // Python refuses a step of zero.
    (step != 0).then(|| numbers.map(|i| arena.add(Node::Int(i))).collect())
}

/// The keyword arguments common to all tasks of a map.
struct Kwargs {
    dict: NodeId,
    dependencies: Vec<NodeId>,
}

struct Expansion<'a> {
    arena: &'a mut Arena,
    function: NodeId,
    task_class: NodeId,
    alias_class: NodeId,
    no_dependencies: NodeId,
    /// Whether the pickle names any class that upstream's `parse_input` would treat specially.
    may_refer: bool,
    /// Nodes known to lead to no such class.
    plain: Vec<bool>,
}

impl<'a> Expansion<'a> {
    fn new(arena: &'a mut Arena, function: NodeId) -> Result<Expansion<'a>, PickleError> {
        let ids = 0..NodeId::try_from(arena.len()).expect("arena stays below NODES_MAX nodes");
        let may_refer = ids.into_iter().any(|id| is_reference_class(arena, id));
        let read_len = arena.len();
        let task_class = global(arena, &TASK_NAME);
        let alias_class = global(arena, &ALIAS_NAME);
        let none = arena.pool(&[]);
        let no_dependencies = arena.add(Node::FrozenSet(none));
        Ok(Expansion {
            function,
            task_class,
            alias_class,
            no_dependencies,
            may_refer,
            plain: vec![false; read_len],
            arena,
        })
    }

    /// The keyword arguments as each task has them; large ones become tasks, which are added to `entries`.
    fn kwargs(&mut self, id: NodeId, buffers: &[Bytes], entries: &mut Vec<NodeId>) -> Result<Kwargs, PickleError> {
        let items = self.arena.dict_items(id);
        let items = items.ok_or_else(|| PickleError::unsupported("its keyword arguments are not a plain dict"))?;
        if items.len() / 2 > KWARGS_MAX {
            return Err(PickleError::unsupported("its map has very many keyword arguments"));
        }
        let mut dependencies = Vec::new();
        let mut parsed = Vec::with_capacity(items.len());
        for item in items.chunks_exact(2) {
            let &[name, value] = item else { unreachable!("chunks of two") };
            if self.arena.str(name).is_none_or(|name| name == "_data_producer") {
                return Err(PickleError::unsupported("it has an unusual keyword argument"));
            }
            let value = if is_larger(self.arena, value, buffers, KWARG_BYTES_MAX) {
                let class = global(self.arena, &DATA_NODE_NAME);
                let args = self.arena.tuple(&[name, value]);
                entries.extend([name, self.arena.add(Node::Reduce { function: class, args })]);
                dependencies.push(name);
                self.alias(name)
            } else {
                self.parse(value, &mut dependencies)?
            };
            parsed.extend([name, value]);
        }
        let dict = self.arena.add(Node::Dict);
        if !parsed.is_empty() {
            let parsed = self.arena.pool(&parsed);
            self.arena.add_effect(dict, Effect::SetItems(parsed));
        }
        Ok(Kwargs { dict, dependencies })
    }

    /// `Task(key, function, *args, **kwargs)`, as its pickle would have it.
    fn task(&mut self, key: NodeId, args: &[NodeId], kwargs: &Kwargs) -> Result<NodeId, PickleError> {
        let mut dependencies = kwargs.dependencies.clone();
        let args = args.iter().map(|&arg| self.parse(arg, &mut dependencies)).collect::<Result<Vec<_>, _>>()?;
        let args = self.arena.tuple(&args);
        let dependencies = if dependencies.is_empty() {
            self.no_dependencies
        } else {
            let dependencies = self.arena.pool(&dependencies);
            self.arena.add(Node::FrozenSet(dependencies))
        };
        let state = [FALSE, dependencies, NONE, NONE, NONE, args, self.function, key, kwargs.dict];
        let state = self.arena.tuple(&state);
        let task = self.arena.add(Node::NewObj { class: self.task_class, args: EMPTY_TUPLE });
        self.arena.add_effect(task, Effect::Build(state));
        Ok(task)
    }

    /// Upstream's `parse_input` of one argument: a future or reference becomes an alias.
    fn parse(&mut self, id: NodeId, dependencies: &mut Vec<NodeId>) -> Result<NodeId, PickleError> {
        if !self.may_refer {
            return Ok(id);
        }
        if let Some(key) = self.referenced_key(id) {
            dependencies.push(key);
            return Ok(self.alias(key));
        }
        if self.leads_to_reference(id) {
            return Err(PickleError::unsupported("an argument of its map holds a future or a task"));
        }
        Ok(id)
    }

    /// `Alias(key)`.
    fn alias(&mut self, key: NodeId) -> NodeId {
        let args = self.arena.tuple(&[key, key]);
        self.arena.add(Node::Reduce { function: self.alias_class, args })
    }

    /// The key of `TaskRef(key)` or `Future(key)`.
    fn referenced_key(&self, id: NodeId) -> Option<NodeId> {
        let Node::Reduce { function, args } = self.arena.node(id) else { return None };
        let class = self.arena.global(function)?;
        let refers = matches!(class, (TASK_SPEC, "TaskRef") | ("distributed.client", "Future"));
        let Node::Tuple(args) = self.arena.node(args) else { return None };
        let &[key] = self.arena.children(args) else { return None };
        (refers && self.arena.first_effect(id).is_none()).then_some(key)
    }

    fn leads_to_reference(&mut self, id: NodeId) -> bool {
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            // Nodes added here are only keys, ranges and characters.
            let Some(plain) = self.plain.get_mut(id as usize) else { continue };
            if std::mem::replace(plain, true) {
                continue;
            }
            if is_reference_class(self.arena, id) {
                return true;
            }
            self.arena.push_references(id, &mut stack);
        }
        false
    }
}

fn global(arena: &mut Arena, name: &'static Name) -> NodeId {
    let module = arena.add(Node::Name(&TASK_SPEC_NAME));
    let name = arena.add(Node::Name(name));
    arena.add(Node::Global { module, name })
}

/// Whether a node names a class of graph nodes or futures, or one that cannot be told.
pub(super) fn is_reference_class(arena: &Arena, id: NodeId) -> bool {
    if !matches!(arena.node(id), Node::Global { .. }) {
        return false;
    }
    arena.global(id).is_none_or(|(module, name)| module == TASK_SPEC || name.ends_with("Future"))
}

/// Whether a value takes more than `limit` bytes in Python, roughly as `dask.sizeof` counts.
fn is_larger(arena: &Arena, id: NodeId, buffers: &[Bytes], limit: usize) -> bool {
    let mut size = 0;
    let mut stack = vec![id];
    while let Some(id) = stack.pop() {
        size += match arena.node(id) {
            Node::Str(span) | Node::Bytes(span) | Node::Raw(span) | Node::ByteArray(span) => 40 + span.len as usize,
            Node::Buffer(index) => buffers.get(index as usize).map_or(0, Bytes::len),
            Node::None | Node::True | Node::False | Node::Int(_) | Node::Float(_) => 24,
            Node::Name(_) | Node::Global { .. } | Node::ReadonlyBuffer(_) => 16,
            Node::Tuple(_)
            | Node::FrozenSet(_)
            | Node::Reduce { .. }
            | Node::NewObj { .. }
            | Node::NewObjEx { .. }
            | Node::Obj(_)
            | Node::List
            | Node::Dict
            | Node::Set => 56,
        };
        if size > limit {
            return true;
        }
        if !matches!(arena.node(id), Node::Global { .. }) {
            // Each part will count at least one, so this many suffice.
            arena.for_each_reference(id, |part| {
                stack.push(part);
                stack.len() <= limit
            });
        }
    }
    false
}
