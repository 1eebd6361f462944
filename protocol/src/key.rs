//! Task keys of every kind dask allows, with Python's equality.
//!
//! A key is text, a number, bytes or a (nested) tuple of keys. `5` and `5.0` are one key, as in Python; the first
//! spelling seen is kept when a key is written back. Cloning a key bumps a reference count.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::de::{self, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Deepest tuple nesting a peer may send in one key.
pub const KEY_DEPTH_MAX: usize = 32;

/// The name of a task or of a piece of data, as dask's clients write it.
#[derive(Clone)]
pub struct Key(Repr);

#[derive(Clone)]
enum Repr {
    Str(Arc<str>),
    Int(i64),
    /// Only integers above `i64::MAX`.
    UInt(u64),
    Float(f64),
    Bytes(Arc<[u8]>),
    Tuple(Arc<[Key]>),
}

/// A borrowed view of a key's kind and content.
#[derive(Debug, Clone, Copy)]
pub enum KeyRef<'a> {
    /// Text, by far the most common kind.
    Str(&'a str),
    /// An integer that fits `i64`.
    Int(i64),
    /// An integer above `i64::MAX`.
    UInt(u64),
    /// A float.
    Float(f64),
    /// Raw bytes (older clients).
    Bytes(&'a [u8]),
    /// A tuple such as `("sum-1a2b", 0, 1)`.
    Tuple(&'a [Key]),
}

impl Key {
    /// The view to match on.
    pub fn as_ref(&self) -> KeyRef<'_> {
        match &self.0 {
            Repr::Str(s) => KeyRef::Str(s),
            Repr::Int(i) => KeyRef::Int(*i),
            Repr::UInt(u) => KeyRef::UInt(*u),
            Repr::Float(f) => KeyRef::Float(*f),
            Repr::Bytes(b) => KeyRef::Bytes(b),
            Repr::Tuple(t) => KeyRef::Tuple(t),
        }
    }

    /// The text of a text key.
    pub fn as_str(&self) -> Option<&str> {
        match &self.0 {
            Repr::Str(s) => Some(s),
            Repr::Int(_) | Repr::UInt(_) | Repr::Float(_) | Repr::Bytes(_) | Repr::Tuple(_) => None,
        }
    }

    /// The integer that this key equals, if there is one.
    pub(crate) fn integer(&self) -> Option<i64> {
        match self.0.number() {
            Some(Number::Int(i)) => Some(i),
            Some(Number::UInt(_) | Number::FloatBits(_)) | None => None,
        }
    }

    /// A float key.
    pub fn float(f: f64) -> Key {
        Key(Repr::Float(f))
    }

    /// A bytes key.
    pub fn bytes(b: impl AsRef<[u8]>) -> Key {
        Key(Repr::Bytes(b.as_ref().into()))
    }

    /// A tuple key.
    pub fn tuple(parts: impl IntoIterator<Item = Key>) -> Key {
        Key(Repr::Tuple(parts.into_iter().collect()))
    }

    /// A hash that is the same in every process and release.
    pub fn stable_hash(&self) -> u64 {
        /// FNV-1a, 64 bits.
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let packed = rmp_serde::to_vec(self).expect("every key can be packed");
        packed.iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
    }

    /// dask's `key_split`: the name that tasks of one kind share, used for duration averages and display.
    ///
    /// ```
    /// use dask_protocol::Key;
    /// assert_eq!(Key::from("inc-5").prefix(), "inc");
    /// assert_eq!(Key::from("x-abcdefab").prefix(), "x");
    /// assert_eq!(Key::from("hello-world-1").prefix(), "hello-world");
    /// assert_eq!(Key::from(5).prefix(), "Other");
    /// ```
    pub fn prefix(&self) -> Cow<'_, str> {
        match &self.0 {
            Repr::Str(s) => text_prefix(s),
            Repr::Bytes(b) => std::str::from_utf8(b).map_or(OTHER.into(), text_prefix),
            Repr::Tuple(t) => t.first().map_or(OTHER.into(), Key::prefix),
            Repr::Int(_) | Repr::UInt(_) | Repr::Float(_) => OTHER.into(),
        }
    }

    /// dask's `key_split_group`: the name that tasks of one layer share. It may itself be a tuple or a number.
    ///
    /// ```
    /// use dask_protocol::Key;
    /// assert_eq!(Key::tuple([Key::from("a-1"), Key::from(1)]).group(), Key::from("a-1"));
    /// assert_eq!(Key::from("('x-2', 1)").group(), Key::from("x-2"));
    /// assert_eq!(Key::from("inc-5").group(), Key::from("inc"));
    /// ```
    pub fn group(&self) -> Key {
        match &self.0 {
            Repr::Str(s) => text_group(s).into(),
            Repr::Bytes(b) => std::str::from_utf8(b).map_or(OTHER.into(), text_group).into(),
            Repr::Tuple(t) => t.first().cloned().unwrap_or_else(|| OTHER.into()),
            Repr::Int(_) | Repr::UInt(_) | Repr::Float(_) => OTHER.into(),
        }
    }

    /// Whether [`Key::group`] would give this group, without making a key of it.
    ///
    /// ```
    /// use dask_protocol::Key;
    /// assert!(Key::from("inc-5").is_of_group(&Key::from("inc")));
    /// assert!(!Key::from("inc-5").is_of_group(&Key::from("dec")));
    /// ```
    pub fn is_of_group(&self, group: &Key) -> bool {
        match (&self.0, &group.0) {
            (Repr::Str(s), Repr::Str(group)) => text_group(s) == **group,
            (Repr::Tuple(t), _) if !t.is_empty() => t[0] == *group,
            _ => self.group() == *group,
        }
    }
}

