//! The form of a spilled value's file: a head that names its parts, then the parts, each with its checksum.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use bytes::Bytes;
use dask_protocol::compression::{Compression, decompress};
use dask_protocol::{Payload, PayloadKind};
use serde::{Deserialize, Serialize};

/// First bytes of every file.
const MAGIC: &[u8; 8] = b"daskrs01";
/// A head is some tens of bytes for each frame.
const HEAD_BYTES_MAX: u64 = 64 << 20;
/// Of large parts this many bytes at three places are compressed first, to see whether the whole is worth it.
const SAMPLE_BYTES: usize = 16 * 1024;
const SAMPLES: usize = 3;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system could not read it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("it is damaged ({0})")]
    Damaged(&'static str),
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    pickled: bool,
    /// The sub-header, then the frames.
    parts: Vec<Part>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Part {
    stored: u64,
    checksum: u32,
    compression: Option<String>,
}

/// Writes a value; returns the file's bytes.
pub(super) fn write(out: &mut impl Write, payload: &Payload, compression: Option<Compression>) -> io::Result<u64> {
    let originals = std::iter::once(payload.header()).chain(payload.frames());
    let (mut parts, mut data) = (Vec::new(), Vec::new());
    for original in originals {
        let packed = compression.filter(|it| pays(*it, original)).and_then(|it| Some((it, it.compress(original)?)));
        let (name, bytes) = match packed {
            Some((used, bytes)) => (Some(used.name().to_owned()), bytes),
            None => (None, original.clone()),
        };
        parts.push(Part { stored: bytes.len() as u64, checksum: crc32fast::hash(&bytes), compression: name });
        data.push(bytes);
    }
    let head = Head { pickled: payload.kind() == PayloadKind::Pickled, parts };
    let head = rmp_serde::to_vec(&head).map_err(io::Error::other)?;
    let mut start = Vec::with_capacity(head.len() + 20);
    start.extend(MAGIC);
    start.extend((head.len() as u64).to_le_bytes());
    start.extend(crc32fast::hash(&head).to_le_bytes());
    start.extend(head);
    out.write_all(&start)?;
    for bytes in &data {
        out.write_all(bytes)?;
    }
    out.flush()?;
    Ok(start.len() as u64 + data.iter().map(|bytes| bytes.len() as u64).sum::<u64>())
}

/// Whether a part looks as if it would shrink.
fn pays(compression: Compression, part: &[u8]) -> bool {
    if part.len() <= SAMPLES * SAMPLE_BYTES {
        return true;
    }
    let mut sample = Vec::with_capacity(SAMPLES * SAMPLE_BYTES);
    for number in 0..SAMPLES {
        let at = (part.len() - SAMPLE_BYTES) / (SAMPLES - 1) * number;
        sample.extend_from_slice(&part[at..at + SAMPLE_BYTES]);
    }
    compression.compress(&sample).is_some()
}

/// Reads a value back.
pub(super) fn read(path: &Path) -> Result<Payload, FileError> {
    let mut input = File::open(path)?;
    let length = input.metadata()?.len();
    let mut start = [0; 20];
    exactly(&mut input, &mut start)?;
    if &start[..8] != MAGIC {
        return Err(FileError::Damaged("it does not begin like a spilled value"));
    }
    let head_bytes = u64::from_le_bytes(start[8..16].try_into().expect("eight bytes"));
    let checksum = u32::from_le_bytes(start[16..].try_into().expect("four bytes"));
    if head_bytes > HEAD_BYTES_MAX {
        return Err(FileError::Damaged("its head claims to be too long"));
    }
    let head = part(&mut input, head_bytes, length, checksum)?;
    let head: Head = rmp_serde::from_slice(&head).map_err(|_| FileError::Damaged("its head cannot be read"))?;
    let mut parts = Vec::with_capacity(head.parts.len());
    for it in head.parts {
        let stored = part(&mut input, it.stored, length, it.checksum)?;
        parts.push(match it.compression {
            Some(name) => decompress(&name, &stored).map_err(|_| FileError::Damaged("a part does not expand"))?,
            None => Bytes::from(stored),
        });
    }
    let mut parts = parts.into_iter();
    let header = parts.next().ok_or(FileError::Damaged("it has no parts"))?;
    let kind = if head.pickled { PayloadKind::Pickled } else { PayloadKind::Serialized };
    Ok(Payload::from_raw(kind, header, parts.collect()))
}

/// The next `size` bytes. `length` is the file's: no more is ever allocated than it has.
fn part(input: &mut File, size: u64, length: u64, checksum: u32) -> Result<Vec<u8>, FileError> {
    if size > length {
        return Err(FileError::Damaged("it is too short"));
    }
    let mut bytes = vec![0; usize::try_from(size).map_err(|_| FileError::Damaged("a part is too long"))?];
    exactly(input, &mut bytes)?;
    if crc32fast::hash(&bytes) != checksum {
        return Err(FileError::Damaged("a checksum does not match"));
    }
    Ok(bytes)
}

fn exactly(input: &mut File, target: &mut [u8]) -> Result<(), FileError> {
    input.read_exact(target).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => FileError::Damaged("it is too short"),
        _ => FileError::Io(error),
    })
}

#[cfg(test)]
mod tests {
    use rand::{RngCore, SeedableRng};

    use super::*;

    fn value() -> Payload {
        let mut noise = vec![0; 200_000];
        rand::rngs::SmallRng::seed_from_u64(1).fill_bytes(&mut noise);
        Payload::serialized("dask", Some("numpy.ndarray"), vec![vec![7; 300_000].into(), noise.into(), Bytes::new()])
    }

    fn written(compression: Option<Compression>) -> (tempfile::NamedTempFile, u64) {
        let mut file = tempfile::NamedTempFile::new().expect("temporary file");
        let bytes = write(file.as_file_mut(), &value(), compression).expect("written");
        (file, bytes)
    }

    #[test]
    fn values_come_back_as_they_were() {
        for compression in [None, Some(Compression::Lz4), Some(Compression::Zstd)] {
            let (file, bytes) = written(compression);
            assert_eq!(file.as_file().metadata().expect("there").len(), bytes);
            let back = read(file.path()).expect("readable");
            assert_eq!(
                (back.kind(), back.header(), back.frames()),
                (value().kind(), value().header(), value().frames())
            );
        }
    }

    #[test]
    fn only_parts_that_shrink_are_compressed() {
        let (_, plain) = written(None);
        let (_, packed) = written(Some(Compression::Lz4));
        assert!(plain > 500_000 && (200_000..260_000).contains(&packed), "{plain} and {packed}");
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let (file, bytes) = written(Some(Compression::Lz4));
        let whole = std::fs::read(file.path()).expect("readable");
        for at in (0..64).chain((64..whole.len()).step_by(997)) {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            std::fs::write(file.path(), &changed).expect("written");
            assert!(read(file.path()).is_err(), "byte {at} changed");
        }
        for length in [0, 7, 19, 40, bytes / 2, bytes - 1] {
            std::fs::write(file.path(), &whole[..usize::try_from(length).expect("small")]).expect("written");
            assert!(read(file.path()).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_full_disk_is_said_to_be_full() {
        let mut full = File::options().write(true).open("/dev/full").expect("every Linux has it");
        let error = write(&mut full, &value(), None).expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
