//! Exceptions that the scheduler raises in clients, written as pickles with their classes by reference.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::encode::{header, write_global, write_str, write_tuple, write_value};
use super::opcode as op;
use super::value::PickleValue;
use crate::key::Key;

/// Module of the scheduler's own exception classes.
const SCHEDULER_MODULE: &str = "distributed.scheduler";

/// An exception ready to be sent: its pickle and what Python's `repr` would say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PickledException {
    /// The pickle, for an `exception` field.
    pub pickle: Bytes,
    /// The text, for an `exception_text` field.
    pub text: String,
}

/// The pickle of `module.class(*args)`, carrying `notes` as its `__notes__`.
pub fn write_exception(module: &str, class: &str, args: &[PickleValue], notes: &[&str]) -> Bytes {
    let mut out = header();
    write_call(&mut out, module, class, args);
    write_notes(&mut out, notes);
    out.push(op::STOP);
    out.into()
}

/// Sets the `__notes__` of the exception on the stack.
fn write_notes(out: &mut Vec<u8>, notes: &[&str]) {
    if !notes.is_empty() {
        let notes = PickleValue::List(notes.iter().copied().map(PickleValue::from).collect());
        write_value(out, &PickleValue::Dict(vec![("__notes__".into(), notes)]));
        out.push(op::BUILD);
    }
}

fn write_call(out: &mut Vec<u8>, module: &str, class: &str, args: &[PickleValue]) {
    write_global(out, module, class);
    write_tuple(out, args);
    out.push(op::REDUCE);
}

/// A builtin exception such as `RuntimeError`, `TypeError`, `KeyError`, `MemoryError`, `OSError` or `Exception`, with
/// one message.
pub fn builtin_exception(class: &str, message: &str) -> PickledException {
    let pickle = write_exception("builtins", class, &[message.into()], &[]);
    PickledException { pickle, text: format!("{class}({:?})", Key::from(message)) }
}

/// `asyncio.TimeoutError`, which modern Pythons know as the builtin `TimeoutError`.
pub fn timeout_error(message: &str) -> PickledException {
    let pickle = write_exception("asyncio", "TimeoutError", &[message.into()], &[]);
    PickledException { pickle, text: format!("TimeoutError({:?})", Key::from(message)) }
}

/// `distributed.scheduler.KilledWorker`: a task whose workers died once too often.
#[derive(Debug, Clone)]
pub struct KilledWorker<'a> {
    /// The task.
    pub task: &'a Key,
    /// Address of the worker that died last.
    pub last_worker: &'a str,
    /// `distributed.scheduler.allowed-failures`.
    pub allowed_failures: u32,
    /// What else is known, for its `__notes__`.
    pub notes: &'a [String],
}

impl KilledWorker<'_> {
    /// The exception as sent. Clients read the worker's `address` only, so a `SimpleNamespace` stands for upstream's
    /// `WorkerState`.
    pub fn pickled(&self) -> PickledException {
        let mut out = header();
        write_global(&mut out, SCHEDULER_MODULE, "KilledWorker");
        write_value(&mut out, &PickleValue::from(self.task));
        write_call(&mut out, "types", "SimpleNamespace", &[]);
        out.extend([op::EMPTY_DICT]);
        write_str(&mut out, b"address");
        write_str(&mut out, self.last_worker.as_bytes());
        out.extend([op::SETITEM, op::BUILD]);
        write_value(&mut out, &PickleValue::Int(i64::from(self.allowed_failures)));
        out.extend([op::TUPLE3, op::REDUCE]);
        write_notes(&mut out, &self.notes.iter().map(String::as_str).collect::<Vec<_>>());
        out.push(op::STOP);
        let text =
            format!("KilledWorker({:?}, <WorkerState '{}'>, {})", self.task, self.last_worker, self.allowed_failures);
        PickledException { pickle: out.into(), text }
    }
}

/// `distributed.scheduler.NoWorkerError`: no worker at all for longer than `no-workers-timeout`.
#[derive(Debug, Clone)]
pub struct NoWorkerError<'a> {
    /// The task that waited.
    pub task: &'a Key,
    /// The timeout, in seconds.
    pub timeout: f64,
}

