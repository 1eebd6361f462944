//! Recognising functions: which one a pickle stands for, and what it closes over, without running anything.
//!
//! A function that can be imported is pickled as its name. One that cannot, such as a function inside another, is pickled
//! by value (cloudpickle): its code, then a call that sets its module, qualified name and closure. Code of the library that
//! a peer sends along is thereby known by name, and its parameters are the values in its closure.

use bytes::Bytes;

use super::arena::{Arena, Effect, Node, NodeId};
use super::error::PickleError;
use super::plain::Decoder;
use super::reader;
use super::value::PickleValue;

/// Modules in which versions of cloudpickle have kept their constructors.
const CLOUDPICKLE: [&str; 2] = ["cloudpickle.cloudpickle", "cloudpickle.cloudpickle_fast"];

/// Most variables a function may close over.
const CLOSURE_MAX: usize = 64;

/// A function as far as it can be told from outside.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PickledFunction {
    /// Its `__module__`.
    pub module: String,
    /// Its `__qualname__`.
    pub name: String,
    /// The variables it closes over, by name; empty for functions pickled as their name.
    pub closure: Vec<(String, PickleValue)>,
}

impl PickledFunction {
    /// Reads a pickled function; none if the pickle is something else, or a function whose name cannot be told.
    ///
    /// # Errors
    /// [`PickleError`] when the bytes are malformed or over a limit.
    pub fn read(pickle: &Bytes) -> Result<Option<PickledFunction>, PickleError> {
        let arena = reader::read(pickle, 0)?;
        if let Some((module, name)) = arena.global(arena.root) {
            let closure = Vec::new();
            return Ok(Some(PickledFunction { module: module.to_owned(), name: name.to_owned(), closure }));
        }
        let Some(parts) = Parts::find(&arena) else { return Ok(None) };
        let mut decoder = Decoder::new(&arena, &[], pickle.len());
        let mut closure = Vec::with_capacity(parts.closure.len());
        for (name, cell) in parts.closure {
            closure.push((name, decoder.decode(cell, 0)?));
        }
        Ok(Some(PickledFunction { module: parts.module, name: parts.name, closure }))
    }

