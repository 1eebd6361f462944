//! Reads a pickle of any protocol into an [`Arena`], without executing it.
//!
//! Memory is linear in the pickle: every node, child and effect costs the pickle at least one byte. Nothing recurses.

use bytes::Bytes;

use super::arena::{Arena, Children, EMPTY_TUPLE, Effect, FALSE, NODES_MAX, NONE, Node, NodeId, TRUE};
use super::cursor::Cursor;
use super::error::PickleError;
use super::opcode as op;

/// Longest pickle read: positions are kept in 32 bits.
pub(crate) const PICKLE_BYTES_MAX: usize = u32::MAX as usize;

/// Highest pickle protocol known.
const PROTOCOL_MAX: u8 = 5;

const UNSET: NodeId = NodeId::MAX;

/// Reads `pickle`, whose out-of-band buffers number `buffers`.
pub(crate) fn read(pickle: &Bytes, buffers: usize) -> Result<Arena, PickleError> {
    if pickle.len() > PICKLE_BYTES_MAX {
        return Err(PickleError::TooLarge { what: "a length", actual: pickle.len(), limit: PICKLE_BYTES_MAX });
    }
    let mut reader = Reader {
        cursor: Cursor::new(pickle),
        arena: Arena::new(pickle.clone()),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        memo_len: 0,
        last_memoised: UNSET,
        buffers_used: 0,
        buffers,
    };
    reader.run()?;
    Ok(reader.arena)
}

struct Reader<'a> {
    cursor: Cursor<'a>,
    arena: Arena,
    stack: Vec<NodeId>,
    /// Stack heights at which a mark lies.
    marks: Vec<usize>,
    memo: Vec<NodeId>,
    /// Entries of `memo` that are set.
    memo_len: usize,
    last_memoised: NodeId,
    buffers_used: usize,
    buffers: usize,
}

