//! `get_metadata`, `set_metadata`: a nested dict that programs share through the scheduler.

use std::sync::Mutex;

use dask_protocol::Value;
use dask_protocol::message::Request;
use serde::Deserialize;

use super::super::failure::{Failure, Reply, nil, reply};
use super::super::shared::Server;

/// Most entries on one level.
const ENTRIES_MAX: usize = 1_000_000;

/// The nested dict.
#[derive(Default)]
pub(crate) struct Metadata(Mutex<Vec<(Value, Value)>>);

impl Metadata {
    /// Forgets everything (`restart`).
    pub(crate) fn clear(&self) {
        self.0.lock().expect("no code panics while it holds the metadata").clear();
    }

    fn get(&self, path: &[Value]) -> Option<Value> {
        let root = self.0.lock().expect("no code panics while it holds the metadata");
        let Some((first, rest)) = path.split_first() else { return Some(Value::Map(root.clone())) };
        let mut found = lookup(&root, first)?;
        for part in rest {
            let Value::Map(entries) = found else { return None };
            found = lookup(entries, part)?;
        }
        Some(found.clone())
    }

    fn set(&self, path: &[Value], value: Value) -> Result<(), Failure> {
        let mut root = self.0.lock().expect("no code panics while it holds the metadata");
        let Some((last, parents)) = path.split_last() else {
            return Err(Failure::value("set_metadata needs at least one key"));
        };
        let mut level = &mut *root;
        for part in parents {
            let at = entry(level, part)?;
            if !matches!(level[at].1, Value::Map(_)) {
                level[at].1 = Value::Map(Vec::new());
            }
            let Value::Map(entries) = &mut level[at].1 else { unreachable!("just made a map") };
            level = entries;
        }
        let at = entry(level, last)?;
        level[at].1 = value;
        Ok(())
    }
}

fn lookup<'a>(entries: &'a [(Value, Value)], name: &Value) -> Option<&'a Value> {
    entries.iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

/// The place of an entry, made when there is none.
fn entry(entries: &mut Vec<(Value, Value)>, name: &Value) -> Result<usize, Failure> {
    if let Some(at) = entries.iter().position(|(known, _)| known == name) {
        return Ok(at);
    }
    if entries.len() >= ENTRIES_MAX {
        return Err(Failure::runtime(format!("metadata has {ENTRIES_MAX} entries already")));
    }
    entries.push((name.clone(), Value::Nil));
    Ok(entries.len() - 1)
}

fn path(keys: Value) -> Vec<Value> {
    match keys {
        Value::Array(parts) => parts,
        one => vec![one],
    }
}

/// `get_metadata`.
pub(crate) fn get(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        keys: Value,
        #[serde(default = "no_default")]
        default: Value,
    }
    fn no_default() -> Value {
        Value::enum_member("no_default", "dask.typing", "_NoDefault")
    }
    let Args { keys, default } = request.args()?;
    let path = path(keys);
    match (server.metadata.get(&path), default) {
        (Some(found), _) => reply(&found),
        (None, Value::Enum(member)) if member.name == "no_default" => {
            let last = path.last().and_then(Value::to_key).map_or_else(String::new, |key| key.to_string());
            Err(Failure::key(last))
        }
        (None, default) => reply(&default),
    }
}

/// `set_metadata`.
pub(crate) fn set(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        keys: Value,
        #[serde(default)]
        value: Value,
    }
    let Args { keys, value } = request.args()?;
    server.metadata.set(&path(keys), value)?;
    nil()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_where_they_were_put() {
        let metadata = Metadata::default();
        let (a, b) = (Value::from("a"), Value::from("b"));
        metadata.set(&[a.clone(), b.clone()], Value::Int(1)).expect("set");
        metadata.set(&[a.clone(), Value::Int(2)], Value::Nil).expect("set");
        assert_eq!(metadata.get(&[a.clone(), b.clone()]), Some(Value::Int(1)));
        assert_eq!(metadata.get(&[a.clone(), Value::Int(2)]), Some(Value::Nil));
        assert_eq!(metadata.get(&[b]), None);
        metadata.clear();
        assert_eq!(metadata.get(&[a]), None);
    }
}
