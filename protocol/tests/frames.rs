//! Frames survive any cutting of the byte stream, and lies in the table are refused before memory is spent.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use dask_protocol::frame::{Chunks, FRAMES_MAX, FrameCodec, FrameLimits, MESSAGE_BYTES_MAX, TRUST_BYTES_MAX};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio_util::codec::Decoder;

fn frames() -> impl Strategy<Value = Vec<Bytes>> {
    let size = prop_oneof![4 => 0_usize..40, 1 => 15_000_usize..20_000, 1 => 60_000_usize..70_000, 1 => 262_000_usize..263_000];
    vec((size, any::<u8>()).prop_map(|(n, byte)| Bytes::from(vec![byte; n])), 0..8)
}

fn pack(frames: &[Bytes]) -> Bytes {
    let mut chunks = Chunks::new(frames);
    chunks.copy_to_bytes(chunks.remaining())
}

/// As a peer may write it: `FIRST` covers only some of the frames.
fn pack_with_first(frames: &[Bytes], covered: usize) -> Vec<u8> {
    let table = 8 * (1 + frames.len());
    let mut out = Vec::new();
    out.put_u64_le((table + frames[..covered].iter().map(Bytes::len).sum::<usize>()) as u64);
    out.put_u64_le(frames.len() as u64);
    frames.iter().for_each(|frame| out.put_u64_le(frame.len() as u64));
    frames.iter().for_each(|frame| out.put_slice(frame));
    out
}

fn read_in_pieces(stream: &[u8], cuts: &[usize]) -> Vec<Vec<Bytes>> {
    let (mut codec, mut src, mut found) = (FrameCodec::new(FrameLimits::default()), BytesMut::new(), Vec::new());
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.sort_unstable();
    let ends = cuts.into_iter().chain([stream.len()]);
    let mut start = 0;
    for end in ends {
        src.extend_from_slice(&stream[start..end]);
        start = end;
        while let Some(message) = codec.decode(&mut src).expect("a legal stream") {
            found.push(message);
        }
    }
    assert!(src.is_empty() && codec.at_boundary(), "everything was read");
    found
}

/// As a connection does it: bytes of large frames go to where the codec wants them, in steps of the given sizes.
fn read_in_place(stream: &[u8], steps: &[usize]) -> Vec<Vec<Bytes>> {
    let (mut codec, mut src, mut found) = (FrameCodec::new(FrameLimits::default()), BytesMut::new(), Vec::new());
    let (mut rest, mut steps) = (stream, steps.iter().cycle());
    loop {
        while let Some(message) = codec.decode(&mut src).expect("a legal stream") {
            found.push(message);
        }
        if rest.is_empty() {
            break;
        }
        let step = (*steps.next().expect("a cycle of some")).min(rest.len());
        let taken = match codec.large_frame() {
            Some(mut frame) => {
                let taken = step.min(frame.remaining_mut());
                assert!(taken > 0, "there is always room");
                frame.put_slice(&rest[..taken]);
                taken
            }
            None => {
                src.extend_from_slice(&rest[..step]);
                step
            }
        };
        rest = &rest[taken..];
    }
    assert!(src.is_empty() && codec.at_boundary(), "everything was read");
    found
}

