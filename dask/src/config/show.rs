//! The configuration as YAML for people, with the origin of each value behind it.

use std::fmt::Write as _;

use super::node::{Map, Node, Setting};
use super::scalar::resolve;

/// From which column on origins are written.
const ORIGIN_COLUMN: usize = 56;

/// The whole document.
pub(super) fn document(root: &Map) -> String {
    let mut out = String::new();
    entries(&mut out, root, 0);
    out
}

/// One value as YAML, without origins.
pub(super) fn value(node: &Node) -> String {
    match &node.setting {
        Setting::Map(entries) => {
            let mut out = String::new();
            for (name, node) in entries {
                match &node.setting {
                    Setting::Map(inner) if !inner.is_empty() => {
                        let _ = writeln!(out, "{}:", quoted(name));
                        for line in value(node).lines() {
                            let _ = writeln!(out, "  {line}");
                        }
                    }
                    _ => {
                        let _ = writeln!(out, "{}: {}", quoted(name), flow(node));
                    }
                }
            }
            out.trim_end().to_owned()
        }
        Setting::Text(text) => text.clone(),
        _ => flow(node),
    }
}

fn entries(out: &mut String, map: &Map, depth: usize) {
    for (name, node) in map {
        let mut line = format!("{:indent$}{}:", "", quoted(name), indent = 2 * depth);
        match &node.setting {
            Setting::Map(inner) if !inner.is_empty() => {
                let _ = writeln!(out, "{line}");
                entries(out, inner, depth + 1);
            }
            _ => {
                let _ = write!(line, " {}", flow(node));
                let _ = writeln!(out, "{line:ORIGIN_COLUMN$} # {}", node.origin);
            }
        }
    }
}

/// On one line.
fn flow(node: &Node) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match &node.setting {
        Setting::Text(text) => quoted(text),
        Setting::List(items) => format!("[{}]", list(items.iter().map(flow).collect())),
        Setting::Map(map) => {
            format!(
                "{{{}}}",
                list(map.iter().map(|(name, node)| format!("{}: {}", quoted(name), flow(node))).collect())
            )
        }
        Setting::Float(number) if number.is_infinite() => if *number > 0.0 { ".inf" } else { "-.inf" }.to_owned(),
        Setting::Float(number) if number.is_nan() => ".nan".to_owned(),
        // Debug shows the point that makes it a float again.
        Setting::Float(number) => format!("{number:?}"),
        Setting::Null | Setting::Bool(_) | Setting::Int(_) => node.setting.to_string(),
    }
}

/// In quotes where it would otherwise be read as something else.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./ %()+".contains(c);
    let safe = text.chars().all(plain)
        && !text.starts_with([' ', '-', '%'])
        && !text.ends_with(' ')
        && matches!(resolve(text), Setting::Text(_));
    if safe { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
