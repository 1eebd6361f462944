//! Reading msgpack into types that implement [`Deserialize`](serde::Deserialize).
//!
//! It reads what `rmp_serde` reads, and refuses what that refuses; a test holds one against the other. It is here because every
//! task costs several messages: it works on a slice alone, takes field names without looking at their UTF-8, and tells
//! where a value ended, so that the elements of a batch need not be looked for first.

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

use crate::error::DecodeError;

/// Deepest nesting that is followed.
pub const UNPACK_DEPTH_MAX: u16 = 256;

/// A cursor over msgpack values. All reads are bounds-checked; nothing is allocated from a peer's count.
#[derive(Debug)]
pub struct Unpacker<'de> {
    rest: &'de [u8],
    depth_left: u16,
}

/// The first bytes of a value: what it is, and how many bytes or inner values follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Head {
    Nil,
    Bool(bool),
    UInt(u64),
    Int(i64),
    Float(f64),
    Str(usize),
    Bin(usize),
    Array(usize),
    Map(usize),
    /// An extension type and so many bytes of it.
    Ext(usize),
}

impl de::Error for DecodeError {
    #[cold]
    fn custom<T: std::fmt::Display>(message: T) -> DecodeError {
        DecodeError::Body(message.to_string())
    }
}

#[cold]
fn ends_early() -> DecodeError {
    DecodeError::Body("message body ends early".to_owned())
}

#[cold]
fn too_deep() -> DecodeError {
    let limit = u64::from(UNPACK_DEPTH_MAX);
    DecodeError::TooLarge { what: "nesting of the message body", actual: limit + 1, limit }
}

/// Reads one value; what follows it is ignored.
///
/// # Errors
/// [`DecodeError`] when the bytes are malformed, nested too deep, or not of this type.
pub(crate) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::deserialize(&mut Unpacker::new(bytes))
}

impl<'de> Unpacker<'de> {
    /// At the beginning of `bytes`.
    pub fn new(bytes: &'de [u8]) -> Unpacker<'de> {
        Unpacker { rest: bytes, depth_left: UNPACK_DEPTH_MAX }
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'de [u8] {
        self.rest
    }

    #[inline]
    pub(crate) fn take(&mut self, count: usize) -> Result<&'de [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    fn len8(&mut self) -> Result<usize, DecodeError> {
        Ok(usize::from(self.array::<1>()?[0]))
    }

    #[inline]
    fn len16(&mut self) -> Result<usize, DecodeError> {
        Ok(usize::from(u16::from_be_bytes(self.array()?)))
    }

