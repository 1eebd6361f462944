//! Arguments of native tasks: from whatever form they are in to the type the function takes.

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
    /// Several collected into a list.
    List(Vec<ArgSlot>),
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
            ArgSlot::Payload(payload) => {
                native::unpack_value(&payload).map(Arg::Owned).map_err(|e| wrong(e.to_string()))
            }
            ArgSlot::Native(value) => match value.downcast::<T>() {
                Some(shared) => Ok(Arg::Shared(shared)),
                None => {
                    // Another type may still hold the same data (u32 for u64): let its packed form decide.
                    let payload = value.to_payload()?;
                    native::unpack_value(&payload).map(Arg::Owned).map_err(|_| wrong(value.type_name().to_owned()))
                }
            },
            ArgSlot::List(items) => {
                let packed = pack_list(items)?;
                rmp_serde::from_slice(&packed)
                    .map(Arg::Owned)
                    .map_err(|e| wrong(format!("a list of results that does not fit: {e}")))
            }
        }
    }
}

fn pack_list(items: Vec<ArgSlot>) -> Result<Vec<u8>, NativeError> {
    let mut packed = Vec::new();
    let len = u32::try_from(items.len()).map_err(|_| NativeError::Failed("a list of over 2^32 results".to_owned()))?;
    rmp::encode::write_array_len(&mut packed, len).expect("writing to memory does not fail");
    for item in items {
        match item {
            ArgSlot::Inline(bytes) => packed.extend_from_slice(&bytes),
            ArgSlot::Native(value) => append_frames(&mut packed, &value.to_payload()?)?,
            ArgSlot::Payload(payload) => append_frames(&mut packed, &payload)?,
            ArgSlot::List(inner) => packed.extend(pack_list(inner)?),
        }
    }
    Ok(packed)
}

fn append_frames(packed: &mut Vec<u8>, payload: &Payload) -> Result<(), NativeError> {
    let unreadable = |e: &dyn std::fmt::Display| NativeError::Failed(format!("unreadable result in a list: {e}"));
    let header = payload.sub_header().map_err(|e| unreadable(&e))?;
    if header.serializer.as_deref() != Some(native::VALUE_SERIALIZER) {
        return Err(unreadable(&format_args!("serialised with {:?}", header.serializer)));
    }
    for frame in payload.logical_frames().map_err(|e| unreadable(&e))? {
        packed.extend_from_slice(&frame);
    }
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
}
