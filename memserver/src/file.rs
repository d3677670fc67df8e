//! The TOML file that flags win over.

use crate::control::log::Format;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tmem_config::{Level, Size};

/// What it says; the keys are the flags' names.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct File {
    pub(crate) listen: Option<String>,
    pub(crate) rdma: Option<Parsed<SocketAddr>>,
    pub(crate) capacity: Option<Parsed<Size>>,
    pub(crate) slab_size: Option<Parsed<Size>>,
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) grace: Option<u32>,
    pub(crate) max_connections: Option<usize>,
    pub(crate) max_per_client: Option<usize>,
    pub(crate) log: Option<Parsed<Level>>,
    pub(crate) log_format: Option<Parsed<Format>>,
    pub(crate) metrics: Option<Parsed<SocketAddr>>,
}

/// A value that is read as its flag is; a number may be without quotes.
#[derive(Debug)]
pub(crate) struct Parsed<T>(pub(crate) T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Parsed<T>, D::Error> {
        from.deserialize_any(Text(PhantomData))
    }
}

struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Text<T> {
    type Value = Parsed<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text as on the command line")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Parsed<T>, E> {
        text.parse().map(Parsed).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Parsed<T>, E> {
        number
            .to_string()
            .parse()
            .map(Parsed)
            .map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
    }
}

/// Reads it. A relative path in it is relative to its folder.
pub(crate) fn read(path: &Path) -> Result<File, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| format!("config file {name}: {e}"))?;
    let mut file: File = toml::from_str(&text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start);
        let line = text.bytes().take(at).filter(|b| *b == b'\n').count() + 1;
        let message = e.message().replace('\n', ", ");
        format!("config file {name}, line {line}: {message}")
    })?;
    if let (Some(folder), Some(secret)) = (path.parent(), &mut file.secret_file) {
        *secret = folder.join(&*secret);
    }
    Ok(file)
}