    #[inline]
    fn len32(&mut self) -> Result<usize, DecodeError> {
        usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| ends_early())
    }

    #[inline]
    pub(crate) fn head(&mut self) -> Result<Head, DecodeError> {
        let [marker] = self.array()?;
        Ok(match marker {
            0x00..=0x7f => Head::UInt(marker.into()),
            0x80..=0x8f => Head::Map(usize::from(marker & 0x0f)),
            0x90..=0x9f => Head::Array(usize::from(marker & 0x0f)),
            0xa0..=0xbf => Head::Str(usize::from(marker & 0x1f)),
            0xc0 => Head::Nil,
            0xc1 => return Err(DecodeError::Body("reserved msgpack marker 0xc1".to_owned())),
            0xc2 => Head::Bool(false),
            0xc3 => Head::Bool(true),
            0xc4 => Head::Bin(self.len8()?),
            0xc5 => Head::Bin(self.len16()?),
            0xc6 => Head::Bin(self.len32()?),
            0xc7 => Head::Ext(self.len8()?),
            0xc8 => Head::Ext(self.len16()?),
            0xc9 => Head::Ext(self.len32()?),
            0xca => Head::Float(f32::from_be_bytes(self.array()?).into()),
            0xcb => Head::Float(f64::from_be_bytes(self.array()?)),
            0xcc => Head::UInt(u8::from_be_bytes(self.array()?).into()),
            0xcd => Head::UInt(u16::from_be_bytes(self.array()?).into()),
            0xce => Head::UInt(u32::from_be_bytes(self.array()?).into()),
            0xcf => Head::UInt(u64::from_be_bytes(self.array()?)),
            0xd0 => Head::Int(i8::from_be_bytes(self.array()?).into()),
            0xd1 => Head::Int(i16::from_be_bytes(self.array()?).into()),
            0xd2 => Head::Int(i32::from_be_bytes(self.array()?).into()),
            0xd3 => Head::Int(i64::from_be_bytes(self.array()?)),
            0xd4..=0xd8 => Head::Ext(1 << (marker - 0xd4)),
            0xd9 => Head::Str(self.len8()?),
            0xda => Head::Str(self.len16()?),
            0xdb => Head::Str(self.len32()?),
            0xdc => Head::Array(self.len16()?),
            0xdd => Head::Array(self.len32()?),
            0xde => Head::Map(self.len16()?),
            0xdf => Head::Map(self.len32()?),
            0xe0..=0xff => Head::Int(i8::from_be_bytes([marker]).into()),
        })
    }

    /// Runs `read` one level deeper.
    #[inline]
    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, DecodeError>) -> Result<T, DecodeError> {
        self.depth_left = self.depth_left.checked_sub(1).filter(|&left| left > 0).ok_or_else(too_deep)?;
        let result = read(self);
        self.depth_left += 1;
        result
    }

    /// Moves past one value.
    ///
    /// # Errors
    /// [`DecodeError`] when it is malformed or nested too deep.
    pub fn skip(&mut self) -> Result<(), DecodeError> {
        match self.head()? {
            Head::Nil | Head::Bool(_) | Head::UInt(_) | Head::Int(_) | Head::Float(_) => Ok(()),
            Head::Str(len) | Head::Bin(len) => self.take(len).map(drop),
            Head::Ext(len) => {
                self.take(1)?;
                self.take(len).map(drop)
            }
            Head::Array(count) => self.deeper(|inner| (0..count).try_for_each(|_| inner.skip())),
            Head::Map(count) => self.deeper(|inner| {
                (0..count).try_for_each(|_| {
                    inner.skip()?;
                    inner.skip()
                })
            }),
        }
    }

    /// Enters an array: how many elements come now.
    ///
    /// # Errors
    /// [`DecodeError`] when it is none.
    pub(crate) fn elements(&mut self) -> Result<usize, DecodeError> {
        match self.head()? {
            Head::Array(count) => Ok(count),
            other => Err(DecodeError::Body(format!("expected an array, found {other:?}"))),
        }
    }

    /// The bytes of the next value if it is a text; `None` for any other value, which is skipped.
    ///
    /// # Errors
    /// [`DecodeError`] when it is malformed.
    pub(crate) fn text_or_skip(&mut self) -> Result<Option<&'de [u8]>, DecodeError> {
        let before = self.rest;
        if let Head::Str(len) = self.head()? {
            return self.take(len).map(Some);
        }
        self.rest = before;
        self.skip()?;
        Ok(None)
    }

    #[inline]
    fn text<V: Visitor<'de>>(&mut self, len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        let bytes = self.take(len)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => visitor.visit_borrowed_str(text),
            // Whoever takes bytes may have them.
            Err(error) => visitor.visit_borrowed_bytes(bytes).map_err(|_: DecodeError| de::Error::custom(error)),
        }
    }

    #[inline]
    fn value<V: Visitor<'de>>(&mut self, visitor: V, binary: Binary) -> Result<V::Value, DecodeError> {
        match self.head()? {
            Head::Nil => visitor.visit_unit(),
            Head::Bool(it) => visitor.visit_bool(it),
            Head::UInt(it) => visitor.visit_u64(it),
            Head::Int(it) => visitor.visit_i64(it),
            Head::Float(it) => visitor.visit_f64(it),
            Head::Str(len) => self.text(len, visitor),
            Head::Bin(len) => {
                let bytes = self.take(len)?;
                match binary {
                    Binary::Whole => visitor.visit_borrowed_bytes(bytes),
                    Binary::AsNumbers => {
                        visitor.visit_seq(de::value::SeqDeserializer::<_, DecodeError>::new(bytes.iter().copied()))
                    }
                }
            }
            Head::Array(count) => self.deeper(|inner| {
                let mut elements = Elements { from: inner, left: count };
                let result = visitor.visit_seq(&mut elements)?;
                elements.finish(result)
            }),
            Head::Map(count) => self.deeper(|inner| {
                let mut elements = Elements { from: inner, left: count };
                let result = visitor.visit_map(&mut elements)?;
                elements.finish(result)
            }),
            Head::Ext(_) => Err(DecodeError::Body("a msgpack extension type, which dask has none of".to_owned())),
        }
    }
}

