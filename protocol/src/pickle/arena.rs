//! A pickle as a graph of nodes.
//!
//! A node is what one opcode would create. What later opcodes do *to* an object (append to it, set its state) is kept
//! as effects of the node, in order. Creation edges always lead to older nodes; only effects can close a cycle.

use bytes::Bytes;
use smallvec::SmallVec;

/// Index of a node in its [`Arena`].
pub(crate) type NodeId = u32;

/// Most nodes one pickle may have: at about 32 bytes each with what refers to them, 1 GiB. A task takes about a dozen.
pub(crate) const NODES_MAX: usize = 1 << 25;

/// Ids of the nodes every arena starts with.
pub(crate) const NONE: NodeId = 0;
pub(crate) const TRUE: NodeId = 1;
pub(crate) const FALSE: NodeId = 2;
pub(crate) const EMPTY_TUPLE: NodeId = 3;

/// Most elements of a [`Arena::short_sequence`].
const SHORT_MAX: usize = 64;

const NO_EFFECT: u32 = u32::MAX;

/// Bytes of the pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: u32,
    pub len: u32,
}

/// Node ids in the arena's child pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Children {
    start: u32,
    len: u32,
}

/// What one opcode creates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Node {
    None,
    True,
    False,
    Int(i64),
    Float(f64),
    Str(Span),
    Bytes(Span),
    /// An immutable atom of an unusual spelling, written back verbatim with its opcode.
    Raw(Span),
    ByteArray(Span),
    /// A `str` that is not in the pickle but needed to write new nodes.
    Name(&'static Name),
    /// Two `str` nodes.
    Global {
        module: NodeId,
        name: NodeId,
    },
    List,
    Dict,
    Set,
    Tuple(Children),
    FrozenSet(Children),
    Reduce {
        function: NodeId,
        args: NodeId,
    },
    NewObj {
        class: NodeId,
        args: NodeId,
    },
    NewObjEx {
        class: NodeId,
        args: NodeId,
        kwargs: NodeId,
    },
    /// The old protocols' instance: class, then arguments.
    Obj(Children),
    /// An out-of-band buffer by number.
    Buffer(u32),
    ReadonlyBuffer(NodeId),
}

/// A name of dask's that new nodes may need.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Name(pub &'static str);

/// What an opcode does to an existing object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Append(NodeId),
    Appends(Children),
    SetItem(NodeId, NodeId),
    SetItems(Children),
    AddItems(Children),
    Build(NodeId),
    /// A call whose result is dropped: a state setter with the object as its first argument.
    Call {
        function: NodeId,
        args: NodeId,
    },
}

/// An effect in the circular list of its node's effects.
#[derive(Debug, Clone, Copy)]
struct Link {
    effect: Effect,
    next: u32,
}

/// All nodes of one pickle.
#[derive(Debug)]
pub(crate) struct Arena {
    source: Bytes,
    protocol: u8,
    nodes: Vec<Node>,
    /// Per node: its last effect, whose link leads to the first one.
    last_effects: Vec<u32>,
    /// How often a node is used, saturating at 255.
    uses: Vec<u8>,
    pool: Vec<NodeId>,
    links: Vec<Link>,
    /// The object the pickle stands for.
    pub root: NodeId,
}

impl Arena {
    pub fn new(source: Bytes) -> Arena {
        let mut arena = Arena {
            source,
            protocol: 0,
            nodes: Vec::new(),
            last_effects: Vec::new(),
            uses: Vec::new(),
            pool: Vec::new(),
            links: Vec::new(),
            root: NONE,
        };
        for (id, node) in [
            (NONE, Node::None),
            (TRUE, Node::True),
            (FALSE, Node::False),
            (EMPTY_TUPLE, Node::Tuple(Children { start: 0, len: 0 })),
        ] {
            assert_eq!(arena.add(node), id, "the first nodes have fixed ids");
        }
        arena
    }

