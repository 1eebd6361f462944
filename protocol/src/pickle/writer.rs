//! Writes any part of an [`Arena`] back as pickle opcodes.
//!
//! Order is the pickler's own: an object is created, memoised, then changed. An object that is reached again while its
//! arguments are still being written (a cycle through an effect) is written in full there, and fetched from the memo by
//! the outer occurrence, as Python does for recursive tuples. Nothing recurses.

use super::arena::{Arena, Effect, Node, NodeId};
use super::encode::{write_bytes, write_float, write_int, write_str};
use super::error::PickleError;
use super::opcode as op;

/// Writes parts of one arena, remembering which nodes are in the memo of the pickle at hand.
pub(crate) struct Writer<'a> {
    arena: &'a Arena,
    /// Per node: the epoch it was memoised in and its memo index.
    memo: Vec<(u32, u32)>,
    /// Memo entries of the prefix stay valid for each body written after it.
    prefix_epoch: u32,
    body_epoch: u32,
    prefix_len: u32,
    memo_len: u32,
    /// The node being written as a body: its parts may lead back to it.
    root: Option<NodeId>,
    out: Vec<u8>,
    buffers: Vec<u32>,
    work: Vec<Work>,
    bytes_left: usize,
    bytes_max: usize,
}

/// What remains to be written, last first.
enum Work {
    Node(NodeId),
    Finish(NodeId),
    Effect(NodeId, u32),
    EffectEnd(NodeId, u32),
}

/// Opcodes and the numbers of the out-of-band buffers they ask for.
pub(crate) struct Written {
    pub opcodes: Vec<u8>,
    pub buffers: Vec<u32>,
}

