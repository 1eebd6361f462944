//! Calls of Python functions.

use std::borrow::Cow;

use dask_protocol::native::NativeArg;
use dask_protocol::pickle::{PickleValue, PythonArg};
use dask_protocol::{Key, Payload, Value, pickle};
use serde::Serialize;

use crate::call::{CallArg, IntoArg, TaskCall};
use crate::error::TaskError;
use crate::future::Future;
use crate::graph::Node;

/// A call of an importable Python function: for workers that have Python, ours or upstream's.
///
/// Arguments and results are plain values (numbers, texts, bytes, lists, dicts) or futures; what is a future may be the
/// result of any task, native or not.
///
/// ```
/// # use dask_client::{Future, TaskCall, python};
/// let call: TaskCall<f64> = python("math:hypot").arg(3.0).arg(4.0).returns();
/// fn mean(values: Future<Vec<f64>>) -> TaskCall<f64> {
///     python("statistics:fmean").arg(values).returns()
/// }
/// let call: TaskCall<String> = python("json:dumps").arg(vec![1, 2]).kwarg("indent", 2).returns::<String>().retries(1);
/// ```
#[derive(Debug)]
pub struct PythonCall {
    module: String,
    name: String,
    args: Vec<CallArg>,
    names: Vec<String>,
}

/// A call of the function called `name` in a module, given as `module:name` (`name` may have dots) or `module.name`.
pub fn python(function: &str) -> PythonCall {
    let parts = function.split_once(':').or_else(|| function.rsplit_once('.'));
    let (module, name) = parts.unwrap_or(("builtins", function));
    PythonCall { module: module.to_owned(), name: name.to_owned(), args: Vec::new(), names: Vec::new() }
}

impl PythonCall {
    /// One more argument.
    #[must_use]
    pub fn arg(mut self, value: impl IntoPythonArg) -> PythonCall {
        let at = self.args.len() - self.names.len();
        self.args.insert(at, value.into_python_arg());
        self
    }

    /// One more argument, of a type that is named: for collections of futures, `.arg_as::<Vec<f64>>(futures)`.
    #[must_use]
    pub fn arg_as<T>(mut self, value: impl IntoArg<T>) -> PythonCall {
        let at = self.args.len() - self.names.len();
        self.args.insert(at, value.into_arg());
        self
    }

    /// One more argument by name.
    #[must_use]
    pub fn kwarg(mut self, name: &str, value: impl IntoPythonArg) -> PythonCall {
        self.args.push(value.into_python_arg());
        self.names.push(name.to_owned());
        self
    }

    /// The call, giving a `T`.
    pub fn returns<T>(self) -> TaskCall<T> {
        let PythonCall { module, name, args, names } = self;
        let function: Cow<'static, str> = name.clone().into();
        let mut call = TaskCall::new(function, args);
        call.python = Some(Target { module, name, names });
        call
    }
}

/// What may stand for an argument of a Python function: any plain value, a future or a node.
pub trait IntoPythonArg {
    /// Packs it.
    fn into_python_arg(self) -> CallArg;
}

impl<T: Serialize> IntoPythonArg for T {
    fn into_python_arg(self) -> CallArg {
        IntoArg::<T>::into_arg(self)
    }
}

macro_rules! later {
    ($($later:ident),+) => {
        $(
            impl<T> IntoPythonArg for $later<T> {
                fn into_python_arg(self) -> CallArg {
                    IntoArg::<T>::into_arg(self)
                }
            }
            impl<T> IntoPythonArg for &$later<T> {
                fn into_python_arg(self) -> CallArg {
                    IntoArg::<T>::into_arg(self)
                }
            }
        )+
    };
}
later!(Future, Node);

/// The function of a call, and the names of its last arguments.
#[derive(Debug)]
pub(crate) struct Target {
    module: String,
    name: String,
    names: Vec<String>,
}

impl Target {
    /// The task as it travels.
    pub(crate) fn run_spec(&self, key: &Key, args: Vec<NativeArg>) -> Result<Payload, TaskError> {
        let args = args.into_iter().enumerate().map(|(index, arg)| {
            python_arg(arg).map_err(|reason| TaskError::Argument {
                function: format!("{}.{}", self.module, self.name),
                index,
                reason,
            })
        });
        let mut args = args.collect::<Result<Vec<_>, _>>()?;
        let by_name = args.split_off(args.len() - self.names.len());
        let (module, name) = (self.module.clone(), self.name.clone());
        let kwargs = self.names.iter().cloned().zip(by_name).collect();
        let call = pickle::PythonCall { module, name, args, kwargs };
        Ok(Payload::pickled(call.pickle(key), Vec::new()))
    }
}

fn python_arg(arg: NativeArg) -> Result<PythonArg, String> {
    Ok(match arg {
        NativeArg::Value(packed) => PythonArg::Value(plain(&packed)?),
        NativeArg::Future(key) => PythonArg::Future(key),
        NativeArg::List(items) => PythonArg::List(items.into_iter().map(python_arg).collect::<Result<_, _>>()?),
        NativeArg::Map(entries) => {
            let entry = |(key, value): (bytes::Bytes, NativeArg)| Ok((plain(&key)?, python_arg(value)?));
            PythonArg::Dict(entries.into_iter().map(entry).collect::<Result<_, String>>()?)
        }
    })
}

fn plain(packed: &[u8]) -> Result<PickleValue, String> {
    let value: Value = rmp_serde::from_slice(packed).map_err(|error| error.to_string())?;
    PickleValue::from_value(value).ok_or_else(|| "no plain value".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_by_name_come_last_in_whatever_order_they_are_given() {
        let call: TaskCall<i64> = python("m:C.f").kwarg("k", 3).arg(1).arg("two").returns();
        let target = call.python.expect("a call of Python");
        assert_eq!((target.module.as_str(), target.name.as_str()), ("m", "C.f"));
        assert_eq!(target.names, ["k"]);
        assert_eq!(call.args.len(), 3);
    }

    #[test]
    fn functions_are_found_by_their_last_dot() {
        assert_eq!(python("a.b.c").module, "a.b");
        assert_eq!(python("len").module, "builtins");
    }
}