/// What becomes of bytes: one value, or a sequence of numbers for who asks for a sequence.
#[derive(Clone, Copy)]
enum Binary {
    Whole,
    AsNumbers,
}

impl<'de> de::Deserializer<'de> for &mut Unpacker<'de> {
    type Error = DecodeError;

    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.value(visitor, Binary::Whole)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        const NIL: u8 = 0xc0;
        match self.rest.split_first() {
            Some((&NIL, rest)) => {
                self.rest = rest;
                visitor.visit_none()
            }
            Some(_) => visitor.visit_some(self),
            None => Err(ends_early()),
        }
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.value(visitor, Binary::AsNumbers)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.value(visitor, Binary::AsNumbers)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.value(visitor, Binary::AsNumbers)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.value(visitor, Binary::AsNumbers)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DecodeError> {
        const EMPTY_ARRAY: u8 = 0x90;
        match self.rest.split_first() {
            Some((&EMPTY_ARRAY, rest)) => {
                self.rest = rest;
                visitor.visit_unit()
            }
            Some(_) | None => self.deserialize_any(visitor),
        }
    }

    /// Names of fields and variants: compared as bytes, so their UTF-8 does not matter.
    #[inline]
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let mut ahead = Unpacker { rest: self.rest, depth_left: self.depth_left };
        match ahead.head()? {
            Head::Str(len) => {
                let name = ahead.take(len)?;
                self.rest = ahead.rest;
                visitor.visit_borrowed_bytes(name)
            }
            Head::Nil
            | Head::Bool(_)
            | Head::UInt(_)
            | Head::Int(_)
            | Head::Float(_)
            | Head::Bin(_)
            | Head::Array(_)
            | Head::Map(_)
            | Head::Ext(_) => self.deserialize_any(visitor),
        }
    }

    #[inline]
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.skip()?;
        visitor.visit_unit()
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let mut ahead = Unpacker { rest: self.rest, depth_left: self.depth_left };
        match ahead.head()? {
            Head::Map(1) => {
                self.rest = ahead.rest;
                self.deeper(|inner| visitor.visit_enum(Variant(inner)))
            }
            Head::Str(len) => {
                let name = ahead.take(len)?;
                self.rest = ahead.rest;
                let name = std::str::from_utf8(name).map_err(<DecodeError as de::Error>::custom)?;
                visitor.visit_enum(name.into_deserializer())
            }
            other => Err(DecodeError::Body(format!("expected a variant by name, found {other:?}"))),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit map
    }
}

/// The elements of an array, or keys and values of a map, that are left.
struct Elements<'a, 'de> {
    from: &'a mut Unpacker<'de>,
    left: usize,
}

impl Elements<'_, '_> {
    #[inline]
    fn finish<T>(self, result: T) -> Result<T, DecodeError> {
        if self.left == 0 {
            return Ok(result);
        }
        Err(DecodeError::Body(format!("{} elements more than expected", self.left)))
    }

    /// Each element takes at least a byte, so there are no more of them than that.
    fn size(&self) -> usize {
        self.left.min(self.from.rest.len())
    }
}

impl<'de> de::SeqAccess<'de> for Elements<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.from).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.size())
    }
}

impl<'de> de::MapAccess<'de> for Elements<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.from).map(Some)
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        seed.deserialize(&mut *self.from)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.size())
    }
}

/// A map of one: a variant by name and what it carries.
struct Variant<'a, 'de>(&'a mut Unpacker<'de>);

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = DecodeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), DecodeError> {
        Ok((seed.deserialize(&mut *self.0)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        de::Deserialize::deserialize(self.0)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, DecodeError> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_tuple(self.0, len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_struct(self.0, "", fields, visitor)
    }
}

#[cfg(test)]
mod tests;
