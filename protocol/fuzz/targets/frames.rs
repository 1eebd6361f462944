//! Any bytes, arriving in pieces of any size: the codec refuses them, waits, or yields frames that encode to the same
//! message again. The first two bytes of an input are the size of the pieces.
#![no_main]

use bytes::{Buf, Bytes, BytesMut};
use dask_protocol::frame::{Chunks, FrameCodec, FrameLimits, TRUST_BYTES_MAX};
use libfuzzer_sys::fuzz_target;
use tokio_util::codec::Decoder;

fuzz_target!(|input: &[u8]| {
    let Some((step, stream)) = input.split_first_chunk() else { return };
    let whole = messages(stream, stream.len().max(1));
    let pieces = messages(stream, usize::from(u16::from_le_bytes(*step)).max(1));
    assert_eq!(whole, pieces, "cutting the stream must not change what is read");
    for frames in whole {
        let mut chunks = Chunks::new(&frames);
        let packed = chunks.copy_to_bytes(chunks.remaining());
        assert_eq!(messages(&packed, 100), [frames]);
    }
});

fn messages(stream: &[u8], step: usize) -> Vec<Vec<Bytes>> {
    let (mut codec, mut src, mut found) = (FrameCodec::new(FrameLimits::default()), BytesMut::new(), Vec::new());
    for piece in stream.chunks(step) {
        src.extend_from_slice(piece);
        loop {
            match codec.decode(&mut src) {
                Ok(Some(frames)) => found.push(frames),
                Ok(None) => break,
                Err(_) => return found,
            }
        }
        assert!(src.capacity() <= 2 * stream.len() + 4 * TRUST_BYTES_MAX, "room was made for bytes that never came");
    }
    found
}
