//! The TOML file as a layer.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::options::parse_bool;
use crate::{
    ConfigError, Evict, Invalid, Level, PagePath, Partial, SERVER_ALLOWED, Size, When,
    parse_servers,
};

const KEYS: [&str; 13] = [
    "local",
    "servers",
    "strict",
    "log",
    "page-path",
    "evict",
    "compress",
    "packed-copies",
    "stats-file",
    "secret-file",
    "summary",
    "per-process",
    "unpaged-ok",
];

pub(crate) fn read(path: &Path) -> Result<Partial, ConfigError> {
    let text = fs::read_to_string(path).map_err(|error| ConfigError::Read {
        what: "config",
        path: path.to_owned(),
        error,
    })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Partial, ConfigError> {
    let line = |at: usize| text.bytes().take(at).filter(|b| *b == b'\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line(error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    let mut partial = Partial::default();
    for (key, value) in table.get_ref() {
        let line = line(key.span().start);
        let Some(known) = KEYS
            .into_iter()
            .find(|known| *known == key.get_ref().as_ref())
        else {
            return Err(ConfigError::UnknownKey {
                path: path.to_owned(),
                line,
                key: key.get_ref().to_string(),
                known: KEYS.join(", "),
            });
        };
        set(&mut partial, known, value, path.parent()).map_err(|invalid| ConfigError::Key {
            path: path.to_owned(),
            line,
            key: known,
            invalid,
        })?;
    }
    Ok(partial)
}

fn set(
    partial: &mut Partial,
    key: &str,
    value: &Spanned<DeValue<'_>>,
    folder: Option<&Path>,
) -> Result<(), Invalid> {
    let value = value.get_ref();
    let path =
        || text(value, "a path in quotes").map(|p| folder.map_or(PathBuf::from(p), |f| f.join(p)));
    match key {
        "local" => partial.local = Some(size(value)?),
        "servers" => partial.servers = Some(servers(value)?),
        "strict" => partial.strict = Some(flag(value)?),
        "log" => partial.log = Some(Level::from_str(text(value, "error, warn, info or debug")?)?),
        "page-path" => {
            partial.page_path = Some(PagePath::from_str(text(value, "auto, move or copy")?)?);
        }
        "evict" => partial.evict = Some(Evict::from_str(text(value, "needed or all")?)?),
        "compress" => {
            partial.compress = Some(When::from_str(text(value, "auto, always or never")?)?);
        }
        "packed-copies" => {
            partial.copies = Some(When::from_str(text(value, "auto, always or never")?)?);
        }
        "stats-file" => partial.stats_file = Some(path()?),
        "secret-file" => partial.secret_file = Some(path()?),
        "summary" => partial.summary = Some(flag(value)?),
        "per-process" => partial.per_process = Some(flag(value)?),
        _ => partial.unpaged_ok = Some(flag(value)?),
    }
    Ok(())
}

fn wrong_type(value: &DeValue<'_>, allowed: &'static str) -> Invalid {
    Invalid::new(value.type_str(), "is the wrong type", allowed)
}

fn text<'a>(value: &'a DeValue<'_>, allowed: &'static str) -> Result<&'a str, Invalid> {
    value.as_str().ok_or_else(|| wrong_type(value, allowed))
}

fn size(value: &DeValue<'_>) -> Result<Size, Invalid> {
    match value {
        DeValue::Integer(bytes) if bytes.radix() == 10 => Size::from_str(bytes.as_str()),
        _ => Size::from_str(text(value, crate::SIZE_ALLOWED)?),
    }
}

fn flag(value: &DeValue<'_>) -> Result<bool, Invalid> {
    match value.as_bool() {
        Some(flag) => Ok(flag),
        None => parse_bool(text(value, "true or false")?),
    }
}

/// A list of addresses, or one text as in `TMEM_SERVERS`.
fn servers(value: &DeValue<'_>) -> Result<Vec<crate::ServerAddr>, Invalid> {
    match value.as_array() {
        Some(list) => list
            .iter()
            .map(|v| text(v.get_ref(), SERVER_ALLOWED)?.parse())
            .collect(),
        None => parse_servers(text(value, SERVER_ALLOWED)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_text(text: &str) -> Result<Partial, ConfigError> {
        parse(Path::new("/etc/tmem.toml"), text)
    }

    #[test]
    fn every_key_is_read() {
        let text = "local = \"1.5G\"\nservers = [\"a:1\", \"tcp://b:2\"]\nstrict = true\n\
            log = \"info\"\npage-path = \"move\"\nevict = \"all\"\ncompress = \"never\"\npacked-copies = \"always\"\n\
            stats-file = \"s.json\"\nsecret-file = \"/key\"\nsummary = false\nper-process = true\nunpaged-ok = true\n";
        let partial = read_text(text).unwrap();
        assert_eq!(partial.local, Some(Size::Bytes(3 << 29)));
        assert_eq!(
            partial.servers,
            Some(parse_servers("a:1,tcp://b:2").unwrap())
        );
        assert_eq!(
            partial.stats_file.as_deref(),
            Some(Path::new("/etc/s.json"))
        );
        assert_eq!(partial.secret_file.as_deref(), Some(Path::new("/key")));
        assert_eq!((partial.strict, partial.summary), (Some(true), Some(false)));
        assert_eq!(partial.per_process, Some(true));
        assert_eq!(partial.unpaged_ok, Some(true));
        assert_eq!(partial.compress, Some(When::Never));
        assert_eq!(partial.copies, Some(When::Always));
        assert_eq!(
            (partial.log, partial.page_path, partial.evict),
            (Some(Level::Info), Some(PagePath::Move), Some(Evict::All))
        );
        assert_eq!(text.lines().count(), KEYS.len());
    }

    #[test]
    fn a_size_may_be_a_number_and_servers_one_text() {
        let partial = read_text("local = 536870912\nservers = \"a:1,b:2\"").unwrap();
        assert_eq!(partial.local, Some(Size::Bytes(512 << 20)));
        assert_eq!(partial.servers.unwrap().len(), 2);
    }

    #[test]
    fn mistakes_are_named_with_file_and_line() {
        for (text, expected) in [
            (
                "\nlocla = 1",
                "/etc/tmem.toml, line 2: unknown key `locla`; known: local, servers",
            ),
            (
                "strict = true\nlocal = \"x\"",
                "line 2: local = `x` is not a size; allowed: bytes",
            ),
            ("local = -1", "line 1: local = `-1` is not a size"),
            ("local = [1]", "local = `array` is the wrong type"),
            (
                "servers = [7]",
                "servers = `integer` is the wrong type; allowed: host:port",
            ),
            ("strict = \"si\"", "strict = `si` is neither yes nor no"),
            (
                "stats-file = 3",
                "stats-file = `integer` is the wrong type; allowed: a path",
            ),
            ("config = \"x\"", "unknown key `config`"),
            ("a = 1\nb = = 2", "line 2: "),
        ] {
            let message = read_text(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let message = read(&folder.path().join("none.toml"))
            .unwrap_err()
            .to_string();
        assert!(message.contains("none.toml: No such file"), "{message}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z =\"\\[\\]0-9.\n-]{0,60}") {
            let _ = read_text(&text);
        }
    }
}
