//! Compression of single frames, as negotiated in the handshake.

use bytes::Bytes;

use crate::error::DecodeError;

/// Largest size one compressed frame may expand to: 4 GiB, the bound of the LZ4 block format.
pub const EXPANDED_BYTES_MAX: u64 = 4 << 30;
/// Frames smaller than this are never compressed.
pub const COMPRESS_BYTES_MIN: usize = 10_000;
/// A frame travels compressed only if it shrinks to this share of its size, in percent.
pub const COMPRESS_WORTH_PERCENT: usize = 70;

/// A compression that two peers may agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// LZ4 block with a 4-byte little-endian size before it.
    Lz4,
    /// One zstd frame.
    Zstd,
}

impl Compression {
    /// By its name in handshakes and headers.
    pub fn from_name(name: &str) -> Option<Compression> {
        match name {
            "lz4" => Some(Compression::Lz4),
            "zstd" => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// Its name in handshakes and headers.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// Compresses a frame if that pays, else `None`.
    pub fn compress(self, frame: &[u8]) -> Option<Bytes> {
        if frame.len() < COMPRESS_BYTES_MIN || frame.len() as u64 > (1 << 31) {
            return None;
        }
        let packed = match self {
            Compression::Lz4 => lz4_flex::block::compress_prepend_size(frame),
            Compression::Zstd => zstd::bulk::compress(frame, 3).ok()?,
        };
        (packed.len() <= frame.len() / 100 * COMPRESS_WORTH_PERCENT).then(|| packed.into())
    }
}

/// Expands a frame compressed under `name`.
///
/// # Errors
/// [`DecodeError::Compression`] for an unknown name or broken data, [`DecodeError::TooLarge`] beyond
/// [`EXPANDED_BYTES_MAX`].
pub fn decompress(name: &str, frame: &[u8]) -> Result<Bytes, DecodeError> {
    let broken = |e: &dyn std::fmt::Display| DecodeError::Compression(format!("{name}: {e}"));
    match Compression::from_name(name) {
        Some(Compression::Lz4) => lz4(frame).map_err(|e| broken(&e)),
        Some(Compression::Zstd) => zstd_frame(frame).map_err(|e| broken(&e)),
        None => Err(broken(&"this build knows lz4 and zstd only")),
    }
}

fn lz4(frame: &[u8]) -> Result<Bytes, String> {
    let (size, block) = frame.split_at_checked(4).ok_or("size prefix missing")?;
    let size = u32::from_le_bytes(size.try_into().expect("split at 4")) as usize;
    // LZ4 cannot shrink below 1/255: a larger claim is a lie, refused before anything is allocated.
    if size > block.len().saturating_mul(255).saturating_add(64) {
        return Err(format!("{size} bytes cannot come from {}", block.len()));
    }
    lz4_flex::block::decompress(block, size).map(Bytes::from).map_err(|e| e.to_string())
}

fn zstd_frame(frame: &[u8]) -> Result<Bytes, String> {
    use std::io::Read;
    let decoder = zstd::stream::read::Decoder::new(frame).map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    decoder.take(EXPANDED_BYTES_MAX + 1).read_to_end(&mut out).map_err(|e| e.to_string())?;
    if out.len() as u64 > EXPANDED_BYTES_MAX {
        return Err(format!("expands beyond {EXPANDED_BYTES_MAX} bytes"));
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_roundtrip() {
        let data = vec![7_u8; 50_000];
        for c in [Compression::Lz4, Compression::Zstd] {
            let packed = c.compress(&data).expect("repetitive data shrinks");
            assert_eq!(decompress(c.name(), &packed).expect("expands"), data);
        }
    }

    #[test]
    fn lies_about_size_are_refused() {
        assert!(decompress("lz4", &[0xff, 0xff, 0xff, 0xff, 0]).is_err());
        assert!(decompress("snappy", b"x").is_err());
    }
}
