//! Calls of native tasks: a function's name, its arguments, and how it should be scheduled.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use dask_protocol::native::{Definition, NativeArg, NativeCall, SharedDefinition};
use dask_protocol::{Key, Payload, Value};
use serde::Serialize;

use crate::error::TaskError;
use crate::future::{Future, Handle};
use crate::graph::Node;
use crate::python::Target;

/// A call that has not been submitted: what to run, giving a `T`.
///
/// ```
/// # use dask_client::{TaskCall, IntoArg};
/// // What `#[dask::task] fn add(a: i64, b: i64) -> i64` expands its call to:
/// let call: TaskCall<i64> = TaskCall::new("add", vec![IntoArg::<i64>::into_arg(1), IntoArg::<i64>::into_arg(2)]);
/// let call = call.priority(10.0).retries(2);
/// ```
pub struct TaskCall<T> {
    pub(crate) function: SharedDefinition,
    pub(crate) args: Vec<CallArg>,
    pub(crate) key: Option<Key>,
    annotations: Vec<(&'static str, Value)>,
    /// Where the function is, if it is Python's.
    pub(crate) python: Option<Target>,
    value: PhantomData<fn() -> T>,
}

impl<T> TaskCall<T> {
    /// A call of the function registered under `function`, whatever its types.
    pub fn new(function: impl Into<Cow<'static, str>>, args: Vec<CallArg>) -> TaskCall<T> {
        TaskCall::of(Definition::named(function).into(), args)
    }

    /// A call of a function that this binary was built with: a worker that has another one refuses it.
    #[doc(hidden)]
    pub fn defined(function: &'static Definition, args: Vec<CallArg>) -> TaskCall<T> {
        TaskCall::of(function.into(), args)
    }

    fn of(function: SharedDefinition, args: Vec<CallArg>) -> TaskCall<T> {
        TaskCall { function, args, key: None, annotations: Vec::new(), python: None, value: PhantomData }
    }

    /// Names the task; a key that exists already is not run again.
    #[must_use]
    pub fn key(mut self, key: impl Into<Key>) -> TaskCall<T> {
        self.key = Some(key.into());
        self
    }

    /// Larger priorities run earlier; 0 where not given.
    #[must_use]
    pub fn priority(self, priority: f64) -> TaskCall<T> {
        self.annotate("priority", Value::Float(priority))
    }

    /// How often to run again after a failure.
    #[must_use]
    pub fn retries(self, retries: u32) -> TaskCall<T> {
        self.annotate("retries", Value::Int(retries.into()))
    }

    /// Runs only on these workers (names, addresses or hosts).
    #[must_use]
    pub fn workers<S: Into<String>>(self, workers: impl IntoIterator<Item = S>) -> TaskCall<T> {
        let workers = workers.into_iter().map(|w| Value::Str(w.into())).collect();
        self.annotate("workers", Value::Array(workers))
    }

    /// Prefers those workers, but may run elsewhere.
    #[must_use]
    pub fn allow_other_workers(self) -> TaskCall<T> {
        self.annotate("allow_other_workers", Value::Bool(true))
    }

    /// Most time it may run; then it is cancelled and fails. Workers of `dask.distributed` know no timeouts.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> TaskCall<T> {
        self.annotate("timeout", Value::Float(timeout.as_secs_f64()))
    }

    /// Occupies this much of a worker's abstract resource while it runs.
    #[must_use]
    pub fn resource(mut self, name: &str, amount: f64) -> TaskCall<T> {
        let entry = (Value::from(name), Value::Float(amount));
        match self.annotations.iter_mut().find(|(n, _)| *n == "resources") {
            Some((_, Value::Map(resources))) => resources.push(entry),
            Some(_) | None => self.annotations.push(("resources", Value::Map(vec![entry]))),
        }
        self
    }

    fn annotate(mut self, name: &'static str, value: Value) -> TaskCall<T> {
        self.annotations.retain(|(n, _)| *n != name);
        self.annotations.push((name, value));
        self
    }

    pub(crate) fn annotations(&self) -> Value {
        if self.annotations.is_empty() {
            return Value::Nil;
        }
        Value::map(self.annotations.iter().cloned())
    }

