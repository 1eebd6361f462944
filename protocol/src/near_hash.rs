//! A hash under which the keys of a collection lie together in a table.
//!
//! Keys that are made together, such as `("load-1a2b", 0)`, `("load-1a2b", 1)` and so on, are used together as well. With a hash
//! that scatters them each lookup in a table of a million keys reads memory that is in no cache; eight neighbours that lie side
//! by side are read at once.

use std::hash::BuildHasher;

use rustc_hash::FxBuildHasher;

use crate::key::{Key, KeyRef};

/// Neighbours that lie side by side, as a power of two. With more of them places fill up unevenly: with eight, a table as full
/// as it gets is looked into at 1.7 places a key instead of 1.1.
const ROW_BITS: u32 = 3;
/// Digits at the end of a text that count as its number.
const DIGITS_MAX: usize = 9;
/// Where `hashbrown` begins to look comes from the lower bits, what it compares there from the upper ones.
const PLACE_BITS: u32 = 32;
/// How many those are.
const TAG_BITS: u32 = 7;

/// The hash of a key. Equal keys have the same.
pub(crate) fn near_hash(key: &Key) -> u64 {
    let (rest, number) = split(key);
    let row = spread(rest.wrapping_add(spread(number >> ROW_BITS)));
    let within = number & ((1 << ROW_BITS) - 1);
    let place = (row << ROW_BITS | within) & ((1 << PLACE_BITS) - 1);
    // The upper bits tell neighbours apart.
    let tag = row.wrapping_add(within << (u64::BITS - TAG_BITS)) >> PLACE_BITS << PLACE_BITS;
    tag | place
}

/// The finishing step of splitmix64: the numbers of rows are small and follow each other, their places must not.
fn spread(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The number at the end of a key, and the hash of what is before it.
fn split(key: &Key) -> (u64, u64) {
    match key.as_ref() {
        KeyRef::Str(text) => {
            let digits = text.bytes().rev().take(DIGITS_MAX).take_while(u8::is_ascii_digit).count();
            let (stem, number) = text.split_at(text.len() - digits);
            let number = number.bytes().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
            (FxBuildHasher.hash_one(stem), number)
        }
        KeyRef::Tuple([before @ .., last]) => match last.integer() {
            Some(number) => (FxBuildHasher.hash_one(before), number.cast_unsigned()),
            None => (FxBuildHasher.hash_one(key), 0),
        },
        KeyRef::Int(_) | KeyRef::UInt(_) | KeyRef::Float(_) => match key.integer() {
            Some(number) => (0, number.cast_unsigned()),
            None => (FxBuildHasher.hash_one(key), 0),
        },
        KeyRef::Bytes(_) | KeyRef::Tuple([]) => (FxBuildHasher.hash_one(key), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(keys: &[Key]) -> Vec<u64> {
        keys.iter().map(|key| near_hash(key) & ((1 << PLACE_BITS) - 1)).collect()
    }

    #[test]
    fn keys_of_a_row_lie_side_by_side() {
        let text = |n: u64| Key::from(format!("load-1a2b-{n}"));
        let tuple = |n: u64| Key::tuple([Key::from("load-1a2b"), Key::from(7), Key::from(n)]);
        for key in [&text as &dyn Fn(u64) -> Key, &tuple, &|n| Key::from(n)] {
            let row = places(&(16..24).map(key).collect::<Vec<_>>());
            assert!(row.windows(2).all(|pair| pair[1] == pair[0] + 1), "{row:?}");
            let tags: std::collections::HashSet<u64> =
                (16..24).map(|n| near_hash(&key(n)) >> (u64::BITS - TAG_BITS)).collect();
            assert_eq!(tags.len(), 8);
        }
    }

    #[test]
    fn rows_lie_anywhere() {
        let rows: Vec<Key> = (0..4096_u64).map(|n| Key::from(format!("load-1a2b-{}", n << ROW_BITS))).collect();
        let mut quarters = [0; 4];
        for place in places(&rows) {
            quarters[usize::try_from(place >> (PLACE_BITS - 2)).expect("two bits")] += 1;
        }
        assert!(quarters.iter().all(|&n| (900..1150).contains(&n)), "{quarters:?}");
        let low: std::collections::HashSet<u64> = places(&rows).iter().map(|place| place % 32_768).collect();
        assert!(low.len() > 2400, "{} of 4096 rows begin at places of their own", low.len());
    }

    #[test]
    fn equal_keys_have_one_hash() {
        assert_eq!(near_hash(&Key::from(5)), near_hash(&Key::float(5.0)));
        let tuple = |last: Key| Key::tuple([Key::from("x"), last]);
        assert_eq!(near_hash(&tuple(Key::from(-1))), near_hash(&tuple(Key::float(-1.0))));
        assert_ne!(near_hash(&tuple(Key::float(0.5))), near_hash(&tuple(Key::float(0.25))));
        assert_ne!(near_hash(&Key::from("x-7")), near_hash(&Key::from("x-15")));
        for odd in ["", "7", "x-99999999999999999999", "x-é1", "x-\u{0661}"] {
            near_hash(&Key::from(odd));
        }
    }
}
