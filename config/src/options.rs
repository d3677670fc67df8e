//! The options, one layer of them, and the environment as a layer.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::{ConfigError, Invalid, ServerAddr, Size, parse_servers};

/// How much tmem says on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only what went wrong.
    Error,
    /// What went wrong or will surprise.
    #[default]
    Warn,
    /// What happens, now and then.
    Info,
    /// Everything.
    Debug,
}

/// How pages are taken out of the program and put back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PagePath {
    /// Moved where the kernel can, else copied.
    #[default]
    Auto,
    /// Moved (`UFFDIO_MOVE`).
    Move,
    /// Copied (write-protect, `UFFDIO_COPY`), as older kernels need it.
    Copy,
}

/// When pages are taken out of the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Evict {
    /// When the budget needs it.
    #[default]
    Needed,
    /// All of them every millisecond or so, whatever the budget: to see whether
    /// a program, or tmem, bears that.
    All,
}

/// When something is done that is the better way at some times only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// Where it was found to be better.
    #[default]
    Auto,
    /// Wherever it can be.
    Always,
    /// Nowhere.
    Never,
}

macro_rules! words {
    ($type:ident, $allowed:literal, $($word:literal => $value:ident),*) => {
        impl FromStr for $type {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<$type, Invalid> {
                match text.trim() {
                    $($word => Ok($type::$value),)*
                    _ => Err(Invalid::new(text, "is not known", $allowed)),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($type::$value => $word),* })
            }
        }
    };
}

words!(Level, "error, warn, info or debug",
    "error" => Error, "warn" => Warn, "info" => Info, "debug" => Debug);
words!(Evict, "needed or all", "needed" => Needed, "all" => All);
words!(When, "auto, always or never",
    "auto" => Auto, "always" => Always, "never" => Never);
words!(PagePath, "auto, move or copy", "auto" => Auto, "move" => Move, "copy" => Copy);

pub(crate) fn parse_bool(text: &str) -> Result<bool, Invalid> {
    match text.trim() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(Invalid::new(
            text,
            "is neither yes nor no",
            "1, true, yes, on, 0, false, no or off",
        )),
    }
}

/// Options with nothing left open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The budget for resident memory; none means that nothing is paged.
    pub local: Option<Size>,
    /// Memory servers, each once.
    pub servers: Vec<ServerAddr>,
    /// Starts no program that cannot be paged, and none before its pager is ready.
    pub strict: bool,
    /// How much is said on stderr.
    pub log: Level,
    /// How pages travel.
    pub page_path: PagePath,
    /// When pages leave.
    pub evict: Evict,
    /// Whether they travel packed.
    pub compress: When,
    /// Whether packed copies of pages are kept in local memory.
    pub copies: When,
    /// Where figures go as JSON at the end.
    pub stats_file: Option<PathBuf>,
    /// The file with the secret that the servers want.
    pub secret_file: Option<PathBuf>,
    /// Whether figures are printed on stderr at the end.
    pub summary: bool,
    /// Whether each process has the budget for itself, and not all together.
    pub per_process: bool,
    /// Whether `tmem run` starts the program without paging where paging cannot be had.
    pub unpaged_ok: bool,
}

/// Options as one place gives them; what it does not name is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partial {
    /// See [`Options::local`].
    pub local: Option<Size>,
    /// See [`Options::servers`].
    pub servers: Option<Vec<ServerAddr>>,
    /// See [`Options::strict`].
    pub strict: Option<bool>,
    /// See [`Options::log`].
    pub log: Option<Level>,
    /// See [`Options::page_path`].
    pub page_path: Option<PagePath>,
    /// See [`Options::evict`].
    pub evict: Option<Evict>,
    /// See [`Options::compress`].
    pub compress: Option<When>,
    /// See [`Options::copies`].
    pub copies: Option<When>,
    /// See [`Options::stats_file`].
    pub stats_file: Option<PathBuf>,
    /// See [`Options::secret_file`].
    pub secret_file: Option<PathBuf>,
    /// See [`Options::summary`].
    pub summary: Option<bool>,
    /// See [`Options::per_process`].
    pub per_process: Option<bool>,
    /// See [`Options::unpaged_ok`].
    pub unpaged_ok: Option<bool>,
    /// The TOML file to read; not an option of the file itself.
    pub config: Option<PathBuf>,
}

impl Partial {
    /// What `TMEM_*` variables say. An empty variable counts as unset.
    ///
    /// # Errors
    /// [`ConfigError::Variable`] names the variable, its value and what is allowed.
    pub fn from_env() -> Result<Partial, ConfigError> {
        Partial::from_vars(|name| env::var_os(name))
    }

