//! A message that is cut at any byte, once or several times, leaves what can be asked for the rest of.

use bytes::{Buf, Bytes, BytesMut};
use dask_protocol::frame::{Chunks, FrameCodec, FrameLimits};
use dask_protocol::message::{Message, Pairs};
use dask_protocol::partial::{Came, CutMessage, Held, PartialPayload, PayloadPlace, rest_of};
use dask_protocol::{Key, Payload, Value};
use proptest::prelude::*;
use serde::Deserialize;
use tokio_util::codec::Decoder;

#[derive(Debug, Deserialize)]
struct Reply {
    data: Pairs<Key, PayloadPlace>,
}

fn value(seed: u8, sizes: &[usize]) -> Payload {
    let buffer = |(number, &size): (usize, &usize)| {
        Bytes::from((0..size).map(|i| (i as u8).wrapping_mul(31) ^ seed ^ number as u8).collect::<Vec<_>>())
    };
    Payload::serialized_pickle(Bytes::from_static(b"N."), sizes.iter().enumerate().map(buffer).collect())
}

/// Name and values of a message, each under `data`.
fn reply(values: &[(&str, &Payload)]) -> Message {
    let data = Value::map(values.iter().map(|&(key, payload)| (key, Value::Payload(payload.clone()))));
    Message::encode(&Value::map([("data", data)])).expect("packs")
}

fn header_and_frames(payload: &Payload) -> Vec<Bytes> {
    std::iter::once(payload.header()).chain(payload.frames()).cloned().collect()
}

/// What is there of a message of which so many bytes arrive in steps.
fn cut(message: &Message, bytes: usize, step: usize) -> Option<CutMessage> {
    let (mut codec, mut src) = (FrameCodec::new(FrameLimits::default()), BytesMut::new());
    let mut chunks = Chunks::new(message.frames());
    let stream = chunks.copy_to_bytes(chunks.remaining());
    let mut rest = &stream[..bytes.min(stream.len() - 1)];
    while !rest.is_empty() {
        let step = step.min(rest.len());
        let taken = match codec.large_frame() {
            Some(mut frame) => {
                use bytes::BufMut;
                let step = step.min(frame.remaining_mut());
                frame.put_slice(&rest[..step]);
                step
            }
            None => {
                src.extend_from_slice(&rest[..step]);
                step
            }
        };
        rest = &rest[taken..];
        assert!(codec.decode(&mut src).expect("legal").is_none(), "the message is not whole");
    }
    codec.take_cut(&mut src)
}

fn came(cut: &mut CutMessage, key: &str) -> Came {
    let Some(Reply { data }) = cut.body() else { return Came::Nothing };
    let (_, place) = data.iter().find(|(there, _)| *there == Key::from(key)).expect("it is named");
    cut.payload(*place)
}