    /// The futures it reads, which must be held until it is sent.
    pub(crate) fn into_handles(self) -> impl Iterator<Item = Handle> {
        self.args.into_iter().flat_map(|arg| arg.handles)
    }

    /// What it runs, under this key, as it travels, and the keys it reads.
    /// `tells_result`: a small result is to come with the news that there is one.
    pub(crate) fn run_spec(&self, key: &Key, tells_result: bool) -> Result<(Payload, Vec<Key>), TaskError> {
        let args = self.args.iter().enumerate().map(|(index, arg)| {
            arg.arg.clone().map_err(|reason| TaskError::Argument {
                function: self.function.name.to_string(),
                index,
                reason,
            })
        });
        let args = args.collect::<Result<_, _>>()?;
        let call = NativeCall { function: self.function.clone(), args, tells_result };
        let dependencies = call.dependencies();
        let run_spec = match &self.python {
            None => call.into_payload(),
            Some(target) => target.run_spec(key, call.args)?,
        };
        Ok((run_spec, dependencies))
    }
}

impl<T> std::fmt::Debug for TaskCall<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TaskCall({}/{}", self.function.name, self.args.len())?;
        f.write_str(")")
    }
}

/// One argument of a call, packed, with the futures it must keep alive until the call is sent.
#[derive(Debug)]
pub struct CallArg {
    arg: Result<NativeArg, String>,
    handles: Vec<Handle>,
}

impl CallArg {
    fn value<T: Serialize + ?Sized>(value: &T) -> CallArg {
        // Packing makes room for 128 bytes; most arguments are smaller, and there may be millions.
        let packed = rmp_serde::to_vec_named(value).map(|bytes| NativeArg::Value(bytes.into_boxed_slice().into()));
        CallArg { arg: packed.map_err(|e| e.to_string()), handles: Vec::new() }
    }

    fn future(handle: &Handle) -> CallArg {
        CallArg { arg: Ok(NativeArg::Future(handle.key().clone())), handles: vec![handle.clone()] }
    }

    fn node<T>(node: &Node<T>) -> CallArg {
        CallArg { arg: Ok(NativeArg::Future(node.key().clone())), handles: Vec::new() }
    }

    fn list(items: impl IntoIterator<Item = CallArg>) -> CallArg {
        let mut handles = Vec::new();
        let args = items.into_iter().map(|item| {
            handles.extend(item.handles);
            item.arg
        });
        let arg = args.collect::<Result<Vec<_>, _>>().map(NativeArg::List);
        CallArg { arg, handles }
    }

    fn map<K: Serialize>(entries: impl Iterator<Item = (K, CallArg)>) -> CallArg {
        let mut handles = Vec::new();
        let args = entries.map(|(key, value)| {
            handles.extend(value.handles);
            let key = rmp_serde::to_vec_named(&key).map_err(|e| e.to_string())?;
            Ok((Bytes::from(key), value.arg?))
        });
        let arg = args.collect::<Result<Vec<_>, _>>().map(NativeArg::Map);
        CallArg { arg, handles }
    }
}

/// What may stand for an argument of type `T`: a value, a future of one, or a collection with futures in it.
///
/// | for an argument of type | stand |
/// |---|---|
/// | `T` | `T`, `&T`, [`Future<T>`] or a reference to one, [`Node<T>`] |
/// | `String` | also `&str` |
/// | `Vec<T>` | also `Vec`, slice or array of futures or nodes |
/// | `(A, B)`, `(A, B, C)` | also tuples in which some or all are futures or nodes |
/// | `BTreeMap<K, V>`, `HashMap<K, V>` | also maps whose values are futures or nodes |
/// | `Option<T>` | also `Option<Future<T>>` |
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot stand for an argument of type `{T}`",
    label = "expected `{T}`, or a future of one",
    note = "give a value of type `{T}`, a `Future<{T}>`, or a collection of futures of its elements"
)]
pub trait IntoArg<T> {
    /// Packs it.
    fn into_arg(self) -> CallArg;
}

