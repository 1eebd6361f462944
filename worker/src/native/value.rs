//! A typed value in a worker's memory.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dask_protocol::{Payload, native};
use serde::Serialize;

use super::NativeError;
use super::library::LibraryValue;

/// A result of a native task, shared by reference. Cloning bumps a reference count.
#[derive(Clone)]
pub struct NativeValue {
    value: Arc<dyn Any + Send + Sync>,
    vtable: &'static Vtable,
    nbytes: u64,
}

struct Vtable {
    type_name: fn(&(dyn Any + Send + Sync)) -> &'static str,
    pack: fn(&(dyn Any + Send + Sync)) -> Result<Payload, String>,
    /// Packs a small value, of so many bytes, without what says of which type it is. Bytes are no such value.
    tell: fn(&(dyn Any + Send + Sync), usize) -> Option<Bytes>,
}

trait HasVtable {
    const VTABLE: &'static Vtable;
}

impl<T: Serialize + Send + Sync + 'static> HasVtable for T {
    const VTABLE: &'static Vtable = &Vtable {
        type_name: |_| std::any::type_name::<T>(),
        pack: |value| {
            if let Some(bytes) = value.downcast_ref::<Bytes>() {
                return native::pack_bytes(bytes).map_err(|e| e.to_string());
            }
            let value = value.downcast_ref::<T>().expect("the vtable belongs to the value's type");
            native::pack_value(value).map_err(|e| e.to_string())
        },
        tell: |value, nbytes| {
            if value.is::<Bytes>() {
                return None;
            }
            let mut packed = Vec::with_capacity(nbytes);
            let value = value.downcast_ref::<T>().expect("the vtable belongs to the value's type");
            rmp_serde::encode::write_named(&mut packed, value).ok()?;
            Some(packed.into())
        },
    };
}

/// Of values that live in a task library.
static IN_LIBRARY: Vtable = Vtable {
    type_name: |value| in_library(value).type_name(),
    pack: |value| in_library(value).pack(),
    tell: |value, _| match in_library(value).pack().ok()?.frames() {
        [whole] => Some(whole.clone()),
        _ => None,
    },
};

fn in_library(value: &(dyn Any + Send + Sync)) -> &LibraryValue {
    value.downcast_ref().expect("the vtable belongs to a library's value")
}

impl NativeValue {
    /// A value that lives in a task library, and its size there.
    pub(super) fn of_library(value: LibraryValue, nbytes: u64) -> NativeValue {
        NativeValue { value: Arc::new(value), vtable: &IN_LIBRARY, nbytes }
    }

    /// Takes a value; its size is what it would take packed.
    pub fn new<T: Serialize + Send + Sync + 'static>(value: T) -> NativeValue {
        NativeValue::shared(Arc::new(value))
    }

    /// Takes a share of a value that others hold too.
    pub fn shared<T: Serialize + Send + Sync + 'static>(value: Arc<T>) -> NativeValue {
        let nbytes = packed_size(&*value);
        NativeValue { value, vtable: T::VTABLE, nbytes }
    }

    /// The name of its Rust type.
    pub fn type_name(&self) -> &'static str {
        (self.vtable.type_name)(&*self.value)
    }

    /// Its size in bytes.
    pub fn nbytes(&self) -> u64 {
        self.nbytes
    }

    /// The value itself, if it is a `T`.
    pub fn downcast<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        Arc::clone(&self.value).downcast::<T>().ok()
    }

    /// The value packed, if it is so small that it is told with the news that there is one. Values of bytes are not: they
    /// are passed on as they are.
    pub(crate) fn told(&self) -> Option<Bytes> {
        let nbytes = usize::try_from(self.nbytes).ok().filter(|&nbytes| nbytes <= native::TOLD_BYTES_MAX)?;
        (self.vtable.tell)(&*self.value, nbytes).filter(|packed| packed.len() <= native::TOLD_BYTES_MAX)
    }

    /// Packs it to leave the worker.
    ///
    /// # Errors
    /// [`NativeError::Unserialisable`] when its `Serialize` refuses.
    pub fn to_payload(&self) -> Result<Payload, NativeError> {
        (self.vtable.pack)(&*self.value)
            .map_err(|reason| NativeError::Unserialisable { type_name: self.type_name(), reason })
    }
}

impl fmt::Debug for NativeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NativeValue({}, {} bytes)", self.type_name(), self.nbytes)
    }
}

/// Counts what a serialiser writes, without keeping it.
struct Counter(u64);
impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn packed_size<T: Serialize>(value: &T) -> u64 {
    let mut counter = Counter(0);
    let packed = value.serialize(&mut rmp_serde::Serializer::new(&mut counter).with_struct_map());
    // A value that cannot be packed may still serve tasks of this worker; its size is then the memory of its shell.
    if packed.is_ok() { counter.0 } else { size_of::<T>() as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_type_and_packs_on_demand() {
        let value = NativeValue::new(vec![1_u8, 2, 3]);
        assert_eq!(value.nbytes(), 4);
        assert!(value.downcast::<String>().is_none());
        assert_eq!(*value.downcast::<Vec<u8>>().expect("same type"), [1, 2, 3]);
        let payload = value.to_payload().expect("packs");
        assert_eq!(native::unpack_value::<Vec<u8>>(&payload).expect("unpacks"), [1, 2, 3]);
    }

    #[test]
    fn what_is_told_is_what_a_payload_holds() {
        let value = NativeValue::new(("text".to_owned(), 7_u8));
        assert_eq!(value.told().as_ref(), value.to_payload().expect("packs").frames().first());
        assert!(NativeValue::new(Bytes::from_static(b"raw")).told().is_none());
        assert!(NativeValue::new(vec![1_u8; native::TOLD_BYTES_MAX]).told().is_none(), "its head makes it too large");
    }
}
