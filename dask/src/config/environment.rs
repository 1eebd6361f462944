//! `DASK_*` variables: `DASK_FOO__BAR_BAZ=1` is `foo.bar-baz: 1`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use super::literal::interpret;
use super::merge::{merge, set};
use super::node::{Map, Node, Origin, Setting};
use super::yaml;

const PREFIX: &str = "DASK_";
/// A whole configuration, as JSON in URL-safe base64, that another process passed on; other variables count more.
const INHERITED: &str = "DASK_INTERNAL_INHERIT_CONFIG";
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The settings of all variables that begin as dask's do.
pub(super) fn collect(variables: impl IntoIterator<Item = (String, String)>) -> Result<Map, String> {
    let variables: BTreeMap<String, String> =
        variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    let mut root = Map::new();
    if let Some(text) = variables.get(INHERITED).filter(|text| !text.is_empty()) {
        let origin = Origin::Variable(INHERITED.into());
        merge(&mut root, inherited(text, &origin)?);
    }
    // Shorter names first: a mapping said whole does not undo what is said about one of its entries.
    let mut names: Vec<&String> = variables.keys().filter(|name| *name != INHERITED).collect();
    names.sort_by_key(|name| name.matches("__").count());
    for name in names {
        let key = name[PREFIX.len()..].to_lowercase().replace("__", ".");
        if key.split('.').any(str::is_empty) {
            continue;
        }
        let origin = Origin::Variable(name.as_str().into());
        set(&mut root, &key, interpret(&variables[name], &origin));
    }
    Ok(root)
}

fn inherited(text: &str, origin: &Origin) -> Result<Map, String> {
    let wrong = |error: String| format!("{INHERITED}: {error}");
    let bytes = BASE64.decode(text.trim()).map_err(|error| wrong(error.to_string()))?;
    let json = String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
    // JSON is YAML.
    let mut map = yaml::parse(Path::new(INHERITED), &json)?;
    let origin = Origin::Variable(Arc::from(origin.to_string()));
    map.values_mut().for_each(|node| relocate(node, &origin));
    Ok(map)
}

fn relocate(node: &mut Node, origin: &Origin) {
    node.origin = origin.clone();
    match &mut node.setting {
        Setting::List(items) => items.iter_mut().for_each(|item| relocate(item, origin)),
        Setting::Map(entries) => entries.values_mut().for_each(|entry| relocate(entry, origin)),
        Setting::Null | Setting::Bool(_) | Setting::Int(_) | Setting::Float(_) | Setting::Text(_) => {}
    }
}
