//! Arguments of native tasks: from whatever form they are in to the type the function takes.

use std::any::{Any, TypeId};
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use dask_protocol::{Payload, native};
use serde::de::DeserializeOwned;

use super::{NativeError, NativeValue};

/// An argument as the worker has it when a task starts.
#[derive(Debug, Clone)]
pub enum ArgSlot {
    /// A value that came with the task, packed with rmp-serde.
    Inline(Bytes),
    /// A result of a native task of this worker.
    Native(NativeValue),
    /// A result that came from elsewhere.
    Payload(Payload),
    /// Several collected into a list or tuple.
    List(Vec<ArgSlot>),
    /// Several collected into a map, by packed keys.
    Map(Vec<(Bytes, ArgSlot)>),
}

/// An argument of type `T`: its own, or shared with the worker's store.
#[derive(Debug)]
pub enum Arg<T> {
    /// Decoded for this call.
    Owned(T),
    /// Lives in the store; other tasks may hold it too.
    Shared(Arc<T>),
}

impl<T> Deref for Arg<T> {
    type Target = T;
    fn deref(&self) -> &T {
        match self {
            Arg::Owned(value) => value,
            Arg::Shared(value) => value,
        }
    }
}

impl<T: Clone> Arg<T> {
    /// The value for keeps: cloned only if others hold it too.
    pub fn into_owned(self) -> T {
        match self {
            Arg::Owned(value) => value,
            Arg::Shared(value) => Arc::unwrap_or_clone(value),
        }
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static> Arg<T> {
    /// Turns a slot into the type the function takes.
    ///
    /// # Errors
    /// [`NativeError::ArgumentType`] naming both types.
    pub fn from_slot(function: &'static str, index: usize, slot: ArgSlot) -> Result<Arg<T>, NativeError> {
        let wrong =
            |found: String| NativeError::ArgumentType { function, index, expected: std::any::type_name::<T>(), found };
        match slot {
            ArgSlot::Inline(bytes) => rmp_serde::from_slice(&bytes)
                .map(Arg::Owned)
                .map_err(|e| wrong(format!("a value that does not fit: {e}"))),
            ArgSlot::Payload(payload) => match shared_bytes(&payload) {
                Some(bytes) => Ok(Arg::Owned(bytes)),
                None => native::unpack_value(&payload).map(Arg::Owned).map_err(|e| wrong(e.to_string())),
            },
            ArgSlot::Native(value) => match value.downcast::<T>() {
                Some(shared) => Ok(Arg::Shared(shared)),
                None => {
                    // Another type may still hold the same data (u32 for u64): let its packed form decide.
                    let payload = value.to_payload()?;
                    native::unpack_value(&payload).map(Arg::Owned).map_err(|_| wrong(value.type_name().to_owned()))
                }
            },
            ArgSlot::List(_) | ArgSlot::Map(_) => {
                let mut packed = Vec::new();
                append(&mut packed, &slot)?;
                rmp_serde::from_slice(&packed)
                    .map(Arg::Owned)
                    .map_err(|e| wrong(format!("results that do not fit: {e}")))
            }
        }
    }

    /// Turns a slot into a share of a value: without a copy when it is a result of this worker.
    ///
    /// # Errors
    /// As [`Arg::from_slot`].
    pub fn shared(function: &'static str, index: usize, slot: ArgSlot) -> Result<Arc<T>, NativeError> {
        Arg::<T>::from_slot(function, index, slot).map(|arg| match arg {
            Arg::Owned(value) => Arc::new(value),
            Arg::Shared(value) => value,
        })
    }

    /// Turns a slot into a list of shares: results of this worker are not copied.
    ///
    /// # Errors
    /// As [`Arg::from_slot`].
    pub fn shared_list(function: &'static str, index: usize, slot: ArgSlot) -> Result<Vec<Arc<T>>, NativeError> {
        match slot {
            ArgSlot::List(items) => items.into_iter().map(|item| Arg::shared(function, index, item)).collect(),
            ArgSlot::Inline(_) | ArgSlot::Native(_) | ArgSlot::Payload(_) | ArgSlot::Map(_) => {
                Ok(Arg::<Vec<Arc<T>>>::from_slot(function, index, slot)?.into_owned())
            }
        }
    }
}

/// The payload's bytes without a copy, if they are bytes and `T` is [`Bytes`].
fn shared_bytes<T: 'static>(payload: &Payload) -> Option<T> {
    if TypeId::of::<T>() != TypeId::of::<Bytes>() {
        return None;
    }
    let mut bytes: Option<Bytes> = native::shared_bytes(payload);
    (&mut bytes as &mut dyn Any).downcast_mut::<Option<T>>()?.take()
}

/// Packs a slot as a part of a larger value.
fn append(packed: &mut Vec<u8>, slot: &ArgSlot) -> Result<(), NativeError> {
    let len =
        |n: usize| u32::try_from(n).map_err(|_| NativeError::Failed("over 2^32 results in one argument".to_owned()));
    match slot {
        ArgSlot::Inline(bytes) => packed.extend_from_slice(bytes),
        ArgSlot::Native(value) => append_packed(packed, &value.to_payload()?)?,
        ArgSlot::Payload(payload) => append_packed(packed, payload)?,
        ArgSlot::List(items) => {
            rmp::encode::write_array_len(packed, len(items.len())?).expect("writing to memory does not fail");
            for item in items {
                append(packed, item)?;
            }
        }
        ArgSlot::Map(entries) => {
            rmp::encode::write_map_len(packed, len(entries.len())?).expect("writing to memory does not fail");
            for (key, item) in entries {
                packed.extend_from_slice(key);
                append(packed, item)?;
            }
        }
    }
    Ok(())
}

fn append_packed(packed: &mut Vec<u8>, payload: &Payload) -> Result<(), NativeError> {
    let part = native::packed(payload);
    let part = part.map_err(|error| NativeError::Failed(format!("unreadable result in a collection: {error}")))?;
    packed.extend_from_slice(&part);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_shared_not_copied() {
        let value = NativeValue::new("text".to_owned());
        let arg = Arg::<String>::from_slot("f", 0, ArgSlot::Native(value.clone())).expect("same type");
        assert!(matches!(&arg, Arg::Shared(s) if s.as_str() == "text"));
    }

    #[test]
    fn bytes_from_elsewhere_are_not_copied() {
        let bytes = Bytes::from(vec![1_u8; 100_000]);
        let payload = NativeValue::new(bytes.clone()).to_payload().expect("packs");
        let arg = Arg::<Bytes>::from_slot("f", 0, ArgSlot::Payload(payload)).expect("bytes");
        assert_eq!(arg.as_ptr(), bytes.as_ptr());
        let number = native::pack_value(&5_i64).expect("packs");
        assert!(Arg::<Bytes>::from_slot("f", 0, ArgSlot::Payload(number)).is_err());
    }

    #[test]
    fn a_wrong_type_names_both() {
        let error = Arg::<i64>::from_slot("f", 1, ArgSlot::Native(NativeValue::new("text".to_owned())))
            .expect_err("text is no integer");
        assert_eq!(error.to_string(), "argument 1 of native task \"f\": expected i64, found alloc::string::String");
    }

    #[test]
    fn lists_collect_values_of_any_origin() {
        let slots = vec![
            ArgSlot::Native(NativeValue::new(1_i64)),
            ArgSlot::Inline(rmp_serde::to_vec(&2_i64).expect("packs").into()),
            ArgSlot::Payload(native::pack_value(&3_i64).expect("packs")),
        ];
        let list = Arg::<Vec<i64>>::from_slot("f", 0, ArgSlot::List(slots)).expect("integers");
        assert_eq!(*list, [1, 2, 3]);
    }

    #[test]
    fn lists_of_shares_and_maps_hold_results() {
        let value = NativeValue::new("text".to_owned());
        let slot = ArgSlot::List(vec![ArgSlot::Native(value.clone()), ArgSlot::Native(value.clone())]);
        let list = Arg::<String>::shared_list("f", 0, slot).expect("texts");
        assert!(Arc::ptr_eq(&list[0], &value.downcast().expect("a text")));
        let key = Bytes::from(rmp_serde::to_vec("a").expect("packs"));
        let map = Arg::<std::collections::BTreeMap<String, String>>::from_slot(
            "f",
            0,
            ArgSlot::Map(vec![(key, ArgSlot::Native(value))]),
        );
        assert_eq!(map.expect("a map")["a"], "text");
    }
}
