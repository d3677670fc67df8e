//! The TOML file as a layer of options.

use std::fs;
use std::path::Path;

use toml::de::DeTable;

use super::toml::Toml;
use super::{Layer, OPTIONS};
use crate::ConfigError;

pub(super) fn read(path: &Path) -> Result<Layer, ConfigError> {
    let text = fs::read_to_string(path).map_err(|error| ConfigError::Read {
        what: "config",
        path: path.to_owned(),
        error,
    })?;
    parse(path, &text)
}

pub(super) fn parse(path: &Path, text: &str) -> Result<Layer, ConfigError> {
    let line = |at: usize| text.bytes().take(at).filter(|b| *b == b'\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line(error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    let mut layer = Layer::default();
    for (key, value) in table.get_ref() {
        let line = line(key.span().start);
        let key = key.get_ref().as_ref();
        match layer.set(key, &Toml::new(value, text, path)) {
            Ok(true) => {}
            Ok(false) => {
                let known: Vec<_> = OPTIONS.iter().filter_map(|option| option.key).collect();
                return Err(ConfigError::UnknownKey {
                    path: path.to_owned(),
                    line,
                    key: key.to_owned(),
                    known: known.join(", "),
                });
            }
            Err(invalid) => {
                return Err(ConfigError::Key {
                    path: path.to_owned(),
                    line,
                    key: key.to_owned(),
                    invalid,
                });
            }
        }
    }
    Ok(layer)
}
