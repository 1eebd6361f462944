//! A large frame while it arrives: memory of its own, which it shares with no other value and gives back alone.

use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::DecodeError;
use crate::region::{REGION_BYTES_MAX, REGION_BYTES_MIN, Region};

const EXCEEDS_MEMORY: DecodeError = DecodeError::FrameTable("a frame exceeds memory");

/// A frame that is read into memory of its own.
#[derive(Debug)]
pub(crate) struct LargeFrame {
    memory: Memory,
    bytes: usize,
}

/// Memory of one frame.
#[derive(Debug)]
enum Memory {
    /// It grows with what arrives.
    Growing(Vec<u8>),
    /// All of it, of which so many bytes have arrived.
    Region(Region, usize),
}

impl LargeFrame {
    /// One of so many bytes, none of which have come.
    pub(crate) fn new(bytes: usize) -> Result<LargeFrame, DecodeError> {
        let memory = if (REGION_BYTES_MIN..=REGION_BYTES_MAX).contains(&bytes) {
            Memory::Region(Region::new(bytes).map_err(|_| EXCEEDS_MEMORY)?, 0)
        } else {
            Memory::Growing(Vec::new())
        };
        Ok(LargeFrame { memory, bytes })
    }

    /// Bytes that have not come yet.
    pub(crate) fn missing(&self) -> usize {
        match &self.memory {
            Memory::Growing(data) => self.bytes - data.len(),
            Memory::Region(_, arrived) => self.bytes - arrived,
        }
    }

    /// Makes room for some of what is missing.
    fn make_room(&mut self) -> Result<(), DecodeError> {
        let missing = self.missing();
        match &mut self.memory {
            Memory::Growing(data) if data.capacity() == data.len() => {
                let trusted = missing.min(data.len().max(REGION_BYTES_MAX));
                data.try_reserve_exact(trusted).map_err(|_| EXCEEDS_MEMORY)
            }
            Memory::Growing(_) | Memory::Region(..) => Ok(()),
        }
    }

    /// Takes what has been read already.
    pub(crate) fn fill(&mut self, src: &mut BytesMut) -> Result<(), DecodeError> {
        while self.missing() > 0 && !src.is_empty() {
            self.make_room()?;
            let mut room = self.room();
            let step = room.remaining_mut().min(src.len());
            room.put_slice(&src[..step]);
            src.advance(step);
        }
        self.make_room()
    }

    /// Where the next bytes belong.
    pub(crate) fn room(&mut self) -> FrameRoom<'_> {
        FrameRoom { frame: self }
    }

    /// The bytes that have come.
    pub(crate) fn arrived_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Growing(data) => data,
            Memory::Region(region, arrived) => &mut region.as_mut()[..*arrived],
        }
    }

    /// The frame, all of which has come.
    pub(crate) fn finish(self) -> Bytes {
        debug_assert_eq!(self.missing(), 0, "a frame is whole before it is used");
        self.into_arrived()
    }

    /// The bytes that have come, when no others will.
    pub(crate) fn into_arrived(self) -> Bytes {
        match self.memory {
            Memory::Growing(data) => Bytes::from(data),
            Memory::Region(region, arrived) => Bytes::from_owner(region).slice(..arrived),
        }
    }
}

/// Where the next bytes of a large frame belong: its memory, limited to what is missing.
#[derive(Debug)]
pub struct FrameRoom<'a> {
    frame: &'a mut LargeFrame,
}

// SAFETY: what counts as written is what `advance_mut` was told: a vector counts its own bytes, and the bytes of a region are
// initialised from the start; `remaining_mut` never exceeds what `chunk_mut` hands out.
unsafe impl BufMut for FrameRoom<'_> {
    fn remaining_mut(&self) -> usize {
        match &self.frame.memory {
            Memory::Growing(data) => (data.capacity() - data.len()).min(self.frame.missing()),
            Memory::Region(..) => self.frame.missing(),
        }
    }

    unsafe fn advance_mut(&mut self, count: usize) {
        assert!(count <= self.remaining_mut(), "a frame is not written beyond its end");
        match &mut self.frame.memory {
            // SAFETY: so many bytes behind its end are its own (asserted above), and the caller has written them.
            Memory::Growing(data) => unsafe { data.advance_mut(count) },
            Memory::Region(_, arrived) => *arrived += count,
        }
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        let room = self.remaining_mut();
        match &mut self.frame.memory {
            // A vector without spare room would grow.
            Memory::Growing(_) if room == 0 => UninitSlice::new(&mut []),
            Memory::Growing(data) => &mut data.chunk_mut()[..room],
            Memory::Region(region, arrived) => UninitSlice::new(&mut region.as_mut()[*arrived..]),
        }
    }
}
