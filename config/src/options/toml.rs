//! One value of the TOML file.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeValue;

use crate::Invalid;

/// Longer values are cut in messages, in characters.
const LONGEST: usize = 40;

/// A value, with the file that it is in.
pub(crate) struct Toml<'a> {
    value: &'a Spanned<DeValue<'a>>,
    /// The file's text.
    file: &'a str,
    /// The file's folder.
    folder: Option<&'a Path>,
}

impl<'a> Toml<'a> {
    /// A value of the file at `path` with the text `file`.
    pub(crate) fn new(value: &'a Spanned<DeValue<'a>>, file: &'a str, path: &'a Path) -> Toml<'a> {
        Toml {
            value,
            file,
            folder: path.parent(),
        }
    }

    /// Its text, if it is one; `allowed` says what the key takes.
    pub(crate) fn text(&self, allowed: &str) -> Result<&'a str, Invalid> {
        self.value.get_ref().as_str().ok_or_else(|| Invalid {
            value: self.written(),
            reason: self.kind(),
            allowed: allowed.into(),
            place: None,
        })
    }

    /// Its digits, if it is a whole decimal number.
    pub(crate) fn number(&self) -> Option<&'a str> {
        match self.value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str()),
            _ => None,
        }
    }

    /// Itself, if it is `true` or `false`.
    pub(crate) fn boolean(&self) -> Option<bool> {
        self.value.get_ref().as_bool()
    }

    /// Its values, if it is a list.
    pub(crate) fn list(&self) -> Option<impl Iterator<Item = Toml<'a>>> {
        let (file, folder) = (self.file, self.folder);
        let list = self.value.get_ref().as_array()?;
        Some(list.iter().map(move |value| Toml {
            value,
            file,
            folder,
        }))
    }

    /// A path, which is relative to the file's folder unless it is absolute.
    pub(crate) fn beside(&self, path: &str) -> PathBuf {
        self.folder
            .map_or_else(|| path.into(), |folder| folder.join(path))
    }

    /// The value as the file has it, for messages.
    fn written(&self) -> String {
        let text = self.file.get(self.value.span()).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let mut short: String = line.chars().take(LONGEST).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        short
    }

    /// What it is, in words that follow it in a message.
    fn kind(&self) -> &'static str {
        match self.value.get_ref() {
            DeValue::String(_) => "is text",
            DeValue::Integer(_) | DeValue::Float(_) => "is a number",
            DeValue::Boolean(_) => "is true or false",
            DeValue::Datetime(_) => "is a date or time",
            DeValue::Array(_) => "is a list",
            DeValue::Table(_) => "is a table",
        }
    }
}
