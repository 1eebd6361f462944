//! Finding native tasks by name.

use std::borrow::Cow;
use std::path::Path;

use dask_protocol::native::{Definition, RELEASE, SharedDefinition, releases_agree};
use rustc_hash::FxHashMap;

use super::brief::Brief;
use super::library::{Library, LibraryError, LibraryTask};
use super::{ArgSlot, NativeError, NativeValue, TaskContext};

/// A function that tasks may call. Made by `#[dask::task]`, or found in a task library.
#[derive(Debug, Clone)]
pub struct NativeFunction {
    definition: SharedDefinition,
    location: Cow<'static, str>,
    call: Call,
    brief: Option<&'static Brief>,
}

/// How a function is called.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    /// It is in this binary.
    Here(fn(&TaskContext, Vec<ArgSlot>) -> Result<NativeValue, NativeError>),
    /// It is in a task library.
    Library(LibraryTask),
}

impl Call {
    pub(crate) fn run(self, context: &TaskContext, args: Vec<ArgSlot>) -> Result<NativeValue, NativeError> {
        match self {
            Call::Here(function) => function(context, args),
            Call::Library(task) => task.call(context, args),
        }
    }
}

impl NativeFunction {
    /// A function of this binary; `location` is where it is defined, as `file:line`. With `brief` it takes microseconds and never
    /// waits, so that it needs no thread of its own.
    pub const fn new(
        definition: &'static Definition,
        location: &'static str,
        call: fn(&TaskContext, Vec<ArgSlot>) -> Result<NativeValue, NativeError>,
        brief: Option<&'static Brief>,
    ) -> NativeFunction {
        let definition = SharedDefinition::Static(definition);
        NativeFunction { definition, location: Cow::Borrowed(location), call: Call::Here(call), brief }
    }

    pub(super) fn of(definition: SharedDefinition, location: Cow<'static, str>, call: Call) -> NativeFunction {
        NativeFunction { definition, location, call, brief: None }
    }

    /// Its name and types.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Where it is defined, for messages.
    pub fn location(&self) -> &str {
        &self.location
    }

    pub(crate) fn call(&self) -> Call {
        self.call
    }

    /// None where it needs a thread of its own.
    pub(crate) fn as_brief(&self) -> Option<&'static Brief> {
        self.brief.filter(|brief| brief.keeps_its_word())
    }
}

inventory::collect!(NativeFunction);

/// Why tasks cannot be registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Two functions of one name: which one a task means would be chance.
    #[error(
        "native task {name:?} is defined twice: at {first} and at {second}; rename one with #[dask::task(name = \"...\")]"
    )]
    Twice {
        /// The name.
        name: String,
        /// Where it is defined.
        first: String,
        /// Where it is defined again.
        second: String,
    },
    /// A task library cannot be used.
    #[error(transparent)]
    Library(#[from] LibraryError),
}

/// The native tasks a worker offers.
#[derive(Debug, Default, Clone)]
pub struct Registry {
    functions: FxHashMap<String, NativeFunction>,
}

impl Registry {
    /// Everything that `#[dask::task]` marked in this binary.
    ///
    /// # Errors
    /// [`RegistryError`] when a name is defined twice.
    pub fn from_binary() -> Result<Registry, RegistryError> {
        let mut registry = Registry::default();
        for function in inventory::iter::<NativeFunction> {
            registry.insert(function.clone())?;
        }
        Ok(registry)
    }

    /// Adds a function.
    ///
    /// # Errors
    /// [`RegistryError`] when the name is taken.
    pub fn insert(&mut self, function: NativeFunction) -> Result<(), RegistryError> {
        let (name, second) = (function.definition.name.to_string(), function.location.to_string());
        match self.functions.insert(name.clone(), function) {
            None => Ok(()),
            Some(first) => Err(RegistryError::Twice { name, first: first.location.into_owned(), second }),
        }
    }

