//! Any frames as a message: every stream and request decoder refuses them or understands them, and what is understood as
//! a value survives being packed again. An input is a count, that many lengths (u16), and the frames one after another;
//! the last frame takes the rest.
#![no_main]

use bytes::{Buf, Bytes};
use dask_protocol::Value;
use dask_protocol::message::{
    ClientToScheduler, Message, Request, SchedulerToClient, SchedulerToWorker, WorkerToScheduler,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let message = Message::from_frames(frames(Bytes::copy_from_slice(input)));
    let _ = message.decode_stream::<ClientToScheduler>();
    let _ = message.decode_stream::<SchedulerToClient>();
    let _ = message.decode_stream::<SchedulerToWorker>();
    let _ = message.decode_stream::<WorkerToScheduler>();
    let _ = Request::from_message(message.clone());
    let Ok(value) = message.decode::<Value>() else { return };
    visit(&value);
    let packed = Message::encode(&value).expect("what was decoded can be packed");
    let again: Value = packed.decode().expect("what we pack can be decoded");
    // NaN differs from itself, so the texts are compared.
    assert_eq!(format!("{value:?}"), format!("{again:?}"));
});

fn frames(mut input: Bytes) -> Vec<Bytes> {
    let count = usize::from(input.try_get_u8().unwrap_or(0));
    let lengths: Vec<usize> = (0..count).map_while(|_| input.try_get_u16_le().ok()).map(usize::from).collect();
    let mut frames: Vec<Bytes> = lengths.iter().map(|&length| input.split_to(length.min(input.len()))).collect();
    frames.push(input);
    frames
}

fn visit(value: &Value) {
    match value {
        Value::Payload(payload) => {
            let _ = payload.logical_frames();
        }
        Value::Array(items) | Value::Set(items) => items.iter().for_each(visit),
        Value::Map(entries) => entries.iter().for_each(|(key, value)| {
            let _ = key.to_key().map(|key| (key.prefix(), key.group(), key.to_string()));
            visit(value);
        }),
        Value::Nil
        | Value::Bool(_)
        | Value::Int(_)
        | Value::UInt(_)
        | Value::Float(_)
        | Value::Str(_)
        | Value::Bin(_)
        | Value::Enum(_) => {}
    }
}
