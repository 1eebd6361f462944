//! Names with dots, and later sources over earlier ones, by the rules of `dask.config`.

use std::collections::btree_map::Entry;

use super::node::{Map, Node, Setting};

/// Lays `over` on `base`: mappings are merged entry by entry, anything else is replaced.
pub(super) fn merge(base: &mut Map, over: Map) {
    for (name, node) in over {
        let name = spelled(base, &name).unwrap_or(name);
        match (base.entry(name), node) {
            (Entry::Occupied(slot), Node { setting: Setting::Map(entries), origin }) => {
                let slot = slot.into_mut();
                match &mut slot.setting {
                    Setting::Map(old) => merge(old, entries),
                    _ => *slot = Node { setting: Setting::Map(entries), origin },
                }
            }
            (Entry::Occupied(mut slot), node) => {
                slot.insert(node);
            }
            (Entry::Vacant(slot), node) => {
                slot.insert(node);
            }
        }
    }
}

/// The node of a dotted key.
pub(super) fn find<'a>(map: &'a Map, key: &str) -> Option<&'a Node> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    // Names may have dots of their own, as those of loggers.
    if let Some(node) = map.get(key) {
        return Some(node);
    }
    let node = map.get(&spelled(map, first)?)?;
    match (rest, &node.setting) {
        (None, _) => Some(node),
        (Some(rest), Setting::Map(entries)) => find(entries, rest),
        (Some(_), _) => None,
    }
}

/// Puts a node under a dotted key; what stood in the way of a mapping is replaced.
pub(super) fn set(map: &mut Map, key: &str, node: Node) {
    let Some((first, rest)) = key.split_once('.') else {
        let name = spelled(map, key).unwrap_or_else(|| key.to_owned());
        map.insert(name, node);
        return;
    };
    let name = spelled(map, first).unwrap_or_else(|| first.to_owned());
    let slot =
        map.entry(name).or_insert_with(|| Node { setting: Setting::Map(Map::new()), origin: node.origin.clone() });
    if !matches!(slot.setting, Setting::Map(_)) {
        slot.setting = Setting::Map(Map::new());
    }
    if let Setting::Map(entries) = &mut slot.setting {
        set(entries, rest, node);
    }
}

/// Takes the node of a dotted key out.
pub(super) fn remove(map: &mut Map, key: &str) -> Option<Node> {
    let Some((first, rest)) = key.split_once('.') else {
        let name = spelled(map, key)?;
        return map.remove(&name);
    };
    let name = spelled(map, first)?;
    match &mut map.get_mut(&name)?.setting {
        Setting::Map(entries) => remove(entries, rest),
        _ => None,
    }
}

/// How a name is spelled in this mapping: `-` and `_` are the same.
fn spelled(map: &Map, name: &str) -> Option<String> {
    if map.contains_key(name) {
        return Some(name.to_owned());
    }
    let plain = |text: &str| text.replace('_', "-");
    let wanted = plain(name);
    map.keys().find(|known| plain(known) == wanted).cloned()
}
