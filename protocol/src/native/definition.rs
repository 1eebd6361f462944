//! What a task is called and takes: what the two sides of a native call have to agree on.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The release that this binary was built with. Calls, clients and libraries of tasks tell theirs.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// A native task as its caller, or the worker that runs it, was built with.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The name it is registered under.
    pub name: Cow<'static, str>,
    /// The types of its arguments and of its result, as `(Image, u32) -> Image`; none where a call gives a name only.
    pub signature: Option<Cow<'static, str>>,
    /// The release of dask-rs it was built with; none where a call gives a name only.
    pub release: Option<Cow<'static, str>>,
}

impl Definition {
    /// A definition of this binary.
    pub const fn new(name: &'static str, signature: &'static str) -> Definition {
        let (signature, release) = (Some(Cow::Borrowed(signature)), Some(Cow::Borrowed(RELEASE)));
        Definition { name: Cow::Borrowed(name), signature, release }
    }

    /// A task of which the caller knows the name only.
    pub fn named(name: impl Into<Cow<'static, str>>) -> Definition {
        Definition { name: name.into(), signature: None, release: None }
    }
}

/// `resize(Image, u32) -> Image`.
impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, self.signature.as_deref().unwrap_or_default())
    }
}

/// A share in a definition. There is one for each call, and there may be millions: small.
#[derive(Debug, Clone)]
pub enum SharedDefinition {
    /// Of this binary.
    Static(&'static Definition),
    /// One that came from elsewhere.
    Shared(Arc<Definition>),
}

impl Deref for SharedDefinition {
    type Target = Definition;
    fn deref(&self) -> &Definition {
        match self {
            SharedDefinition::Static(definition) => definition,
            SharedDefinition::Shared(definition) => definition,
        }
    }
}

impl PartialEq for SharedDefinition {
    fn eq(&self, other: &SharedDefinition) -> bool {
        **self == **other
    }
}

impl From<&'static Definition> for SharedDefinition {
    fn from(definition: &'static Definition) -> SharedDefinition {
        SharedDefinition::Static(definition)
    }
}

impl From<Definition> for SharedDefinition {
    fn from(definition: Definition) -> SharedDefinition {
        SharedDefinition::Shared(Arc::new(definition))
    }
}

/// Whether two releases of dask-rs work together: until 1.0 those that differ in the last number only, then those of one
/// major version.
pub fn releases_agree(one: &str, other: &str) -> bool {
    fn significant(release: &str) -> (&str, &str) {
        let mut parts = release.split('.');
        match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
            ("0", minor) => ("0", minor),
            (major, _) => (major, ""),
        }
    }
    one == other || significant(one) == significant(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_agree_as_far_as_semantic_versions_promise() {
        assert!(releases_agree("0.1.0", "0.1.7") && releases_agree("1.2.0", "1.9.3"));
        assert!(!releases_agree("0.1.0", "0.2.0") && !releases_agree("1.0.0", "2.0.0") && !releases_agree("0.1.0", ""));
    }

    #[test]
    fn definitions_are_shown_as_they_are_called() {
        assert_eq!(Definition::new("resize", "(Image, u32) -> Image").to_string(), "resize(Image, u32) -> Image");
        assert_eq!(Definition::named("resize").to_string(), "resize");
    }
}
