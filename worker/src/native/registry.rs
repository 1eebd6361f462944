//! Finding native tasks by name.

use rustc_hash::FxHashMap;

use super::{ArgSlot, NativeError, NativeValue, TaskContext};

/// A function of this binary that tasks may call. Made by `#[dask::task]`.
#[derive(Debug, Clone, Copy)]
pub struct NativeFunction {
    /// The name tasks call it by.
    pub name: &'static str,
    /// Where it is defined, `file:line`, for messages.
    pub location: &'static str,
    /// Runs it.
    pub call: fn(&TaskContext, Vec<ArgSlot>) -> Result<NativeValue, NativeError>,
}

inventory::collect!(NativeFunction);

/// Two functions of one name: which one a task means would be chance.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "native task {name:?} is defined twice: at {first} and at {second}; rename one with #[dask::task(name = \"...\")]"
)]
pub struct RegistryError {
    name: &'static str,
    first: &'static str,
    second: &'static str,
}

/// The native tasks a worker offers.
#[derive(Debug, Default, Clone)]
pub struct Registry {
    functions: FxHashMap<&'static str, NativeFunction>,
}

impl Registry {
    /// Everything that `#[dask::task]` marked in this binary.
    ///
    /// # Errors
    /// [`RegistryError`] when a name is defined twice.
    pub fn from_binary() -> Result<Registry, RegistryError> {
        let mut registry = Registry::default();
        for function in inventory::iter::<NativeFunction> {
            registry.insert(*function)?;
        }
        Ok(registry)
    }

    /// Adds a function.
    ///
    /// # Errors
    /// [`RegistryError`] when the name is taken.
    pub fn insert(&mut self, function: NativeFunction) -> Result<(), RegistryError> {
        match self.functions.insert(function.name, function) {
            None => Ok(()),
            Some(first) => Err(RegistryError { name: function.name, first: first.location, second: function.location }),
        }
    }

    /// The function under a name.
    ///
    /// # Errors
    /// [`NativeError::UnknownFunction`] with the names there are.
    pub fn lookup(&self, name: &str) -> Result<&NativeFunction, NativeError> {
        self.functions
            .get(name)
            .ok_or_else(|| NativeError::UnknownFunction { name: name.to_owned(), registered: self.names() })
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.functions.keys().map(|&name| name.to_owned()).collect();
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &'static str, location: &'static str) -> NativeFunction {
        NativeFunction { name, location, call: |_, _| Ok(NativeValue::new(1_i64)) }
    }

    #[test]
    fn unknown_names_list_what_there_is() {
        let mut registry = Registry::default();
        registry.insert(function("b", "b.rs:1")).expect("free");
        registry.insert(function("a", "a.rs:1")).expect("free");
        let error = registry.lookup("c").expect_err("not there");
        assert_eq!(error.to_string(), "unknown native task \"c\"; this worker has a, b");
    }

    #[test]
    fn a_name_taken_twice_names_both_places() {
        let mut registry = Registry::default();
        registry.insert(function("a", "x.rs:1")).expect("free");
        let error = registry.insert(function("a", "y.rs:2")).expect_err("taken");
        assert!(error.to_string().contains("x.rs:1") && error.to_string().contains("y.rs:2"));
    }
}