    /// Loads a task library, which stays loaded until the process ends, and adds its tasks. Whoever loads a library runs its
    /// code.
    ///
    /// # Errors
    /// [`RegistryError`] when it is no task library of this release, or a name is taken.
    pub fn load_library(&mut self, path: &Path) -> Result<(), RegistryError> {
        Library::load(path)?.into_iter().try_for_each(|function| self.insert(function))
    }

    /// The function that a caller means.
    ///
    /// # Errors
    /// [`NativeError::UnknownFunction`] with the names there are; [`NativeError::OtherRelease`] and
    /// [`NativeError::OtherDefinition`] when caller and worker were built from different sources.
    pub fn lookup(&self, asked: &Definition) -> Result<&NativeFunction, NativeError> {
        let name = || asked.name.to_string();
        if let Some(release) = asked.release.as_deref().filter(|release| !releases_agree(release, RELEASE)) {
            return Err(NativeError::OtherRelease { name: name(), asked: release.to_owned(), here: RELEASE });
        }
        let found = self.functions.get(&*asked.name);
        let found = found.ok_or_else(|| NativeError::UnknownFunction { name: name(), registered: self.names() })?;
        if asked.signature.is_some() && asked.signature != found.definition.signature {
            return Err(NativeError::OtherDefinition {
                name: name(),
                asked: asked.to_string(),
                here: found.definition.to_string(),
                location: found.location.to_string(),
            });
        }
        Ok(found)
    }

    /// All functions, in no order.
    pub(super) fn functions(&self) -> impl Iterator<Item = &NativeFunction> {
        self.functions.values()
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.functions.keys().cloned().collect();
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &'static str, location: &'static str) -> NativeFunction {
        let definition = Definition::new(name, "(i64) -> i64").into();
        NativeFunction::of(definition, location.into(), Call::Here(|_, _| Ok(NativeValue::new(1_i64))))
    }

    fn registry() -> Registry {
        let mut registry = Registry::default();
        registry.insert(function("b", "b.rs:1")).expect("free");
        registry.insert(function("a", "a.rs:1")).expect("free");
        registry
    }

    #[test]
    fn unknown_names_list_what_there_is() {
        let error = registry().lookup(&Definition::named("c")).expect_err("not there");
        assert_eq!(error.to_string(), "unknown native task \"c\"; this worker has a, b");
    }

    #[test]
    fn a_name_taken_twice_names_both_places() {
        let mut registry = registry();
        let error = registry.insert(function("a", "y.rs:2")).expect_err("taken");
        assert!(error.to_string().contains("a.rs:1") && error.to_string().contains("y.rs:2"));
    }

    #[test]
    fn another_definition_names_both() {
        let error = registry().lookup(&Definition::new("a", "(String) -> i64")).expect_err("other types");
        assert_eq!(
            error.to_string(),
            "native task \"a\" differs: the caller has a(String) -> i64, this worker a(i64) -> i64 (a.rs:1); build both \
             from one source"
        );
        assert!(registry().lookup(&Definition::new("a", "(i64) -> i64")).is_ok());
        assert!(registry().lookup(&Definition::named("a")).is_ok(), "Python gives names only");
    }

    #[test]
    fn another_release_names_both() {
        let asked = Definition { release: Some("7.1.0".into()), ..Definition::new("a", "(i64) -> i64") };
        let error = registry().lookup(&asked).expect_err("another release");
        assert!(error.to_string().contains("7.1.0") && error.to_string().contains(RELEASE), "{error}");
    }

    #[test]
    fn what_is_no_task_library_is_told_apart() {
        let mut registry = registry();
        let error = registry.load_library(Path::new("no-such-library.so")).expect_err("no file");
        assert!(error.to_string().contains("no-such-library.so"), "{error}");
        let directory = tempfile::tempdir().expect("a directory");
        let text = directory.path().join("text.so");
        std::fs::write(&text, "no library").expect("written");
        let error = registry.load_library(&text).expect_err("a text");
        assert!(matches!(error, RegistryError::Library(LibraryError::Load { .. })), "{error}");
    }
}