const OTHER: &str = "Other";

fn is_token(s: &str) -> bool {
    s.len() == 32 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn after_last_dot(s: &str) -> &str {
    let inner = s.trim_matches(|c| c == '<' || c == '>');
    let word = inner.split_whitespace().next().unwrap_or("");
    if word.is_empty() {
        return OTHER;
    }
    word.rsplit('.').next().unwrap_or(word)
}

fn text_prefix(s: &str) -> Cow<'_, str> {
    let first = s.bytes().position(|b| b == b'-').unwrap_or(s.len());
    let Some(initial) = s[..first].chars().next() else {
        return OTHER.into();
    };
    let mut end = first;
    while let Some(word) = word_of_prefix(s, end) {
        end += 1 + word.len();
    }
    let (head, words) = s[..end].split_at(first);
    let prefix: Cow<'_, str> = if initial.is_alphabetic() {
        s[..end].into()
    } else {
        let head = head.split(',').next().unwrap_or("");
        let head = head.trim_matches(|c| matches!(c, '_' | '\'' | '(' | ')' | '"'));
        if words.is_empty() { head.into() } else { format!("{head}{words}").into() }
    };
    if is_token(&prefix) {
        return "data".into();
    }
    if prefix.starts_with('<') {
        return after_last_dot(&prefix).to_owned().into();
    }
    prefix
}

/// The word behind the hyphen at this place, if it belongs to the prefix: letters only, unless they look like a part of a token.
fn word_of_prefix(s: &str, hyphen: usize) -> Option<&str> {
    let rest = s.get(hyphen + 1..)?;
    let letters = rest.bytes().position(|b| !b.is_ascii_alphabetic()).unwrap_or(rest.len());
    let word = match rest.as_bytes().get(letters) {
        None | Some(b'-') => &rest[..letters],
        Some(byte) if byte.is_ascii() => return None,
        Some(_) => rest.split('-').next().filter(|word| word.chars().all(char::is_alphabetic))?,
    };
    let looks_like_token = word.starts_with(|c| ('a'..='f').contains(&c)) && word.chars().count() == 8;
    (!word.is_empty() && !looks_like_token).then_some(word)
}

