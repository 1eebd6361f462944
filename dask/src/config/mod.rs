//! Dask's configuration: YAML and JSON files and `DASK_*` variables, as `dask.config` finds, names and merges them.
//!
//! [`DaskConfig::load`] reads everything once. What a command wants to know it asks with [`DaskConfig::said`], which also
//! tells where the answer stands, so that a value that cannot be read is reported with its file and line.

mod environment;
mod keys;
mod literal;
mod merge;
mod node;
mod paths;
mod said;
mod scalar;
mod show;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use keys::{KEYS, Key, Kind, SCHEMES};
pub use node::{Map, Node, Origin, Setting};
pub use paths::search_paths;
pub use said::Said;

use merge::{find, merge};

/// All that files and variables say; later sources won.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DaskConfig {
    root: Map,
    /// What to tell the user: keys with names of the past.
    pub warnings: Vec<String>,
}

impl DaskConfig {
    /// Reads the files of [`search_paths`] and the variables of this process.
    ///
    /// # Errors
    /// Naming the file, line or variable that is no configuration.
    pub fn load() -> Result<DaskConfig, String> {
        let executable = std::env::current_exe().ok();
        let paths = search_paths(|name| std::env::var_os(name), executable.as_deref());
        DaskConfig::from_sources(
            &paths,
            std::env::vars_os().filter_map(|(k, v)| k.into_string().ok().zip(v.into_string().ok())),
        )
    }

    /// Reads these files and directories, then these variables.
    ///
    /// # Errors
    /// Naming the file, line or variable that is no configuration.
    pub fn from_sources(
        paths: &[PathBuf],
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<DaskConfig, String> {
        let mut root = Map::new();
        for file in paths.iter().flat_map(|path| paths::config_files(path)) {
            // As upstream: a file that may not be read is not there.
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            merge(&mut root, yaml::parse(&file, &text)?);
        }
        merge(&mut root, environment::collect(variables)?);
        let warnings = keys::rename_deprecated(&mut root);
        Ok(DaskConfig { root, warnings })
    }

    /// The node of a key such as `distributed.scheduler.work-stealing`; `-` and `_` are the same.
    pub fn get(&self, key: &str) -> Option<&Node> {
        find(&self.root, key)
    }

    /// What the option `name`, or else the configuration's `key`, says. A null counts as saying nothing.
    pub fn said<'a>(&'a self, name: &'static str, option: Option<&'a str>, key: &'static str) -> Option<Said<'a>> {
        option.map(|text| Said::option(name, text)).or_else(|| self.key(key))
    }

    /// What the configuration says about `key`. A null counts as saying nothing.
    pub fn key(&self, key: &'static str) -> Option<Said<'_>> {
        let node = self.get(key).filter(|node| node.setting != Setting::Null)?;
        Some(Said::node(key, node))
    }

    /// The texts of a key that is a list, or one text.
    ///
    /// # Errors
    /// When it is something else, naming where it stands.
    pub fn texts(&self, key: &'static str) -> Result<Vec<String>, String> {
        self.key(key).map_or(Ok(Vec::new()), |said| said.texts())
    }

    /// The entries of a key that is a mapping, each as something said.
    ///
    /// # Errors
    /// When it is something else, naming where it stands.
    pub fn entries(&self, key: &'static str) -> Result<Vec<(&str, Said<'_>)>, String> {
        let Some(node) = self.get(key) else { return Ok(Vec::new()) };
        match &node.setting {
            Setting::Null => Ok(Vec::new()),
            Setting::Map(entries) => {
                Ok(entries.iter().map(|(name, node)| (name.as_str(), Said::node(key, node))).collect())
            }
            Setting::Bool(_) | Setting::Int(_) | Setting::Float(_) | Setting::Text(_) | Setting::List(_) => {
                Err(format!("{}: {key}: {} is no mapping", node.origin, node.setting))
            }
        }
    }

    /// Everything there is, with the defaults of [`KEYS`], as YAML with the origin of each value behind it.
    pub fn show(&self) -> String {
        show::document(&keys::with_defaults(&self.root))
    }

    /// What is wrong with the values of [`KEYS`].
    pub fn complaints(&self) -> Vec<String> {
        KEYS.iter().filter_map(|key| key.kind.complaint(self, key.name)).collect()
    }

    /// The node of a key, of its default where nothing is said.
    pub fn effective(&self, key: &str) -> Option<Node> {
        find(&keys::with_defaults(&self.root), key).cloned()
    }
}

/// Reads a mapping in YAML or JSON, such as a specification; `origin` names it in errors.
///
/// # Errors
/// With the origin and the line.
pub fn parse_mapping(origin: &str, text: &str) -> Result<Map, String> {
    yaml::parse(Path::new(origin), text)
}

/// The files among `paths` that say something about `key`, in order.
///
/// # Errors
/// Naming the file that is no configuration.
pub fn files_with(key: &str, paths: &[PathBuf]) -> Result<BTreeMap<PathBuf, Node>, String> {
    let mut found = BTreeMap::new();
    for file in paths.iter().flat_map(|path| paths::config_files(path)) {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        if let Some(node) = find(&yaml::parse(Path::new(&file), &text)?, key) {
            found.insert(file, node.clone());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