impl Reader<'_> {
    fn run(&mut self) -> Result<(), PickleError> {
        loop {
            let opcode = self.cursor.opcode()?;
            if opcode == op::STOP {
                self.arena.root = self.pop()?;
                self.arena.use_all(&[self.arena.root]);
                return Ok(());
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            op::PROTO => self.proto(),
            op::FRAME => self.cursor.take(8).map(drop),
            op::MARK => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            op::POP => self.pop_opcode(),
            op::POP_MARK => self.pop_to_mark().map(drop),
            op::DUP => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }
            op::NONE => self.push_id(NONE),
            op::NEWTRUE => self.push_id(TRUE),
            op::NEWFALSE => self.push_id(FALSE),
            op::EMPTY_TUPLE => self.push_id(EMPTY_TUPLE),
            op::EMPTY_LIST => self.push(Node::List),
            op::EMPTY_DICT => self.push(Node::Dict),
            op::EMPTY_SET => self.push(Node::Set),
            op::BININT | op::BININT1 | op::BININT2 | op::LONG1 | op::LONG4 | op::BINFLOAT => self.number(opcode),
            op::INT | op::LONG | op::FLOAT | op::STRING | op::UNICODE => self.text_atom(opcode),
            op::SHORT_BINUNICODE | op::BINUNICODE | op::BINUNICODE8 => {
                let span = self.cursor.counted(opcode)?;
                self.push(Node::Str(span))
            }
            op::SHORT_BINBYTES | op::BINBYTES | op::BINBYTES8 => {
                let span = self.cursor.counted(opcode)?;
                self.push(Node::Bytes(span))
            }
            op::BYTEARRAY8 => {
                let span = self.cursor.counted(opcode)?;
                self.push(Node::ByteArray(span))
            }
            op::SHORT_BINSTRING | op::BINSTRING => {
                self.cursor.counted(opcode)?;
                let span = self.cursor.instruction();
                self.push(Node::Raw(span))
            }
            op::NEXT_BUFFER | op::READONLY_BUFFER => self.buffer(opcode),
            op::PUT | op::BINPUT | op::LONG_BINPUT | op::MEMOIZE => self.put(opcode),
            op::GET | op::BINGET | op::LONG_BINGET => self.get(opcode),
            op::TUPLE1 => self.tuple(1),
            op::TUPLE2 => self.tuple(2),
            op::TUPLE3 => self.tuple(3),
            op::TUPLE | op::FROZENSET | op::LIST | op::DICT | op::OBJ | op::INST => self.collection(opcode),
            op::APPEND | op::SETITEM | op::BUILD | op::APPENDS | op::SETITEMS | op::ADDITEMS => self.effect(opcode),
            op::GLOBAL | op::STACK_GLOBAL => self.global(opcode),
            op::REDUCE | op::NEWOBJ | op::NEWOBJ_EX => self.construct(opcode),
            op::PERSID | op::BINPERSID => Err(PickleError::unsupported("it uses persistent ids")),
            op::EXT1 | op::EXT2 | op::EXT4 => Err(PickleError::unsupported("it uses the extension registry")),
            _ => Err(self.cursor.malformed("unknown opcode")),
        }
    }

    // The stack.

    fn push(&mut self, node: Node) -> Result<(), PickleError> {
        let id = self.add(node)?;
        self.push_id(id)
    }

    fn add(&mut self, node: Node) -> Result<NodeId, PickleError> {
        if self.arena.len() >= NODES_MAX {
            return Err(PickleError::TooLarge {
                what: "an object count",
                actual: self.arena.len() + 1,
                limit: NODES_MAX,
            });
        }
        Ok(self.arena.add(node))
    }

    fn push_id(&mut self, id: NodeId) -> Result<(), PickleError> {
        self.stack.push(id);
        Ok(())
    }

    /// Height below which opcodes may not reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn require(&self, count: usize) -> Result<(), PickleError> {
        if self.stack.len() < self.floor() + count {
            return Err(self.cursor.malformed("the stack is too short"));
        }
        Ok(())
    }

    fn pop(&mut self) -> Result<NodeId, PickleError> {
        self.require(1)?;
        Ok(self.stack.pop().expect("checked above"))
    }

    fn top(&self) -> Result<NodeId, PickleError> {
        self.require(1)?;
        Ok(*self.stack.last().expect("checked above"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<NodeId>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.cursor.malformed("there is no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    /// Like [`Reader::pop_to_mark`], straight into the child pool.
    fn pool_to_mark(&mut self) -> Result<Children, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.cursor.malformed("there is no mark"))?;
        let children = self.arena.pool(&self.stack[mark..]);
        self.stack.truncate(mark);
        Ok(children)
    }

    // The opcodes.

    fn proto(&mut self) -> Result<(), PickleError> {
        let protocol = self.cursor.byte()?;
        if protocol > PROTOCOL_MAX {
            return Err(PickleError::unsupported(format!("it has protocol {protocol}")));
        }
        self.arena.set_protocol(protocol);
        Ok(())
    }

    /// A call whose result is dropped at once sets the state of its first argument: `REDUCE`, `POP`.
    fn pop_opcode(&mut self) -> Result<(), PickleError> {
        if self.stack.len() == self.floor() && self.marks.pop().is_some() {
            return Ok(());
        }
        let id = self.pop()?;
        let newest = id as usize + 1 == self.arena.len();
        let Node::Reduce { function, args } = self.arena.node(id) else { return Ok(()) };
        if !newest || id == self.last_memoised {
            return Ok(());
        }
        let Node::Tuple(items) = self.arena.node(args) else {
            return Err(PickleError::unsupported("it drops the result of a call"));
        };
        let object = self.arena.children(items).first().copied();
        let object = object.filter(|&object| takes_effects(self.arena.node(object)));
        let object = object.ok_or_else(|| PickleError::unsupported("it drops the result of a call"))?;
        self.arena.add_effect(object, Effect::Call { function, args });
        Ok(())
    }

    fn number(&mut self, opcode: u8) -> Result<(), PickleError> {
        let node = match opcode {
            op::BININT1 => Node::Int(i64::from(self.cursor.byte()?)),
            op::BININT2 => Node::Int(i64::from(u16::from_le_bytes(self.cursor.array()?))),
            op::BININT => Node::Int(i64::from(i32::from_le_bytes(self.cursor.array()?))),
            op::BINFLOAT => Node::Float(f64::from_be_bytes(self.cursor.array()?)),
            _ => {
                let len = if opcode == op::LONG1 {
                    usize::from(self.cursor.byte()?)
                } else {
                    let len = i32::from_le_bytes(self.cursor.array()?);
                    usize::try_from(len).map_err(|_| self.cursor.malformed("a length is negative"))?
                };
                let small = small_long(self.cursor.take(len)?);
                small.map_or_else(|| Node::Raw(self.cursor.instruction()), Node::Int)
            }
        };
        self.push(node)
    }

    fn text_atom(&mut self, opcode: u8) -> Result<(), PickleError> {
        let line = self.cursor.line()?;
        let raw = Node::Raw(self.cursor.instruction());
        let bytes = self.cursor.bytes(line);
        let node = match (opcode, bytes) {
            (op::INT, b"00") => return self.push_id(FALSE),
            (op::INT, b"01") => return self.push_id(TRUE),
            (op::INT | op::LONG, digits) => {
                let digits = digits.strip_suffix(b"L").unwrap_or(digits);
                std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).map_or(raw, Node::Int)
            }
            // An escape-free line of ASCII is its own text.
            (op::UNICODE, text) if text.is_ascii() && !text.contains(&b'\\') => Node::Str(line),
            _ => raw,
        };
        self.push(node)
    }

    fn buffer(&mut self, opcode: u8) -> Result<(), PickleError> {
        if opcode == op::READONLY_BUFFER {
            let inner = self.pop()?;
            return self.push(Node::ReadonlyBuffer(inner));
        }
        if self.buffers_used >= self.buffers {
            return Err(self.cursor.malformed("it asks for more buffers than came with it"));
        }
        let index = u32::try_from(self.buffers_used).expect("each buffer took a byte of pickle");
        self.buffers_used += 1;
        self.push(Node::Buffer(index))
    }

    fn put(&mut self, opcode: u8) -> Result<(), PickleError> {
        let index = match opcode {
            op::MEMOIZE => self.memo_len,
            _ => self.memo_index(opcode)?,
        };
        // Picklers number their entries; an index beyond the bytes read only wastes memory.
        if index > self.cursor.position() {
            return Err(self.cursor.malformed("a memo index is out of line"));
        }
        if index >= self.memo.len() {
            self.memo.resize(index + 1, UNSET);
        }
        let top = self.top()?;
        if self.memo[index] == UNSET {
            self.memo_len += 1;
        }
        self.memo[index] = top;
        self.last_memoised = top;
        Ok(())
    }

    fn get(&mut self, opcode: u8) -> Result<(), PickleError> {
        let index = self.memo_index(opcode)?;
        let id = self.memo.get(index).copied().filter(|&id| id != UNSET);
        let id = id.ok_or_else(|| self.cursor.malformed("a memo entry is missing"))?;
        self.push_id(id)
    }

    fn memo_index(&mut self, opcode: u8) -> Result<usize, PickleError> {
        match opcode {
            op::BINPUT | op::BINGET => Ok(usize::from(self.cursor.byte()?)),
            op::LONG_BINPUT | op::LONG_BINGET => Ok(u32::from_le_bytes(self.cursor.array()?) as usize),
            _ => self.cursor.line_text()?.parse().map_err(|_| self.cursor.malformed("a memo index is not a number")),
        }
    }

    fn tuple(&mut self, len: usize) -> Result<(), PickleError> {
        self.require(len)?;
        let start = self.stack.len() - len;
        let children = self.arena.pool(&self.stack[start..]);
        self.stack.truncate(start);
        self.push(Node::Tuple(children))
    }

    fn collection(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            op::LIST | op::DICT => {
                let items = self.pool_to_mark()?;
                let count = self.arena.children(items).len();
                let (node, effect) = match opcode {
                    op::LIST => (Node::List, Effect::Appends(items)),
                    _ => (Node::Dict, Effect::SetItems(items)),
                };
                if opcode == op::DICT && !count.is_multiple_of(2) {
                    return Err(self.cursor.malformed("a dict has an odd number of items"));
                }
                let id = self.add(node)?;
                if count > 0 {
                    self.arena.add_effect(id, effect);
                }
                self.push_id(id)
            }
            op::INST => {
                let class = self.global_from_lines()?;
                let args = self.pop_to_mark()?;
                let parts: Vec<NodeId> = std::iter::once(class).chain(args).collect();
                let parts = self.arena.pool(&parts);
                self.push(Node::Obj(parts))
            }
            _ => {
                let items = self.pool_to_mark()?;
                match opcode {
                    op::FROZENSET => self.push(Node::FrozenSet(items)),
                    op::OBJ if self.arena.children(items).is_empty() => {
                        Err(self.cursor.malformed("an object has no class"))
                    }
                    op::OBJ => self.push(Node::Obj(items)),
                    _ if self.arena.children(items).is_empty() => self.push_id(EMPTY_TUPLE),
                    _ => self.push(Node::Tuple(items)),
                }
            }
        }
    }

    fn effect(&mut self, opcode: u8) -> Result<(), PickleError> {
        let effect = match opcode {
            op::APPEND => Effect::Append(self.pop()?),
            op::BUILD => Effect::Build(self.pop()?),
            op::SETITEM => {
                let value = self.pop()?;
                Effect::SetItem(self.pop()?, value)
            }
            _ => {
                let items = self.pool_to_mark()?;
                match (opcode, self.arena.children(items).len()) {
                    (_, 0) => return self.top().map(drop),
                    (op::APPENDS, _) => Effect::Appends(items),
                    (op::ADDITEMS, _) => Effect::AddItems(items),
                    (_, count) if count.is_multiple_of(2) => Effect::SetItems(items),
                    _ => return Err(self.cursor.malformed("a dict has an odd number of items")),
                }
            }
        };
        let base = self.top()?;
        if !takes_effects(self.arena.node(base)) {
            return Err(PickleError::unsupported("it changes an object that is not its own"));
        }
        self.arena.add_effect(base, effect);
        Ok(())
    }

    fn global(&mut self, opcode: u8) -> Result<(), PickleError> {
        if opcode == op::GLOBAL {
            let id = self.global_from_lines()?;
            return self.push_id(id);
        }
        let name = self.pop()?;
        let module = self.pop()?;
        for part in [module, name] {
            if !matches!(self.arena.node(part), Node::Str(_)) {
                return Err(self.cursor.malformed("a global's name is not text"));
            }
        }
        self.push(Node::Global { module, name })
    }

    fn global_from_lines(&mut self) -> Result<NodeId, PickleError> {
        let module = self.cursor.line()?;
        let name = self.cursor.line()?;
        let module = self.add(Node::Str(module))?;
        let name = self.add(Node::Str(name))?;
        self.add(Node::Global { module, name })
    }

    fn construct(&mut self, opcode: u8) -> Result<(), PickleError> {
        let last = self.pop()?;
        let middle = self.pop()?;
        match opcode {
            op::REDUCE => self.push(Node::Reduce { function: middle, args: last }),
            op::NEWOBJ => self.push(Node::NewObj { class: middle, args: last }),
            _ => {
                let class = self.pop()?;
                self.push(Node::NewObjEx { class, args: middle, kwargs: last })
            }
        }
    }
}

/// Whether opcodes may change what this node stands for: it was made by this pickle and is mutable.
fn takes_effects(node: Node) -> bool {
    match node {
        Node::List
        | Node::Dict
        | Node::Set
        | Node::ByteArray(_)
        | Node::Reduce { .. }
        | Node::NewObj { .. }
        | Node::NewObjEx { .. }
        | Node::Obj(_) => true,
        Node::None
        | Node::True
        | Node::False
        | Node::Int(_)
        | Node::Float(_)
        | Node::Str(_)
        | Node::Bytes(_)
        | Node::Raw(_)
        | Node::Name(_)
        | Node::Global { .. }
        | Node::Tuple(_)
        | Node::FrozenSet(_)
        | Node::Buffer(_)
        | Node::ReadonlyBuffer(_) => false,
    }
}

/// A little-endian two's complement number of at most eight bytes.
fn small_long(bytes: &[u8]) -> Option<i64> {
    if bytes.len() > 8 {
        return None;
    }
    let negative = bytes.last().is_some_and(|&byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Some(i64::from_le_bytes(wide))
}