impl NoWorkerError<'_> {
    /// The exception as sent.
    pub fn pickled(&self) -> PickledException {
        let args = [PickleValue::from(self.task), PickleValue::Float(self.timeout)];
        let pickle = write_exception(SCHEDULER_MODULE, "NoWorkerError", &args, &[]);
        PickledException { pickle, text: format!("NoWorkerError({:?}, {:?})", self.task, self.timeout) }
    }
}

/// `distributed.scheduler.NoValidWorkerError`: no worker that meets the task's restrictions for longer than
/// `no-workers-timeout`.
#[derive(Debug, Clone)]
pub struct NoValidWorkerError<'a> {
    /// The task that waited.
    pub task: &'a Key,
    /// Hosts it may run on.
    pub host_restrictions: &'a [String],
    /// Workers it may run on.
    pub worker_restrictions: &'a [String],
    /// Amounts of each resource it needs.
    pub resource_restrictions: &'a BTreeMap<String, f64>,
    /// The timeout, in seconds.
    pub timeout: f64,
}

impl NoValidWorkerError<'_> {
    /// The exception as sent.
    pub fn pickled(&self) -> PickledException {
        let set = |names: &[String]| PickleValue::Set(names.iter().map(|name| name.as_str().into()).collect());
        let resources = self.resource_restrictions.iter();
        let resources = resources.map(|(name, amount)| (name.as_str().into(), PickleValue::Float(*amount))).collect();
        let args = [
            PickleValue::from(self.task),
            set(self.host_restrictions),
            set(self.worker_restrictions),
            PickleValue::Dict(resources),
            PickleValue::Float(self.timeout),
        ];
        let pickle = write_exception(SCHEDULER_MODULE, "NoValidWorkerError", &args, &[]);
        let resources: Vec<String> = self
            .resource_restrictions
            .iter()
            .map(|(name, amount)| format!("{:?}: {:?}", Key::from(name.as_str()), Key::float(*amount)))
            .collect();
        let text = format!(
            "NoValidWorkerError({:?}, {}, {}, {{{}}}, {:?})",
            self.task,
            set_repr(self.host_restrictions),
            set_repr(self.worker_restrictions),
            resources.join(", "),
            self.timeout
        );
        PickledException { pickle, text }
    }
}

/// Python's `repr` of a set of strings.
fn set_repr(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{:?}", Key::from(name.as_str()))).collect();
    if names.is_empty() { "set()".to_owned() } else { format!("{{{}}}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_exceptions_are_calls_by_reference() {
        let oops = builtin_exception("ZeroDivisionError", "oops");
        assert_eq!(&oops.pickle[..], b"\x80\x04\x8c\x08builtins\x8c\x11ZeroDivisionError\x93\x8c\x04oops\x85R.");
        assert_eq!(oops.text, "ZeroDivisionError('oops')");
    }

    #[test]
    fn notes_are_built_onto_the_exception() {
        let pickle = write_exception("builtins", "ValueError", &["no".into()], &["while packing"]);
        assert!(pickle.ends_with(b"R}(\x8c\x09__notes__](\x8c\x0dwhile packingeub."));
    }

    #[test]
    fn restrictions_print_as_in_python() {
        let key = Key::from("x");
        let resources = [("GPU".to_owned(), 1.0)].into_iter().collect();
        let error = NoValidWorkerError {
            task: &key,
            host_restrictions: &["h".to_owned()],
            worker_restrictions: &[],
            resource_restrictions: &resources,
            timeout: 1.5,
        };
        assert_eq!(error.pickled().text, "NoValidWorkerError('x', {'h'}, set(), {'GPU': 1.0}, 1.5)");
    }

    #[test]
    fn killed_worker_carries_an_address() {
        let key = Key::tuple([Key::from("x"), Key::from(1)]);
        let killed = KilledWorker { task: &key, last_worker: "tcp://h:1", allowed_failures: 3, notes: &[] }.pickled();
        assert_eq!(killed.text, "KilledWorker(('x', 1), <WorkerState 'tcp://h:1'>, 3)");
        assert!(killed.pickle.ends_with(b"\x8c\x07address\x8c\x09tcp://h:1sbK\x03\x87R."));
    }
}
