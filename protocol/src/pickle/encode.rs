//! Writing plain values as pickles.

use bytes::Bytes;

use super::opcode as op;
use super::value::{Opaque, PickleValue};

/// The protocol of the pickles made here; every supported Python reads it.
pub const PICKLE_PROTOCOL: u8 = 4;

/// Pickles a plain value. Opaque objects are spliced in; see [`Opaque`] for what they may be.
pub fn dumps_plain(value: &PickleValue) -> Bytes {
    let mut out = header();
    write_value(&mut out, value);
    out.push(op::STOP);
    out.into()
}

pub(crate) fn header() -> Vec<u8> {
    vec![op::PROTO, PICKLE_PROTOCOL]
}

/// Pushes a value on the stack of the pickle being written.
pub(crate) fn write_value(out: &mut Vec<u8>, value: &PickleValue) {
    match value {
        PickleValue::None => out.push(op::NONE),
        PickleValue::Bool(true) => out.push(op::NEWTRUE),
        PickleValue::Bool(false) => out.push(op::NEWFALSE),
        PickleValue::Int(i) => write_int(out, *i),
        PickleValue::UInt(u) => write_uint(out, *u),
        PickleValue::Float(f) => write_float(out, *f),
        PickleValue::Str(s) => write_str(out, s.as_bytes()),
        PickleValue::Bytes(b) => write_bytes(out, b),
        PickleValue::List(items) => {
            out.push(op::EMPTY_LIST);
            write_marked(out, items, op::APPENDS);
        }
        PickleValue::Tuple(items) => write_tuple(out, items),
        PickleValue::Set(items) => {
            out.push(op::EMPTY_SET);
            write_marked(out, items, op::ADDITEMS);
        }
        PickleValue::FrozenSet(items) => {
            out.push(op::MARK);
            items.iter().for_each(|item| write_value(out, item));
            out.push(op::FROZENSET);
        }
        PickleValue::Dict(entries) => {
            out.push(op::EMPTY_DICT);
            if entries.is_empty() {
                return;
            }
            out.push(op::MARK);
            for (key, value) in entries {
                write_value(out, key);
                write_value(out, value);
            }
            out.push(op::SETITEMS);
        }
        PickleValue::Opaque(object) => write_opaque(out, object),
    }
}

fn write_marked(out: &mut Vec<u8>, items: &[PickleValue], end: u8) {
    if items.is_empty() {
        return;
    }
    out.push(op::MARK);
    items.iter().for_each(|item| write_value(out, item));
    out.push(end);
}

pub(crate) fn write_tuple(out: &mut Vec<u8>, items: &[PickleValue]) {
    let end = match items.len() {
        0 => op::EMPTY_TUPLE,
        1 => op::TUPLE1,
        2 => op::TUPLE2,
        3 => op::TUPLE3,
        _ => op::TUPLE,
    };
    if end == op::TUPLE {
        out.push(op::MARK);
    }
    items.iter().for_each(|item| write_value(out, item));
    out.push(end);
}

/// An object travels as `pickle.loads(pickle, buffers=...)`, so that its memo and buffers stay its own.
fn write_opaque(out: &mut Vec<u8>, object: &Opaque) {
    let pickle = PickleValue::Bytes(object.pickle.clone());
    if object.buffers.is_empty() {
        write_global(out, "_pickle", "loads");
        write_tuple(out, &[pickle]);
    } else {
        write_global(out, "functools", "partial");
        write_global(out, "_pickle", "loads");
        out.push(op::TUPLE1);
        let buffers = PickleValue::List(object.buffers.iter().cloned().map(PickleValue::Bytes).collect());
        write_value(out, &PickleValue::Dict(vec![("buffers".into(), buffers)]));
        out.push(op::NEWOBJ_EX);
        write_tuple(out, &[pickle]);
    }
    out.push(op::REDUCE);
}

/// Pushes the object called `name` of `module`.
pub(crate) fn write_global(out: &mut Vec<u8>, module: &str, name: &str) {
    write_str(out, module.as_bytes());
    write_str(out, name.as_bytes());
    out.push(op::STACK_GLOBAL);
}

/// Pushes a `str` given as (possibly surrogate-carrying) UTF-8.
pub(crate) fn write_str(out: &mut Vec<u8>, text: &[u8]) {
    write_sized(out, text, op::SHORT_BINUNICODE, op::BINUNICODE, op::BINUNICODE8);
}

/// Pushes a `bytes`.
pub(crate) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_sized(out, bytes, op::SHORT_BINBYTES, op::BINBYTES, op::BINBYTES8);
}

fn write_sized(out: &mut Vec<u8>, content: &[u8], short: u8, medium: u8, long: u8) {
    if let Ok(len) = u8::try_from(content.len()) {
        out.extend([short, len]);
    } else if let Ok(len) = u32::try_from(content.len()) {
        out.push(medium);
        out.extend(len.to_le_bytes());
    } else {
        out.push(long);
        out.extend((content.len() as u64).to_le_bytes());
    }
    out.extend_from_slice(content);
}

/// Pushes an `int`.
pub(crate) fn write_int(out: &mut Vec<u8>, i: i64) {
    if let Ok(byte) = u8::try_from(i) {
        out.extend([op::BININT1, byte]);
    } else if let Ok(short) = u16::try_from(i) {
        out.push(op::BININT2);
        out.extend(short.to_le_bytes());
    } else if let Ok(int) = i32::try_from(i) {
        out.push(op::BININT);
        out.extend(int.to_le_bytes());
    } else {
        out.extend([op::LONG1, 8]);
        out.extend(i.to_le_bytes());
    }
}

fn write_uint(out: &mut Vec<u8>, u: u64) {
    out.extend([op::LONG1, 9]);
    out.extend(u.to_le_bytes());
    // LONG1 is two's complement: a clear ninth byte keeps the number positive.
    out.push(0);
}

/// Pushes a `float`.
pub(crate) fn write_float(out: &mut Vec<u8>, f: f64) {
    out.push(op::BINFLOAT);
    out.extend(f.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_values_have_the_bytes_python_writes() {
        assert_eq!(&dumps_plain(&PickleValue::Int(-1))[..], b"\x80\x04J\xff\xff\xff\xff.");
        assert_eq!(&dumps_plain(&PickleValue::UInt(1 << 63))[..], b"\x80\x04\x8a\x09\0\0\0\0\0\0\0\x80\0.");
        assert_eq!(&dumps_plain(&PickleValue::Tuple(vec!["a".into(), 1.into()]))[..], b"\x80\x04\x8c\x01aK\x01\x86.");
        assert_eq!(&dumps_plain(&PickleValue::Set(vec![]))[..], b"\x80\x04\x8f.");
    }
}
