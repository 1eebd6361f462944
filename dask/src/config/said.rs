//! What an option or the configuration says about one setting, and where.

use std::borrow::Cow;
use std::time::Duration;

use super::node::{Node, Origin, Setting};
use crate::cli::parse::{parse_bytes, parse_timedelta, python_float};

/// A value as text, and its place for the case that it cannot be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Said<'a> {
    text: Cow<'a, str>,
    at: Place<'a>,
}

#[derive(Debug, Clone, PartialEq)]
enum Place<'a> {
    Option(&'static str),
    Config { key: &'static str, node: &'a Node },
}

impl<'a> Said<'a> {
    /// The text of a command line's option.
    pub fn option(name: &'static str, text: &'a str) -> Said<'a> {
        Said { text: text.into(), at: Place::Option(name) }
    }

    pub(super) fn node(key: &'static str, node: &'a Node) -> Said<'a> {
        Said { text: node.setting.to_string().into(), at: Place::Config { key, node } }
    }

    /// The text, as it would be written on a command line.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Reads the text.
    ///
    /// # Errors
    /// What `read` said, after the option's name, or the file, line and key.
    pub fn read<T>(&self, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, String> {
        read(&self.text).map_err(|error| self.wrong(&error))
    }

    /// A complaint about this value, with its place before it.
    pub fn wrong(&self, error: &str) -> String {
        match &self.at {
            Place::Option(name) => format!("{name}: {error}"),
            Place::Config { key, node } => match &node.origin {
                Origin::Variable(name) => format!("{name}: {error}"),
                origin @ (Origin::File(..) | Origin::Default) => format!("{origin}: {key}: {error}"),
            },
        }
    }

    /// A duration, such as `5 minutes` or a number of seconds.
    ///
    /// # Errors
    /// With the place.
    pub fn duration(&self) -> Result<Duration, String> {
        self.read(parse_timedelta)
    }

    /// A size, such as `64 MiB` or a number of bytes.
    ///
    /// # Errors
    /// With the place.
    pub fn bytes(&self) -> Result<u64, String> {
        self.read(|text| u64::try_from(parse_bytes(text)?).map_err(|_| format!("{text:?} is negative")))
    }

    /// A truth value.
    ///
    /// # Errors
    /// With the place.
    pub fn truth(&self) -> Result<bool, String> {
        self.read(|text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        })
    }

    /// A whole number.
    ///
    /// # Errors
    /// With the place.
    pub fn count(&self) -> Result<usize, String> {
        self.read(|text| text.parse().map_err(|_| format!("{text:?} is not a whole number")))
    }

    /// A positive number, perhaps infinite.
    ///
    /// # Errors
    /// With the place.
    pub fn positive(&self) -> Result<f64, String> {
        self.read(|text| {
            let number = text.parse().ok().filter(|x: &f64| *x > 0.0);
            number.ok_or_else(|| format!("{text:?} is not a positive number"))
        })
    }

    /// A number, perhaps infinite, not negative.
    ///
    /// # Errors
    /// With the place.
    pub fn number(&self) -> Result<f64, String> {
        self.read(|text| {
            let number = text.parse().ok().filter(|x: &f64| *x >= 0.0);
            number.ok_or_else(|| format!("{text:?} is not a number"))
        })
    }

    /// A size, or `None` where the setting is turned off.
    ///
    /// # Errors
    /// With the place.
    pub fn bytes_or_off(&self) -> Result<Option<u64>, String> {
        if self.is_off() { Ok(None) } else { self.bytes().map(Some) }
    }

    /// A share between 0 and 1, or `None` where the setting is turned off.
    ///
    /// # Errors
    /// With the place.
    pub fn fraction(&self) -> Result<Option<f64>, String> {
        if self.is_off() {
            return Ok(None);
        }
        self.read(|text| match python_float(text) {
            Some(0.0) => Ok(None),
            Some(share) if (0.0..=1.0).contains(&share) => Ok(Some(share)),
            Some(_) | None => Err(format!("{text:?} is no fraction between 0 and 1, nor 'false'")),
        })
    }

    /// One of these texts.
    ///
    /// # Errors
    /// With the place, and the texts there are.
    pub fn one_of(&self, choices: &[&'static str]) -> Result<&'static str, String> {
        self.read(|text| {
            let found = choices.iter().find(|choice| **choice == text || self.is_off() && **choice == "false");
            found.copied().ok_or_else(|| format!("{text:?} is none of {}", choices.join(", ")))
        })
    }

    /// Whether the text turns a setting off, as YAML and Python spell it.
    pub fn is_off(&self) -> bool {
        matches!(self.text.trim().to_ascii_lowercase().as_str(), "false" | "none" | "null" | "off" | "no" | "")
    }

    /// The texts of a list; a single text is a list of one.
    ///
    /// # Errors
    /// With the place.
    pub fn texts(&self) -> Result<Vec<String>, String> {
        let Place::Config { node, .. } = &self.at else { return Ok(vec![self.text.clone().into_owned()]) };
        match &node.setting {
            Setting::Null => Ok(Vec::new()),
            Setting::List(items) => Ok(items.iter().map(|item| item.setting.to_string()).collect()),
            Setting::Text(text) if text.is_empty() => Ok(Vec::new()),
            Setting::Text(_) | Setting::Bool(_) | Setting::Int(_) | Setting::Float(_) => {
                Ok(vec![self.text.clone().into_owned()])
            }
            Setting::Map(_) => Err(self.wrong(&format!("{} is no list", self.text))),
        }
    }
}