impl<'a> Writer<'a> {
    /// A writer that gives up after `bytes_max` bytes in total.
    pub fn new(arena: &'a Arena, bytes_max: usize) -> Writer<'a> {
        Writer {
            arena,
            memo: vec![(0, 0); arena.len()],
            prefix_epoch: 0,
            body_epoch: 1,
            prefix_len: 0,
            memo_len: 0,
            root: None,
            out: Vec::new(),
            buffers: Vec::new(),
            work: Vec::new(),
            bytes_left: bytes_max,
            bytes_max,
        }
    }

    /// Writes the opcodes that memoise `nodes` and leave the stack empty; bodies that follow refer to them.
    pub fn prefix(&mut self, nodes: &[NodeId]) -> Result<Written, PickleError> {
        self.body_epoch += 1;
        self.prefix_epoch = self.body_epoch;
        self.memo_len = 0;
        self.out.extend([op::PROTO, self.arena.protocol()]);
        for &node in nodes {
            self.write(node)?;
            if !self.is_memoised(node) {
                self.memoise(node);
            }
            self.out.push(op::POP);
        }
        self.prefix_len = self.memo_len;
        self.body_epoch += 1;
        self.finish()
    }

    /// Writes `node` as the rest of a pickle that starts with the current prefix.
    pub fn body(&mut self, node: NodeId) -> Result<Written, PickleError> {
        self.body_epoch += 1;
        self.memo_len = self.prefix_len;
        self.root = Some(node);
        self.write(node)?;
        self.root = None;
        self.out.push(op::STOP);
        self.finish()
    }

    /// Writes `node` as a pickle of its own.
    pub fn whole(&mut self, node: NodeId) -> Result<Written, PickleError> {
        let mut written = self.prefix(&[])?;
        let body = self.body(node)?;
        written.opcodes.extend(body.opcodes);
        written.buffers.extend(body.buffers);
        Ok(written)
    }

    fn finish(&mut self) -> Result<Written, PickleError> {
        self.check_size()?;
        self.bytes_left -= self.out.len();
        // Keep the scratch space: a body is usually small.
        let opcodes = self.out.as_slice().to_vec();
        self.out.clear();
        Ok(Written { opcodes, buffers: std::mem::take(&mut self.buffers) })
    }

    fn check_size(&self) -> Result<(), PickleError> {
        if self.out.len() > self.bytes_left {
            let actual = self.bytes_max - self.bytes_left + self.out.len();
            return Err(PickleError::TooLarge { what: "a written size", actual, limit: self.bytes_max });
        }
        Ok(())
    }

    fn write(&mut self, node: NodeId) -> Result<(), PickleError> {
        self.work.push(Work::Node(node));
        while let Some(work) = self.work.pop() {
            match work {
                Work::Node(id) => self.start(id),
                Work::Finish(id) => self.complete(id),
                Work::Effect(id, link) => self.start_effect(id, link),
                Work::EffectEnd(id, link) => self.complete_effect(id, link),
            }
            self.check_size()?;
        }
        Ok(())
    }

    fn is_memoised(&self, id: NodeId) -> bool {
        let (epoch, _) = self.memo[id as usize];
        epoch == self.body_epoch || (epoch == self.prefix_epoch && epoch != 0)
    }

    fn memoise(&mut self, id: NodeId) {
        self.memo[id as usize] = (self.body_epoch, self.memo_len);
        self.memo_len += 1;
        self.out.push(op::MEMOIZE);
    }

    fn get(&mut self, id: NodeId) {
        let (_, index) = self.memo[id as usize];
        if let Ok(short) = u8::try_from(index) {
            self.out.extend([op::BINGET, short]);
        } else {
            self.out.push(op::LONG_BINGET);
            self.out.extend(index.to_le_bytes());
        }
    }

    fn start(&mut self, id: NodeId) {
        if self.is_memoised(id) {
            return self.get(id);
        }
        match self.arena.node(id) {
            Node::None => self.out.push(op::NONE),
            Node::True => self.out.push(op::NEWTRUE),
            Node::False => self.out.push(op::NEWFALSE),
            Node::Int(i) => write_int(&mut self.out, i),
            Node::Float(f) => write_float(&mut self.out, f),
            Node::Str(span) => {
                write_str(&mut self.out, self.arena.bytes(span));
                self.created(id);
            }
            Node::Name(name) => {
                write_str(&mut self.out, name.0.as_bytes());
                self.created(id);
            }
            Node::Bytes(span) => {
                write_bytes(&mut self.out, self.arena.bytes(span));
                self.created(id);
            }
            Node::Raw(span) => {
                self.out.extend_from_slice(self.arena.bytes(span));
                self.created(id);
            }
            Node::ByteArray(span) => {
                self.out.push(op::BYTEARRAY8);
                self.out.extend(u64::from(span.len).to_le_bytes());
                self.out.extend_from_slice(self.arena.bytes(span));
                self.created(id);
            }
            Node::List => self.simple(id, op::EMPTY_LIST),
            Node::Dict => self.simple(id, op::EMPTY_DICT),
            Node::Set => self.simple(id, op::EMPTY_SET),
            Node::Buffer(index) => {
                self.buffers.push(index);
                self.simple(id, op::NEXT_BUFFER);
            }
            Node::Tuple(items) if self.arena.children(items).is_empty() => self.out.push(op::EMPTY_TUPLE),
            Node::Tuple(items) => {
                let items = self.arena.children(items);
                if items.len() > 3 {
                    self.out.push(op::MARK);
                }
                self.later(id, items);
            }
            Node::FrozenSet(items) | Node::Obj(items) => {
                self.out.push(op::MARK);
                self.later(id, self.arena.children(items));
            }
            Node::Global { module: a, name: b }
            | Node::Reduce { function: a, args: b }
            | Node::NewObj { class: a, args: b } => self.later(id, &[a, b]),
            Node::NewObjEx { class, args, kwargs } => self.later(id, &[class, args, kwargs]),
            Node::ReadonlyBuffer(inner) => self.later(id, &[inner]),
        }
    }

    fn simple(&mut self, id: NodeId, opcode: u8) {
        self.out.push(opcode);
        self.created(id);
    }

    /// Writes the parts first, the node itself after them.
    fn later(&mut self, id: NodeId, parts: &[NodeId]) {
        self.work.push(Work::Finish(id));
        self.nodes(parts);
    }

    fn nodes(&mut self, ids: &[NodeId]) {
        self.work.extend(ids.iter().rev().map(|&id| Work::Node(id)));
    }

    /// The parts are on the stack.
    fn complete(&mut self, id: NodeId) {
        if self.is_memoised(id) {
            // A part's effects led back here and have written the node: drop the parts.
            match self.arena.node(id) {
                Node::Tuple(items) if self.arena.children(items).len() <= 3 => {
                    let count = self.arena.children(items).len();
                    self.out.extend(std::iter::repeat_n(op::POP, count));
                }
                Node::Tuple(_) | Node::FrozenSet(_) | Node::Obj(_) => self.out.push(op::POP_MARK),
                Node::NewObjEx { .. } => self.out.extend([op::POP; 3]),
                Node::ReadonlyBuffer(_) => self.out.push(op::POP),
                _ => self.out.extend([op::POP; 2]),
            }
            return self.get(id);
        }
        self.out.push(match self.arena.node(id) {
            Node::Tuple(items) => match self.arena.children(items).len() {
                1 => op::TUPLE1,
                2 => op::TUPLE2,
                3 => op::TUPLE3,
                _ => op::TUPLE,
            },
            Node::FrozenSet(_) => op::FROZENSET,
            Node::Obj(_) => op::OBJ,
            Node::Global { .. } => op::STACK_GLOBAL,
            Node::Reduce { .. } => op::REDUCE,
            Node::NewObj { .. } => op::NEWOBJ,
            Node::NewObjEx { .. } => op::NEWOBJ_EX,
            Node::ReadonlyBuffer(_) => op::READONLY_BUFFER,
            _ => unreachable!("only nodes with parts are finished"),
        });
        self.created(id);
    }

    /// The object is on the stack: memoise it if it is needed again, then change it.
    fn created(&mut self, id: NodeId) {
        if self.arena.is_shared(id) || self.root == Some(id) {
            self.memoise(id);
        }
        self.work.extend(self.arena.first_effect(id).map(|link| Work::Effect(id, link)));
    }

    fn start_effect(&mut self, id: NodeId, link: u32) {
        self.work.push(Work::EffectEnd(id, link));
        match self.arena.effect(id, link).0 {
            Effect::Append(item) | Effect::Build(item) => self.nodes(&[item]),
            Effect::SetItem(a, b) | Effect::Call { function: a, args: b } => self.nodes(&[a, b]),
            Effect::Appends(items) | Effect::SetItems(items) | Effect::AddItems(items) => {
                self.out.push(op::MARK);
                self.nodes(self.arena.children(items));
            }
        }
    }

    fn complete_effect(&mut self, id: NodeId, link: u32) {
        let (effect, next) = self.arena.effect(id, link);
        match effect {
            Effect::Append(_) => self.out.push(op::APPEND),
            Effect::Appends(_) => self.out.push(op::APPENDS),
            Effect::SetItem(..) => self.out.push(op::SETITEM),
            Effect::SetItems(_) => self.out.push(op::SETITEMS),
            Effect::AddItems(_) => self.out.push(op::ADDITEMS),
            Effect::Build(_) => self.out.push(op::BUILD),
            Effect::Call { .. } => self.out.extend([op::REDUCE, op::POP]),
        }
        self.work.extend(next.map(|link| Work::Effect(id, link)));
    }
}
