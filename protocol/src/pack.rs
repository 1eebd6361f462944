//! Writing msgpack from types that implement [`Serialize`].
//!
//! It writes the bytes that `rmp_serde::to_vec_named` writes; a test holds one against the other. It is here because every task
//! costs several messages: lengths, names and texts go into the buffer in one piece each.

use std::fmt;

use serde::ser::{self, Serialize};

/// A value that msgpack or dask has no form for.
#[derive(Debug)]
pub(crate) struct PackError(String);

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PackError {}

impl ser::Error for PackError {
    fn custom<T: fmt::Display>(message: T) -> PackError {
        PackError(message.to_string())
    }
}

/// Packs one value, with structs as maps of their fields.
///
/// # Errors
/// [`PackError`] when something in it has no form, or takes more than 4 GiB.
pub(crate) fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, PackError> {
    let mut packer = Packer { out: Vec::with_capacity(CAPACITY) };
    value.serialize(&mut packer)?;
    Ok(packer.out)
}

/// Room for a small message.
const CAPACITY: usize = 256;

struct Packer {
    out: Vec<u8>,
}

#[cold]
fn too_long(what: &str, len: usize) -> PackError {
    PackError(format!("{what} of {len} is too long for msgpack"))
}

impl Packer {
    #[inline]
    fn marked<const N: usize>(&mut self, marker: u8, bytes: [u8; N]) {
        self.out.push(marker);
        self.out.extend_from_slice(&bytes);
    }

    #[inline]
    fn text(&mut self, text: &str) -> Result<(), PackError> {
        match text.len() {
            len @ 0..32 => self.out.push(0xa0 | len as u8),
            len @ 32..0x100 => self.marked(0xd9, [len as u8]),
            len => self.length("a text", len, 0xda, 0xdb)?,
        }
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// A length of 16 or 32 bits.
    fn length(&mut self, what: &str, len: usize, marker16: u8, marker32: u8) -> Result<(), PackError> {
        if let Ok(short) = u16::try_from(len) {
            self.marked(marker16, short.to_be_bytes());
        } else if let Ok(long) = u32::try_from(len) {
            self.marked(marker32, long.to_be_bytes());
        } else {
            return Err(too_long(what, len));
        }
        Ok(())
    }

    #[inline]
    fn array(&mut self, len: usize) -> Result<(), PackError> {
        match len {
            0..16 => self.out.push(0x90 | len as u8),
            _ => self.length("an array", len, 0xdc, 0xdd)?,
        }
        Ok(())
    }

    #[inline]
    fn map(&mut self, len: usize) -> Result<(), PackError> {
        match len {
            0..16 => self.out.push(0x80 | len as u8),
            _ => self.length("a map", len, 0xde, 0xdf)?,
        }
        Ok(())
    }

    #[inline]
    fn parts(&mut self) -> Parts<'_> {
        Parts { packer: self, counted: None }
    }

    /// The parts of something whose number is known at its end.
    fn counted(&mut self) -> Parts<'_> {
        let counted = Some(Counted { start: self.out.len(), count: 0 });
        Parts { packer: self, counted }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "each is in the range of its arm")]
impl<'a> ser::Serializer for &'a mut Packer {
    type Ok = ();
    type Error = PackError;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = Parts<'a>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Parts<'a>;

    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn serialize_bool(self, it: bool) -> Result<(), PackError> {
        self.out.push(if it { 0xc3 } else { 0xc2 });
        Ok(())
    }

    fn serialize_i8(self, it: i8) -> Result<(), PackError> {
        self.serialize_i64(it.into())
    }

    fn serialize_i16(self, it: i16) -> Result<(), PackError> {
        self.serialize_i64(it.into())
    }

    fn serialize_i32(self, it: i32) -> Result<(), PackError> {
        self.serialize_i64(it.into())
    }

    #[inline]
    fn serialize_i64(self, it: i64) -> Result<(), PackError> {
        match it {
            0.. => return self.serialize_u64(it.unsigned_abs()),
            -32..0 => self.out.push(it as u8),
            -0x80..-32 => self.marked(0xd0, (it as i8).to_be_bytes()),
            -0x8000..-0x80 => self.marked(0xd1, (it as i16).to_be_bytes()),
            -0x8000_0000..-0x8000 => self.marked(0xd2, (it as i32).to_be_bytes()),
            _ => self.marked(0xd3, it.to_be_bytes()),
        }
        Ok(())
    }

    fn serialize_u8(self, it: u8) -> Result<(), PackError> {
        self.serialize_u64(it.into())
    }

    fn serialize_u16(self, it: u16) -> Result<(), PackError> {
        self.serialize_u64(it.into())
    }

    fn serialize_u32(self, it: u32) -> Result<(), PackError> {
        self.serialize_u64(it.into())
    }

    #[inline]
    fn serialize_u64(self, it: u64) -> Result<(), PackError> {
        match it {
            0..0x80 => self.out.push(it as u8),
            0x80..0x100 => self.marked(0xcc, [it as u8]),
            0x100..0x1_0000 => self.marked(0xcd, (it as u16).to_be_bytes()),
            0x1_0000..0x1_0000_0000 => self.marked(0xce, (it as u32).to_be_bytes()),
            _ => self.marked(0xcf, it.to_be_bytes()),
        }
        Ok(())
    }

