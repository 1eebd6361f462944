//! The masking of what clients send, which keeps proxies from taking it for something else. It hides nothing.

/// A client's mask, as it lies on the wire.
pub(super) type Mask = [u8; 4];

/// How many bytes are masked at a time.
const STEP: usize = size_of::<u64>();

/// Masks these bytes of a frame, or takes their mask away; `offset` bytes of the frame come before them.
pub(super) fn apply(mut mask: Mask, offset: usize, bytes: &mut [u8]) {
    mask.rotate_left(offset % size_of::<Mask>());
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut steps = bytes.chunks_exact_mut(STEP);
    for step in &mut steps {
        let masked = u64::from_ne_bytes((&*step).try_into().expect("chunks have the size of a word")) ^ wide;
        step.copy_from_slice(&masked.to_ne_bytes());
    }
    steps.into_remainder().iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_masked_as_the_whole() {
        let mask = [1, 2, 4, 8];
        let plain: Vec<u8> = (0..100).collect();
        let expected: Vec<u8> = plain.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        for cut in 0..plain.len() {
            let mut bytes = plain.clone();
            let (first, second) = bytes.split_at_mut(cut);
            apply(mask, 0, first);
            apply(mask, cut, second);
            assert_eq!(bytes, expected, "{cut}");
        }
    }
}
