//! What declares an option, once: [`options!`] makes of each declaration a field of
//! [`Options`](super::Options) and [`Layer`](super::Layer), a flag, a variable, a key of the
//! file, their help and their documentation.

use std::ffi::OsStr;

use crate::Invalid;

/// What options are about; help and documentation are in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// How much memory stays, and where the rest goes.
    Memory,
    /// What happens where something is missing.
    Start,
    /// What is said and written.
    Output,
    /// How pages are chosen and transferred.
    Paging,
}

impl Group {
    /// Every group.
    pub const ALL: [Group; 4] = [Group::Memory, Group::Start, Group::Output, Group::Paging];

    /// Its heading.
    pub fn heading(self) -> &'static str {
        match self {
            Group::Memory => "Memory and servers",
            Group::Start => "When something is missing",
            Group::Output => "Messages and statistics",
            Group::Paging => "Paging (the defaults suit nearly always)",
        }
    }
}

/// The declaration of an option, without its type.
#[derive(Clone, Copy, Debug)]
pub struct Declaration {
    /// The flag of `tmem run`, without its dashes.
    pub flag: &'static str,
    /// The environment variable.
    pub variable: &'static str,
    /// The key of the TOML file; none for the file's own name.
    pub key: Option<&'static str>,
    /// What stands for the value in help; none for a flag without a value.
    pub value: Option<&'static str>,
    /// Whether the flag may be given several times.
    pub is_list: bool,
    /// Whether values may begin with `-`, to be refused with a better word.
    pub takes_hyphens: bool,
    /// What it is about.
    pub group: Group,
    /// One sentence, without its full stop.
    pub help: &'static str,
    /// Further sentences.
    pub more: &'static str,
    /// The words that are allowed, where they are few.
    pub choices: Option<&'static str>,
    /// Tells the default, if there is one.
    pub default: fn() -> Option<String>,
    /// Tells whether a value of the flag can be read.
    pub check: fn(&OsStr) -> Result<(), Invalid>,
}

/// Declares the options.
macro_rules! options {
    ($(
        $name:ident: $type:ty $(= $default:expr)? => {
            flag: $flag:literal $($value:literal)?,
            variable: $variable:literal,
            key: $key:expr,
            group: $group:ident,
            help: $help:literal,
            more: $more:literal,
        }
    )*) => {
        /// The options with their defaults filled in.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Options {
            $(#[doc = concat!($help, ".")] pub $name: final_type!($type $(, $default)?),)*
        }

        /// Options as one place gives them: the flags, the environment, or the file. What it
        /// does not name is `None`.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Layer {
            $(#[doc = concat!("See [`Options::", stringify!($name), "`].")]
            pub $name: Option<$type>,)*
        }

        /// Every option, in the order of help and documentation.
        pub static OPTIONS: &[Declaration] = &[$(Declaration {
            flag: $flag,
            variable: $variable,
            key: $key,
            value: first!($($value)?),
            is_list: <$type as Value>::IS_LIST,
            takes_hyphens: <$type as Value>::TAKES_HYPHENS,
            group: Group::$group,
            help: $help,
            more: $more,
            choices: if <$type as Value>::IS_CHOICE { Some(<$type as Value>::ALLOWED) } else { None },
            default: || first!($(<$type as Value>::show(&$default))?),
            check: |text| <$type as Value>::read(text).map(drop),
        }),*];

        impl Layer {
            /// Reads the variables that `lookup` finds. An empty one counts as unset.
            ///
            /// # Errors
            /// As [`Layer::from_env`].
            pub fn from_vars(
                lookup: impl Fn(&str) -> Option<OsString>,
            ) -> Result<Layer, ConfigError> {
                Ok(Layer { $($name: from_variable($variable, &lookup)?,)* })
            }

            /// Reads the flags, of which `values` has those that were given: for each all its
            /// values, and none for a flag without a value.
            ///
            /// # Errors
            /// [`ConfigError::Flag`] names the flag, its value and what is allowed.
            pub fn from_flags(
                values: impl Fn(&str) -> Option<Vec<OsString>>,
            ) -> Result<Layer, ConfigError> {
                Ok(Layer { $($name: from_flag($flag, values($flag))?,)* })
            }

            /// Writes the variables from which [`Layer::from_vars`] reads this layer.
            pub fn to_env(&self) -> Vec<(&'static str, OsString)> {
                let mut variables = Vec::new();
                $(variables.extend(self.$name.as_ref().map(|value| ($variable, value.write())));)*
                variables
            }

            /// Lays this layer over `below`: what this one names wins.
            #[must_use]
            pub fn or(self, below: Layer) -> Layer {
                Layer { $($name: self.$name.or(below.$name),)* }
            }

            /// Fills in the defaults.
            pub fn finish(self) -> Options {
                Options { $($name: or_default!(self.$name $(, $default)?),)* }
            }

            /// Takes in the value of a key of the file; whether there is such a key.
            fn set(&mut self, key: &str, value: &Toml<'_>) -> Result<bool, Invalid> {
                $(if Some(key) == $key {
                    self.$name = Some(Value::from_toml(value)?);
                    return Ok(true);
                })*
                Ok(false)
            }
        }
    };
}

/// The type of an option once defaults are filled in.
macro_rules! final_type {
    ($type:ty) => { Option<$type> };
    ($type:ty, $default:expr) => { $type };
}

/// The value of an option, or its default.
macro_rules! or_default {
    ($value:expr) => {
        $value
    };
    ($value:expr, $default:expr) => {
        $value.unwrap_or_else(|| $default)
    };
}

/// What is there, if anything is.
macro_rules! first {
    () => {
        None
    };
    ($there:expr) => {
        Some($there)
    };
}

pub(super) use {final_type, first, options, or_default};
