//! Reading small pickled fields (`annotations`, `code`, `span_metadata`) as plain values.

use bytes::Bytes;

use super::arena::{Arena, Node, NodeId, Span};
use super::error::PickleError;
use super::opcode as op;
use super::reader;
use super::value::{Opaque, PickleValue};
use super::writer::{Writer, Written};

/// Deepest nesting of plain values.
pub(crate) const PLAIN_DEPTH_MAX: usize = 100;

/// Most plain values one pickle may stand for: sharing in a pickle could make a few bytes an astronomic tree.
pub(crate) const PLAIN_VALUES_MAX: usize = 1 << 18;

/// Bytes that the pickles of opaque objects may have in total, per byte read, beyond [`OPAQUE_BYTES_BASE`].
const OPAQUE_BYTES_FACTOR: usize = 16;
const OPAQUE_BYTES_BASE: usize = 1 << 16;

/// Reads a small pickle. Objects that only Python can build are kept as [`PickleValue::Opaque`].
///
/// # Errors
/// [`PickleError`] when the bytes are malformed, over a limit, recursive, or hold an integer beyond 64 bits.
pub fn loads_plain(pickle: &Bytes, buffers: &[Bytes]) -> Result<PickleValue, PickleError> {
    let arena = reader::read(pickle, buffers.len())?;
    Decoder::new(&arena, buffers, pickle.len()).decode(arena.root, 0)
}

/// Turns nodes of one pickle into plain values.
pub(super) struct Decoder<'a> {
    arena: &'a Arena,
    buffers: &'a [Bytes],
    writer: Writer<'a>,
    values: usize,
}