    fn serialize_f32(self, it: f32) -> Result<(), PackError> {
        self.marked(0xca, it.to_be_bytes());
        Ok(())
    }

    #[inline]
    fn serialize_f64(self, it: f64) -> Result<(), PackError> {
        self.marked(0xcb, it.to_be_bytes());
        Ok(())
    }

    fn serialize_char(self, it: char) -> Result<(), PackError> {
        self.text(it.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, it: &str) -> Result<(), PackError> {
        self.text(it)
    }

    #[inline]
    fn serialize_bytes(self, it: &[u8]) -> Result<(), PackError> {
        match it.len() {
            len @ 0..0x100 => self.marked(0xc4, [len as u8]),
            len => self.length("a bytes", len, 0xc5, 0xc6)?,
        }
        self.out.extend_from_slice(it);
        Ok(())
    }

    #[inline]
    fn serialize_none(self) -> Result<(), PackError> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, it: &T) -> Result<(), PackError> {
        it.serialize(self)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), PackError> {
        self.out.push(0xc0);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), PackError> {
        self.array(0)
    }

    #[inline]
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), PackError> {
        self.text(variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, it: &T) -> Result<(), PackError> {
        it.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        it: &T,
    ) -> Result<(), PackError> {
        self.map(1)?;
        self.text(variant)?;
        it.serialize(self)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Parts<'a>, PackError> {
        let Some(len) = len else { return Ok(self.counted()) };
        self.array(len)?;
        Ok(self.parts())
    }

    fn serialize_tuple(self, len: usize) -> Result<Parts<'a>, PackError> {
        self.array(len)?;
        Ok(self.parts())
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Parts<'a>, PackError> {
        self.serialize_tuple(len)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Parts<'a>, PackError> {
        self.map(1)?;
        self.text(variant)?;
        self.serialize_tuple(len)
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Parts<'a>, PackError> {
        let Some(len) = len else { return Ok(self.counted()) };
        self.map(len)?;
        Ok(self.parts())
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Parts<'a>, PackError> {
        self.map(len)?;
        Ok(self.parts())
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Parts<'a>, PackError> {
        self.map(1)?;
        self.text(variant)?;
        self.serialize_struct(name, len)
    }
}

/// What a container is made of.
struct Parts<'a> {
    packer: &'a mut Packer,
    counted: Option<Counted>,
}

/// Where a container of unknown length begins, and how many values it has so far.
struct Counted {
    start: usize,
    count: usize,
}

impl Parts<'_> {
    #[inline]
    fn part<T: Serialize + ?Sized>(&mut self, it: &T) -> Result<(), PackError> {
        if let Some(counted) = &mut self.counted {
            counted.count += 1;
        }
        it.serialize(&mut *self.packer)
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, it: &T) -> Result<(), PackError> {
        self.packer.text(name)?;
        it.serialize(&mut *self.packer)
    }

    /// Puts the head of a counted container before its parts.
    #[inline]
    fn finish(self, head: impl FnOnce(&mut Packer, usize) -> Result<(), PackError>) -> Result<(), PackError> {
        let Some(Counted { start, count }) = self.counted else { return Ok(()) };
        let end = self.packer.out.len();
        head(self.packer, count)?;
        self.packer.out[start..].rotate_left(end - start);
        Ok(())
    }
}

impl ser::SerializeSeq for Parts<'_> {
    type Ok = ();
    type Error = PackError;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, it: &T) -> Result<(), PackError> {
        self.part(it)
    }

    fn end(self) -> Result<(), PackError> {
        self.finish(Packer::array)
    }
}

impl ser::SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = PackError;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), PackError> {
        self.part(key)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, it: &T) -> Result<(), PackError> {
        it.serialize(&mut *self.packer)
    }

    fn end(self) -> Result<(), PackError> {
        self.finish(Packer::map)
    }
}

impl ser::SerializeTuple for Parts<'_> {
    type Ok = ();
    type Error = PackError;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, it: &T) -> Result<(), PackError> {
        self.part(it)
    }

    fn end(self) -> Result<(), PackError> {
        Ok(())
    }
}

impl ser::SerializeTupleStruct for Parts<'_> {
    type Ok = ();
    type Error = PackError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, it: &T) -> Result<(), PackError> {
        self.part(it)
    }

    fn end(self) -> Result<(), PackError> {
        Ok(())
    }
}

impl ser::SerializeTupleVariant for Parts<'_> {
    type Ok = ();
    type Error = PackError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, it: &T) -> Result<(), PackError> {
        self.part(it)
    }

    fn end(self) -> Result<(), PackError> {
        Ok(())
    }
}

impl ser::SerializeStruct for Parts<'_> {
    type Ok = ();
    type Error = PackError;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, it: &T) -> Result<(), PackError> {
        self.field(name, it)
    }

    fn end(self) -> Result<(), PackError> {
        Ok(())
    }
}

impl ser::SerializeStructVariant for Parts<'_> {
    type Ok = ();
    type Error = PackError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, it: &T) -> Result<(), PackError> {
        self.field(name, it)
    }

    fn end(self) -> Result<(), PackError> {
        Ok(())
    }
}