    /// The protocol the pickle declares; written back because it decides how old global names are read.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    pub fn set_protocol(&mut self, protocol: u8) {
        self.protocol = protocol;
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Adds a node. The reader keeps the count below [`NODES_MAX`].
    pub fn add(&mut self, node: Node) -> NodeId {
        let id = NodeId::try_from(self.nodes.len()).expect("arena stays below NODES_MAX nodes");
        self.nodes.push(node);
        self.last_effects.push(NO_EFFECT);
        self.uses.push(0);
        match node {
            Node::Global { module: a, name: b }
            | Node::Reduce { function: a, args: b }
            | Node::NewObj { class: a, args: b } => self.use_all(&[a, b]),
            Node::NewObjEx { class, args, kwargs } => self.use_all(&[class, args, kwargs]),
            Node::ReadonlyBuffer(inner) => self.use_all(&[inner]),
            // Pooled children are counted when they enter the pool.
            Node::Tuple(_) | Node::FrozenSet(_) | Node::Obj(_) => {}
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
            | Node::Buffer(_) => {}
        }
        id
    }

    /// Puts ids into the child pool; each counts as used once more.
    pub fn pool(&mut self, ids: &[NodeId]) -> Children {
        let start = u32::try_from(self.pool.len()).expect("every pooled id took at least one byte of pickle");
        self.pool.extend_from_slice(ids);
        self.use_all(ids);
        Children { start, len: u32::try_from(ids.len()).expect("a slice of the stack is shorter than the pickle") }
    }

    pub fn tuple(&mut self, ids: &[NodeId]) -> NodeId {
        if ids.is_empty() {
            return EMPTY_TUPLE;
        }
        let children = self.pool(ids);
        self.add(Node::Tuple(children))
    }

    pub fn add_effect(&mut self, base: NodeId, effect: Effect) {
        match effect {
            Effect::Append(a) | Effect::Build(a) => self.use_all(&[a]),
            Effect::SetItem(a, b) | Effect::Call { function: a, args: b } => self.use_all(&[a, b]),
            Effect::Appends(_) | Effect::SetItems(_) | Effect::AddItems(_) => {}
        }
        let link = u32::try_from(self.links.len()).expect("every effect took at least one byte of pickle");
        let last = std::mem::replace(&mut self.last_effects[base as usize], link);
        let next = if last == NO_EFFECT { link } else { std::mem::replace(&mut self.links[last as usize].next, link) };
        self.links.push(Link { effect, next });
    }

    /// Counts one more use of each node.
    pub fn use_all(&mut self, ids: &[NodeId]) {
        for &id in ids {
            let uses = &mut self.uses[id as usize];
            *uses = uses.saturating_add(1);
        }
    }

    pub fn node(&self, id: NodeId) -> Node {
        self.nodes[id as usize]
    }

    /// Whether more than one place refers to the node, so that it must be memoised when written.
    pub fn is_shared(&self, id: NodeId) -> bool {
        self.uses[id as usize] > 1
    }