proptest! {
    #[test]
    fn large_frames_are_read_in_place(
        messages in vec(frames(), 1..4), steps in vec(1_usize..50_000, 1..6),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|frames| pack(frames)).collect();
        prop_assert_eq!(read_in_place(&stream, &steps), messages);
    }

    #[test]
    fn any_cutting_of_the_stream_yields_the_same_messages(
        messages in vec(frames(), 1..4), cuts in vec(any::<usize>(), 0..12),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|frames| pack(frames)).collect();
        prop_assert_eq!(read_in_pieces(&stream, &cuts), messages);
    }

    #[test]
    fn the_first_read_may_end_at_any_frame_boundary(frames in frames(), covered in any::<prop::sample::Index>()) {
        let stream = pack_with_first(&frames, covered.index(frames.len() + 1));
        prop_assert_eq!(read_in_pieces(&stream, &[3, 9, 17]), vec![frames]);
    }

    #[test]
    fn the_first_read_may_not_end_elsewhere(shift in 1_u64..10) {
        let frames = [Bytes::from_static(b"0123456789"), Bytes::from_static(b"x")];
        let mut stream = pack_with_first(&frames, 0);
        stream[..8].copy_from_slice(&(24 + shift % 10).to_le_bytes());
        let read = FrameCodec::new(FrameLimits::default()).decode(&mut BytesMut::from(&stream[..]));
        prop_assert_eq!(read.is_err(), !shift.is_multiple_of(10));
    }

    #[test]
    fn garbage_is_refused_or_waits_but_never_takes_memory(garbage in vec(any::<u8>(), 0..200)) {
        let (mut codec, mut src) = (FrameCodec::new(FrameLimits::default()), BytesMut::from(&garbage[..]));
        while let Ok(Some(message)) = codec.decode(&mut src) {
            prop_assert!(message.iter().map(Bytes::len).sum::<usize>() <= garbage.len());
        }
        prop_assert!(src.capacity() <= 4 * TRUST_BYTES_MAX);
    }

    #[test]
    fn written_in_steps_of_any_size_it_is_the_same(frames in frames(), step in 1_usize..30_000) {
        let whole = pack(&frames);
        let (mut chunks, mut out) = (Chunks::new(&frames), Vec::new());
        while chunks.has_remaining() {
            let n = step.min(chunks.chunk().len());
            out.extend_from_slice(&chunks.chunk()[..n]);
            chunks.advance(n);
        }
        prop_assert_eq!(out, whole);
    }
}

#[test]
fn lengths_beyond_the_limits_are_refused_at_once() {
    let words = |words: &[u64]| {
        let mut src = BytesMut::new();
        words.iter().for_each(|&word| src.put_u64_le(word));
        FrameCodec::new(FrameLimits::default()).decode(&mut src)
    };
    assert!(words(&[u64::MAX, 1]).is_err(), "first read");
    assert!(words(&[16, FRAMES_MAX + 1]).is_err(), "number of frames");
    assert!(words(&[16, u64::MAX]).is_err(), "number of frames that overflows");
    assert!(words(&[8, 1]).is_err(), "first read inside the table");
    assert!(words(&[16, 1, MESSAGE_BYTES_MAX + 1]).is_err(), "message size");
    assert!(words(&[24, 2, u64::MAX, u64::MAX]).is_err(), "message size that overflows");
}

#[test]
fn a_handshake_must_be_small() {
    let stream = pack(&[Bytes::from(vec![0; 1 << 20])]);
    let read = FrameCodec::new(FrameLimits::HANDSHAKE).decode(&mut BytesMut::from(&stream[..]));
    assert!(read.is_err());
}

#[test]
fn a_large_frame_keeps_no_other_memory() {
    let frames = [Bytes::from_static(b"body"), Bytes::from(vec![1; 100_000]), Bytes::from(vec![2; 100_000])];
    let mut src = BytesMut::from(&pack(&frames)[..]);
    let read = FrameCodec::new(FrameLimits::default()).decode(&mut src).expect("legal").expect("complete");
    assert_eq!(read, frames);
    assert!(read[1..].iter().all(Bytes::is_unique), "each frame is alone in its memory");
}

#[test]
fn of_an_announced_frame_only_a_part_gets_addresses() {
    let mut src = BytesMut::new();
    [24, 2, 10, 1 << 37].iter().for_each(|&word| src.put_u64_le(word));
    src.put_slice(&[0; 10]);
    let mut codec = FrameCodec::new(FrameLimits::default());
    assert!(codec.decode(&mut src).expect("legal so far").is_none());
    let room = codec.large_frame().map(|frame| frame.remaining_mut());
    assert_eq!(room, Some(256 << 20));
}