impl<T: Serialize> IntoArg<T> for T {
    fn into_arg(self) -> CallArg {
        CallArg::value(&self)
    }
}
impl<T: Serialize> IntoArg<T> for &T {
    fn into_arg(self) -> CallArg {
        CallArg::value(self)
    }
}
impl IntoArg<String> for &str {
    fn into_arg(self) -> CallArg {
        CallArg::value(self)
    }
}
impl<T> IntoArg<T> for Future<T> {
    fn into_arg(self) -> CallArg {
        CallArg::future(self.handle())
    }
}
impl<T> IntoArg<T> for &Future<T> {
    fn into_arg(self) -> CallArg {
        CallArg::future(self.handle())
    }
}
impl<T> IntoArg<T> for &Node<T> {
    fn into_arg(self) -> CallArg {
        CallArg::node(self)
    }
}
impl<T> IntoArg<T> for Node<T> {
    fn into_arg(self) -> CallArg {
        CallArg::node(&self)
    }
}

/// What stands for a value that will be there later, inside collections.
macro_rules! later {
    ($later:ident) => {
        impl<T> IntoArg<Vec<T>> for Vec<$later<T>> {
            fn into_arg(self) -> CallArg {
                IntoArg::<Vec<T>>::into_arg(&*self)
            }
        }
        impl<T> IntoArg<Vec<T>> for &Vec<$later<T>> {
            fn into_arg(self) -> CallArg {
                IntoArg::<Vec<T>>::into_arg(&**self)
            }
        }
        impl<T> IntoArg<Vec<T>> for &[$later<T>] {
            fn into_arg(self) -> CallArg {
                CallArg::list(self.iter().map(IntoArg::<T>::into_arg))
            }
        }
        impl<T, const N: usize> IntoArg<Vec<T>> for [$later<T>; N] {
            fn into_arg(self) -> CallArg {
                IntoArg::<Vec<T>>::into_arg(&self[..])
            }
        }
        impl<T> IntoArg<Option<T>> for Option<$later<T>> {
            fn into_arg(self) -> CallArg {
                self.map_or_else(|| CallArg::value(&()), |later| IntoArg::<T>::into_arg(&later))
            }
        }
        impl<K: Serialize, V> IntoArg<BTreeMap<K, V>> for BTreeMap<K, $later<V>> {
            fn into_arg(self) -> CallArg {
                CallArg::map(self.into_iter().map(|(key, value)| (key, IntoArg::<V>::into_arg(&value))))
            }
        }
        impl<K: Serialize, V, S, R> IntoArg<HashMap<K, V, R>> for HashMap<K, $later<V>, S> {
            fn into_arg(self) -> CallArg {
                CallArg::map(self.into_iter().map(|(key, value)| (key, IntoArg::<V>::into_arg(&value))))
            }
        }
    };
}
later!(Future);
later!(Node);

/// A tuple in which those named `later` are futures or nodes, and the others values.
macro_rules! tuple {
    ($(($($name:ident: $ty:ty),+) for ($($generic:ident $(: $bound:path)?),+);)+) => {
        $(impl<$($generic $(: $bound)?),+> IntoArg<($($generic,)+)> for ($($ty,)+) {
            fn into_arg(self) -> CallArg {
                let ($($name,)+) = self;
                CallArg::list([$(IntoArg::<$generic>::into_arg($name)),+])
            }
        })+
    };
}
tuple! {
    (a: Future<A>) for (A);
    (a: Future<A>, b: Future<B>) for (A, B);
    (a: Future<A>, b: B) for (A, B: Serialize);
    (a: A, b: Future<B>) for (A: Serialize, B);
    (a: Future<A>, b: Future<B>, c: Future<C>) for (A, B, C);
    (a: Future<A>, b: Future<B>, c: C) for (A, B, C: Serialize);
    (a: Future<A>, b: B, c: Future<C>) for (A, B: Serialize, C);
    (a: A, b: Future<B>, c: Future<C>) for (A: Serialize, B, C);
    (a: Future<A>, b: B, c: C) for (A, B: Serialize, C: Serialize);
    (a: A, b: Future<B>, c: C) for (A: Serialize, B, C: Serialize);
    (a: A, b: B, c: Future<C>) for (A: Serialize, B: Serialize, C);
    (a: Node<A>) for (A);
    (a: Node<A>, b: Node<B>) for (A, B);
    (a: Node<A>, b: B) for (A, B: Serialize);
    (a: A, b: Node<B>) for (A: Serialize, B);
    (a: Node<A>, b: Node<B>, c: Node<C>) for (A, B, C);
}
