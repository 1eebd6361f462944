//! Calls of native tasks: a function's name, its arguments, and how it should be scheduled.

use std::borrow::Cow;
use std::marker::PhantomData;

use bytes::Bytes;
use dask_protocol::native::{NativeArg, NativeCall};
use dask_protocol::{Key, Value};
use serde::Serialize;

use crate::error::TaskError;
use crate::future::{Future, Handle};
use crate::graph::Node;

/// A call that has not been submitted: what to run, giving a `T`.
///
/// ```
/// # use dask_client::{TaskCall, IntoArg};
/// // What `#[dask::task] fn add(a: i64, b: i64) -> i64` expands its call to:
/// let call: TaskCall<i64> = TaskCall::new("add", vec![IntoArg::<i64>::into_arg(1), IntoArg::<i64>::into_arg(2)]);
/// let call = call.priority(10.0).retries(2);
/// ```
pub struct TaskCall<T> {
    pub(crate) function: Cow<'static, str>,
    pub(crate) args: Vec<CallArg>,
    pub(crate) key: Option<Key>,
    annotations: Vec<(&'static str, Value)>,
    value: PhantomData<fn() -> T>,
}

impl<T> TaskCall<T> {
    /// A call of the function registered under `function`.
    pub fn new(function: impl Into<Cow<'static, str>>, args: Vec<CallArg>) -> TaskCall<T> {
        TaskCall { function: function.into(), args, key: None, annotations: Vec::new(), value: PhantomData }
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

    /// The call as it travels.
    pub(crate) fn native_call(&self) -> Result<NativeCall, TaskError> {
        let args = self.args.iter().enumerate().map(|(index, arg)| {
            arg.arg.clone().map_err(|reason| TaskError::Argument { function: self.function.to_string(), index, reason })
        });
        Ok(NativeCall { function: self.function.to_string(), args: args.collect::<Result<_, _>>()? })
    }
}

impl<T> std::fmt::Debug for TaskCall<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TaskCall({}/{}", self.function, self.args.len())?;
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
        let packed = rmp_serde::to_vec_named(value).map(|bytes| NativeArg::Value(Bytes::from(bytes)));
        CallArg { arg: packed.map_err(|e| e.to_string()), handles: Vec::new() }
    }

    fn future(handle: &Handle) -> CallArg {
        CallArg { arg: Ok(NativeArg::Future(handle.key().clone())), handles: vec![handle.clone()] }
    }

    fn list(items: impl Iterator<Item = CallArg>) -> CallArg {
        let mut handles = Vec::new();
        let args = items.map(|item| {
            handles.extend(item.handles);
            item.arg
        });
        let arg = args.collect::<Result<Vec<_>, _>>().map(NativeArg::List);
        CallArg { arg, handles }
    }
}

/// What may stand for an argument of type `T`: a value, a future of one, or futures of its elements.
pub trait IntoArg<T> {
    /// Packs it.
    fn into_arg(self) -> CallArg;
}

impl<T: Serialize> IntoArg<T> for T {
    fn into_arg(self) -> CallArg {
        CallArg::value(&self)
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
        CallArg { arg: Ok(NativeArg::Future(self.key().clone())), handles: Vec::new() }
    }
}
impl<T> IntoArg<T> for Node<T> {
    fn into_arg(self) -> CallArg {
        (&self).into_arg()
    }
}
impl<T> IntoArg<Vec<T>> for Vec<Future<T>> {
    fn into_arg(self) -> CallArg {
        CallArg::list(self.iter().map(IntoArg::into_arg))
    }
}
impl<T> IntoArg<Vec<T>> for &[Future<T>] {
    fn into_arg(self) -> CallArg {
        CallArg::list(self.iter().map(IntoArg::into_arg))
    }
}
impl<T> IntoArg<Vec<T>> for Vec<Node<T>> {
    fn into_arg(self) -> CallArg {
        CallArg::list(self.iter().map(IntoArg::into_arg))
    }
}
impl<T> IntoArg<Vec<T>> for &[Node<T>] {
    fn into_arg(self) -> CallArg {
        CallArg::list(self.iter().map(IntoArg::into_arg))
    }
}