    pub fn children(&self, children: Children) -> &[NodeId] {
        &self.pool[children.start as usize..][..children.len as usize]
    }

    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.source[span.start as usize..][..span.len as usize]
    }

    /// The bytes, shared with the pickle.
    pub fn shared_bytes(&self, span: Span) -> Bytes {
        self.source.slice(span.start as usize..span.start as usize + span.len as usize)
    }

    /// The node's first effect, as a number for [`Arena::effect`].
    pub fn first_effect(&self, id: NodeId) -> Option<u32> {
        let last = self.last_effects[id as usize];
        (last != NO_EFFECT).then(|| self.links[last as usize].next)
    }

    /// An effect of the node and the number of the next one.
    pub fn effect(&self, id: NodeId, link: u32) -> (Effect, Option<u32>) {
        let Link { effect, next } = self.links[link as usize];
        (effect, (link != self.last_effects[id as usize]).then_some(next))
    }

    /// The node's effects in order.
    pub fn effects(&self, id: NodeId) -> impl Iterator<Item = Effect> + '_ {
        let mut next = self.first_effect(id);
        std::iter::from_fn(move || {
            let (effect, following) = self.effect(id, next?);
            next = following;
            Some(effect)
        })
    }

    /// The text of a `str` node, unless it holds lone surrogates.
    pub fn str(&self, id: NodeId) -> Option<&str> {
        match self.node(id) {
            Node::Str(span) => std::str::from_utf8(self.bytes(span)).ok(),
            Node::Name(name) => Some(name.0),
            _ => None,
        }
    }

    /// Module and name of a global.
    pub fn global(&self, id: NodeId) -> Option<(&str, &str)> {
        let Node::Global { module, name } = self.node(id) else { return None };
        Some((self.str(module)?, self.str(name)?))
    }

    pub fn is_global(&self, id: NodeId, module: &str, name: &str) -> bool {
        self.global(id) == Some((module, name))
    }

    /// The elements of a tuple, or of a list that was only appended to.
    pub fn sequence(&self, id: NodeId) -> Option<Vec<NodeId>> {
        match self.node(id) {
            Node::Tuple(items) => Some(self.children(items).to_vec()),
            Node::List => self.collect(id, |effect, items| match effect {
                Effect::Append(item) => {
                    items.push(item);
                    true
                }
                Effect::Appends(more) => {
                    items.extend_from_slice(self.children(more));
                    true
                }
                _ => false,
            }),
            _ => None,
        }
    }

    /// Like [`Arena::sequence`], if there are few elements: for the states of objects.
    pub fn short_sequence(&self, id: NodeId) -> Option<SmallVec<[NodeId; 16]>> {
        let mut items = SmallVec::new();
        let mut take = |more: &[NodeId]| {
            let fits = items.len() + more.len() <= SHORT_MAX;
            items.extend_from_slice(if fits { more } else { &[] });
            fits
        };
        let short = match self.node(id) {
            Node::Tuple(all) => take(self.children(all)),
            Node::List => self.effects(id).all(|effect| match effect {
                Effect::Append(item) => take(&[item]),
                Effect::Appends(more) => take(self.children(more)),
                _ => false,
            }),
            _ => false,
        };
        short.then_some(items)
    }

    /// The elements of a set or frozenset, in pickled order.
    pub fn set_items(&self, id: NodeId) -> Option<Vec<NodeId>> {
        match self.node(id) {
            Node::FrozenSet(items) => Some(self.children(items).to_vec()),
            Node::Set => self.collect(id, |effect, items| match effect {
                Effect::AddItems(more) => {
                    items.extend_from_slice(self.children(more));
                    true
                }
                _ => false,
            }),
            _ => None,
        }
    }

    /// Keys and values of a dict, alternating; a key may come twice.
    pub fn dict_items(&self, id: NodeId) -> Option<Vec<NodeId>> {
        if self.node(id) != Node::Dict {
            return None;
        }
        self.collect(id, |effect, items| match effect {
            Effect::SetItem(key, value) => {
                items.extend([key, value]);
                true
            }
            Effect::SetItems(more) => {
                items.extend_from_slice(self.children(more));
                true
            }
            _ => false,
        })
    }

    fn collect(&self, id: NodeId, mut take: impl FnMut(Effect, &mut Vec<NodeId>) -> bool) -> Option<Vec<NodeId>> {
        let mut items = Vec::new();
        self.effects(id).all(|effect| take(effect, &mut items)).then_some(items)
    }

    /// Calls `f` with every node that `id` refers to directly, by creation or by effects, until it returns false.
    pub fn for_each_reference(&self, id: NodeId, mut f: impl FnMut(NodeId) -> bool) {
        let go_on = match self.node(id) {
            Node::Global { module: a, name: b }
            | Node::Reduce { function: a, args: b }
            | Node::NewObj { class: a, args: b } => [a, b].into_iter().all(&mut f),
            Node::NewObjEx { class, args, kwargs } => [class, args, kwargs].into_iter().all(&mut f),
            Node::ReadonlyBuffer(inner) => f(inner),
            Node::Tuple(items) | Node::FrozenSet(items) | Node::Obj(items) => {
                self.children(items).iter().copied().all(&mut f)
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
            | Node::Buffer(_) => true,
        };
        let mut of_effect = |effect| match effect {
            Effect::Append(a) | Effect::Build(a) => f(a),
            Effect::SetItem(a, b) | Effect::Call { function: a, args: b } => [a, b].into_iter().all(&mut f),
            Effect::Appends(items) | Effect::SetItems(items) | Effect::AddItems(items) => {
                self.children(items).iter().copied().all(&mut f)
            }
        };
        let _all = go_on && self.effects(id).all(&mut of_effect);
    }

    /// Pushes every node that `id` refers to directly.
    pub fn push_references(&self, id: NodeId, stack: &mut Vec<NodeId>) {
        self.for_each_reference(id, |part| {
            stack.push(part);
            true
        });
    }
}