fn text_group(s: &str) -> Cow<'_, str> {
    if s.starts_with('(') {
        let head = s.split(',').next().unwrap_or("");
        return head.trim_matches(|c| matches!(c, '(' | ')' | '\'' | '"')).into();
    }
    if is_token(s) {
        return "data".into();
    }
    if s.starts_with('<') {
        return after_last_dot(s).into();
    }
    text_prefix(s)
}

impl From<&str> for Key {
    fn from(s: &str) -> Key {
        Key(Repr::Str(s.into()))
    }
}
impl From<String> for Key {
    fn from(s: String) -> Key {
        Key(Repr::Str(s.into()))
    }
}
impl From<Cow<'_, str>> for Key {
    fn from(s: Cow<'_, str>) -> Key {
        Key(Repr::Str(s.into()))
    }
}
impl From<Arc<str>> for Key {
    fn from(s: Arc<str>) -> Key {
        Key(Repr::Str(s))
    }
}
impl From<i32> for Key {
    fn from(i: i32) -> Key {
        Key(Repr::Int(i.into()))
    }
}
impl From<i64> for Key {
    fn from(i: i64) -> Key {
        Key(Repr::Int(i))
    }
}
impl From<u64> for Key {
    fn from(u: u64) -> Key {
        Key(i64::try_from(u).map_or(Repr::UInt(u), Repr::Int))
    }
}
impl From<f64> for Key {
    fn from(f: f64) -> Key {
        Key::float(f)
    }
}

/// What a number is equal to in Python: an integral float is its integer.
#[derive(PartialEq, Eq, Hash)]
enum Number {
    Int(i64),
    UInt(u64),
    FloatBits(u64),
}

const TWO_POW_63: f64 = 9_223_372_036_854_775_808.0;
const TWO_POW_64: f64 = 18_446_744_073_709_551_616.0;

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "ranges are checked first")]
fn canonical_float(f: f64) -> Number {
    if f.fract() == 0.0 {
        if (-TWO_POW_63..TWO_POW_63).contains(&f) {
            return Number::Int(f as i64);
        }
        if (TWO_POW_63..TWO_POW_64).contains(&f) {
            return Number::UInt(f as u64);
        }
    }
    Number::FloatBits(f.to_bits())
}

impl Repr {
    fn number(&self) -> Option<Number> {
        match self {
            Repr::Int(i) => Some(Number::Int(*i)),
            Repr::UInt(u) => Some(Number::UInt(*u)),
            Repr::Float(f) => Some(canonical_float(*f)),
            Repr::Str(_) | Repr::Bytes(_) | Repr::Tuple(_) => None,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        match (&self.0, &other.0) {
            (Repr::Str(a), Repr::Str(b)) => Arc::ptr_eq(a, b) || a == b,
            (Repr::Bytes(a), Repr::Bytes(b)) => a == b,
            (Repr::Tuple(a), Repr::Tuple(b)) => Arc::ptr_eq(a, b) || a == b,
            (a, b) => match (a.number(), b.number()) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
        }
    }
}
impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.0 {
            Repr::Str(s) => s.hash(state),
            Repr::Bytes(b) => {
                state.write_u8(1);
                b.hash(state);
            }
            Repr::Tuple(t) => {
                state.write_u8(2);
                t.hash(state);
            }
            number => number.number().hash(state),
        }
    }
}

