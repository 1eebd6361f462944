//! Numbers that are numpy scalars: array code computes with block numbers, and some of them end up in task keys.
//!
//! A scalar is pickled as a call of numpy's `scalar` with a dtype and its bytes; the dtype is a call of its own, with its
//! byte order in the state that is built into it.

use super::arena::{Arena, Effect, Node, NodeId};
use crate::key::Key;

/// The key that equals the numpy scalar `id` in Python; none if it is something else.
pub(crate) fn scalar_key(arena: &Arena, id: NodeId) -> Option<Key> {
    let Node::Reduce { function, args } = arena.node(id) else { return None };
    let Some(("numpy._core.multiarray" | "numpy.core.multiarray", "scalar")) = arena.global(function) else {
        return None;
    };
    let Node::Tuple(args) = arena.node(args) else { return None };
    let &[dtype, bytes] = arena.children(args) else { return None };
    let Node::Bytes(span) = arena.node(bytes) else { return None };
    let mut bytes = smallvec::SmallVec::<[u8; 8]>::from_slice(arena.bytes(span));
    if is_big_endian(arena, dtype) {
        bytes.reverse();
    }
    number(kind(arena, dtype)?, &bytes)
}

/// The dtype's name, such as `i8`.
fn kind(arena: &Arena, dtype: NodeId) -> Option<&str> {
    let Node::Reduce { function, args } = arena.node(dtype) else { return None };
    let Node::Tuple(args) = arena.node(args) else { return None };
    if arena.global(function) != Some(("numpy", "dtype")) {
        return None;
    }
    arena.str(*arena.children(args).first()?)
}

fn is_big_endian(arena: &Arena, dtype: NodeId) -> bool {
    arena.effects(dtype).any(|effect| {
        let Effect::Build(state) = effect else { return false };
        let Node::Tuple(state) = arena.node(state) else { return false };
        arena.children(state).get(1).and_then(|&order| arena.str(order)) == Some(">")
    })
}

/// A number from its bytes, the lowest first.
fn number(kind: &str, bytes: &[u8]) -> Option<Key> {
    Some(match kind {
        "b1" => Key::from(i64::from(u8::from_le_bytes(bytes.try_into().ok()?) != 0)),
        "i1" => Key::from(i64::from(i8::from_le_bytes(bytes.try_into().ok()?))),
        "i2" => Key::from(i64::from(i16::from_le_bytes(bytes.try_into().ok()?))),
        "i4" => Key::from(i64::from(i32::from_le_bytes(bytes.try_into().ok()?))),
        "i8" => Key::from(i64::from_le_bytes(bytes.try_into().ok()?)),
        "u1" => Key::from(u64::from(u8::from_le_bytes(bytes.try_into().ok()?))),
        "u2" => Key::from(u64::from(u16::from_le_bytes(bytes.try_into().ok()?))),
        "u4" => Key::from(u64::from(u32::from_le_bytes(bytes.try_into().ok()?))),
        "u8" => Key::from(u64::from_le_bytes(bytes.try_into().ok()?)),
        "f4" => Key::float(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
        "f8" => Key::float(f64::from_le_bytes(bytes.try_into().ok()?)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::pickle::reader;

    /// What `pickle.dumps(scalar)` of numpy writes, for a dtype, byte order and bytes.
    fn pickled(kind: &str, order: u8, value: &[u8]) -> Bytes {
        let mut pickle =
            b"\x80\x04\x8c\x16numpy._core.multiarray\x8c\x06scalar\x93\x8c\x05numpy\x8c\x05dtype\x93".to_vec();
        pickle.extend([b"\x8c\x02", kind.as_bytes(), b"\x89\x88\x87R(K\x03\x8c\x01"].concat());
        pickle.push(order);
        pickle.extend(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbC");
        pickle.push(u8::try_from(value.len()).expect("a scalar is short"));
        pickle.extend([value, b"\x86R."].concat());
        pickle.into()
    }

    fn key_of(pickle: &Bytes) -> Option<Key> {
        let arena = reader::read(pickle, 0).expect("a pickle");
        scalar_key(&arena, arena.root)
    }

    #[test]
    fn numpy_numbers_are_the_keys_they_equal() {
        for (pickle, key) in [
            (pickled("i8", b'<', &(-3_i64).to_le_bytes()), Key::from(-3_i64)),
            (pickled("i4", b'>', &7_i32.to_be_bytes()), Key::from(7_i64)),
            (pickled("u8", b'<', &u64::MAX.to_le_bytes()), Key::from(u64::MAX)),
            (pickled("f4", b'<', &1.5_f32.to_le_bytes()), Key::float(1.5)),
            (pickled("b1", b'|', &[1]), Key::from(1_i64)),
        ] {
            assert_eq!(key_of(&pickle), Some(key));
        }
    }

    #[test]
    fn other_numpy_scalars_are_no_keys() {
        assert_eq!(key_of(&pickled("M8", b'<', &[0; 8])), None);
        assert_eq!(key_of(&pickled("i8", b'<', &[0; 4])), None);
    }
}
