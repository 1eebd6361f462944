//! Tasks between languages: calls of Python functions written from here, and native calls written by Python.

use bytes::Bytes;
use memchr::memmem;

use super::arena::{Arena, Effect, Node, NodeId};
use super::encode::{header, write_global, write_str, write_value};
use super::error::PickleError;
use super::opcode as op;
use super::plain::{Decoder, PLAIN_DEPTH_MAX};
use super::reader;
use super::task_node::{TASK_SPEC, TaskReader};
use super::value::PickleValue;
use crate::key::Key;
use crate::native::{Definition, NativeArg, NativeCall};

/// The class of our Python package whose instances name our functions.
pub(super) const NATIVE: (&str, &str) = ("dask_rs", "native");
/// What such a pickle contains whatever else it holds: looked for before it is read.
const NATIVE_MARK: &[u8] = b"dask_rs";
/// Slots of a pickled `Task` before its arguments and its function; see [`super::task_node`].
const ARGS_SLOT: usize = 5;
pub(super) const FUNCTION_SLOT: usize = 6;
const KWARGS_SLOT: usize = 8;
/// The arguments of a pickled container node are in the same slot.
const CONTAINER_ARGS_SLOT: usize = 5;

/// A call of an importable Python function.
#[derive(Debug, Clone, PartialEq)]
pub struct PythonCall {
    /// Where the function is imported from.
    pub module: String,
    /// Its qualified name there.
    pub name: String,
    /// Positional arguments.
    pub args: Vec<PythonArg>,
    /// Arguments by name.
    pub kwargs: Vec<(String, PythonArg)>,
}

/// One argument of a [`PythonCall`].
#[derive(Debug, Clone, PartialEq)]
pub enum PythonArg {
    /// A plain value.
    Value(PickleValue),
    /// The result of another task.
    Future(Key),
    /// Several in a list.
    List(Vec<PythonArg>),
    /// Several in a dict.
    Dict(Vec<(PickleValue, PythonArg)>),
}

impl PythonCall {
    /// The pickle of the `dask._task_spec.Task` that makes this call under `key`.
    pub fn pickle(&self, key: &Key) -> Bytes {
        let mut out = header();
        if self.kwargs.is_empty() {
            write_global(&mut out, TASK_SPEC, "Task");
        } else {
            // `functools.partial(Task, **kwargs)`
            write_global(&mut out, "functools", "partial");
            write_global(&mut out, TASK_SPEC, "Task");
            out.extend([op::TUPLE1, op::EMPTY_DICT, op::MARK]);
            for (name, value) in &self.kwargs {
                write_str(&mut out, name.as_bytes());
                write_arg(&mut out, value);
            }
            out.extend([op::SETITEMS, op::NEWOBJ_EX]);
        }
        out.push(op::MARK);
        write_value(&mut out, &PickleValue::from(key));
        write_global(&mut out, &self.module, &self.name);
        self.args.iter().for_each(|arg| write_arg(&mut out, arg));
        out.extend([op::TUPLE, op::REDUCE, op::STOP]);
        out.into()
    }
}

fn write_arg(out: &mut Vec<u8>, arg: &PythonArg) {
    match arg {
        PythonArg::Value(value) => write_value(out, value),
        PythonArg::Future(key) => {
            write_global(out, TASK_SPEC, "Alias");
            write_value(out, &PickleValue::from(key));
            out.extend([op::TUPLE1, op::REDUCE]);
        }
        PythonArg::List(items) => {
            write_global(out, TASK_SPEC, "List");
            out.push(op::MARK);
            items.iter().for_each(|item| write_arg(out, item));
            out.extend([op::TUPLE, op::REDUCE]);
        }
        PythonArg::Dict(entries) => {
            write_global(out, TASK_SPEC, "Dict");
            out.extend([op::EMPTY_DICT, op::MARK]);
            for (key, value) in entries {
                write_value(out, key);
                write_arg(out, value);
            }
            out.extend([op::SETITEMS, op::TUPLE1, op::REDUCE]);
        }
    }
}

/// The pickle of a list of `distributed.client.Future`, which find their client where they are unpickled.
pub fn write_futures(keys: &[Key]) -> Bytes {
    let mut out = header();
    out.extend([op::EMPTY_LIST, op::MARK]);
    for key in keys {
        write_global(&mut out, "distributed.client", "Future");
        write_value(&mut out, &PickleValue::from(key));
        out.extend([op::TUPLE1, op::REDUCE]);
    }
    out.extend([op::APPENDS, op::STOP]);
    out.into()
}