/// An arbitrary but total and stable order (kind, then content), for sorted output and deterministic ties.
impl Ord for Key {
    fn cmp(&self, other: &Key) -> std::cmp::Ordering {
        use std::cmp::Ordering::Equal;
        fn rank(r: &Repr) -> u8 {
            match r {
                Repr::Int(_) | Repr::UInt(_) | Repr::Float(_) => 0,
                Repr::Str(_) => 1,
                Repr::Bytes(_) => 2,
                Repr::Tuple(_) => 3,
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "ties are broken by equality below")]
        fn approx(r: &Repr) -> f64 {
            match r {
                Repr::Int(i) => *i as f64,
                Repr::UInt(u) => *u as f64,
                Repr::Float(f) => *f,
                Repr::Str(_) | Repr::Bytes(_) | Repr::Tuple(_) => 0.0,
            }
        }
        if self == other {
            return Equal;
        }
        match (&self.0, &other.0) {
            (Repr::Str(a), Repr::Str(b)) => a.cmp(b),
            (Repr::Bytes(a), Repr::Bytes(b)) => a.cmp(b),
            (Repr::Tuple(a), Repr::Tuple(b)) => a.cmp(b),
            (Repr::Int(a), Repr::Int(b)) => a.cmp(b),
            (Repr::UInt(a), Repr::UInt(b)) => a.cmp(b),
            (a, b) => rank(a).cmp(&rank(b)).then_with(|| approx(a).total_cmp(&approx(b))),
        }
    }
}
impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Python's `str(key)`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Str(s) => f.write_str(s),
            other => write_repr(other, f),
        }
    }
}

/// Python's `repr(key)`.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_repr(&self.0, f)
    }
}

fn write_repr(repr: &Repr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match repr {
        Repr::Str(s) => write_quoted(s, f),
        Repr::Int(i) => write!(f, "{i}"),
        Repr::UInt(u) => write!(f, "{u}"),
        Repr::Float(x) => write_float(*x, f),
        Repr::Bytes(b) => write!(f, "b'{}'", b.escape_ascii()),
        Repr::Tuple(t) => {
            f.write_str("(")?;
            for (i, part) in t.iter().enumerate() {
                if i > 0 {
                    f.write_str(", ")?;
                }
                write_repr(&part.0, f)?;
            }
            f.write_str(if t.len() == 1 { ",)" } else { ")" })
        }
    }
}

fn write_quoted(s: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let quote = if s.contains('\'') && !s.contains('"') { '"' } else { '\'' };
    write!(f, "{quote}")?;
    for c in s.chars() {
        match c {
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            '\\' => f.write_str("\\\\")?,
            c if c == quote => write!(f, "\\{c}")?,
            c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => write!(f, "\\x{:02x}", u32::from(c))?,
            c => write!(f, "{c}")?,
        }
    }
    write!(f, "{quote}")
}

fn write_float(x: f64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if x.is_nan() {
        return f.write_str("nan");
    }
    if x.is_infinite() {
        return f.write_str(if x > 0.0 { "inf" } else { "-inf" });
    }
    let magnitude = x.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{x:e}");
        let (mantissa, exponent) = text.split_once('e').expect("{:e} writes an exponent");
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
        return write!(f, "{mantissa}e{sign}{digits:0>2}");
    }
    write!(f, "{x:?}")
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Repr::Str(s) => serializer.serialize_str(s),
            Repr::Int(i) => serializer.serialize_i64(*i),
            Repr::UInt(u) => serializer.serialize_u64(*u),
            Repr::Float(f) => serializer.serialize_f64(*f),
            Repr::Bytes(b) => serializer.serialize_bytes(b),
            Repr::Tuple(t) => {
                let mut seq = serializer.serialize_seq(Some(t.len()))?;
                for part in t.iter() {
                    seq.serialize_element(part)?;
                }
                seq.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_any(KeyVisitor { depth: 0 })
    }
}

#[derive(Clone, Copy)]
struct KeyVisitor {
    depth: usize,
}