impl<'a> Decoder<'a> {
    /// For a pickle of `pickle_bytes` bytes, which bounds what its objects may take.
    pub fn new(arena: &'a Arena, buffers: &'a [Bytes], pickle_bytes: usize) -> Decoder<'a> {
        let bytes_max = OPAQUE_BYTES_BASE.saturating_add(pickle_bytes.saturating_mul(OPAQUE_BYTES_FACTOR));
        Decoder { arena, buffers, writer: Writer::new(arena, bytes_max), values: 0 }
    }

    pub fn decode(&mut self, id: NodeId, depth: usize) -> Result<PickleValue, PickleError> {
        self.values += 1;
        if self.values > PLAIN_VALUES_MAX {
            return Err(PickleError::TooLarge { what: "a value count", actual: self.values, limit: PLAIN_VALUES_MAX });
        }
        if depth > PLAIN_DEPTH_MAX {
            return Err(PickleError::TooLarge { what: "a depth", actual: depth, limit: PLAIN_DEPTH_MAX });
        }
        match self.arena.node(id) {
            Node::None => Ok(PickleValue::None),
            Node::True => Ok(PickleValue::Bool(true)),
            Node::False => Ok(PickleValue::Bool(false)),
            Node::Int(i) => Ok(PickleValue::Int(i)),
            Node::Float(f) => Ok(PickleValue::Float(f)),
            Node::Str(_) | Node::Name(_) => match self.arena.str(id) {
                Some(text) => Ok(PickleValue::from(text)),
                None => self.opaque(id, depth),
            },
            Node::Bytes(span) => Ok(PickleValue::Bytes(self.arena.shared_bytes(span))),
            Node::ByteArray(span) if self.arena.first_effect(id).is_none() => {
                Ok(PickleValue::Bytes(self.arena.shared_bytes(span)))
            }
            Node::Raw(span) => self.raw(id, span, depth),
            Node::Tuple(items) => Ok(PickleValue::Tuple(self.decode_all(self.arena.children(items), depth)?)),
            Node::List => match self.arena.sequence(id) {
                Some(items) => Ok(PickleValue::List(self.decode_all(&items, depth)?)),
                None => self.opaque(id, depth),
            },
            Node::Set => match self.arena.set_items(id) {
                Some(items) => Ok(PickleValue::Set(self.decode_all(&items, depth)?)),
                None => self.opaque(id, depth),
            },
            Node::FrozenSet(items) => Ok(PickleValue::FrozenSet(self.decode_all(self.arena.children(items), depth)?)),
            Node::Dict => match self.arena.dict_items(id) {
                Some(items) => self.dict(&items, depth),
                None => self.opaque(id, depth),
            },
            Node::Reduce { function, args } => match self.old_set(id, function, args, depth)? {
                Some(set) => Ok(set),
                None => self.opaque(id, depth),
            },
            Node::ByteArray(_)
            | Node::Global { .. }
            | Node::NewObj { .. }
            | Node::NewObjEx { .. }
            | Node::Obj(_)
            | Node::Buffer(_)
            | Node::ReadonlyBuffer(_) => self.opaque(id, depth),
        }
    }

    fn decode_all(&mut self, ids: &[NodeId], depth: usize) -> Result<Vec<PickleValue>, PickleError> {
        ids.iter().map(|&id| self.decode(id, depth + 1)).collect()
    }

    fn dict(&mut self, items: &[NodeId], depth: usize) -> Result<PickleValue, PickleError> {
        let entry = |pair: &[NodeId]| Ok((self.decode(pair[0], depth + 1)?, self.decode(pair[1], depth + 1)?));
        items.chunks_exact(2).map(entry).collect::<Result<_, _>>().map(PickleValue::Dict)
    }

    /// Protocols before 4 write sets as calls.
    fn old_set(
        &mut self,
        id: NodeId,
        function: NodeId,
        args: NodeId,
        depth: usize,
    ) -> Result<Option<PickleValue>, PickleError> {
        let Some(("builtins" | "__builtin__", name @ ("set" | "frozenset"))) = self.arena.global(function) else {
            return Ok(None);
        };
        let frozen = name == "frozenset";
        let Node::Tuple(args) = self.arena.node(args) else { return Ok(None) };
        let &[list] = self.arena.children(args) else { return Ok(None) };
        let (Some(items), None) = (self.arena.sequence(list), self.arena.first_effect(id)) else { return Ok(None) };
        let items = self.decode_all(&items, depth)?;
        Ok(Some(if frozen { PickleValue::FrozenSet(items) } else { PickleValue::Set(items) }))
    }

    /// An atom that was kept with its opcode: a number of unusual spelling, or old text.
    fn raw(&mut self, id: NodeId, span: Span, depth: usize) -> Result<PickleValue, PickleError> {
        let bytes = self.arena.bytes(span);
        let line = || std::str::from_utf8(&bytes[1..bytes.len() - 1]).ok();
        let number = match bytes[0] {
            op::FLOAT => line().and_then(|text| text.trim().parse().ok()).map(PickleValue::Float),
            op::INT | op::LONG => {
                line().and_then(|text| text.trim_end_matches('L').parse().ok()).map(PickleValue::UInt)
            }
            // Nine bytes with a clear last one: a positive number of 64 bits.
            op::LONG1 if bytes.len() == 11 && bytes[10] == 0 => {
                let low: [u8; 8] = bytes[2..10].try_into().expect("eight bytes");
                Some(PickleValue::UInt(u64::from_le_bytes(low)))
            }
            op::LONG1 | op::LONG4 => None,
            _ => return self.opaque(id, depth),
        };
        number.ok_or_else(|| PickleError::unsupported("it holds a number beyond 64 bits"))
    }

    fn opaque(&mut self, id: NodeId, depth: usize) -> Result<PickleValue, PickleError> {
        let Written { opcodes, buffers } = self.writer.whole(id)?;
        let mut object = Opaque {
            pickle: opcodes.into(),
            buffers: buffers.iter().map(|&index| self.buffers[index as usize].clone()).collect(),
            ..Opaque::default()
        };
        let (class, args) = match self.arena.node(id) {
            Node::Reduce { function, args } => (function, Some(args)),
            Node::NewObj { class, args } => (class, Some(args)),
            _ => (id, None),
        };
        if let Some((module, name)) = self.arena.global(class) {
            object.module = module.to_owned();
            object.name = name.to_owned();
            if let (Some(args), None) = (args, self.arena.first_effect(id))
                && let Node::Tuple(args) = self.arena.node(args)
            {
                object.args = self.decode_all(self.arena.children(args), depth)?;
            }
        }
        Ok(PickleValue::Opaque(Box::new(object)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pickle::dumps_plain;

    fn loads(pickle: &'static [u8]) -> Result<PickleValue, PickleError> {
        loads_plain(&Bytes::from_static(pickle), &[])
    }

    #[test]
    fn plain_values_survive_a_round_trip() {
        let value = PickleValue::Dict(vec![
            ("tuple".into(), PickleValue::Tuple(vec![1.into(), PickleValue::None, true.into(), 0.5.into()])),
            ("list".into(), PickleValue::List(vec![PickleValue::Int(i64::MIN), PickleValue::UInt(u64::MAX)])),
            (
                "sets".into(),
                PickleValue::Tuple(vec![
                    PickleValue::Set(vec!["a".into()]),
                    PickleValue::FrozenSet(vec![]),
                    PickleValue::Bytes(Bytes::from_static(b"x")),
                ]),
            ),
        ]);
        assert_eq!(loads_plain(&dumps_plain(&value), &[]), Ok(value));
    }

    #[test]
    fn old_protocols_are_read() {
        // pickle.dumps({"a": [1, 2.5, True, 10**10], "s": {1}}, protocol=0)
        let old = b"(dp0\nVa\np1\n(lp2\nI1\naF2.5\naI01\naL10000000000L\nasVs\np3\nc__builtin__\nset\np4\n((lp5\nI1\natp6\nRp7\ns.";
        let list = vec![1.into(), 2.5.into(), true.into(), PickleValue::Int(10_000_000_000)];
        let expected = PickleValue::Dict(vec![
            ("a".into(), PickleValue::List(list)),
            ("s".into(), PickleValue::Set(vec![1.into()])),
        ]);
        assert_eq!(loads(old), Ok(expected));
    }

    #[test]
    fn integers_beyond_64_bits_are_refused() {
        assert_eq!(
            loads(b"\x80\x04\x8a\x09\0\0\0\0\0\0\0\0\x01."),
            Err(PickleError::unsupported("it holds a number beyond 64 bits"))
        );
    }

    #[test]
    fn named_tuples_stay_opaque_but_show_their_fields() {
        let point = b"\x80\x04\x8c\x01m\x8c\x05Point\x93K\x01K\x02\x86\x81.";
        let Ok(PickleValue::Opaque(object)) = loads(point) else { panic!("a named tuple is opaque") };
        assert_eq!((object.module.as_str(), object.name.as_str()), ("m", "Point"));
        assert_eq!(object.args, vec![1.into(), 2.into()]);
        assert_eq!(&object.pickle[..], b"\x80\x04\x8c\x01m\x8c\x05Point\x93K\x01K\x02\x86\x81\x94.");
    }

    #[test]
    fn recursive_and_exploding_values_are_refused() {
        // l = []; l.append(l)
        assert!(matches!(loads(b"\x80\x04]\x94h\x00a."), Err(PickleError::TooLarge { .. })));
        // Forty tuples, each twice in the next.
        let mut bomb = b"\x80\x04N".to_vec();
        bomb.extend(b"2\x86".repeat(40));
        bomb.push(b'.');
        assert!(matches!(loads_plain(&bomb.into(), &[]), Err(PickleError::TooLarge { .. })));
    }
}
