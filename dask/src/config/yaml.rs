//! Files of the configuration: YAML, of which JSON is a part.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::node::{Map, Node, Origin, Setting};
use super::scalar::resolve;

/// How deep lists and mappings may be nested.
const DEPTH_MAX: usize = 64;
/// Most values of one file, counting those that aliases repeat.
const NODES_MAX: usize = 100_000;
/// The key whose mapping's entries are taken over, unless they are there already.
const MERGE_KEY: &str = "<<";

/// Reads one file's text.
///
/// # Errors
/// With the file's name and line.
pub(super) fn parse(path: &Path, text: &str) -> Result<Map, String> {
    let mut loader = Loader { path: path.into(), anchors: BTreeMap::new(), nodes: 0 };
    let root = loader.document(text).map_err(|(line, error)| format!("{}:{line}: {error}", path.display()))?;
    match root.map(|node| node.setting) {
        None | Some(Setting::Null) => Ok(Map::new()),
        Some(Setting::Map(entries)) => Ok(entries),
        Some(_) => Err(format!("{}:1: a dask configuration is a mapping of names to values", path.display())),
    }
}

/// A line and what is wrong in it.
type Wrong = (usize, String);

struct Loader {
    path: Arc<Path>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
}

/// A list or mapping whose end has not been read.
enum Open {
    List(Vec<Node>),
    Map(Map, Option<String>, Vec<Map>),
}

impl Loader {
    /// The first document of the text.
    fn document(&mut self, text: &str) -> Result<Option<Node>, Wrong> {
        let mut open: Vec<(Open, usize, Origin)> = Vec::new();
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| (error.marker().line(), error.info().to_owned()))?;
            let done = match event {
                Event::MappingStart(anchor, _) => {
                    open.push((Open::Map(Map::new(), None, Vec::new()), anchor, self.origin(span)));
                    None
                }
                Event::SequenceStart(anchor, _) => {
                    open.push((Open::List(Vec::new()), anchor, self.origin(span)));
                    None
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let string = tag.is_some_and(|tag| tag.suffix == "str");
                    let setting = match style {
                        ScalarStyle::Plain if !string => resolve(&text),
                        ScalarStyle::Plain
                        | ScalarStyle::SingleQuoted
                        | ScalarStyle::DoubleQuoted
                        | ScalarStyle::Literal
                        | ScalarStyle::Folded => Setting::Text(text.into_owned()),
                    };
                    Some((Node { setting, origin: self.origin(span) }, anchor))
                }
                Event::Alias(anchor) => {
                    let node = self.anchors.get(&anchor).cloned();
                    let node = node.ok_or_else(|| (span.start.line(), "an alias within its own anchor".to_owned()))?;
                    Some((node, 0))
                }
                Event::SequenceEnd | Event::MappingEnd => open.pop().map(|(open, anchor, origin)| {
                    let setting = match open {
                        Open::List(items) => Setting::List(items),
                        Open::Map(entries, _, merged) => Setting::Map(with_merged(entries, merged)),
                    };
                    (Node { setting, origin }, anchor)
                }),
                Event::DocumentEnd | Event::StreamEnd => return Ok(None),
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => None,
            };
            if open.len() > DEPTH_MAX {
                return Err((span.start.line(), format!("nested more than {DEPTH_MAX} deep")));
            }
            let Some((node, anchor)) = done else { continue };
            self.count(&node, span)?;
            if anchor > 0 {
                self.anchors.insert(anchor, node.clone());
            }
            match open.last_mut() {
                None => return Ok(Some(node)),
                Some((Open::List(items), ..)) => items.push(node),
                Some((Open::Map(entries, name, merged), ..)) => match name.take() {
                    None => *name = Some(node.setting.to_string()),
                    Some(name) if name == MERGE_KEY => merged.extend(mappings(node)),
                    Some(name) => {
                        entries.insert(name, node);
                    }
                },
            }
        }
        Ok(None)
    }

    fn origin(&self, span: Span) -> Origin {
        Origin::File(Arc::clone(&self.path), span.start.line())
    }

    /// Aliases of aliases grow without end: what a file makes is counted.
    fn count(&mut self, node: &Node, span: Span) -> Result<(), Wrong> {
        self.nodes = self.nodes.saturating_add(size(node));
        if self.nodes > NODES_MAX {
            return Err((span.start.line(), format!("more than {NODES_MAX} values")));
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    match &node.setting {
        Setting::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Setting::Map(entries) => 1 + entries.values().map(size).sum::<usize>(),
        Setting::Null | Setting::Bool(_) | Setting::Int(_) | Setting::Float(_) | Setting::Text(_) => 1,
    }
}

/// The mappings that a merge key names: one or a list of them.
fn mappings(node: Node) -> Vec<Map> {
    match node.setting {
        Setting::Map(entries) => vec![entries],
        Setting::List(items) => items.into_iter().flat_map(mappings).collect(),
        Setting::Null | Setting::Bool(_) | Setting::Int(_) | Setting::Float(_) | Setting::Text(_) => Vec::new(),
    }
}

fn with_merged(mut entries: Map, merged: Vec<Map>) -> Map {
    for (name, node) in merged.into_iter().flatten() {
        entries.entry(name).or_insert(node);
    }
    entries
}