impl<'de> de::DeserializeSeed<'de> for KeyVisitor {
    type Value = Key;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a task key: text, number, bytes or a tuple of keys")
    }
    fn visit_str<E>(self, s: &str) -> Result<Key, E> {
        Ok(Key::from(s))
    }
    fn visit_string<E>(self, s: String) -> Result<Key, E> {
        Ok(Key::from(s))
    }
    fn visit_i64<E>(self, i: i64) -> Result<Key, E> {
        Ok(Key::from(i))
    }
    fn visit_u64<E>(self, u: u64) -> Result<Key, E> {
        Ok(Key::from(u))
    }
    fn visit_f64<E>(self, f: f64) -> Result<Key, E> {
        Ok(Key::float(f))
    }
    fn visit_bytes<E>(self, b: &[u8]) -> Result<Key, E> {
        Ok(Key::bytes(b))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Key, A::Error> {
        if self.depth >= KEY_DEPTH_MAX {
            return Err(de::Error::custom(format_args!("key nested deeper than {KEY_DEPTH_MAX}")));
        }
        let inner = KeyVisitor { depth: self.depth + 1 };
        let mut parts = smallvec::SmallVec::<[Key; 4]>::new();
        while let Some(part) = seq.next_element_seed(inner)? {
            parts.push(part);
        }
        Ok(Key::tuple(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_as_in_python() {
        assert_eq!(Key::from(5), Key::float(5.0));
        assert_ne!(Key::from(5), Key::float(5.5));
        let a = Key::tuple([Key::from("a"), Key::from(1)]);
        let b = Key::tuple([Key::from("a"), Key::float(1.0)]);
        assert_eq!(a, b);
        let set: std::collections::HashSet<Key> = [a].into_iter().collect();
        assert!(set.contains(&b));
    }

    #[test]
    fn text_is_pythons() {
        let key = Key::tuple([Key::from("x-1"), Key::from(0), Key::float(1.0), Key::tuple([Key::from("it's")])]);
        assert_eq!(key.to_string(), r#"('x-1', 0, 1.0, ("it's",))"#);
        assert_eq!(Key::float(1e22).to_string(), "1e+22");
        assert_eq!(Key::float(1e-7).to_string(), "1e-07");
    }

    #[test]
    fn prefixes_follow_key_split() {
        for (key, prefix) in [
            ("x", "x"),
            ("x-1", "x"),
            ("x-1-2-3", "x"),
            ("hello-world-1", "hello-world"),
            ("x-abcdefab", "x"),
            ("x-database", "x"),
            ("<module.submodule.myclass object at 0xdaf372", "myclass"),
            ("ae05086432ca935f6eba409a8ecd4896", "data"),
            ("_(x)", "x"),
            ("", "Other"),
        ] {
            assert_eq!(Key::from(key).prefix(), prefix, "{key}");
        }
    }

    #[test]
    fn roundtrips_through_msgpack() {
        let key = Key::tuple([Key::from("x"), Key::from(3), Key::float(0.5), Key::bytes(&b"ab"[..])]);
        let packed = rmp_serde::to_vec(&key).expect("packs");
        let back: Key = rmp_serde::from_slice(&packed).expect("unpacks");
        assert_eq!(key, back);
    }

    /// The words of a prefix, found letter by letter.
    fn words_slowly(s: &str) -> usize {
        let mut end = s.find('-').unwrap_or(s.len());
        while let Some(rest) = s[end..].strip_prefix('-') {
            let word = rest.split('-').next().unwrap_or("");
            let token = word.starts_with(|c| ('a'..='f').contains(&c)) && word.chars().count() == 8;
            if word.is_empty() || token || !word.chars().all(char::is_alphabetic) {
                break;
            }
            end += 1 + word.len();
        }
        end
    }

    proptest::proptest! {
        #[test]
        fn words_of_prefixes_are_found_by_bytes(text in "[a-gé1√-]{0,12}-?[a-hß]{7,9}-?[a-z2-]{0,8}") {
            let mut end = text.find('-').unwrap_or(text.len());
            while let Some(word) = word_of_prefix(&text, end) {
                end += 1 + word.len();
            }
            proptest::prop_assert_eq!(end, words_slowly(&text));
        }
    }
}