    /// A variable it closes over.
    pub fn variable(&self, name: &str) -> Option<&PickleValue> {
        self.closure.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Whether it is this one.
    pub fn is(&self, module: &str, name: &str) -> bool {
        self.module == module && self.name == name
    }
}

/// Where the parts of a function pickled by value are.
struct Parts {
    module: String,
    name: String,
    closure: Vec<(String, NodeId)>,
}

impl Parts {
    fn find(arena: &Arena) -> Option<Parts> {
        let args = call_of(arena, arena.root, "_make_function")?;
        let free = free_variables(arena, *args.first()?)?;
        // The setter is called with the function and its state: its dict, and the attributes that are no part of that.
        let state = arena.effects(arena.root).find_map(|effect| match effect {
            Effect::Call { function, args } if is_cloudpickle(arena, function, "_function_setstate") => {
                let args = arena.short_sequence(args)?;
                arena.short_sequence(*args.get(1)?)
            }
            _ => None,
        })?;
        let attributes = arena.dict_items(*state.get(1)?)?;
        let attribute = |name: &str| {
            let mut pairs = attributes.chunks_exact(2);
            pairs.find(|pair| arena.str(pair[0]) == Some(name)).map(|pair| pair[1])
        };
        let text = |name: &str| attribute(name).and_then(|id| arena.str(id)).map(str::to_owned);
        let cells = match attribute("__closure__") {
            Some(id) => arena.sequence(id).unwrap_or_default(),
            None => Vec::new(),
        };
        if cells.len() != free.len() {
            return None;
        }
        let values = cells.iter().map(|&cell| call_of(arena, cell, "_make_cell")?.first().copied());
        let closure = free.into_iter().zip(values).map(|(name, value)| Some((name, value?))).collect::<Option<_>>()?;
        Some(Parts { module: text("__module__")?, name: text("__qualname__")?, closure })
    }
}

/// `co_freevars`, which every version of Python passes to the code's constructor as the last argument but one.
fn free_variables(arena: &Arena, code: NodeId) -> Option<Vec<String>> {
    let Node::Reduce { args, .. } = arena.node(code) else { return None };
    let args = arena.short_sequence(args)?;
    let names = arena.sequence(*args.get(args.len().checked_sub(2)?)?)?;
    if names.len() > CLOSURE_MAX {
        return None;
    }
    names.iter().map(|&name| arena.str(name).map(str::to_owned)).collect()
}

/// The arguments of a call of one of cloudpickle's constructors.
fn call_of(arena: &Arena, id: NodeId, name: &str) -> Option<Vec<NodeId>> {
    let Node::Reduce { function, args } = arena.node(id) else { return None };
    is_cloudpickle(arena, function, name).then(|| arena.sequence(args))?
}

fn is_cloudpickle(arena: &Arena, id: NodeId, name: &str) -> bool {
    arena.global(id).is_some_and(|(module, known)| known == name && CLOUDPICKLE.contains(&module))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ProgressBar.listen.<locals>.setup` as upstream's progress bar sends it, closing over `complete` and `keys`.
    const PROGRESS_BAR_SETUP: &[u8] = include_bytes!("../../tests/data/feed/progress_bar_setup.pickle");
    /// The same of `MultiProgressBar`, which closes over `group_by` too.
    const MULTI_PROGRESS_SETUP: &[u8] = include_bytes!("../../tests/data/feed/multi_progress_setup.pickle");

    fn read(pickle: &'static [u8]) -> Option<PickledFunction> {
        PickledFunction::read(&Bytes::from_static(pickle)).expect("a whole pickle")
    }

    #[test]
    fn a_function_by_name_is_known_by_it() {
        let function = read(b"\x80\x04cdistributed.diagnostics.progress\nAllProgress\n.").expect("a global");
        assert!(function.is("distributed.diagnostics.progress", "AllProgress"));
        assert!(function.closure.is_empty());
    }

    #[test]
    fn a_function_by_value_tells_its_name_and_what_it_closes_over() {
        let setup = read(PROGRESS_BAR_SETUP).expect("a function");
        assert!(setup.is("distributed.diagnostics.progressbar", "ProgressBar.listen.<locals>.setup"));
        assert_eq!(setup.variable("complete"), Some(&PickleValue::Bool(true)));
        let keys = setup.variable("keys").and_then(PickleValue::as_items).expect("a set");
        let mut keys: Vec<String> = keys.iter().filter_map(|key| Some(key.to_key()?.to_string())).collect();
        keys.sort();
        assert_eq!(keys, ["('b', 1)", "a"]);
    }

    #[test]
    fn a_function_in_a_closure_is_known_by_name() {
        let setup = read(MULTI_PROGRESS_SETUP).expect("a function");
        assert!(setup.is("distributed.diagnostics.progressbar", "MultiProgressBar.listen.<locals>.setup"));
        let Some(PickleValue::Opaque(group_by)) = setup.variable("group_by") else { panic!("{setup:?}") };
        assert_eq!((group_by.module.as_str(), group_by.name.as_str()), ("dask.utils", "key_split"));
    }

    #[test]
    fn other_pickles_are_no_functions() {
        assert_eq!(read(b"\x80\x04K\x01."), None);
        assert_eq!(read(b"\x80\x04cbuiltins\nlist\n)R."), None);
        assert!(PickledFunction::read(&Bytes::from_static(b"\x80\x04(")).is_err());
    }

    #[test]
    fn every_cut_of_a_function_is_refused_without_a_panic() {
        for end in 0..PROGRESS_BAR_SETUP.len() {
            assert!(PickledFunction::read(&Bytes::from_static(&PROGRESS_BAR_SETUP[..end])).is_err(), "{end}");
        }
    }
}
