//! Values of the configuration, each with the place it comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The entries of a mapping, by name.
pub type Map = BTreeMap<String, Node>;

/// Where a value was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file and the line in it, counted from one.
    File(Arc<Path>, usize),
    /// An environment variable.
    Variable(Arc<str>),
    /// Nowhere: what applies when nothing is said.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Variable(name) => f.write_str(name),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// One value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub setting: Setting,
    /// Its place.
    pub origin: Origin,
}

impl Node {
    /// The value as YAML, without its place; a text without quotes.
    pub fn to_yaml(&self) -> String {
        super::show::value(self)
    }
}

/// What YAML and Python literals can say.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// `null`, `None`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list or tuple.
    List(Vec<Node>),
    /// A mapping.
    Map(Map),
}

/// As a user would write it as an option; lists and mappings as YAML writes them on one line.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Null => f.write_str("null"),
            Setting::Bool(truth) => write!(f, "{truth}"),
            Setting::Int(number) => write!(f, "{number}"),
            Setting::Float(number) => write!(f, "{number}"),
            Setting::Text(text) => f.write_str(text),
            Setting::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{}", if i > 0 { ", " } else { "" }, item.setting)?;
                }
                f.write_str("]")
            }
            Setting::Map(entries) => {
                f.write_str("{")?;
                for (i, (name, node)) in entries.iter().enumerate() {
                    write!(f, "{}{name}: {}", if i > 0 { ", " } else { "" }, node.setting)?;
                }
                f.write_str("}")
            }
        }
    }
}
