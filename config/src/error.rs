//! Why options are not usable.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A value that is not what its option takes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{value}` {reason}{}; allowed: {allowed}", self.where_wrong())]
pub struct Invalid {
    /// The value as given.
    pub value: String,
    /// What is wrong with it, in words that follow the value.
    pub reason: &'static str,
    /// What the option takes.
    pub allowed: Box<str>,
    /// The character of the value, from 0, that is the first wrong one, where that can be
    /// told.
    pub place: Option<u32>,
}

impl Invalid {
    pub(crate) fn new(value: &str, reason: &'static str, allowed: &str) -> Invalid {
        Invalid {
            value: value.to_owned(),
            reason,
            allowed: allowed.into(),
            place: None,
        }
    }

    pub(crate) fn at(self, place: Option<u32>) -> Invalid {
        Invalid { place, ..self }
    }

    /// The wrong place in words, if it is one of several characters.
    fn where_wrong(&self) -> String {
        let at = self.place.filter(|_| self.value.chars().count() > 1);
        let named = at.and_then(|at| Some((at, self.value.chars().nth(at as usize)?)));
        named.map_or(String::new(), |(at, wrong)| {
            format!(", because of `{wrong}` in place {}", at + 1)
        })
    }
}

/// Why options cannot be read from the flags, the environment or the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A flag has a value that its option does not take.
    #[error("--{flag} {invalid}")]
    Flag {
        /// Its name, without the dashes.
        flag: &'static str,
        /// What is wrong.
        #[source]
        invalid: Invalid,
    },
    /// An environment variable has a value that its option does not take.
    #[error("{variable}={invalid}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What is wrong.
        #[source]
        invalid: Invalid,
    },
    /// A file that an option names cannot be used.
    #[error("{what} file {}: {error}", path.display())]
    Read {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The file is not TOML.
    #[error("config file {}, line {line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// The file has a key that is no option.
    #[error("config file {}, line {line}: unknown key `{key}`; known: {known}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// The keys that exist.
        known: String,
    },
    /// A key of the file has a value that its option does not take.
    #[error("config file {}, line {line}: {key} = {invalid}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// What is wrong.
        #[source]
        invalid: Invalid,
    },
}