/// The native call that a pickled `Task` makes: its function is `dask_rs.native("name")`. `None` for all other tasks.
///
/// # Errors
/// What is wrong with a task that means to be one: arguments by name, or arguments that are no plain values.
pub fn read_native_task(pickle: &Bytes, buffers: &[Bytes]) -> Result<Option<NativeCall>, String> {
    if memmem::find(pickle, NATIVE_MARK).is_none() {
        return Ok(None);
    }
    // Whatever this reader does not understand is for Python.
    let Ok(arena) = reader::read(pickle, buffers.len()) else { return Ok(None) };
    let Some(slots) = state_of(&arena, arena.root, "Task") else { return Ok(None) };
    let Some(function) = slots.get(FUNCTION_SLOT).and_then(|&function| native_name(&arena, function)) else {
        return Ok(None);
    };
    let wrong = |reason: String| format!("native task {function:?}: {reason}");
    let kwargs = slots.get(KWARGS_SLOT).and_then(|&kwargs| arena.dict_items(kwargs));
    if kwargs.is_none_or(|kwargs| !kwargs.is_empty()) {
        return Err(wrong("arguments have to be given by position".to_owned()));
    }
    let args = arena.sequence(slots[ARGS_SLOT]).ok_or_else(|| wrong("its arguments cannot be read".to_owned()))?;
    let mut reader =
        ArgReader { keys: TaskReader::new(&arena), values: Decoder::new(&arena, buffers, pickle.len()), arena: &arena };
    let args = args
        .iter()
        .enumerate()
        .map(|(index, &arg)| reader.read(arg, 0).map_err(|reason| wrong(format!("argument {index}: {reason}"))));
    let args = args.collect::<Result<_, _>>()?;
    Ok(Some(NativeCall { args, function: Definition::named(function).into(), tells_result: false }))
}

/// The state of a bare instance of a class of dask's graph nodes.
fn state_of(arena: &Arena, id: NodeId, class_name: &str) -> Option<Vec<NodeId>> {
    let Node::NewObj { class, .. } = arena.node(id) else { return None };
    if arena.global(class)? != (TASK_SPEC, class_name) {
        return None;
    }
    let Some(Effect::Build(state)) = arena.effects(id).next() else { return None };
    arena.sequence(state)
}

/// `name` of `dask_rs.native(name)`.
pub(super) fn native_name(arena: &Arena, id: NodeId) -> Option<String> {
    let Node::Reduce { function, args } = arena.node(id) else { return None };
    if arena.global(function)? != NATIVE {
        return None;
    }
    let args = arena.sequence(args)?;
    let [name] = args.as_slice() else { return None };
    arena.str(*name).map(str::to_owned)
}

struct ArgReader<'a> {
    arena: &'a Arena,
    keys: TaskReader<'a>,
    values: Decoder<'a>,
}

impl ArgReader<'_> {
    fn read(&mut self, id: NodeId, depth: usize) -> Result<NativeArg, String> {
        let shown = |error: PickleError| error.to_string();
        if depth > PLAIN_DEPTH_MAX {
            return Err("it is nested too deep".to_owned());
        }
        if let Some(key) = self.alias(id) {
            return self.keys.key(key).map(NativeArg::Future).map_err(shown);
        }
        for container in ["List", "Tuple"] {
            if let Some(slots) = state_of(self.arena, id, container) {
                let items = slots.get(CONTAINER_ARGS_SLOT).and_then(|&items| self.arena.sequence(items));
                let items = items.ok_or("a collection of an unknown layout")?;
                let items = items.into_iter().map(|item| self.read(item, depth + 1));
                return items.collect::<Result<_, _>>().map(NativeArg::List);
            }
        }
        if let Some(slots) = state_of(self.arena, id, "Dict") {
            let items = slots.get(CONTAINER_ARGS_SLOT).and_then(|&items| self.arena.sequence(items));
            let items = items.ok_or("a collection of an unknown layout")?;
            let entries = items.chunks_exact(2).map(|pair| {
                let key = self.values.decode(pair[0], 0).map_err(shown)?;
                Ok((packed(&key)?, self.read(pair[1], depth + 1)?))
            });
            return entries.collect::<Result<_, String>>().map(NativeArg::Map);
        }
        let value = self.values.decode(id, 0).map_err(shown)?;
        packed(&value).map(NativeArg::Value)
    }

    /// The second argument of `Alias(key, target)`, or the only one.
    fn alias(&self, id: NodeId) -> Option<NodeId> {
        let Node::Reduce { function, args } = self.arena.node(id) else { return None };
        let (TASK_SPEC, "Alias" | "TaskRef") = self.arena.global(function)? else { return None };
        self.arena.sequence(args)?.last().copied()
    }
}

/// A plain value as native tasks read it.
fn packed(value: &PickleValue) -> Result<Bytes, String> {
    if let Some(object) = value.first_opaque() {
        return Err(format!("a Python object ({}.{}), which native tasks cannot read", object.module, object.name));
    }
    rmp_serde::to_vec_named(&value.to_value()).map(Bytes::from).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_a_task_whose_parts_are_where_python_reads_them() {
        let call = PythonCall {
            module: "m".to_owned(),
            name: "f".to_owned(),
            args: vec![PythonArg::Value(1.into()), PythonArg::List(vec![PythonArg::Future("a".into())])],
            kwargs: vec![],
        };
        let pickle = call.pickle(&"k".into());
        let arena = reader::read(&pickle, 0).expect("a pickle");
        let Node::Reduce { function, args } = arena.node(arena.root) else { panic!("a call") };
        assert_eq!(arena.global(function), Some((TASK_SPEC, "Task")));
        let args = arena.sequence(args).expect("a tuple");
        assert_eq!(arena.str(args[0]), Some("k"));
        assert_eq!(arena.global(args[1]), Some(("m", "f")));
        assert_eq!(args.len(), 4);
    }

    #[test]
    fn tasks_of_other_functions_are_left_to_python() {
        let call = PythonCall { module: "dask_rs".to_owned(), name: "f".to_owned(), args: vec![], kwargs: vec![] };
        assert_eq!(read_native_task(&call.pickle(&"k".into()), &[]), Ok(None));
        assert_eq!(read_native_task(&Bytes::from_static(b"no pickle, but dask_rs"), &[]), Ok(None));
    }
}
