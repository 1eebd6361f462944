//! Whatever a body may hold survives the wire; whatever a peer may send instead is refused without a panic.

use bytes::Bytes;
use dask_protocol::message::{
    ClientToScheduler, Message, Request, SchedulerToClient, SchedulerToWorker, WorkerToScheduler,
};
use dask_protocol::{Payload, Value};
use proptest::collection::vec;
use proptest::prelude::*;

fn payload() -> impl Strategy<Value = Value> {
    let frames = vec(vec(any::<u8>(), 0..40).prop_map(Bytes::from), 0..4);
    (any::<bool>(), vec(any::<u8>(), 0..40), frames).prop_map(|(pickled, pickle, frames)| {
        let pickle = Bytes::from(pickle);
        Value::Payload(match pickled {
            true => Payload::pickled(pickle, frames),
            false => Payload::serialized_pickle(pickle, frames),
        })
    })
}

/// Task keys as Python allows them: text, numbers, tuples of them.
fn key() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof!["[a-z]{0,6}".prop_map(Value::from), any::<i64>().prop_map(Value::Int)];
    leaf.prop_recursive(2, 6, 3, |inner| vec(inner, 0..3).prop_map(Value::Array))
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (i64::MAX as u64 + 1..).prop_map(Value::UInt),
        prop::num::f64::NORMAL.prop_map(Value::Float),
        Just(Value::Float(f64::NEG_INFINITY)),
        ".{0,12}".prop_map(Value::from),
        vec(any::<u8>(), 0..300).prop_map(|bytes| Value::Bin(bytes.into())),
        ("[A-Z]{1,4}", "[a-z.]{1,9}").prop_map(|(name, module)| Value::enum_member(&name, &module, "Status")),
        payload(),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::Array),
            vec(key(), 0..5).prop_map(Value::Set),
            vec((key(), inner), 0..5).prop_map(Value::Map),
        ]
    })
}

proptest! {
    #[test]
    fn any_body_survives_packing(body in value()) {
        let message = Message::encode(&body).expect("packs");
        prop_assert_eq!(message.decode::<Value>().expect("decodes"), body);
    }

    #[test]
    fn payloads_keep_their_frames_when_a_message_is_relayed_inside_another(body in value()) {
        let received = Message::encode(&Value::Array(vec![body.clone()])).expect("packs");
        let relayed: Value = received.decode().expect("decodes");
        let sent = Message::encode(&Value::map([("before", Value::Payload(Payload::pickled(Bytes::new(), vec![Bytes::new()]))), ("data", relayed)]));
        let back: Value = sent.expect("packs").decode().expect("decodes");
        prop_assert_eq!(back.get("data"), Some(&Value::Array(vec![body])));
    }

    #[test]
    fn damaged_messages_are_refused_or_read_but_never_panic(
        body in value(), position in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let mut frames = Message::encode(&body).expect("packs").frames().to_vec();
        let mut packed = frames[0].to_vec();
        let at = position.index(packed.len());
        packed[at] = byte;
        frames[0] = packed.into();
        frames.truncate(1 + cut.index(frames.len()));
        read_as_everything(&Message::from_frames(frames));
    }

    #[test]
    fn garbage_is_refused_or_read_but_never_panics(frames in vec(vec(any::<u8>(), 0..60), 0..4)) {
        read_as_everything(&Message::from_frames(frames.into_iter().map(Bytes::from).collect()));
    }
}

/// What decodes at all must also be fit to be sent again.
fn read_as_everything(message: &Message) {
    if let Ok(value) = message.decode::<Value>() {
        Message::encode(&value).expect("what was decoded can be packed");
    }
    let streams = [
        message.decode_stream::<ClientToScheduler>().map(|batch| batch.len()),
        message.decode_stream::<SchedulerToClient>().map(|batch| batch.len()),
        message.decode_stream::<SchedulerToWorker>().map(|batch| batch.len()),
        message.decode_stream::<WorkerToScheduler>().map(|batch| batch.len()),
        Request::from_message(message.clone()).map(|request| request.op().len()),
    ];
    for read in streams.into_iter().flatten() {
        assert!(read <= message.body().len(), "nothing is made of fewer bytes than it has parts");
    }
}
