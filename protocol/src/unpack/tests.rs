//! What is packed and read here, beside what rmp-serde makes of the same.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::message::{
    ComputeTask, Keys, Priority, SchedulerToWorker, StartStop, TaskFinished, WhoHas, WorkerStatus, WorkerToScheduler,
};
use crate::{Address, Key, Payload, Value, pack};

/// Everything that serde tells apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shapes {
    Unit,
    Newtype(Option<i64>),
    Tuple(u8, String),
    Struct { a: f64, b: Vec<(char, bool)> },
    Small(i8, i16, i32, f32, [u16; 2]),
    Nested(Box<Shapes>),
}

fn by_rmp<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(UNPACK_DEPTH_MAX.into());
    T::deserialize(&mut deserializer).ok()
}

fn same<T: DeserializeOwned + std::fmt::Debug>(bytes: &[u8]) {
    // Compared as text, in which NaN is equal to itself.
    let shown = |read: Option<T>| format!("{read:?}");
    assert_eq!(shown(from_slice::<T>(bytes).ok()), shown(by_rmp::<T>(bytes)), "{bytes:02x?}");
}

fn same_as_anything(bytes: &[u8]) {
    same::<Value>(bytes);
    same::<TaskFinished>(bytes);
    same::<Keys>(bytes);
    same::<WhoHas>(bytes);
    same::<Option<Vec<u8>>>(bytes);
    same::<(u8, i64)>(bytes);
    assert_eq!(from_slice::<de::IgnoredAny>(bytes).is_ok(), by_rmp::<de::IgnoredAny>(bytes).is_some(), "{bytes:02x?}");
}

fn packed_alike<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let (packed, _) = crate::payload::with_outgoing(|| pack::to_vec(value).expect("packs"));
    let (expected, _) = crate::payload::with_outgoing(|| rmp_serde::to_vec_named(value).expect("packs"));
    assert_eq!(packed, expected);
    packed
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (any::<i64>(), 0..63).prop_map(|(it, by)| Value::Int(it >> by)),
        (i64::MAX as u64 + 1..).prop_map(Value::UInt),
        any::<f64>().prop_map(Value::Float),
        ".{0,40}".prop_map(Value::from),
        vec(any::<u8>(), 0..300).prop_map(|bytes| Value::Bin(bytes.into())),
    ];
    leaf.prop_recursive(4, 60, 20, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..20).prop_map(Value::Array),
            vec((inner.clone(), inner), 0..20).prop_map(Value::Map),
        ]
    })
}

fn finished(key: Key, nbytes: i64, metadata: Value, source: Option<Address>) -> TaskFinished {
    TaskFinished {
        key,
        run_id: 3,
        nbytes,
        type_pickle: Some(Bytes::from_static(b"int")),
        typename: "int".into(),
        metadata,
        thread: Value::Int(140_000_000_000),
        startstops: vec![StartStop { action: "compute".into(), start: 1.0, stop: 2.5, source }],
        value: None,
        status: "OK".into(),
        stimulus_id: "task-finished-1".into(),
    }
}

proptest! {
    #[test]
    fn values_are_packed_and_read_as_by_rmp_serde(value in value()) {
        same_as_anything(&packed_alike(&value));
    }

    #[test]
    fn garbage_is_read_or_refused_as_by_rmp_serde(bytes in vec(any::<u8>(), 0..40)) {
        same_as_anything(&bytes);
    }

    #[test]
    fn damaged_messages_are_read_or_refused_as_by_rmp_serde(
        nbytes in any::<i64>(), metadata in value(), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in any::<prop::sample::Index>(),
    ) {
        let key = Key::tuple([Key::from("x"), Key::from(nbytes), Key::float(0.5)]);
        let mut bytes = packed_alike(&finished(key, nbytes, metadata, Some("tcp://a:1".into())));
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        same_as_anything(&bytes);
        same_as_anything(&bytes[..cut.index(bytes.len() + 1)]);
    }
}

#[test]
fn every_kind_of_type_is_packed_and_read_as_by_rmp_serde() {
    for shape in [
        Shapes::Unit,
        Shapes::Newtype(None),
        Shapes::Newtype(Some(-129)),
        Shapes::Tuple(200, "x".repeat(300)),
        Shapes::Struct { a: -0.0, b: vec![('\u{e4}', true), ('x', false)] },
        Shapes::Small(-1, -200, -70_000, 0.1, [0, 65_535]),
        Shapes::Nested(Box::new(Shapes::Nested(Box::new(Shapes::Unit)))),
    ] {
        let packed = packed_alike(&vec![shape.clone(); 17]);
        assert_eq!(from_slice::<Vec<Shapes>>(&packed).expect("reads"), vec![shape; 17]);
        same::<Vec<Shapes>>(&packed);
    }
}

#[test]
fn structs_within_structs_and_lengths_not_known_before_are_packed_alike() {
    #[derive(Serialize)]
    struct Call<'a> {
        op: &'a str,
        #[serde(flatten)]
        args: std::collections::BTreeMap<String, u32>,
    }
    for count in [0, 3, 15, 40, 70_000] {
        let args = (0..count).map(|i| (format!("field-{i:06}"), i)).collect();
        packed_alike(&[Call { op: "x", args }]);
    }
}

#[test]
fn a_message_of_a_task_is_packed_as_by_rmp_serde() {
    let task = ComputeTask {
        key: "x".into(),
        run_id: 1,
        priority: Priority::new(0.0, 1.0, 0.5),
        stimulus_id: "s".into(),
        who_has: WhoHas::from_iter([("y".into(), vec!["tcp://a:1".into()])]),
        nbytes: Default::default(),
        run_spec: Payload::pickled(Bytes::from_static(b"."), vec![]),
        resource_restrictions: None,
        actor: false,
        annotations: Value::Map(vec![]),
        span_id: None,
    };
    packed_alike(&SchedulerToWorker::from(task));
    packed_alike(&WorkerToScheduler::from(finished("x".into(), 1, Value::Nil, None)));
}

#[test]
fn variants_go_by_name() {
    let read = |value: &Value| from_slice::<WorkerStatus>(&packed_alike(value)).ok();
    assert_eq!(read(&"closing_gracefully".into()), Some(WorkerStatus::ClosingGracefully));
    assert_eq!(read(&Value::map([("paused", Value::Nil)])), Some(WorkerStatus::Paused));
    for other in [Value::from("idle"), Value::Int(1), Value::Nil, Value::map([]), Value::Array(vec!["init".into()])] {
        assert_eq!(read(&other), None, "{other:?}");
    }
}

#[test]
fn what_is_nested_too_deep_is_refused() {
    let deep = vec![0x91; 100_000];
    assert!(matches!(from_slice::<de::IgnoredAny>(&deep), Err(DecodeError::TooLarge { .. })));
    assert!(from_slice::<Value>(&deep).is_err());
}