    /// The same with the variables that `lookup` finds.
    ///
    /// # Errors
    /// As [`Partial::from_env`].
    pub fn from_vars(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Partial, ConfigError> {
        let raw = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let path = |name: &str| raw(name).map(PathBuf::from);
        Ok(Partial {
            local: variable("TMEM_LOCAL", raw("TMEM_LOCAL"), Size::from_str)?,
            servers: variable("TMEM_SERVERS", raw("TMEM_SERVERS"), parse_servers)?,
            strict: variable("TMEM_STRICT", raw("TMEM_STRICT"), parse_bool)?,
            log: variable("TMEM_LOG", raw("TMEM_LOG"), Level::from_str)?,
            page_path: variable("TMEM_PAGE_PATH", raw("TMEM_PAGE_PATH"), PagePath::from_str)?,
            evict: variable("TMEM_EVICT", raw("TMEM_EVICT"), Evict::from_str)?,
            compress: variable("TMEM_COMPRESS", raw("TMEM_COMPRESS"), When::from_str)?,
            copies: variable(
                "TMEM_PACKED_COPIES",
                raw("TMEM_PACKED_COPIES"),
                When::from_str,
            )?,
            stats_file: path("TMEM_STATS_FILE"),
            secret_file: path("TMEM_SECRET_FILE"),
            summary: variable("TMEM_SUMMARY", raw("TMEM_SUMMARY"), parse_bool)?,
            per_process: variable("TMEM_PER_PROCESS", raw("TMEM_PER_PROCESS"), parse_bool)?,
            unpaged_ok: variable("TMEM_UNPAGED_OK", raw("TMEM_UNPAGED_OK"), parse_bool)?,
            config: path("TMEM_CONFIG"),
        })
    }

    /// What the TOML file at `path` says. Relative paths in it are relative to
    /// its folder.
    ///
    /// # Errors
    /// When it cannot be read, is not TOML, or has an unknown key or a value
    /// that its key does not take.
    pub fn from_file(path: &Path) -> Result<Partial, ConfigError> {
        crate::file::read(path)
    }

    /// This layer over `below`: what this one names wins.
    #[must_use]
    pub fn or(self, below: Partial) -> Partial {
        Partial {
            local: self.local.or(below.local),
            servers: self.servers.or(below.servers),
            strict: self.strict.or(below.strict),
            log: self.log.or(below.log),
            page_path: self.page_path.or(below.page_path),
            evict: self.evict.or(below.evict),
            compress: self.compress.or(below.compress),
            copies: self.copies.or(below.copies),
            stats_file: self.stats_file.or(below.stats_file),
            secret_file: self.secret_file.or(below.secret_file),
            summary: self.summary.or(below.summary),
            per_process: self.per_process.or(below.per_process),
            unpaged_ok: self.unpaged_ok.or(below.unpaged_ok),
            config: self.config.or(below.config),
        }
    }

    /// This layer over the file that it names, if any.
    ///
    /// # Errors
    /// As [`Partial::from_file`].
    pub fn with_file(self) -> Result<Partial, ConfigError> {
        match self.config.as_deref() {
            Some(path) => {
                let file = Partial::from_file(path)?;
                Ok(self.or(file))
            }
            None => Ok(self),
        }
    }

    /// The options, with defaults for what is still open.
    pub fn finish(self) -> Options {
        Options {
            local: self.local,
            servers: crate::server::unique(self.servers.unwrap_or_default()),
            strict: self.strict.unwrap_or_default(),
            log: self.log.unwrap_or_default(),
            page_path: self.page_path.unwrap_or_default(),
            evict: self.evict.unwrap_or_default(),
            compress: self.compress.unwrap_or_default(),
            copies: self.copies.unwrap_or_default(),
            stats_file: self.stats_file,
            secret_file: self.secret_file,
            summary: self.summary.unwrap_or_default(),
            per_process: self.per_process.unwrap_or_default(),
            unpaged_ok: self.unpaged_ok.unwrap_or_default(),
        }
    }

    /// Variables that make [`Partial::from_vars`] give this layer again; a
    /// variable of a `None` is absent.
    pub fn to_env(&self) -> Vec<(&'static str, OsString)> {
        let text = |name, value: Option<String>| value.map(|v| (name, OsString::from(v)));
        let path =
            |name, value: &Option<PathBuf>| value.clone().map(|v| (name, v.into_os_string()));
        let flag = |value: bool| {
            if value {
                "1".to_owned()
            } else {
                "0".to_owned()
            }
        };
        let servers = self.servers.as_deref().map(|servers| {
            servers
                .iter()
                .map(ServerAddr::to_string)
                .collect::<Vec<_>>()
                .join(",")
        });
        [
            text("TMEM_LOCAL", self.local.map(|v| v.to_string())),
            text("TMEM_SERVERS", servers),
            text("TMEM_STRICT", self.strict.map(flag)),
            text("TMEM_LOG", self.log.map(|v| v.to_string())),
            text("TMEM_PAGE_PATH", self.page_path.map(|v| v.to_string())),
            text("TMEM_EVICT", self.evict.map(|v| v.to_string())),
            text("TMEM_COMPRESS", self.compress.map(|v| v.to_string())),
            text("TMEM_PACKED_COPIES", self.copies.map(|v| v.to_string())),
            path("TMEM_STATS_FILE", &self.stats_file),
            path("TMEM_SECRET_FILE", &self.secret_file),
            text("TMEM_SUMMARY", self.summary.map(flag)),
            text("TMEM_PER_PROCESS", self.per_process.map(flag)),
            text("TMEM_UNPAGED_OK", self.unpaged_ok.map(flag)),
            path("TMEM_CONFIG", &self.config),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Options {
    /// The options of a process that was given none but by its environment,
    /// and by a file when `TMEM_CONFIG` names one.
    ///
    /// # Errors
    /// As [`Partial::from_env`] and [`Partial::from_file`].
    pub fn from_env() -> Result<Options, ConfigError> {
        Ok(Partial::from_env()?.with_file()?.finish())
    }
}

fn variable<T>(
    variable: &'static str,
    value: Option<OsString>,
    parse: impl Fn(&str) -> Result<T, Invalid>,
) -> Result<Option<T>, ConfigError> {
    let Some(value) = value else { return Ok(None) };
    // A byte that is not UTF-8 becomes one that no option takes.
    let text = OsStr::to_string_lossy(&value);
    parse(&text)
        .map(Some)
        .map_err(|invalid| ConfigError::Variable { variable, invalid })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn vars(list: &[(&str, &str)]) -> Result<Partial, ConfigError> {
        Partial::from_vars(|name| {
            list.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| OsString::from(v))
        })
    }

    #[test]
    fn variables_are_read_and_written_back() {
        let partial = vars(&[
            ("TMEM_LOCAL", "50%"),
            ("TMEM_SERVERS", "a:1,rdma://[::1]:2"),
            ("TMEM_STRICT", "yes"),
            ("TMEM_LOG", "debug"),
            ("TMEM_PAGE_PATH", "copy"),
            ("TMEM_EVICT", "all"),
            ("TMEM_COMPRESS", "always"),
            ("TMEM_PACKED_COPIES", "never"),
            ("TMEM_STATS_FILE", "/s"),
            ("TMEM_SECRET_FILE", "/k"),
            ("TMEM_SUMMARY", "0"),
            ("TMEM_PER_PROCESS", "1"),
            ("TMEM_UNPAGED_OK", "on"),
            ("TMEM_CONFIG", "/c"),
        ])
        .unwrap();
        assert_eq!(partial.page_path, Some(PagePath::Copy));
        let env = partial.to_env();
        assert_eq!(env.len(), 14);
        let again =
            Partial::from_vars(|name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone()));
        assert_eq!(again.unwrap(), partial);
    }

    #[test]
    fn empty_variables_count_as_unset() {
        assert_eq!(
            vars(&[("TMEM_LOCAL", ""), ("TMEM_LOG", "")]).unwrap(),
            Partial::default()
        );
    }

    #[test]
    fn a_malformed_variable_is_named_with_its_value_and_what_is_allowed() {
        for (name, value, allowed) in [
            ("TMEM_LOCAL", "lots", "512M"),
            ("TMEM_SERVERS", "a:1,b", "host:port"),
            ("TMEM_STRICT", "maybe", "true"),
            ("TMEM_LOG", "loud", "error, warn, info or debug"),
            ("TMEM_PAGE_PATH", "fast", "auto, move or copy"),
            ("TMEM_EVICT", "never", "needed or all"),
            ("TMEM_COMPRESS", "yes", "auto, always or never"),
            ("TMEM_PACKED_COPIES", "1", "auto, always or never"),
            ("TMEM_SUMMARY", "2", "true"),
        ] {
            let message = vars(&[(name, value)]).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{name}=`")), "{message}");
            assert!(message.contains(allowed), "{message}");
        }
        let bytes = Partial::from_vars(|name| {
            (name == "TMEM_LOCAL").then(|| OsString::from_vec(vec![b'1', 0xff]))
        });
        assert!(bytes.is_err());
    }

    #[test]
    fn upper_layers_win_and_defaults_fill_in() {
        let upper = Partial {
            strict: Some(false),
            log: Some(Level::Info),
            ..Partial::default()
        };
        let lower = vars(&[("TMEM_STRICT", "1"), ("TMEM_LOCAL", "1G")]).unwrap();
        let options = upper.or(lower).finish();
        let expected = Options {
            local: Some(Size::Bytes(1 << 30)),
            log: Level::Info,
            ..Options::default()
        };
        assert_eq!(options, expected);
        assert_eq!(Options::default().log, Level::Warn);
    }
}
