//! The types of options: how each is read from a flag, a variable or a file, and written.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::toml::Toml;
use crate::local::LOCAL_ALLOWED;
use crate::server::unique;
use crate::{Invalid, Local, SERVER_ALLOWED, SIZE_ALLOWED, ServerAddr, Size, parse_servers};

/// A value that an option can have.
pub(crate) trait Value: Sized {
    /// What is allowed, for messages.
    const ALLOWED: &'static str;
    /// Whether its flag takes no value: that it is there means yes.
    const IS_SWITCH: bool = false;
    /// Whether its flag may be given several times.
    const IS_LIST: bool = false;
    /// Whether [`Value::ALLOWED`] is a short list of words, which fits into a line of help.
    const IS_CHOICE: bool = false;
    /// Whether its flag takes values that begin with `-`, so that they are refused with a
    /// reason and not taken for a flag.
    const TAKES_HYPHENS: bool = false;

    /// Reads it as a flag or a variable has it.
    fn read(text: &OsStr) -> Result<Self, Invalid>;

    /// Writes a form that [`Value::read`] reads back.
    fn write(&self) -> OsString;

    /// Reads it as the TOML file has it.
    fn from_toml(toml: &Toml<'_>) -> Result<Self, Invalid> {
        Self::read(toml.text(&in_quotes(Self::ALLOWED))?.as_ref())
    }

    /// Writes it for people.
    fn show(&self) -> String {
        self.write().to_string_lossy().into_owned()
    }
}

fn in_quotes(allowed: &str) -> String {
    format!("text in quotes: {allowed}")
}

/// Reads text. A byte that is not UTF-8 becomes a character that no option takes.
pub(super) fn parse<T: FromStr<Err = Invalid>>(text: &OsStr) -> Result<T, Invalid> {
    text.to_string_lossy().parse()
}

impl Value for Size {
    const ALLOWED: &'static str = SIZE_ALLOWED;
    /// A negative number, for instance.
    const TAKES_HYPHENS: bool = true;

    fn read(text: &OsStr) -> Result<Size, Invalid> {
        parse(text)
    }

    fn write(&self) -> OsString {
        self.to_string().into()
    }

    fn from_toml(toml: &Toml<'_>) -> Result<Size, Invalid> {
        match toml.number() {
            Some(digits) => digits.parse(),
            None => toml.text(&in_quotes(SIZE_ALLOWED))?.parse(),
        }
    }
}

impl Value for Local {
    const ALLOWED: &'static str = LOCAL_ALLOWED;
    /// A negative number, for instance.
    const TAKES_HYPHENS: bool = true;

    fn read(text: &OsStr) -> Result<Local, Invalid> {
        parse(text)
    }

    fn write(&self) -> OsString {
        self.to_string().into()
    }

    fn from_toml(toml: &Toml<'_>) -> Result<Local, Invalid> {
        match toml.number() {
            Some(digits) => digits.parse(),
            None => toml.text(&in_quotes(LOCAL_ALLOWED))?.parse(),
        }
    }
}

impl Value for bool {
    const ALLOWED: &'static str = "1, true, yes, on, 0, false, no or off";
    const IS_SWITCH: bool = true;

    fn read(text: &OsStr) -> Result<bool, Invalid> {
        let text = text.to_string_lossy();
        match text.trim() {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _ => Err(Invalid::new(&text, "is neither yes nor no", Self::ALLOWED)),
        }
    }

    fn write(&self) -> OsString {
        if *self { "1" } else { "0" }.into()
    }

    fn from_toml(toml: &Toml<'_>) -> Result<bool, Invalid> {
        match toml.boolean() {
            Some(value) => Ok(value),
            None => bool::read(toml.text("true or false")?.as_ref()),
        }
    }

    fn show(&self) -> String {
        if *self { "on" } else { "off" }.to_owned()
    }
}

impl Value for PathBuf {
    const ALLOWED: &'static str = "a path";

    fn read(text: &OsStr) -> Result<PathBuf, Invalid> {
        Ok(text.into())
    }

    fn write(&self) -> OsString {
        self.clone().into_os_string()
    }

    fn from_toml(toml: &Toml<'_>) -> Result<PathBuf, Invalid> {
        toml.text(&in_quotes(Self::ALLOWED))
            .map(|path| toml.beside(path))
    }
}

impl Value for SocketAddr {
    const ALLOWED: &'static str = "an IP address and a port, as in 127.0.0.1:9171";

    fn read(text: &OsStr) -> Result<SocketAddr, Invalid> {
        let text = text.to_string_lossy();
        let wrong = |_| Invalid::new(&text, "is not an IP address with a port", Self::ALLOWED);
        text.trim().parse().map_err(wrong)
    }

    fn write(&self) -> OsString {
        self.to_string().into()
    }
}

impl Value for Vec<ServerAddr> {
    const ALLOWED: &'static str = SERVER_ALLOWED;
    const IS_LIST: bool = true;

    fn read(text: &OsStr) -> Result<Vec<ServerAddr>, Invalid> {
        parse_servers(&text.to_string_lossy())
    }

    fn write(&self) -> OsString {
        let servers: Vec<_> = self.iter().map(ServerAddr::with_zone).collect();
        servers.join(",").into()
    }

    /// A list of addresses, or one text as in the variable.
    fn from_toml(toml: &Toml<'_>) -> Result<Vec<ServerAddr>, Invalid> {
        const ALLOWED: &str =
            "a list of addresses in quotes, as in [\"node1:7070\", \"node2:7070\"]";
        match toml.list() {
            Some(list) => {
                let servers = list.map(|one| parse_servers(one.text(ALLOWED)?));
                let servers: Vec<_> = servers.collect::<Result<_, _>>()?;
                Ok(unique(servers.concat()))
            }
            None => parse_servers(toml.text(ALLOWED)?),
        }
    }
}

/// How much tmem says on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only what went wrong.
    Error,
    /// What went wrong, or may surprise.
    #[default]
    Warn,
    /// What happens, now and then.
    Info,
    /// Everything.
    Debug,
}

/// How pages leave and enter the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PagePath {
    /// By moving where the kernel can, else by copying.
    #[default]
    Auto,
    /// By moving (`UFFDIO_MOVE`).
    Move,
    /// By copying (write-protect, `UFFDIO_COPY`), as older kernels need it.
    Copy,
}

/// When pages are evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Evict {
    /// When the budget needs it.
    #[default]
    Needed,
    /// All of them about every millisecond, whatever the budget: a stress test.
    All,
}

/// When something is done that is quicker at some times only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoMode {
    /// Where it was measured to be quicker.
    #[default]
    Auto,
    /// Wherever it is possible.
    Always,
    /// Nowhere.
    Never,
}

/// Makes options of enumerations, each value with its word.
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

        impl Value for $type {
            const ALLOWED: &'static str = $allowed;
            const IS_CHOICE: bool = true;

            fn read(text: &OsStr) -> Result<$type, Invalid> {
                parse(text)
            }

            fn write(&self) -> OsString {
                self.to_string().into()
            }
        }
    };
}

words!(Level, "error, warn, info or debug",
    "error" => Error, "warn" => Warn, "info" => Info, "debug" => Debug);
words!(PagePath, "auto, move or copy", "auto" => Auto, "move" => Move, "copy" => Copy);
words!(Evict, "needed or all", "needed" => Needed, "all" => All);
words!(AutoMode, "auto, always or never",
    "auto" => Auto, "always" => Always, "never" => Never);