/// As it travels in a request.
fn told(part: &PartialPayload) -> Held {
    Message::encode(&part.held()).expect("packs").decode().expect("unpacks")
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![2 => 0_usize..40, 1 => 15_000_usize..20_000, 2 => 60_000_usize..70_000, 1 => 262_000_usize..263_000];
    proptest::collection::vec(size, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_missing_completes_what_is_there(
        sizes in sizes(),
        cuts in proptest::collection::vec(0.0..1.0_f64, 1..4),
        step in prop_oneof![1_usize..100, 10_000_usize..100_000],
    ) {
        let (first, second) = (value(1, &[500]), value(2, &sizes));
        let mut message = reply(&[("first", &first), ("second", &second)]);
        let mut part: Option<PartialPayload> = None;
        for at in cuts {
            let bytes = (message.len() as f64 * at) as usize;
            let Some(mut cut) = cut(&message, bytes, step) else { continue };
            part = match (part, came(&mut cut, "second")) {
                (None, Came::Nothing) => None,
                (None, Came::Part(part)) => Some(part),
                (Some(part), Came::Nothing) => Some(part),
                (Some(part), Came::Part(rest)) => {
                    let longer = part.clone().extended(rest).expect("more of it");
                    prop_assert!(longer.len() >= part.len());
                    Some(longer)
                }
                // The table was cut short by one byte at least, so that only what has an empty end can be whole.
                (None, Came::Whole(whole)) => {
                    prop_assert_eq!(&whole, &second);
                    return Ok(());
                }
                (Some(part), Came::Whole(rest)) => {
                    prop_assert_eq!(&part.finish(&rest).expect("completes it"), &second);
                    return Ok(());
                }
            };
            if let Some(part) = &part {
                let rest = rest_of(&header_and_frames(&second), &told(part)).expect("the same value");
                message = reply(&[("second", &Payload::serialized("rest", None, rest))]);
            }
        }
        if let Some(part) = part {
            let rest = rest_of(&header_and_frames(&second), &told(&part)).expect("the same value");
            prop_assert_eq!(part.len() + rest.iter().map(Bytes::len).sum::<usize>(), second.len());
            let whole = part.finish(&Payload::serialized("rest", None, rest)).expect("completes it");
            prop_assert_eq!(whole, second);
        }
    }
}

fn half(payload: &Payload) -> PartialPayload {
    let message = reply(&[("x", payload)]);
    match came(&mut cut(&message, message.len() / 2, 1000).expect("inside"), "x") {
        Came::Part(part) => part,
        other => panic!("a part of it, not {other:?}"),
    }
}

#[test]
fn values_before_the_cut_are_whole() {
    let (first, second) = (value(1, &[100_000, 10]), value(2, &[100_000]));
    let message = reply(&[("first", &first), ("second", &second)]);
    let mut cut = cut(&message, message.len() - 10, 4096).expect("inside");
    assert_eq!(came(&mut cut, "first"), Came::Whole(first));
    assert!(matches!(came(&mut cut, "second"), Came::Part(part) if part.len() < second.len()));
}

#[test]
fn another_value_is_not_taken_for_the_rest() {
    let mine = value(1, &[100_000, 100_000]);
    let part = half(&mine);
    let rest = |payload: &Payload| rest_of(&header_and_frames(payload), &part.held());
    assert!(rest(&mine).is_some());
    assert!(rest(&value(2, &[100_000, 100_000])).is_none(), "other bytes");
    assert!(rest(&value(1, &[100_000])).is_none(), "fewer frames");
    assert!(rest(&value(1, &[50_000, 100_000])).is_none(), "shorter than what is there");
    let whole = rest(&mine).expect("the same");
    assert!(
        part.clone().finish(&Payload::serialized("rest", None, whole[..1].to_vec())).is_err(),
        "a frame is missing"
    );
    assert!(part.finish(&Payload::serialized("rest", None, Vec::new())).is_err(), "nothing completes the tail");
}

#[test]
fn lies_about_what_is_held_are_refused() {
    let mine = value(1, &[100_000]);
    let held = |lengths: Vec<u64>, nbytes: u64| -> Held {
        let held = Value::map([
            ("lengths", Value::Array(lengths.into_iter().map(Value::UInt).collect())),
            ("nbytes", Value::UInt(nbytes)),
            ("checksum", Value::UInt(0)),
        ]);
        Message::encode(&held).expect("packs").decode().expect("of this type")
    };
    for (lengths, nbytes) in
        [(vec![], 0), (vec![], u64::MAX), (vec![u64::MAX, u64::MAX], 0), (vec![0; 1000], 0), (vec![], 1 << 40)]
    {
        let rest = rest_of(&header_and_frames(&mine), &held(lengths.clone(), nbytes));
        assert!(rest.is_none() || nbytes == 0, "{lengths:?} {nbytes}");
    }
}

#[test]
fn naming_the_same_frames_over_and_over_brings_nothing() {
    let message = reply(&[("x", &value(1, &[70_000; 5]))]);
    let mut cut = cut(&message, message.len() - 10, 100_000).expect("inside");
    let parts = (0..100).filter(|_| matches!(cut.payload(PayloadPlace::Serialized(1)), Came::Part(_))).count();
    assert!((1..10).contains(&parts), "{parts}");
    assert_eq!(cut.payload(PayloadPlace::Serialized(0)), Came::Nothing, "the body is no payload");
}
